/**
 * Ring 0. The statements that move the replica's row: start, adopt, alter, step.
 *
 * Promise: a statement that does not fit the row it finds fails, and its whole
 * transaction is rolled back.
 *
 * @module
 */

import type { WalkMove } from "../chain/walk_place.ts";
import { GUARDED, GUARDS, TABLE, WALKS } from "./guard.ts";
import {
  dropStatements,
  LAYOUT,
  NOTHING,
  type Present,
  schemaChanges,
} from "./layout.ts";
import { bare, type Statement } from "./sql.ts";
import type { Schema, Table } from "../schema.ts";

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
 * Starts a replica: everything if it does not exist, the row at position 0.
 * A row that is there is never replaced: it fails the batch, and so do tables
 * that are not those it was planned for.
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
  const { epoch, schemaHash, wipe, present } = options;
  const changes = schemaChanges(schema, wipe ? NOTHING : present);
  return [
    bare(TABLE),
    bare(WALKS),
    ...GUARDS.map(bare),
    {
      sql:
        "INSERT INTO _libsql_sync (id, epoch, position, batch, schema_hash, fresh, unindexed, rebuilding)" +
        ` VALUES (1, ?, 0, ?, ${
          wipe ? "?" : `iif(${LAYOUT} = ?, ?, NULL)`
        }, ?, ?, ?)`,
      args: [
        epoch,
        epoch,
        ...(wipe ? [] : [present.layout]),
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
  const listed = JSON.stringify(schema.tables.map(({ name }) => name));
  const move = (before: string, after: string): Statement => ({
    // NULL breaks the constraint, so that a hash that moved fails the batch. The
    // hash alone may be the same before and after tables were lost.
    sql:
      `UPDATE _libsql_sync SET schema_hash = iif(schema_hash = ? AND ${LAYOUT} = ?, ?, NULL), walk_at = NULL, walk_done = 0,
  walk_gen = iif(typeof(walk_gen) = 'integer', walk_gen, 0)
WHERE id = 1`,
    args: [before, present.layout, after],
  });
  return [
    // The guard takes a move to the same hash for a step that came twice: where
    // only tables are repaired, the hash is cleared and set again.
    ...(from === schemaHash
      ? [move(from, ""), move("", schemaHash)]
      : [move(from, schemaHash)]),
    ...changes.statements,
    {
      sql: `UPDATE _libsql_sync SET fresh = ${union("fresh")}, unindexed = ${
        union("unindexed")
      }, rebuilding = ? WHERE id = 1`,
      args: [
        listed,
        JSON.stringify(changes.fresh),
        listed,
        JSON.stringify(changes.unindexed),
        JSON.stringify(changes.rebuilding),
      ],
    },
    PROBE,
  ];
}

/** The names in a field of the row that are in an argument, and those in another, each once. */
function union(field: string): string {
  return `(SELECT json_group_array(value) FROM (SELECT value FROM json_each(iif(json_valid(${field}), ${field}, '[]')) WHERE value IN (SELECT value FROM json_each(?)) UNION SELECT value FROM json_each(?)))`;
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
  position = iif(walk_gen = ? AND walk_at IS ? AND walk_done = ? AND fresh = ? AND rebuilding = ?, excluded.position, NULL),
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
      BigInt(before.walk_done),
      before.fresh,
      before.rebuilding,
    ],
  };
}

/**
 * Lists the views and triggers that are not ours as (type, name, sql): views
 * first, as triggers may be on them.
 */
export const DEPENDENTS: Statement = {
  sql:
    "SELECT type, name, sql FROM sqlite_master WHERE type IN ('view', 'trigger') AND substr(name, 1, 12) <> '_libsql_sync' ORDER BY type DESC",
  args: [],
};

/**
 * Names the indexes there are.
 *
 * @example
 * ```ts
 * import { assert } from "@std/assert";
 *
 * assert(INDEXES.sql.includes("sqlite_master"));
 * ```
 */
export const INDEXES: Statement = {
  sql: "SELECT name FROM sqlite_master WHERE type = 'index'",
  args: [],
};

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
