/**
 * Ring 0. What the replica has, compared with what it should have.
 *
 * @module
 */

import { failure, type Finding, ok, warning } from "./finding.ts";
import { indexName, type Schema } from "../schema.ts";

/** What the replica has. */
export interface Replica {
  /** The row of _libsql_sync; null before the first sync. */
  readonly row: Readonly<Record<string, unknown>> | null;
  /** The columns of each table. */
  readonly columns: ReadonlyMap<string, ReadonlySet<string>>;
  /** The names of the indexes. */
  readonly indexes: ReadonlySet<string>;
  /** How many triggers guard the row. */
  readonly guards: number;
}

/** What the replica should have. */
export interface Expected {
  /** schema.json here. */
  readonly schema: Schema;
  /** Its hash. */
  readonly hash: string;
  /** Where the source is; null if it could not be asked. */
  readonly source: { readonly epoch: string; readonly position: number } | null;
}

const GUARDS = 3;
const SYNC = "run a sync: deno task doctor --sync";

/**
 * Compares the replica with what it should have.
 *
 * @param replica What it has.
 * @param expected What it should have.
 * @returns The findings.
 */
export function compareReplica(
  replica: Replica,
  expected: Expected,
): Finding[] {
  const { row } = replica;
  if (row === null) {
    return [warning("replica here", "it answers, and had no sync yet", SYNC)];
  }
  return [
    comparePlace(row, expected.source),
    ...row.schema_hash === expected.hash
      ? []
      : [warning("replica's schema", "differs from schema.json here", SYNC)],
    ...replica.guards >= GUARDS ? [] : [failure(
      "replica's guard",
      `has ${replica.guards} of ${GUARDS} triggers`,
      "run deno task nuke, which makes them again; until then a late request can change the replica out of order",
    )],
    compareTables(replica, expected.schema),
    compareIndexes(replica, row, expected.schema),
    ...findExtraColumns(replica, expected.schema),
  ];
}

/** Compares where the replica is with where the source is. */
function comparePlace(
  row: Readonly<Record<string, unknown>>,
  source: Expected["source"],
): Finding {
  if (source !== null && row.epoch !== source.epoch) {
    return warning(
      "replica here",
      "it follows another epoch than the one in force",
      `${SYNC}; if the worker refuses, LIBSQL_URL names the replica of another source`,
    );
  }
  const of = source === null ? "" : ` of ${source.position}`;
  return ok("replica here", `it answers, at position ${row.position}${of}`);
}

function compareTables({ columns }: Replica, schema: Schema): Finding {
  const missing = schema.tables.flatMap((table) => {
    const present = columns.get(table.name);
    if (present === undefined) return [table.name];
    return table.columns.filter(({ name }) => !present.has(name))
      .map(({ name }) => `${table.name}.${name}`);
  });
  return missing.length > 0
    ? failure("replica's tables", `lacks ${missing.join(", ")}`, SYNC)
    : ok("replica's tables", `${schema.tables.length}, with every column`);
}

/** Compares the indexes of the tables that the replica has. */
function compareIndexes(
  { columns, indexes }: Replica,
  row: Readonly<Record<string, unknown>>,
  schema: Schema,
): Finding {
  const missing = schema.tables.filter(({ name }) => columns.has(name))
    .flatMap((table) =>
      table.indexes.map((index) => indexName(table.name, index))
    ).filter((name) => !indexes.has(name));
  if (missing.length === 0) return ok("replica's indexes", "all are there");
  const later = JSON.parse(String(row.unindexed ?? "[]")) as string[];
  return warning(
    "replica's indexes",
    `lacks ${missing.join(", ")}`,
    later.length > 0
      ? "the worker makes them when the table is filled; in a table of more than a million rows, run CREATE INDEX by hand"
      : "run CREATE INDEX by hand",
  );
}

function findExtraColumns({ columns }: Replica, schema: Schema): Finding[] {
  const extra = schema.tables.flatMap((table) => {
    const listed = new Set(table.columns.map(({ name }) => name));
    return [...columns.get(table.name) ?? []].filter((name) =>
      !listed.has(name)
    ).map((name) => `${table.name}.${name}`);
  });
  return extra.length === 0 ? [] : [warning(
    "replica's columns",
    `schema.json does not list ${
      extra.join(", ")
    }; the worker leaves them as they are`,
    "run ALTER TABLE ... DROP COLUMN when no reader needs them",
  )];
}
