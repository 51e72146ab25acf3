/** Somebody else writes to the replica: it is mended, and nothing is lost. */

import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { insertItems, startChain } from "../db/support/chain.ts";
import { Servers, Stack } from "../db/support/stack.ts";
import { seed } from "../seed.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

const RANDOM_ROWS = 15;
const TEXT_KEYS = {
  tables: {
    word: {
      key: "word",
      columns: { word: "TEXT", note: "TEXT" },
      indexes: [],
    },
    pair: {
      key: ["a", "b"],
      columns: { a: "TEXT", b: "INTEGER" },
      indexes: [],
    },
  },
};
const TEXT_TABLES = `
  create table public.word (word text primary key, note text);
  create table public.pair (a text, b bigint, primary key (a, b));`;

Deno.test("a walk deletes rows whose key is not UTF-8, and counts them", async () => {
  await using stack = await Stack.start(servers, {
    schema: TEXT_KEYS,
    setup: TEXT_TABLES,
  });
  const { sql, client } = stack;
  await sql`insert into word select chr(1000 + n) || n, 'x' from generate_series(1, 500) n`;
  await sql`insert into word values ('', 'empty'), (chr(65279) || 'bom', 'x'), (chr(65534), 'x'), (chr(1114111), 'x')`;
  await sql`insert into pair select 'é' || n, n from generate_series(1, 500) n`;
  await stack.drain();
  await stack.walk();
  const broken = ["ff", "80", "c3", "e282", "eda080", "f8888080", "61ff62"];
  for (const hex of broken) {
    await client.execute(
      `INSERT INTO word VALUES (CAST(x'${hex}' AS TEXT), 'mine')`,
    );
    await client.execute(
      `INSERT INTO pair VALUES (CAST(x'${hex}' AS TEXT), 5)`,
    );
  }
  const counted = await stack.finish("/verify");
  assertEquals(counted.differences, 2 * broken.length);
  assertEquals((await stack.finish("/verify")).differences, 0);
  assertEquals(await stack.assertEqual(), 1_004);
});

/** SQLite expressions for a field of the row that a walk reads. */
const ODD_PLACES = [
  "'garbage'",
  "''",
  "'{'",
  "'null'",
  "'5'",
  "'[]'",
  "'{}'",
  "x'00ff'",
  "5",
  `'{"table": "item"}'`,
  `'{"table": "nowhere", "half": "forward"}'`,
  `'{"table": "nowhere", "half": "back"}'`,
  `'{"table": "item", "half": "sideways"}'`,
  `'{"table": "item", "half": "keys", "after": ["0"]}'`,
  `'{"table": "item", "half": "forward", "after": {}}'`,
  `'{"table": "item", "half": "forward", "after": [null]}'`,
  `'{"table": "item", "half": "forward", "after": []}'`,
  `'{"table": "part", "half": "forward", "after": ["9"]}'`,
  `'{"table": "part", "half": "back", "after": ["9"]}'`,
  `'{"table": "part", "half": "back", "after": ["9", "9", "9"]}'`,
  `'{"table": "item", "half": "forward", "unread": "x"}'`,
  `'{"table": "item", "half": "back", "rows": "x"}'`,
  `'{"table": ["item"], "half": "back"}'`,
];
const ODD_LISTS = [
  "'garbage'",
  "'{}'",
  "'null'",
  "'[5]'",
  "'[null]'",
  `'["nowhere"]'`,
  `'{"item": 1}'`,
  "x'5b5d'",
];

Deno.test("sync() starts the walk over when the row's fields of it are garbage", async () => {
  await using stack = await startChain(servers);
  await stack
    .sql`update libsql_sync.chain set refill = true, scrub_rows = 1000`;
  await insertItems(stack, 1, 300);
  await stack
    .sql`insert into part select n, 'c' || n, 'x' from generate_series(1, 300) n`;
  await stack.drain();
  await stack.walk();
  const cases = [
    ...ODD_PLACES.map((value) => `walk_at = ${value}`),
    ...["fresh", "unindexed", "rebuilding"].flatMap((field) =>
      ODD_LISTS.map((value) => `${field} = ${value}`)
    ),
    ...["walk_gen", "walk_done", "drained", "dead_letters"].flatMap((field) =>
      ["'garbage'", "x'00'", "1.5", "-1"].map((value) => `${field} = ${value}`)
    ),
    ...["snapshot", "source_time", "prev", "probed_at"].map((field) =>
      `${field} = x'00'`
    ),
    ...fc.sample(
      fc.record({
        walk_at: fc.oneof(fc.json({ maxDepth: 2 }), fc.string()),
        fresh: fc.json({ maxDepth: 1 }),
        rebuilding: fc.json({ maxDepth: 1 }),
      }),
      { seed: seed(), numRuns: RANDOM_ROWS },
    ).map((fields) =>
      Object.entries(fields).map(([field, value]) =>
        // Of a NUL, and half a character, SQL text would hold something else.
        `${field} = '${value.replace(/['\0\ud800-\udfff]/g, "")}'`
      ).join(", ")
    ),
  ];
  for (const assignments of cases) {
    await disturb(stack, assignments);
    await insertItems(stack, 10_000, 10_000);
    try {
      await stack.drain();
      await stack.walk();
      assertEquals(await stack.assertEqual(), 601);
    } catch (error) {
      throw new Error(`after ${assignments}`, { cause: error });
    }
    await stack.sql`delete from item where id = 10000`;
    const [work] = await stack.sql`select libsql_sync.has_work() as may`;
    assert(typeof work!.may === "boolean");
    await stack.sql`select libsql_sync.status()`;
  }
  assertEquals((await stack.deadLetters()).length, 0);
});

Deno.test("nuke() fills the replica anew when fields of its row are garbage", async () => {
  await using stack = await startChain(servers);
  await insertItems(stack, 1, 20);
  await stack.drain();
  await disturb(
    stack,
    "walk_at = 'x', fresh = 'x', unindexed = 'x', rebuilding = 'x', walk_gen = 'x', drained = 'x'",
  );
  assertEquals((await stack.post("/nuke")).status, 200);
  await stack.finish("/backfill");
  assertEquals(await stack.assertEqual(), 20);
});

/** Writes to the row past its guard, in the middle of a walk, where rows differ. */
async function disturb(stack: Stack, assignments: string): Promise<void> {
  const { sql, client } = stack;
  const [asked] = await sql`select libsql_sync.backfill() as gen`;
  const { rows } = await client.execute(
    "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND name = '_libsql_sync_update'",
  );
  await client.batch([
    "DROP TRIGGER _libsql_sync_update",
    `UPDATE _libsql_sync SET walk_gen = ${
      asked!.gen
    }, walk_done = 0, walk_at = '{"table": "item", "half": "forward"}'`,
    `UPDATE _libsql_sync SET ${assignments}`,
    String(rows[0]!.sql),
    "DELETE FROM item WHERE id = 3",
    "INSERT INTO item (id, name) VALUES (-1, 'ghost')",
    "UPDATE part SET note = 'other' WHERE item = 299",
    "INSERT INTO part (item, code) VALUES (-1, 'ghost')",
  ], "write");
}
