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
  /** Tables rebuilt beside the old ones, which readers still see, as JSON. */
  readonly rebuilding: string;
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
  /** How much its database holds, without the pages that are free again. */
  readonly bytes: number;
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
const BYTES =
  "(SELECT (page_count - freelist_count) * page_size FROM pragma_page_count(), pragma_freelist_count(), pragma_page_size()) AS bytes";
const ROW_COLUMNS = [
  ...GUARDED,
  "fresh",
  "unindexed",
  "rebuilding",
  "dead_letters",
  BYTES,
].join(", ");

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
  rebuilding TEXT NOT NULL DEFAULT '[]',
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
  `CREATE TRIGGER IF NOT EXISTS _libsql_sync_walks_trim AFTER INSERT ON _libsql_sync_walks
BEGIN DELETE FROM _libsql_sync_walks WHERE walk_gen < NEW.walk_gen - 20; END`,
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
  const changes = schemaChanges(schema, wipe ? NOTHING : options.present);
  return [
    bare(TABLE),
    bare(WALKS),
    ...GUARDS.map(bare),
    {
      sql:
        "INSERT INTO _libsql_sync (id, epoch, position, batch, schema_hash, fresh, unindexed, rebuilding)" +
        ` SELECT 1, ?, 0, ?, ?, ?, ?, ?${
          wipe ? "" : " WHERE NOT EXISTS (SELECT 1 FROM _libsql_sync)"
        }`,
      args: [
        epoch,
        epoch,
        schemaHash,
        JSON.stringify(changes.fresh),
        JSON.stringify(changes.unindexed),
        JSON.stringify(changes.rebuilding),
      ],
    },
    ...(wipe ? dropStatements(schema) : []),
    ...changes.statements,
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
  ${
          wipe
            ? "schema_hash = ?, unindexed = '[]', rebuilding = '[]', "
            : ""
        }fresh = ?
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
      ? [
        ...dropStatements(schema),
        ...schemaChanges(schema, NOTHING).statements,
      ]
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
  const changes = schemaChanges(schema, present);
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
    ...changes.statements,
    {
      sql: `UPDATE _libsql_sync SET fresh = ${union("fresh")}, unindexed = ${
        union("unindexed")
      }, rebuilding = ? WHERE id = 1`,
      args: [
        JSON.stringify(changes.fresh),
        JSON.stringify(changes.unindexed),
        JSON.stringify(changes.rebuilding),
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
  walk_gen, walk_at, walk_done, fresh, unindexed, rebuilding)
VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, batch = excluded.batch, prev = excluded.prev,
  position = iif(walk_gen = ? AND walk_at IS ?, excluded.position, NULL),
  drained = excluded.drained, snapshot = excluded.snapshot, source_time = excluded.source_time,
  schema_hash = excluded.schema_hash, dead_letters = excluded.dead_letters,
  walk_gen = excluded.walk_gen, walk_at = excluded.walk_at, walk_done = excluded.walk_done,
  fresh = excluded.fresh, unindexed = excluded.unindexed, rebuilding = excluded.rebuilding
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
      after.rebuilding,
      BigInt(before.walk_gen),
      before.walk_at,
    ],
  };
}

/**
 * The statement that reads a page of a table's keys, in the replica's order.
 *
 * @param table The table.
 * @param options The key to start after, null for the start; how many; the
 * tables that are rebuilt beside the old ones.
 * @returns The statement; each row is a key as text.
 */
export function keysStatement(
  table: Table,
  options: {
    after: readonly string[] | null;
    keysMax: number;
    rebuilding: readonly string[];
  },
): Statement {
  const { after, keysMax, rebuilding } = options;
  const own = table.key.map((name) => rightType(table, name));
  const bound = after === null
    ? []
    : [`(${names(table.key)}) > (${
      cellsOf(table, table.key, () => "?").join(", ")
    })`];
  return {
    sql: `SELECT ${
      table.key.map((name) => `CAST(${quote(name)} AS TEXT)`).join(", ")
    } FROM ${storedName(table, rebuilding)} WHERE ${
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
 * @param rebuilding Tables that are rebuilt beside the old ones.
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
export function stepToStatement(
  step: Step,
  rebuilding: readonly string[] = [],
): Statement {
  if (step.kind === "tally") return tallyStatement(step);
  const { table } = step;
  const stored = storedName(table, rebuilding);
  switch (step.kind) {
    case "compare":
      return compareStatement(step, stored);
    case "strays":
      return straysStatement(step, stored);
    case "drop":
      return bare(`DROP TABLE ${quote(table.name)}`);
    case "rename":
      return bare(`ALTER TABLE ${stored} RENAME TO ${quote(table.name)}`);
    case "unindex":
      return bare(
        `DROP INDEX IF EXISTS ${quote(indexName(table.name, step.index))}`,
      );
    default:
      return rowStatement(step, stored);
  }
}

/** The statement that changes rows. */
function rowStatement(step: RowStep, stored: string): Statement {
  const { kind, table, columns, rows } = step;
  switch (kind) {
    case "truncate":
      return bare(`DELETE FROM ${stored}`);
    case "delete": {
      const cells = cellsOf(table, columns, (at) => `value->>${at}`);
      return {
        sql: `DELETE FROM ${stored} WHERE (${names(columns)}) IN (SELECT ${
          cells.join(", ")
        } FROM json_each(?))`,
        args: [jsonOf(rows)],
      };
    }
    case "upsert": {
      const cells = cellsOf(table, columns, (at) => `value->>${at}`);
      return {
        sql: `WITH r AS MATERIALIZED (SELECT ${
          cells.join(", ")
        } FROM json_each(?)) INSERT INTO ${stored} (${
          names(columns)
        }) SELECT * FROM r WHERE true ${onConflict(table, columns, stored)}`,
        args: [jsonOf(rows)],
      };
    }
    case "row":
      return {
        sql: `INSERT INTO ${stored} (${names(columns)}) VALUES (${
          cellsOf(table, columns, () => "?").join(", ")
        }) ${onConflict(table, columns, stored)}`,
        args: [...rows[0]!.cells],
      };
  }
}

/** Counts rows that are missing or different, or ghosts that are there. */
function compareStatement(
  { of, table, columns, rows, walk }: CompareStep,
  stored: string,
): Statement {
  const cells = cellsOf(table, columns, (at) => `value->>${at}`);
  const key = names(table.key);
  if (of === "delete") {
    return countInto(walk, "ghosts", {
      sql: `SELECT count(*) FROM ${stored} WHERE (${key}) IN (SELECT ${
        cells.join(", ")
      } FROM json_each(?))`,
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
    } FROM json_each(?)) SELECT count(*) FROM r WHERE NOT EXISTS (SELECT 1 FROM ${stored} t WHERE ${
      same.join(" AND ")
    })`,
    args: [jsonOf(rows)],
  });
}

/** Rows whose key has a type no row of the source can have. */
function straysStatement(
  step: Extract<Step, { kind: "strays" }>,
  stored: string,
): Statement {
  const { table, repair, walk } = step;
  const right = table.key.map((name) => rightType(table, name)).join(" AND ");
  return repair
    ? bare(`DELETE FROM ${stored} WHERE NOT (${right})`)
    : countInto(
      walk,
      "ghosts",
      bare(`SELECT count(*) FROM ${stored} WHERE NOT (${right})`),
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
function onConflict(
  table: Table,
  columns: readonly string[],
  stored: string,
): string {
  const rest = columns.filter((name) => !table.key.includes(name));
  if (rest.length === 0) return `ON CONFLICT (${names(table.key)}) DO NOTHING`;
  const set = rest.map((name) => `${quote(name)} = excluded.${quote(name)}`);
  const before = rest.map((name) => `${stored}.${quote(name)}`);
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

/** An empty replica. */
const NOTHING: Present = { columns: new Map(), indexes: new Set() };

/** What brings a replica to the schema. */
interface SchemaChanges {
  readonly statements: readonly Statement[];
  /** Tables created now: what they will hold is ours. */
  readonly fresh: readonly string[];
  /** Tables that are there and lack an index. */
  readonly unindexed: readonly string[];
  /** Tables whose types or key changed: a new one is filled beside the old. */
  readonly rebuilding: readonly string[];
}

/** Compares what is there with the schema. */
function schemaChanges(schema: Schema, present: Present): SchemaChanges {
  const statements: Statement[] = [];
  const fresh: string[] = [];
  const unindexed: string[] = [];
  const rebuilding: string[] = [];
  for (const table of schema.tables) {
    const { name } = table;
    const beside = `${BESIDE}${name}`;
    if (!isThere(name, present)) {
      fresh.push(name);
      statements.push(createStatement(table, name), ...indexStatements(table));
    } else if (fits(table, name, present)) {
      statements.push(...addColumnStatements(table, name, present));
      if (isThere(beside, present)) statements.push(dropStatement(beside));
      const lacksIndex = table.indexes.some((columns) =>
        !present.indexes.has(indexName(name, columns))
      );
      if (lacksIndex) unindexed.push(name);
    } else {
      rebuilding.push(name);
      if (isThere(beside, present) && fits(table, beside, present)) {
        statements.push(...addColumnStatements(table, beside, present));
      } else {
        fresh.push(name);
        statements.push(dropStatement(beside), createStatement(table, beside));
      }
    }
  }
  return { statements, fresh, unindexed, rebuilding };
}

/** What the name of a table that is rebuilt begins with. */
const BESIDE = "_libsql_sync_new_";

/** The quoted name of the table that is written to. */
function storedName({ name }: Table, rebuilding: readonly string[]): string {
  return quote(rebuilding.includes(name) ? `${BESIDE}${name}` : name);
}

function isThere(name: string, { columns }: Present): boolean {
  return columnsOf(name, columns).length > 0;
}

/** A table's columns and what they are. */
function columnsOf(table: string, columns: Present["columns"]) {
  return [...columns].filter(([name]) => name.startsWith(`${table}\u0000`));
}

/**
 * Whether adding columns makes the table the schema's: a column of another type
 * would change values silently, and another key would merge rows.
 */
function fits(table: Table, name: string, { columns }: Present): boolean {
  const key = columnsOf(name, columns).filter(([, { isKey }]) => isKey)
    .map(([column]) => column.slice(name.length + 1));
  return key.toSorted().join() === table.key.toSorted().join() &&
    table.columns.every((column) => {
      const found = columns.get(`${name}\u0000${column.name}`)?.type;
      return found === undefined || holds(found, column.type);
    });
}

/** Whether SQLite's affinity of a declared type stores ours unchanged. */
function holds(declared: string, type: ColumnType): boolean {
  // https://sqlite.org/datatype3.html#determination_of_column_affinity
  const isInteger = /INT/i.test(declared);
  const isText = !isInteger && /CHAR|CLOB|TEXT/i.test(declared);
  const isOther = declared === "" || /BLOB|REAL|FLOA|DOUB/i.test(declared);
  return type === "INTEGER" || type === "BOOLEAN"
    ? isInteger || !(isText || isOther)
    : isText;
}

/** Columns missing in a table that is there. */
function addColumnStatements(
  table: Table,
  name: string,
  { columns }: Present,
): Statement[] {
  return table.columns
    .filter((column) => !columns.has(`${name}\u0000${column.name}`))
    .map((column) =>
      bare(
        `ALTER TABLE ${quote(name)} ADD COLUMN ${quote(column.name)} ${
          declare(column.type)
        }`,
      )
    );
}

function createStatement(table: Table, as: string): Statement {
  const columns = table.columns.map(({ name, type }) =>
    `${quote(name)} ${declare(type)}${
      table.key.includes(name) ? " NOT NULL" : ""
    }`
  );
  return bare(
    `CREATE TABLE IF NOT EXISTS ${quote(as)} (${
      columns.join(", ")
    }, PRIMARY KEY (${names(table.key)}))`,
  );
}

function dropStatements(schema: Schema): Statement[] {
  return schema.tables.flatMap(({ name }) => [
    dropStatement(name),
    dropStatement(`${BESIDE}${name}`),
  ]);
}

function dropStatement(name: string): Statement {
  return bare(`DROP TABLE IF EXISTS ${quote(name)}`);
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
