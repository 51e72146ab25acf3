/**
 * Ring 0. The replica's own tables, and the triggers that guard its row.
 *
 * Promise: a statement that reaches the replica late, twice or from another
 * history moves its row along one chain, or its transaction is rolled back.
 *
 * @module
 */

export const GUARDED = [
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

/** What the guard says when it refuses; the adapter knows it by this word. */
export const GUARD = "libsql_sync guard";

/** The replica's row. */
export const TABLE = `CREATE TABLE IF NOT EXISTS _libsql_sync (
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

/** What walks found; it moves in the batches of their pages. */
export const WALKS = `CREATE TABLE IF NOT EXISTS _libsql_sync_walks (
  walk_gen INTEGER NOT NULL,
  table_name TEXT NOT NULL,
  rows INTEGER NOT NULL DEFAULT 0,
  differing INTEGER NOT NULL DEFAULT 0,
  ghosts INTEGER NOT NULL DEFAULT 0,
  ended INTEGER NOT NULL DEFAULT 0,
  failed TEXT,
  PRIMARY KEY (walk_gen, table_name)
) WITHOUT ROWID`;

/**
 * The triggers that guard the row. A step is written as an upsert: if the row were
 * gone, an UPDATE would touch nothing and let the rest of its batch through. An
 * INSERT is held to the same rules, as OR REPLACE fires neither of the other two.
 */
export const GUARDS = [
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
