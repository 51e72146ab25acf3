/**
 * Ring 3. Whether a replica equals its source, fast enough to ask after every run.
 *
 * Promise: every row and cell counts, with the type it is stored as; it shares
 * no SQL with any contender.
 *
 * @module
 */

import type { DatabaseSync } from "node:sqlite";
import type { Client } from "@libsql/client/http";
import type { Sql } from "postgres";
import { compareTables, describeDifferences } from "../../lib/dev/compare.ts";
import schemaJson from "../../schema.json" with { type: "json" };

/** The contract of the one table that is measured. */
export const APP_VERSIONS = schemaJson.tables.app_versions;

/** A response of libSQL stays below 10 MB. */
const PAGE = 10_000;

/** A cell as its SQLite type's first letter and its text, by PostgreSQL. */
function sourceCell([name, type]: [string, string]): string {
  if (type === "INTEGER") return `coalesce('i' || ${name}, 'n')`;
  if (type === "BOOLEAN") return `coalesce('i' || ${name}::int, 'n')`;
  return `coalesce('t' || ${name}, 'n')`;
}

/** The same by SQLite, from what is stored. */
const replicaCell = ([name]: [string, string]) =>
  `substr(typeof(${name}), 1, 1) || coalesce(${name}, '')`;

const columns = Object.entries(APP_VERSIONS.columns);
const SOURCE = columns.map(sourceCell).join(" || chr(31) || ");
const REPLICA = columns.map(replicaCell).join(" || char(31) || ");

/** Asks a replica for the only row of an answer. */
type Ask = (query: string) => Promise<{ text?: unknown }>;

/** Compares page by page; how many rows, or null when they differ. */
async function countEqual(sql: Sql, ask: Ask): Promise<number | null> {
  let rows = 0;
  let after = -1;
  for (;;) {
    const [source] = await sql.unsafe(
      `select count(*)::int as n, max(id)::float8 as last, string_agg(${SOURCE}, chr(30) order by id) as text
       from (select * from public.app_versions where id > ${after} order by id limit ${PAGE}) t`,
    );
    // Up to where the source's page ends; after its last one, all there is.
    const isLast = source!.n < PAGE;
    const upTo = isLast ? "" : `AND id <= ${source!.last}`;
    const { text } = await ask(
      `SELECT group_concat(text, char(30)) AS text FROM (
         SELECT ${REPLICA} AS text FROM app_versions
         WHERE id > ${after} ${upTo} ORDER BY id LIMIT ${PAGE + 1})`,
    );
    if (source!.text !== text) return null;
    rows += source!.n;
    if (isLast) return rows;
    after = source!.last;
  }
}

/**
 * Compares app_versions on both sides.
 *
 * @param sql The source.
 * @param client The replica.
 * @returns How many rows were compared.
 * @throws {Error} When they differ, with what differs where.
 */
export async function assertEqual(sql: Sql, client: Client): Promise<number> {
  const rows = await countEqual(
    sql,
    async (query) => ({ text: (await client.execute(query)).rows[0]!.text }),
  );
  if (rows !== null) return rows;
  const found = await compareTables({
    sql,
    client,
    schema: { tables: { app_versions: APP_VERSIONS } },
  });
  throw new Error(
    `The replica is not equal to its source:\n${
      describeDifferences(found).join("\n")
    }`,
  );
}

/**
 * The same for a SQLite file.
 *
 * @param sql The source.
 * @param database The file, opened.
 * @returns How many rows were compared.
 * @throws {Error} When they differ.
 */
export async function assertFileEqual(
  sql: Sql,
  database: DatabaseSync,
): Promise<number> {
  const rows = await countEqual(
    sql,
    (query) => Promise.resolve({ ...database.prepare(query).get() }),
  );
  if (rows === null) throw new Error("The file is not equal to its source");
  return rows;
}
