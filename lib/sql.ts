/**
 * Ring 0. The replica's SQL: its schema, its guard, its moves, its statements.
 *
 * Promise: whatever statement reaches the replica, late, twice or from another
 * history, its row moves along one chain or the transaction is rolled back.
 *
 * @module
 */

import type { Step } from "./plan.ts";
import {
  type ColumnType,
  indexName,
  type Schema,
  type Table,
} from "./schema.ts";

/** A statement with its arguments. */
export interface Statement {
  /** The SQL, with "?" for arguments. */
  readonly sql: string;
  /** The arguments; integers as bigint, as numbers travel as floats. */
  readonly args: (string | bigint | null)[];
}

/** Where a replica stands, and what its readers may rely on. */
export interface ReplicaRow {
  /** The chain it follows. */
  readonly epoch: string;
  /** How many batches of it are applied. */
  readonly position: number;
  /** The id of the last one. */
  readonly batch: string;
  /** The id of the one before. */
  readonly prev: string | null;
  /** The epoch it came from. */
  readonly from_epoch: string | null;
  /** Which walk is on. */
  readonly walk_gen: number;
  /** How far the walk is. */
  readonly walk_at: string | null;
  /** Whether every table was walked. */
  readonly walk_done: number;
  /** Whether the last batch took every message there was. */
  readonly drained: number;
  /** The source's snapshot of the last batch. */
  readonly snapshot: string | null;
  /** When that snapshot was taken. */
  readonly source_time: string | null;
  /** The schema its tables have. */
  readonly schema_hash: string;
  /** How many changes were set aside and are still open. */
  readonly dead_letters: number;
}

const GUARDED = [
  "epoch",
  "position",
  "batch",
  "prev",
  "from_epoch",
  "walk_gen",
  "walk_at",
  "walk_done",
  "drained",
  "snapshot",
  "source_time",
  "schema_hash",
];
const ROW_COLUMNS = [...GUARDED, "dead_letters"].join(", ");

/** What the guard says when it refuses; the adapter knows it by this word. */
export const GUARD = "libsql_sync guard";

const TABLE = `CREATE TABLE IF NOT EXISTS _libsql_sync (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  epoch TEXT NOT NULL,
  position INTEGER NOT NULL,
  batch TEXT NOT NULL,
  prev TEXT,
  from_epoch TEXT,
  walk_gen INTEGER NOT NULL DEFAULT 0,
  walk_at TEXT,
  walk_done INTEGER NOT NULL DEFAULT 0,
  drained INTEGER NOT NULL DEFAULT 0,
  snapshot TEXT,
  source_time TEXT,
  schema_hash TEXT NOT NULL,
  dead_letters INTEGER NOT NULL DEFAULT 0,
  probed_at INTEGER
)`;

// A step is written as an upsert: were the row gone, an UPDATE would touch
// nothing and let the rest of its batch through.
// An INSERT is held to the same: OR REPLACE fires neither of the other two.
const GUARDS = [
  `CREATE TRIGGER IF NOT EXISTS _libsql_sync_insert BEFORE INSERT ON _libsql_sync
WHEN NOT coalesce(
  (SELECT NEW.epoch = epoch AND NEW.position = position + 1 AND NEW.prev = batch
    AND NEW.schema_hash = schema_hash FROM _libsql_sync),
  NEW.position = 0 AND NEW.batch = NEW.epoch AND NEW.drained = 0 AND NEW.walk_done = 0)
BEGIN SELECT RAISE(ABORT, '${GUARD}: neither a start nor the next step'); END`,
  `CREATE TRIGGER IF NOT EXISTS _libsql_sync_update BEFORE UPDATE OF id, ${
    GUARDED.join(", ")
  } ON _libsql_sync
WHEN NOT coalesce(
  (NEW.epoch = OLD.epoch AND NEW.position = OLD.position + 1 AND NEW.prev = OLD.batch
    AND NEW.batch <> OLD.batch AND NEW.schema_hash = OLD.schema_hash
    AND NEW.from_epoch IS OLD.from_epoch)
  OR (NEW.from_epoch = OLD.epoch AND NEW.epoch <> OLD.epoch AND NEW.position = 0
    AND NEW.batch = NEW.epoch AND NEW.prev IS NULL AND NEW.drained = 0
    AND NEW.walk_at IS NULL AND NEW.walk_done = 0)
  OR (NEW.epoch = OLD.epoch AND NEW.position = OLD.position AND NEW.batch = OLD.batch
    AND NEW.prev IS OLD.prev AND NEW.from_epoch IS OLD.from_epoch AND NEW.drained = OLD.drained
    AND NEW.snapshot IS OLD.snapshot AND NEW.source_time IS OLD.source_time
    AND NEW.schema_hash <> OLD.schema_hash AND NEW.walk_at IS NULL AND NEW.walk_done = 0), 0)
BEGIN SELECT RAISE(ABORT, '${GUARD}: not the next move'); END`,
  `CREATE TRIGGER IF NOT EXISTS _libsql_sync_delete BEFORE DELETE ON _libsql_sync
BEGIN SELECT RAISE(ABORT, '${GUARD}: the row stays'); END`,
];

/** A statement that always fails: what stands before it is tried, not kept. */
export const ABORT: Statement = {
  sql:
    "INSERT INTO _libsql_sync (id, epoch, position, batch, schema_hash) VALUES (2, '', 0, '', '')",
  args: [],
};

/**
 * Asks the primary for the replica's row, by a write: a read may come from a
 * stale replica.
 *
 * @example
 * ```ts
 * import { assert } from "@std/assert";
 *
 * assert(PROBE.sql.startsWith("UPDATE _libsql_sync SET probed_at"));
 * ```
 */
export const PROBE: Statement = {
  sql:
    `UPDATE _libsql_sync SET probed_at = unixepoch() WHERE id = 1 RETURNING ${ROW_COLUMNS}`,
  args: [],
};

/** Lists the columns of every table, as (table, column, type, place in the key). */
export const COLUMNS: Statement = {
  sql:
    "SELECT m.name, c.name, c.type, c.pk FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table'",
  args: [],
};

/** The columns a replica has, by "table\u0000column". */
export type PresentColumns = ReadonlyMap<
  string,
  { readonly type: string; readonly isKey: boolean }
>;

/**
 * Finds what no added column, table or index can bring to the schema: a column
 * of another type would change values silently.
 *
 * @param schema The tables.
 * @param present The columns that are there.
 * @returns What was expected and what was found, or null.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { parseSchema } from "./schema.ts";
 *
 * const schema = parseSchema({
 *   tables: { t: { key: "id", columns: { id: "INTEGER" }, indexes: [] } },
 * });
 * const present = new Map([["t\u0000id", { type: "TEXT", isKey: true }]]);
 * assertEquals(
 *   conflictOf(schema, present),
 *   "expected column t.id to be INTEGER, found TEXT",
 * );
 * assertEquals(conflictOf(schema, new Map()), null);
 * ```
 */
export function conflictOf(
  schema: Schema,
  present: PresentColumns,
): string | null {
  for (const table of schema.tables) {
    const key = [...present].filter(([name, { isKey }]) =>
      isKey && name.startsWith(`${table.name}\u0000`)
    ).map(([name]) => name.slice(table.name.length + 1));
    const isThere = [...present.keys()].some((name) =>
      name.startsWith(`${table.name}\u0000`)
    );
    for (const { name, type } of table.columns) {
      const found = present.get(`${table.name}\u0000${name}`)?.type;
      if (found !== undefined && found.toUpperCase() !== declare(type)) {
        return `expected column ${table.name}.${name} to be ${
          declare(type)
        }, found ${found || "no type"}`;
      }
    }
    if (isThere && key.toSorted().join() !== table.key.toSorted().join()) {
      return `expected table ${table.name} to have the key (${
        table.key.join(", ")
      }), found (${key.join(", ")})`;
    }
  }
  return null;
}

/**
 * Starts a replica: everything if it does not exist, the row at position 0.
 * A row that is there is never replaced: with `wipe` it fails the batch.
 *
 * @param schema The tables.
 * @param options The epoch, the schema's hash, the columns that are there, and
 * whether the tables that are there are dropped first.
 * @returns The statements of one batch; the last one returns the row.
 */
export function bootstrapStatements(
  schema: Schema,
  options: {
    epoch: string;
    schemaHash: string;
    wipe: boolean;
    present: PresentColumns;
  },
): Statement[] {
  const { epoch, schemaHash, wipe, present } = options;
  return [
    bare(TABLE),
    ...GUARDS.map(bare),
    {
      sql:
        "INSERT INTO _libsql_sync (id, epoch, position, batch, schema_hash)" +
        ` SELECT 1, ?, 0, ?, ?${
          wipe ? "" : " WHERE NOT EXISTS (SELECT 1 FROM _libsql_sync)"
        }`,
      args: [epoch, epoch, schemaHash],
    },
    ...(wipe ? dropStatements(schema) : addColumnStatements(schema, present)),
    ...createStatements(schema),
    PROBE,
  ];
}

/**
 * The move `adopt`: an ancestor's replica follows the epoch from its start.
 *
 * @param schema The tables.
 * @param options The epoch, the one it comes from, the schema's hash, and
 * whether every row goes.
 * @returns The statements of one batch; the last one returns the row.
 */
export function adoptStatements(
  schema: Schema,
  options: { epoch: string; from: string; schemaHash: string; wipe: boolean },
): Statement[] {
  const { epoch, from, schemaHash, wipe } = options;
  return [
    {
      sql:
        `UPDATE _libsql_sync SET from_epoch = ?, epoch = ?, position = 0, batch = ?, prev = NULL,
  walk_gen = 0, walk_at = NULL, walk_done = 0, drained = 0, snapshot = NULL, source_time = NULL,
  schema_hash = ${wipe ? "?" : "schema_hash"}
WHERE id = 1`,
      args: [from, epoch, epoch, ...(wipe ? [schemaHash] : [])],
    },
    ...(wipe ? [...dropStatements(schema), ...createStatements(schema)] : []),
    PROBE,
  ];
}

/**
 * The move `alter`: the replica gets what the schema has and it has not.
 *
 * @param schema The tables.
 * @param options The hash the replica has, the schema's, and the columns that
 * are there.
 * @returns The statements of one batch; the last one returns the row.
 */
export function alterStatements(
  schema: Schema,
  options: { from: string; schemaHash: string; present: PresentColumns },
): Statement[] {
  const { from, schemaHash, present } = options;
  const move = (before: string, after: string): Statement => ({
    // NULL breaks the constraint, so that a hash that moved fails the batch.
    sql:
      `UPDATE _libsql_sync SET schema_hash = iif(schema_hash = ?, ?, NULL), walk_at = NULL, walk_done = 0
WHERE id = 1`,
    args: [before, after],
  });
  return [
    // The guard takes a move to the same hash for a step that came twice: where
    // tables are only mended, the hash goes and comes back.
    ...(from === schemaHash
      ? [move(from, ""), move("", schemaHash)]
      : [move(from, schemaHash)]),
    ...addColumnStatements(schema, present),
    ...createStatements(schema),
    PROBE,
  ];
}

/**
 * The move `step`, the first statement of every batch. It returns the row.
 *
 * @param batch What the claim handed out, and how many dead letters are open.
 * @returns The statement.
 */
export function stepStatement(batch: {
  epoch: string;
  position: number;
  batch: string;
  prev: string;
  drained: boolean;
  snapshot: string;
  sourceTime: string;
  schemaHash: string;
  deadLetters: number;
}): Statement {
  return {
    sql:
      `INSERT INTO _libsql_sync (id, epoch, position, batch, prev, drained, snapshot, source_time, schema_hash, dead_letters)
VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, position = excluded.position, batch = excluded.batch,
  prev = excluded.prev, drained = excluded.drained, snapshot = excluded.snapshot,
  source_time = excluded.source_time, schema_hash = excluded.schema_hash, dead_letters = excluded.dead_letters
RETURNING ${ROW_COLUMNS}`,
    args: [
      batch.epoch,
      BigInt(batch.position),
      batch.batch,
      batch.prev,
      batch.drained ? 1n : 0n,
      batch.snapshot,
      batch.sourceTime,
      batch.schemaHash,
      BigInt(batch.deadLetters),
    ],
  };
}

/**
 * The statement of a planned step.
 *
 * @param step What to do to one table.
 * @returns The statement.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const table = { name: "t", key: ["id"], columns: [{ name: "id", type: "INTEGER" as const }], indexes: [] };
 * const statement = stepToStatement({ kind: "truncate", table, columns: [], rows: [] });
 * assertEquals(statement, { sql: 'DELETE FROM "t"', args: [] });
 * ```
 */
export function stepToStatement(step: Step): Statement {
  const { kind, table, columns, rows } = step;
  switch (kind) {
    case "truncate":
      return bare(`DELETE FROM ${quote(table.name)}`);
    case "delete": {
      const cells = cellsOf(table, columns, (at) => `value->>${at}`);
      return {
        sql: `DELETE FROM ${quote(table.name)} WHERE (${
          names(columns)
        }) IN (SELECT ${cells.join(", ")} FROM json_each(?))`,
        args: [jsonOf(rows)],
      };
    }
    case "upsert": {
      const cells = cellsOf(table, columns, (at) => `value->>${at}`);
      return {
        sql: `WITH r AS MATERIALIZED (SELECT ${
          cells.join(", ")
        } FROM json_each(?)) INSERT INTO ${quote(table.name)} (${
          names(columns)
        }) SELECT * FROM r WHERE true ${onConflict(table, columns)}`,
        args: [jsonOf(rows)],
      };
    }
    case "row":
      return {
        sql: `INSERT INTO ${quote(table.name)} (${names(columns)}) VALUES (${
          cellsOf(table, columns, () => "?").join(", ")
        }) ${onConflict(table, columns)}`,
        args: [...rows[0]!.cells],
      };
  }
}

/** The row changes where it differs, and only then. */
function onConflict(table: Table, columns: readonly string[]): string {
  const rest = columns.filter((name) => !table.key.includes(name));
  if (rest.length === 0) return `ON CONFLICT (${names(table.key)}) DO NOTHING`;
  const set = rest.map((name) => `${quote(name)} = excluded.${quote(name)}`);
  const before = rest.map((name) => `${quote(table.name)}.${quote(name)}`);
  const after = rest.map((name) => `excluded.${quote(name)}`);
  return `ON CONFLICT (${names(table.key)}) DO UPDATE SET ${
    set.join(", ")
  } WHERE (${before.join(", ")}) IS NOT (${after.join(", ")})`;
}

/** Every cell travels as text, which is exact; CAST makes numbers of digits. */
function cellsOf(
  table: Table,
  columns: readonly string[],
  cell: (at: number) => string,
): string[] {
  return columns.map((name, at) => {
    const { type } = table.columns.find((column) => column.name === name)!;
    return type === "INTEGER" || type === "BOOLEAN"
      ? `CAST(${cell(at)} AS INTEGER)`
      : cell(at);
  });
}

function dropStatements(schema: Schema): Statement[] {
  return schema.tables.map(({ name }) =>
    bare(`DROP TABLE IF EXISTS ${quote(name)}`)
  );
}

/** Columns missing in tables that are there. */
function addColumnStatements(
  schema: Schema,
  present: PresentColumns,
): Statement[] {
  return schema.tables.flatMap((table) =>
    table.columns
      .filter(({ name }) =>
        present.has(`${table.name}\u0000${table.key[0]}`) &&
        !present.has(`${table.name}\u0000${name}`)
      )
      .map(({ name, type }) =>
        bare(
          `ALTER TABLE ${quote(table.name)} ADD COLUMN ${quote(name)} ${
            declare(type)
          }`,
        )
      )
  );
}

function createStatements(schema: Schema): Statement[] {
  return schema.tables.flatMap((table) => [
    bare(
      `CREATE TABLE IF NOT EXISTS ${quote(table.name)} (${
        table.columns.map(({ name, type }) =>
          `${quote(name)} ${declare(type)}${
            table.key.includes(name) ? " NOT NULL" : ""
          }`
        ).join(", ")
      }, PRIMARY KEY (${names(table.key)}))`,
    ),
    ...table.indexes.map((columns) =>
      bare(
        `CREATE INDEX IF NOT EXISTS ${
          quote(indexName(table.name, columns))
        } ON ${quote(table.name)} (${names(columns)})`,
      )
    ),
  ]);
}

function declare(type: ColumnType): string {
  return type === "JSON" ? "TEXT" : type;
}

function jsonOf(rows: Step["rows"]): string {
  return `[${rows.map((row) => row.json).join(",")}]`;
}

function names(columns: readonly string[]): string {
  return columns.map(quote).join(", ");
}

function quote(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

function bare(sql: string): Statement {
  return { sql, args: [] };
}
