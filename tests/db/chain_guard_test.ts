/** The guard of the replica's row, by plain SQL on a real sqld. */

import { type Client, createClient } from "@libsql/client/http";
import { assert, assertEquals } from "@std/assert";
import { startSqld } from "../../lib/dev/sqld.ts";
import { GUARD } from "../../lib/replica/guard.ts";
import { openLibsql } from "../../lib/replica/libsql.ts";
import { stepStatement } from "../../lib/replica/moves.ts";
import { createReplica } from "../../lib/replica/replica.ts";
import type { Statement } from "../../lib/replica/sql.ts";
import { parseSchema } from "../../lib/schema.ts";
import { SCHEMA } from "./support/chain.ts";

const HASH = "hash-1";

const NO_WALK = {
  walk_gen: 0,
  walk_at: null,
  walk_done: 0,
  // As bootstrap() leaves it: a step is made for one row.
  fresh: JSON.stringify(Object.keys(SCHEMA.tables)),
  unindexed: "[]",
  rebuilding: "[]",
};

/** A step from the row as {@linkcode replicaAtFive} leaves it, or nearly one. */
const step = (other: Partial<Parameters<typeof stepStatement>[0]> = {}) =>
  stepStatement({
    epoch: "e1",
    position: 6,
    batch: "b6",
    prev: "b5",
    drained: true,
    snapshot: "6:6:",
    sourceTime: "t6",
    schemaHash: HASH,
    deadLetters: 0,
    ...other,
  }, { before: NO_WALK, after: NO_WALK });
const set = (assignments: string) => ({
  sql: `UPDATE _libsql_sync SET ${assignments} WHERE id = 1`,
  args: [],
});
const insert = (columns: string, values: string) => ({
  sql: `INSERT INTO _libsql_sync (${columns}) VALUES (${values})`,
  args: [],
});
const WALK = "walk_gen = 0, walk_at = NULL, walk_done = 0";
const ADOPT =
  `from_epoch = 'e1', epoch = 'e2', position = 0, batch = 'e2', prev = NULL, ${WALK}, drained = 0, snapshot = NULL, source_time = NULL`;

const ALLOWED: [name: string, statement: Statement][] = [
  ["a step", step()],
  ["a step that did not drain", step({ drained: false })],
  [
    "a step with a page",
    set(
      "position = 6, batch = 'b6', prev = 'b5', walk_gen = 1, walk_at = 'x', walk_done = 1",
    ),
  ],
  ["an adopt", set(ADOPT)],
  ["an adopt with another schema", set(`${ADOPT}, schema_hash = 'hash-2'`)],
  ["an alter", set("schema_hash = 'hash-2', walk_at = NULL, walk_done = 0")],
  ["a probe", set("probed_at = 1")],
  ["a count of dead letters", set("dead_letters = 7")],
];

const REFUSED: [name: string, statement: Statement][] = [
  [
    "the step it stands at, again",
    step({
      position: 5,
      batch: "b5",
      prev: "b4",
      drained: false,
      snapshot: "5",
      sourceTime: "t5",
    }),
  ],
  ["an earlier step", step({ position: 4, batch: "b4", prev: "b3" })],
  ["a gap", step({ position: 7, batch: "b7", prev: "b6" })],
  ["a gap with the right predecessor", step({ position: 7, batch: "b7" })],
  ["another predecessor", step({ prev: "x5" })],
  ["another epoch", step({ epoch: "e2" })],
  ["another schema", step({ schemaHash: "hash-2" })],
  ["a batch that precedes itself", step({ batch: "b5" })],
  [
    "a step that forgets where it came from",
    set("position = 6, batch = 'b6', prev = 'b5', from_epoch = 'e0'"),
  ],
  [
    "an update to another predecessor",
    set("position = 6, batch = 'b6', prev = 'x5'"),
  ],
  [
    "an update to another epoch's step",
    set("epoch = 'e2', position = 6, batch = 'b6', prev = 'b5'"),
  ],
  [
    "an update to another schema's step",
    set("position = 6, batch = 'b6', prev = 'b5', schema_hash = 'hash-2'"),
  ],
  ["a position alone", set("position = 6")],
  ["a position that goes back", set("position = 4")],
  [
    "a position that goes back with its ids",
    set("position = 4, batch = 'b4', prev = 'b3'"),
  ],
  ["a batch alone", set("batch = 'b6'")],
  ["a predecessor alone", set("prev = 'b9'")],
  ["an epoch alone", set("epoch = 'e2'")],
  ["drained alone", set("drained = 1")],
  ["a snapshot alone", set("snapshot = '9:9:'")],
  ["a source time alone", set("source_time = 't9'")],
  ["walk_done alone", set("walk_done = 1")],
  ["walk_at alone", set("walk_at = 'x'")],
  ["a hash with a finished walk", set("schema_hash = 'hash-2', walk_done = 1")],
  ["nothing at all", set("position = position")],
  ["adopt without from_epoch", set(ADOPT.replace("'e1'", "NULL"))],
  ["adopt from another epoch", set(ADOPT.replace("'e1'", "'e0'"))],
  ["adopt of the epoch it follows", set(ADOPT.replaceAll("'e2'", "'e1'"))],
  ["adopt at a position", set(ADOPT.replace("position = 0", "position = 3"))],
  [
    "adopt with another genesis",
    set(ADOPT.replace("batch = 'e2'", "batch = 'b'")),
  ],
  ["adopt that is drained", set(ADOPT.replace("drained = 0", "drained = 1"))],
  [
    "adopt with a finished walk",
    set(ADOPT.replace("walk_done = 0", "walk_done = 1")),
  ],
  ["another id", set("id = 2")],
  ["a delete", { sql: "DELETE FROM _libsql_sync", args: [] }],
  [
    "a second row",
    insert(
      "id, epoch, position, batch, schema_hash",
      "2, 'e1', 0, 'e1', 'hash-1'",
    ),
  ],
  [
    "a second row without an id",
    insert("epoch, position, batch, schema_hash", "'e1', 0, 'e1', 'hash-1'"),
  ],
  [
    "the row again",
    insert(
      "id, epoch, position, batch, schema_hash",
      "1, 'e1', 0, 'e1', 'hash-1'",
    ),
  ],
  [
    "the row again in place of it",
    {
      sql:
        "INSERT OR REPLACE INTO _libsql_sync (id, epoch, position, batch, schema_hash) VALUES (1, 'e9', 0, 'e9', 'hash-1')",
      args: [],
    },
  ],
];

const EMPTY_REFUSED: typeof REFUSED = [
  ["a step", step({ position: 5, batch: "b5", prev: "b4" })],
  [
    "a first step",
    step({ position: 1, batch: "b1", prev: "e1", drained: false }),
  ],
  [
    "a row at position 5",
    insert(
      "id, epoch, position, batch, schema_hash",
      "1, 'e1', 5, 'e1', 'hash-1'",
    ),
  ],
  [
    "a row with a batch that is no genesis",
    insert(
      "id, epoch, position, batch, schema_hash",
      "1, 'e1', 0, 'b', 'hash-1'",
    ),
  ],
  [
    "a row that is drained",
    insert(
      "id, epoch, position, batch, schema_hash, drained",
      "1, 'e1', 0, 'e1', 'hash-1', 1",
    ),
  ],
  [
    "a row whose walk is done",
    insert(
      "id, epoch, position, batch, schema_hash, walk_done",
      "1, 'e1', 0, 'e1', 'hash-1', 1",
    ),
  ],
];

/** A statement that fails by a name of its own: what came before it passed. */
const UNDO = "SELECT * FROM nothing_of_this_name";

/** Tries a statement and keeps nothing of it; what refused it, or null. */
async function tried(
  client: Client,
  statement: Statement,
): Promise<string | null> {
  try {
    await client.batch([statement, UNDO], "write");
  } catch (error) {
    const message = (error as Error).message;
    return message.includes("nothing_of_this_name") ? null : message;
  }
  throw new Error("what must fail was kept");
}

/** A replica whose row is at position 5, and one that has none. */
async function withReplica(
  run: (client: Client) => Promise<void>,
): Promise<void> {
  const dataDir = await Deno.makeTempDir({ prefix: "libsql-sync-guard-" });
  const sqld = await startSqld({ dataDir });
  const client = createClient({ url: sqld.url, authToken: "test" });
  try {
    const database = openLibsql({ url: sqld.url, authToken: "test", fetch });
    const replica = createReplica(database, {
      schema: parseSchema(SCHEMA),
      schemaHash: HASH,
    });
    await replica.bootstrap({ epoch: "e1", wipe: false });
    database.close();
    await run(client);
  } finally {
    client.close();
    await sqld.kill();
    await Deno.remove(dataDir, { recursive: true });
  }
}

Deno.test("the guard lets three moves pass and refuses every other statement", async () => {
  await withReplica(async (client) => {
    for (let position = 1; position <= 5; position++) {
      await client.execute(step({
        position,
        batch: `b${position}`,
        prev: position === 1 ? "e1" : `b${position - 1}`,
        drained: false,
        snapshot: `${position}`,
        sourceTime: `t${position}`,
      }));
    }
    const row = async () =>
      (await client.execute("SELECT * FROM _libsql_sync")).rows.map((row) => ({
        ...row,
      }));
    const before = await row();
    assertEquals(before.map((row) => row.position), [5]);
    for (const [name, statement] of ALLOWED) {
      assertEquals(await tried(client, statement), null, name);
      assertEquals(await row(), before, name);
    }
    for (const [name, statement] of REFUSED) {
      const message = await tried(client, statement);
      assert(message !== null, `${name} passed`);
      assert(
        message.includes(GUARD) || message.includes("constraint failed"),
        `${name}: ${message}`,
      );
      assertEquals(await row(), before, name);
    }
  });
});

Deno.test("the guard refuses everything but a start when there is no row", async () => {
  await withReplica(async (client) => {
    // The row cannot go while the guard stands.
    await client.batch([
      "DROP TRIGGER _libsql_sync_delete",
      "DELETE FROM _libsql_sync",
    ], "write");
    for (const [name, statement] of EMPTY_REFUSED) {
      const message = await tried(client, statement);
      assert(message?.includes(GUARD), `${name}: ${message}`);
    }
    const start = insert(
      "id, epoch, position, batch, schema_hash",
      "1, 'e1', 0, 'e1', 'hash-1'",
    );
    assertEquals(await tried(client, start), null);
  });
});
