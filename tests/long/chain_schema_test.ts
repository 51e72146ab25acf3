/** The chain over a change of schema.json. */

import { assert, assertEquals } from "@std/assert";
import { parseSchema, schemaHash } from "../../lib/schema.ts";
import {
  Hand,
  insertItems,
  rowsOf,
  SCHEMA,
  standing,
  startChain,
  syncWith,
  withWorker,
} from "../db/support/chain.ts";
import { configure, type RawSchema, Servers } from "../db/support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

/** A new column, a new table and a new index. */
const WIDER: RawSchema = {
  tables: {
    item: {
      ...SCHEMA.tables.item!,
      columns: { ...SCHEMA.tables.item!.columns, extra: "BOOLEAN" },
      indexes: ["name", ["size", "name"]],
    },
    part: SCHEMA.tables.part!,
    label: {
      key: "id",
      columns: { id: "TEXT", data: "JSON" },
      indexes: ["data"],
    },
  },
};
const WIDEN = `
  alter table item add column extra boolean;
  create table label (id text primary key, data jsonb);
`;

/** Names of the replica's indexes. */
async function indexesOf(
  { client }: { client: Awaited<ReturnType<typeof startChain>>["client"] },
): Promise<unknown[]> {
  const { rows } = await client.execute(
    "SELECT name FROM sqlite_master WHERE type = 'index' AND name NOT LIKE 'sqlite_%' ORDER BY name",
  );
  return rows.map(({ name }) => name);
}

Deno.test("sync() brings a wider schema to the replica by one alter", async () => {
  await using stack = await startChain(servers);
  await insertItems(stack, 1, 3);
  const { epoch, position } = await stack.drain();
  const indexes = await indexesOf(stack);
  await stack.sql.unsafe(WIDEN).simple();
  await configure(stack.sql, WIDER);
  await stack.sql`insert into item values (4, 'four', 4, true)`;
  await stack.sql`update item set extra = id % 2 = 0`;
  await stack.sql`insert into label values ('x', '{"a": [1, 2]}')`;

  const log: Record<string, unknown>[] = [];
  await withWorker(stack, { schema: WIDER, log }, async (port) => {
    const { status, body } = await stack.post("/sync", { port });
    assertEquals([status, body.epoch], [200, epoch], JSON.stringify(body));
    // One for what was queued; attach() had to reopen the walk before.
    assertEquals(body.position, Number(position) + 1);
    assertEquals((await stack.post("/sync", { port })).body.batches, 0);
  });
  assertEquals(log.filter(({ event }) => event === "alter").length, 1);
  const row = await stack.row();
  assertEquals(
    [row.schema_hash, row.walk_done],
    [await schemaHash(parseSchema(WIDER)), 0],
  );
  assertEquals((await indexesOf(stack)).length, indexes.length + 2);
  assertEquals(await stack.assertEqual(WIDER), 5);
});

Deno.test("sync() answers 409 version_mismatch when the source's functions are of another version", async () => {
  await using stack = await startChain(servers);
  await stack
    .sql`create or replace function libsql_sync.version() returns integer
    language sql immutable set search_path = pg_catalog, pg_temp as 'select 6'`;
  const { status, body } = await stack.post("/sync");
  assertEquals([status, body.error], [409, "version_mismatch"]);
  assert((body.message as string).includes("version 5, found 6"));
});

Deno.test("sync() answers 409 schema_outdated when a newer schema.json is in force", async () => {
  await using stack = await startChain(servers);
  await insertItems(stack, 1, 3);
  await stack.drain();
  await stack.sql.unsafe(WIDEN).simple();
  await configure(stack.sql, WIDER);
  await stack.sql`insert into item (id, name) values (6, 'six')`;
  const [row, rows] = [await stack.row(), await rowsOf(stack)];
  // Before and after a new worker was at the replica.
  for (const isAltered of [false, true]) {
    if (isAltered) {
      await withWorker(
        stack,
        { schema: WIDER },
        (port) => stack.post("/sync", { port }),
      );
      await stack.sql`insert into item (id, name) values (7, 'seven')`;
    }
    const was = isAltered ? await rowsOf(stack) : rows;
    const { status, body } = await stack.post("/sync");
    assertEquals([status, body.error], [409, "schema_outdated"]);
    assertEquals(await rowsOf(stack), was);
    assertEquals((await standing(stack)).lease, null);
  }
  assertEquals((await stack.row()).epoch, row.epoch);
});

Deno.test("sync() answers 409 schema_unknown when its schema.json was never installed", async () => {
  await using stack = await startChain(servers);
  await insertItems(stack, 1, 3);
  await withWorker(stack, { schema: WIDER }, async (port) => {
    const { status, body } = await stack.post("/sync", { port });
    assertEquals([status, body.error], [409, "schema_unknown"]);
  });
  const { rows } = await stack.client.execute(
    "SELECT name FROM sqlite_master WHERE type = 'table'",
  );
  assertEquals(rows.length, 0, "it made something of a schema not in force");
  await stack.drain();
  assertEquals(await stack.assertEqual(), 3);
});

Deno.test("apply() is refused when the replica was altered since the claim", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  await stack.withParts(async (parts) => {
    const old = new Hand(parts);
    await insertItems(stack, 1, 3);
    const batch = await old.batch();
    await stack.sql.unsafe(WIDEN).simple();
    await configure(stack.sql, WIDER);
    await stack.withParts(async (newParts) => {
      const from = (await stack.row()).schema_hash as string;
      await newParts.replica.alter({ from });
      assertEquals(await old.apply(batch), "replica_moved");
      assertEquals(await rowsOf(stack), []);
      const next = await old.again();
      assertEquals(
        [next.do, "error" in next && next.error],
        ["stop", "schema_outdated"],
      );
      // An alter that comes late finds another hash, or the one it would set.
      const wider = await stack.row();
      await newParts.replica.alter({ from }).then(
        () => Promise.reject(new Error("altered twice")),
        (error) => assertEquals(error.code, "replica_moved"),
      );
      assertEquals((await stack.row()).schema_hash, wider.schema_hash);
      await old.source.release(old.lease);
    }, WIDER);
  });
  await withWorker(stack, { schema: WIDER }, async (port) => {
    const { body } = await stack.post("/sync", { port });
    assertEquals(body.processed, 3);
  });
  assertEquals(await stack.assertEqual(WIDER), 3);
});

Deno.test("sync() makes a table again when it was dropped by hand", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  await stack.client.execute("DROP TABLE item");
  await insertItems(stack, 1, 3);
  await stack.drain();
  assertEquals(await stack.assertEqual(), 3);
  assertEquals((await stack.row()).walk_done, 0);
});

Deno.test("sync() leaves a newer schema alone when an old worker meets a dropped table", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  await stack.client.execute("DROP TABLE part");
  await stack.sql`insert into part values (1, 'a', 'x')`;
  const wider = await schemaHash(parseSchema(WIDER));
  let hash: unknown;
  // Between the failed apply of the old worker and its probe, a new one alters.
  const outcome = await syncWith(stack, ({ replica }) => {
    let isAltered = false;
    return {
      replica: {
        async apply(...args) {
          try {
            return await replica.apply(...args);
          } catch (error) {
            if (!isAltered) {
              isAltered = true;
              await stack.sql.unsafe(WIDEN).simple();
              await configure(stack.sql, WIDER);
              const from = (await stack.row()).schema_hash as string;
              await stack.withParts(
                (parts) => parts.replica.alter({ from }),
                WIDER,
              );
            }
            throw error;
          } finally {
            hash = (await stack.row()).schema_hash;
          }
        },
      },
    };
  }).then(() => "done", (error) => error.code);
  assertEquals(hash, wider);
  assertEquals(outcome, "schema_outdated");
  assertEquals((await stack.row()).schema_hash, wider);
});
