/**
 * Ring 3. Compares the states a replica goes through with the source at the
 * snapshot each of them names.
 *
 * Promise: a state is read as a reader would, row and tables in one batch; what
 * it calls drained and walked is equal to the source at its snapshot, over all
 * tables together, but for rows whose values the replica cannot hold then, each of
 * which has an open dead letter.
 *
 * @module
 */

import { type Client, createClient, type Row } from "@libsql/client/http";
import type { Sql } from "postgres";
import { type Cell, keyName } from "../../lib/dev/compare_source.ts";
import type { RawSchema } from "../db/support/stack.ts";
import { lastStatements, type Shadow, shadowAt } from "./shadow.ts";

const READ_MS = 5_000;

/** What a replica held at once. */
export interface ReplicaState {
  /** What its row says that its tables are. */
  readonly schema: RawSchema;
  readonly row: Record<string, unknown>;
  /** Rows by table and key. */
  readonly tables: Map<string, Map<string, Record<string, Cell>>>;
}

/** One difference, in words. */
export interface Found {
  readonly table: string;
  readonly key: string;
  readonly what: string;
}

const quote = (name: string) => `"${name.replaceAll('"', '""')}"`;

/** A client whose every request ends in time: sqld may hang for good. */
export function readerOf(url: string): Client {
  return createClient({
    url,
    authToken: "test",
    intMode: "string",
    fetch: (request: Request) =>
      fetch(new Request(request, { signal: AbortSignal.timeout(READ_MS) })),
  });
}

/** Schemas by their hash. */
export type Schemas = ReadonlyMap<string, RawSchema>;

/**
 * Reads a replica's row and tables in one batch.
 *
 * @param client The replica.
 * @param schemas Those that were ever in force.
 * @returns The state; null while it has no row, or not every table yet.
 */
export async function readState(
  client: Client,
  schemas: Schemas,
): Promise<ReplicaState | null> {
  try {
    const { rows } = await client.execute(ROW);
    const schema = schemas.get(String(rows[0]?.schema_hash));
    if (schema === undefined) return null;
    const names = Object.keys(schema.tables);
    const [found, ...results] = await client.batch(
      [ROW, ...names.map((table) => selectOf(table, schema))],
      "read",
    );
    const row = found!.rows[0]!;
    // It was altered meanwhile: the next look sees it.
    if (schemas.get(String(row.schema_hash)) !== schema) return null;
    const tables: ReplicaState["tables"] = new Map();
    names.forEach((table, at) =>
      tables.set(table, rowsOf(results[at]!.rows, schema.tables[table]!))
    );
    return { schema, row: { ...row }, tables };
  } catch (error) {
    if (/no such (table|column)/.test(String((error as Error).message))) {
      return null;
    }
    throw error;
  }
}

const ROW = "SELECT * FROM _libsql_sync";

/** Reads every cell of a table with how it is stored. */
function selectOf(table: string, schema: RawSchema): string {
  const cells = Object.keys(schema.tables[table]!.columns).map(quote)
    .map((column) => `typeof(${column}), cast(${column} AS TEXT)`);
  return `SELECT ${cells.join(", ")} FROM ${quote(table)}`;
}

/** A table's rows by key. */
function rowsOf(
  found: readonly Row[],
  { columns, key }: RawSchema["tables"][string],
): Map<string, Record<string, Cell>> {
  const rows = new Map<string, Record<string, Cell>>();
  for (const row of found) {
    const cells = Object.fromEntries(
      Object.keys(columns).map((column, i) => [column, {
        type: String(row[2 * i]),
        text: row[2 * i + 1] as string | null,
      }]),
    );
    rows.set(keyName([key].flat().map((name) => cells[name]!.text)), cells);
  }
  return rows;
}

/** Whether a state promises to be equal. */
export function isPromised({ row }: ReplicaState): boolean {
  return Number(row.drained) === 1 && Number(row.walk_done) === 1;
}

/**
 * Compares a state with what the source held.
 *
 * @param state The replica's.
 * @param shadow The source's.
 * @param isExcused Whether a row may differ: somebody's hand was in it.
 * @returns The differences, and how many rows cannot be held by the replica.
 */
export function compareState(
  state: ReplicaState,
  shadow: Shadow,
  isExcused: (table: string, key: string) => boolean = () => false,
): { found: Found[]; refused: number; rows: number } {
  const found: Found[] = [];
  let refused = 0;
  let rows = 0;
  for (const [table, expected] of shadow) {
    const actual = state.tables.get(table)!;
    const isKnown = new Set<string>();
    for (const [key, { cells }] of expected) {
      rows += 1;
      isKnown.add(key);
      if (Object.values(cells).some(({ type }) => type === "refused")) {
        refused += 1;
        continue;
      }
      if (isExcused(table, key)) continue;
      const other = actual.get(key);
      if (other === undefined) {
        found.push({ table, key, what: "missing in the replica" });
        continue;
      }
      for (const [column, cell] of Object.entries(cells)) {
        const theirs = other[column]!;
        if (cell.type === theirs.type && cell.text === theirs.text) continue;
        const show = ({ type, text }: Cell) =>
          `${type} ${JSON.stringify(text)?.slice(0, 120)}`;
        const what = `${column}: source ${show(cell)}, replica ${show(theirs)}`;
        found.push({ table, key, what });
      }
    }
    for (const key of actual.keys()) {
      if (!isKnown.has(key) && !isExcused(table, key)) {
        found.push({ table, key, what: "a ghost in the replica" });
      }
    }
  }
  return { found, refused, rows };
}

/** What a checker counts. */
export interface Checked {
  /** States read. */
  states: number;
  /** States that promised to be equal, and were. */
  equal: number;
  /** Rows compared in them. */
  rows: number;
}

/** Judges one replica's states by one source's log. */
export class Checker {
  readonly checked: Checked = { states: 0, equal: 0, rows: 0 };
  readonly #seen = new Set<string>();

  constructor(
    private readonly options: {
      sql: Sql;
      isExcused?: (table: string, key: string) => boolean;
    },
  ) {}

  /**
   * Judges a state. One chain position is judged once, unless told.
   *
   * @throws {Error} It promised to be equal and is not; with the row's history.
   */
  async judge(
    state: ReplicaState | null,
    options: { isExcused?: (table: string, key: string) => boolean } = {},
  ): Promise<void> {
    if (state === null) return;
    this.checked.states += 1;
    if (!isPromised(state)) return;
    const { sql } = this.options;
    const { row, schema } = state;
    const snapshot = String(row.snapshot);
    const shadow = await shadowAt(sql, { schema, snapshot });
    const { found, refused, rows } = compareState(
      state,
      shadow,
      options.isExcused ?? this.options.isExcused,
    );
    const where =
      `epoch ${row.epoch} position ${row.position} batch ${row.batch} snapshot ${snapshot} walk_gen ${row.walk_gen}`;
    if (found.length > 0) {
      throw new Error(await this.describe(where, found, schema));
    }
    if (Number(row.dead_letters) < refused) {
      throw new Error(
        `${where}: ${refused} rows cannot be held, and dead_letters is ${row.dead_letters}`,
      );
    }
    this.checked.equal += 1;
    this.checked.rows += rows;
  }

  /** Puts differences into words, with what was done to the first of them. */
  async describe(
    where: string,
    found: readonly Found[],
    schema: RawSchema,
  ): Promise<string> {
    const { sql } = this.options;
    const lines = [`not equal at ${where}: ${found.length} differences`];
    for (const { table, key, what } of found.slice(0, 6)) {
      lines.push(`${table} ${key}: ${what}`);
    }
    for (const { table, key } of found.slice(0, 2)) {
      lines.push(`the last entries of ${table} ${key}:`);
      lines.push(...await lastStatements(sql, { schema, table, key }));
    }
    return lines.join("\n");
  }
}
