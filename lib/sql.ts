/**
 * Ring 0. The replica's SQL: its schema, its guard, its moves, its statements.
 *
 * Promise: whatever statement reaches the replica, late, twice or from another
 * history, its row moves along one chain or the transaction is rolled back.
 *
 * @module
 */

import type { WalkMove } from "./page.ts";
import type { CompareStep, RowStep, Step, TallyStep, WalkOf } from "./plan.ts";
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
  /** Tables created empty by this epoch and not walked yet, as JSON. */
  readonly fresh: string;
  /** Tables whose indexes are to be built, as JSON. */
  readonly unindexed: string;
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
const ROW_COLUMNS = [...GUARDED, "fresh", "unindexed", "dead_letters"].join(
  ", ",
);

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
  fresh TEXT NOT NULL DEFAULT '[]',
  unindexed TEXT NOT NULL DEFAULT '[]',
  drained INTEGER NOT NULL DEFAULT 0,
  snapshot TEXT,
  source_time TEXT,
  schema_hash TEXT NOT NULL,
  dead_letters INTEGER NOT NULL DEFAULT 0,
  probed_at INTEGER
)`;

// What walks found; it moves in the batches of their pages.
const WALKS = `CREATE TABLE IF NOT EXISTS _libsql_sync_walks (
  walk_gen INTEGER NOT NULL,
  table_name TEXT NOT NULL,
  rows INTEGER NOT NULL DEFAULT 0,
  differing INTEGER NOT NULL DEFAULT 0,
  ghosts INTEGER NOT NULL DEFAULT 0,
  ended INTEGER NOT NULL DEFAULT 0,
  failed TEXT,
  PRIMARY KEY (walk_gen, table_name)
) WITHOUT ROWID`;

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

/**
 * Lists every column as (table, column, type, place in the key), and every
 * index as (null, name).
 */
export const INSPECT: Statement = {
  sql:
    "SELECT m.name, c.name, c.type, c.pk FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table'" +
    " UNION ALL SELECT NULL, name, NULL, NULL FROM sqlite_master WHERE type = 'index'",
  args: [],
};

/** What a replica has. */
export interface Present {
  /** Its columns, by "table\u0000column". */
  readonly columns: ReadonlyMap<
    string,
    { readonly type: string; readonly isKey: boolean }
  >;
  /** The names of its indexes. */
  readonly indexes: ReadonlySet<string>;
}

/**
 * Finds what no added column, table or index can bring to the schema: a column
 * of another type would change values silently.
 *
 * @param schema The tables.
 * @param present What is there.
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
 * const columns = new Map([["t\u0000id", { type: "TEXT", isKey: true }]]);
 * assertEquals(
 *   conflictOf(schema, { columns, indexes: new Set() }),
 *   "expected column t.id to be INTEGER, found TEXT",
 * );
 * assertEquals(conflictOf(schema, { columns: new Map(), indexes: new Set() }), null);
 * ```
 */
export function conflictOf(
  schema: Schema,
  { columns }: Present,
): string | null {
  for (const table of schema.tables) {
    const key = [...columns].filter(([name, { isKey }]) =>
      isKey && name.startsWith(`${table.name}\u0000`)
    ).map(([name]) => name.slice(table.name.length + 1));
    const isThere = [...columns.keys()].some((name) =>
      name.startsWith(`${table.name}\u0000`)
    );
    for (const { name, type } of table.columns) {
      const found = columns.get(`${table.name}\u0000${name}`)?.type;
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
 * @param options The epoch, the schema's hash, what is there, and whether the
 * tables that are there are dropped first.
 * @returns The statements of one batch; the last one returns the row.
 */
export function bootstrapStatements(
  schema: Schema,
  options: {
    epoch: string;
    schemaHash: string;
    wipe: boolean;
    present: Present;
  },
): Statement[] {
  const { epoch, schemaHash, wipe } = options;
  const present = wipe ? NOTHING : options.present;
  return [
    bare(TABLE),
    bare(WALKS),
    ...GUARDS.map(bare),
    {
      sql:
        "INSERT INTO _libsql_sync (id, epoch, position, batch, schema_hash, fresh, unindexed)" +
        ` SELECT 1, ?, 0, ?, ?, ?, ?${
          wipe ? "" : " WHERE NOT EXISTS (SELECT 1 FROM _libsql_sync)"
        }`,
      args: [
        epoch,
        epoch,
        schemaHash,
        JSON.stringify(absentTables(schema, present)),
        JSON.stringify(unindexedTables(schema, present)),
      ],
    },
    ...(wipe ? dropStatements(schema) : addColumnStatements(schema, present)),
    ...createStatements(schema, present),
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
  ${wipe ? "schema_hash = ?, unindexed = '[]', " : ""}fresh = ?
WHERE id = 1`,
      args: [
        from,
        epoch,
        epoch,
        ...(wipe ? [schemaHash] : []),
        JSON.stringify(wipe ? schema.tables.map(({ name }) => name) : []),
      ],
    },
    bare("DELETE FROM _libsql_sync_walks"),
    ...(wipe
      ? [...dropStatements(schema), ...createStatements(schema, NOTHING)]
      : []),
    PROBE,
  ];
}

/**
 * The move `alter`: the replica gets what the schema has and it has not.
 *
 * @param schema The tables.
 * @param options The hash the replica has, the schema's, and what is there.
 * @returns The statements of one batch; the last one returns the row.
 */
export function alterStatements(
  schema: Schema,
  options: { from: string; schemaHash: string; present: Present },
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
    ...createStatements(schema, present),
    {
      sql: `UPDATE _libsql_sync SET fresh = ${union("fresh")}, unindexed = ${
        union("unindexed")
      } WHERE id = 1`,
      args: [
        JSON.stringify(absentTables(schema, present)),
        JSON.stringify(unindexedTables(schema, present)),
      ],
    },
    PROBE,
  ];
}

/** The names in a field of the row and in an argument, each once. */
function union(field: string): string {
  return `(SELECT json_group_array(value) FROM (SELECT value FROM json_each(${field}) UNION SELECT value FROM json_each(?)))`;
}

/**
 * The move `step`, the first statement of every batch. It returns the row.
 *
 * @param batch What the claim handed out, and how many dead letters are open.
 * @param walk The walk in the row the claim was made with, and after the batch:
 * where the row has another one, the batch fails.
 * @returns The statement.
 */
export function stepStatement(
  batch: {
    epoch: string;
    position: number;
    batch: string;
    prev: string;
    drained: boolean;
    snapshot: string;
    sourceTime: string;
    schemaHash: string;
    deadLetters: number;
  },
  walk: { before: WalkMove; after: WalkMove },
): Statement {
  const { before, after } = walk;
  return {
    sql:
      `INSERT INTO _libsql_sync (id, epoch, position, batch, prev, drained, snapshot, source_time, schema_hash, dead_letters,
  walk_gen, walk_at, walk_done, fresh, unindexed)
VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, batch = excluded.batch, prev = excluded.prev,
  position = iif(walk_gen = ? AND walk_at IS ?, excluded.position, NULL),
  drained = excluded.drained, snapshot = excluded.snapshot, source_time = excluded.source_time,
  schema_hash = excluded.schema_hash, dead_letters = excluded.dead_letters,
  walk_gen = excluded.walk_gen, walk_at = excluded.walk_at, walk_done = excluded.walk_done,
  fresh = excluded.fresh, unindexed = excluded.unindexed
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
      BigInt(after.walk_gen),
      after.walk_at,
      BigInt(after.walk_done),
      after.fresh,
      after.unindexed,
      BigInt(before.walk_gen),
      before.walk_at,
    ],
  };
}

/**
 * The statement that reads a page of a table's keys, in the replica's order.
 *
 * @param table The table.
 * @param options The key to start after, null for the start, and how many.
 * @returns The statement; each row is a key as text.
 */
export function keysStatement(
  table: Table,
  options: { after: readonly string[] | null; keysMax: number },
): Statement {
  const { after, keysMax } = options;
  const own = table.key.map((name) => rightType(table, name));
  const bound = after === null
    ? []
    : [`(${names(table.key)}) > (${
      cellsOf(table, table.key, () => "?").join(", ")
    })`];
  return {
    sql: `SELECT ${
      table.key.map((name) => `CAST(${quote(name)} AS TEXT)`).join(", ")
    } FROM ${quote(table.name)} WHERE ${
      [...own, ...bound].join(" AND ")
    } ORDER BY ${names(table.key)} LIMIT ?`,
    args: [...(after ?? []), BigInt(keysMax)],
  };
}

/**
 * The statements that build a table's indexes, each for a transaction of its own.
 *
 * @param table The table.
 * @returns The statements.
 */
export function indexStatements(table: Table): Statement[] {
  return table.indexes.map((columns) =>
    bare(
      `CREATE INDEX IF NOT EXISTS ${quote(indexName(table.name, columns))} ON ${
        quote(table.name)
      } (${names(columns)})`,
    )
  );
}

/**
 * Notes that a table has its indexes. It returns the row.
 *
 * @param table The table.
 * @returns The statement.
 */
export function indexedStatement(table: Table): Statement {
  return {
    sql:
      `UPDATE _libsql_sync SET unindexed = (SELECT json_group_array(value) FROM json_each(unindexed) WHERE value <> ?)
WHERE id = 1 RETURNING ${ROW_COLUMNS}`,
    args: [table.name],
  };
}

/**
 * The statement that reads what a walk found so far.
 *
 * @param walkGen The walk.
 * @returns The statement; a row for each table.
 */
export function walkedStatement(walkGen: number): Statement {
  return {
    sql: `SELECT walk_gen, table_name, rows, differing, ghosts, ended, failed
FROM _libsql_sync_walks WHERE walk_gen = ? ORDER BY table_name`,
    args: [BigInt(walkGen)],
  };
}

/**
 * Counts a table's rows, up to a bound.
 *
 * @param table The table.
 * @param rowsMax The bound.
 * @returns The statement.
 */
export function countStatement(table: Table, rowsMax: number): Statement {
  return {
    sql: `SELECT count(*) FROM (SELECT 1 FROM ${quote(table.name)} LIMIT ?)`,
    args: [BigInt(rowsMax)],
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
  switch (step.kind) {
    case "compare":
      return compareStatement(step);
    case "tally":
      return tallyStatement(step);
    case "strays":
      return straysStatement(step);
    case "unindex":
      return bare(
        `DROP INDEX IF EXISTS ${quote(indexName(step.table.name, step.index))}`,
      );
    default:
      return rowStatement(step);
  }
}

/** The statement that changes rows. */
function rowStatement(step: RowStep): Statement {
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

/** Counts rows that are missing or different, or ghosts that are there. */
function compareStatement(
  { of, table, columns, rows, walk }: CompareStep,
): Statement {
  const cells = cellsOf(table, columns, (at) => `value->>${at}`);
  const key = names(table.key);
  if (of === "delete") {
    return countInto(walk, "ghosts", {
      sql: `SELECT count(*) FROM ${
        quote(table.name)
      } WHERE (${key}) IN (SELECT ${cells.join(", ")} FROM json_each(?))`,
      args: [jsonOf(rows)],
    });
  }
  const rest = columns.filter((name) => !table.key.includes(name));
  const same = [
    ...table.key.map((name) => `t.${quote(name)} = r.${quote(name)}`),
    ...rest.map((name) => `t.${quote(name)} IS r.${quote(name)}`),
  ];
  return countInto(walk, "differing", {
    sql: `WITH r AS MATERIALIZED (SELECT ${
      cells.map((cell, at) => `${cell} AS ${quote(columns[at]!)}`).join(", ")
    } FROM json_each(?)) SELECT count(*) FROM r WHERE NOT EXISTS (SELECT 1 FROM ${
      quote(table.name)
    } t WHERE ${same.join(" AND ")})`,
    args: [jsonOf(rows)],
  });
}

/** Rows whose key has a type no row of the source can have. */
function straysStatement(step: Extract<Step, { kind: "strays" }>): Statement {
  const { table, repair, walk } = step;
  const right = table.key.map((name) => rightType(table, name)).join(" AND ");
  return repair
    ? bare(`DELETE FROM ${quote(table.name)} WHERE NOT (${right})`)
    : countInto(
      walk,
      "ghosts",
      bare(`SELECT count(*) FROM ${quote(table.name)} WHERE NOT (${right})`),
    );
}

/** Adds what the statement before it changed, and the rows looked at. */
function tallyStatement(
  { walk, found, rows, ended, failed }: TallyStep,
): Statement {
  return {
    sql:
      `INSERT INTO _libsql_sync_walks (walk_gen, table_name, rows, differing, ghosts, ended, failed)
VALUES (?, ?, ?, ${found === "differing" ? "changes()" : "0"}, ${
        found === "ghosts" ? "changes()" : "0"
      }, ?, ?)
ON CONFLICT (walk_gen, table_name) DO UPDATE SET rows = rows + excluded.rows,
  differing = differing + excluded.differing, ghosts = ghosts + excluded.ghosts, ended = excluded.ended,
  failed = coalesce(excluded.failed, failed)
RETURNING walk_gen, table_name, rows, differing, ghosts, ended, failed`,
    args: [
      BigInt(walk.walkGen),
      walk.table.name,
      BigInt(rows),
      ended ? 1n : 0n,
      failed,
    ],
  };
}

/** Adds what a query counts. */
function countInto(
  { walkGen, table }: WalkOf,
  found: "differing" | "ghosts",
  { sql, args }: Statement,
): Statement {
  return {
    sql:
      `INSERT INTO _libsql_sync_walks (walk_gen, table_name, ${found}) SELECT ?, ?, (${sql}) WHERE true
ON CONFLICT (walk_gen, table_name) DO UPDATE SET ${found} = ${found} + excluded.${found}`,
    args: [BigInt(walkGen), table.name, ...args],
  };
}

/** Whether a key column holds what its type says. */
function rightType(table: Table, name: string): string {
  const { type } = table.columns.find((column) => column.name === name)!;
  const stored = type === "INTEGER" || type === "BOOLEAN" ? "integer" : "text";
  return `typeof(${quote(name)}) = '${stored}'`;
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

/** An empty replica. */
const NOTHING: Present = { columns: new Map(), indexes: new Set() };

function isThere(table: Table, present: Present): boolean {
  return present.columns.has(`${table.name}\u0000${table.key[0]}`);
}

/** Tables that are created now: what they will hold is ours. */
function absentTables(schema: Schema, present: Present): string[] {
  return schema.tables.filter((table) => !isThere(table, present)).map((
    { name },
  ) => name);
}

/** Tables that are there and lack an index. */
function unindexedTables(schema: Schema, present: Present): string[] {
  return schema.tables
    .filter((table) =>
      isThere(table, present) &&
      table.indexes.some((columns) =>
        !present.indexes.has(indexName(table.name, columns))
      )
    )
    .map(({ name }) => name);
}

/** Columns missing in tables that are there. */
function addColumnStatements(schema: Schema, present: Present): Statement[] {
  return schema.tables.filter((table) => isThere(table, present)).flatMap((
    table,
  ) =>
    table.columns
      .filter(({ name }) => !present.columns.has(`${table.name}\u0000${name}`))
      .map(({ name, type }) =>
        bare(
          `ALTER TABLE ${quote(table.name)} ADD COLUMN ${quote(name)} ${
            declare(type)
          }`,
        )
      )
  );
}

/** Tables that are not there, with their indexes: those cost nothing yet. */
function createStatements(schema: Schema, present: Present): Statement[] {
  return schema.tables.filter((table) => !isThere(table, present)).flatMap((
    table,
  ) => [
    bare(
      `CREATE TABLE IF NOT EXISTS ${quote(table.name)} (${
        table.columns.map(({ name, type }) =>
          `${quote(name)} ${declare(type)}${
            table.key.includes(name) ? " NOT NULL" : ""
          }`
        ).join(", ")
      }, PRIMARY KEY (${names(table.key)}))`,
    ),
    ...indexStatements(table),
  ]);
}

function declare(type: ColumnType): string {
  return type === "JSON" ? "TEXT" : type;
}

function jsonOf(rows: RowStep["rows"]): string {
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
