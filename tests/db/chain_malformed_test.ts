/** Messages that name no row are set aside, and the rest goes on. */

import { assert, assertEquals } from "@std/assert";
import {
  insertItems,
  rowsOf,
  send,
  standing,
  startChain,
} from "./support/chain.ts";
import { Servers } from "./support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

const ITEM = { v: 2, table: "item" };
/** Of release 0.1.0. */
const OLD = { v: 1, table: "item" };
const ROWS = { ...OLD, columns: ["id", "name"] };
const CLASSIC = { table: "item", type: "INSERT" };

/** Messages nobody should send, and the table that their letter names. */
const MALFORMED: [message: unknown, table: string | null][] = [
  [null, null],
  [true, null],
  [7, null],
  ["secret", null],
  [[ITEM], null],
  [{}, null],
  [{ table: "nowhere", v: 2, keys: [["1"]] }, "nowhere"],
  [{ table: "nowhere", v: 2, truncate: true }, "nowhere"],
  [{ table: "nowhere", v: 2, walk: "secret" }, "nowhere"],
  [{ table: "constructor", v: 2, keys: [["1"]] }, "constructor"],
  [{ table: "😀".repeat(80), v: 2, keys: [["1"]] }, null],
  [ITEM, "item"],
  [{ ...ITEM, v: 3, keys: [["1"]] }, "item"],
  [{ ...ITEM, v: "2", keys: [["1"]] }, "item"],
  [{ ...ITEM, keys: null }, "item"],
  [{ ...ITEM, keys: [] }, "item"],
  [{ ...ITEM, keys: "secret" }, "item"],
  [{ ...ITEM, keys: { "0": ["1"] } }, "item"],
  [{ ...ITEM, keys: ["secret"] }, "item"],
  [{ ...ITEM, keys: [[]] }, "item"],
  [{ ...ITEM, keys: [[1]] }, "item"],
  [{ ...ITEM, keys: [[null]] }, "item"],
  [{ ...ITEM, keys: [[["1"]]] }, "item"],
  [{ ...ITEM, keys: [["1", "secret"]] }, "item"],
  [{ ...ITEM, table: "part", keys: [["1"]] }, "part"],
  [{ ...ITEM, truncate: false }, "item"],
  [{ ...ITEM, truncate: "yes" }, "item"],
  [OLD, "item"],
  [{ ...OLD, deletes: [["1"]] }, "item"],
  [{ ...OLD, key: ["name"], deletes: [["1"]] }, "item"],
  [{ ...OLD, key: "id", deletes: [["1"]] }, "item"],
  [{ ...OLD, key: ["id"], deletes: null }, "item"],
  [{ ...OLD, key: ["id"], deletes: "1" }, "item"],
  [{ ...OLD, key: ["id"], deletes: [[1]] }, "item"],
  [{ ...OLD, key: ["id"], oversize: [{}] }, "item"],
  [{ v: 1, table: "part", key: ["item"], deletes: [["1"]] }, "part"],
  [{ ...OLD, rows: [["1"]] }, "item"],
  [{ ...ROWS, columns: ["id", "id"], rows: [["1", "1"]] }, "item"],
  [{ ...ROWS, columns: ["name"], rows: [["secret"]] }, "item"],
  [{ ...ROWS, rows: { "0": ["1", "x"] } }, "item"],
  [{ ...ROWS, rows: "secret" }, "item"],
  [{ ...ROWS, updates: "secret" }, "item"],
  [CLASSIC, "item"],
  [{ ...CLASSIC, record: 5 }, "item"],
  [{ ...CLASSIC, record: [1] }, "item"],
  [{ ...CLASSIC, record: { name: "secret" } }, "item"],
  [{ ...CLASSIC, record: { id: null } }, "item"],
  [{ ...CLASSIC, type: "DELETE", old_record: null }, "item"],
  [{ ...CLASSIC, type: "DELETE", old_record: {} }, "item"],
];

/** Messages that are odd, and name the row 1 all the same. */
const ODD: unknown[] = [
  { ...ITEM, keys: [["1"], ["1"]], more: "secret" },
  { ...ITEM, keys: [["1"], ["x"], ["1.0"], [" 1"], ["9".repeat(40)]] },
  { ...OLD, key: ["id"], deletes: [["1", "secret"]] },
  { ...ROWS, rows: [["1"]] },
  { ...ROWS, rows: [["1", 5]], updates: 5 },
  { ...ROWS, columns: ["secret", "id", 5], updates: [["x", "1"]] },
  { ...CLASSIC, type: "UPSERT", record: { id: 1, name: { a: 1 } } },
  { ...CLASSIC, type: 5, record: { id: "1" }, old_record: "x" },
];

const reasonOf = (table: string | null) =>
  table === "item" || table === "part"
    ? 'a message without a usable key: expected {"v": 2, "table", "keys": [[text, ...], ...]}'
    : "a message of a table that schema.json does not list";

Deno.test("sync() parks messages that name no row, a letter for each table, and applies the rest", async () => {
  await using stack = await startChain(servers);
  await insertItems(stack, 1, 2);
  for (const [message] of MALFORMED) await send(stack, message);
  await stack
    .sql`insert into pgmq.q_replicate_data_libsql (vt, message) values (now(), null)`;
  await insertItems(stack, 3, 4);
  const count = MALFORMED.length + 1;
  const tables = [...new Set(MALFORMED.map(([, table]) => table))];
  const result = await stack.drain();
  assertEquals(
    [result.processed, result.parked, result.batches],
    [count + 4, tables.length, 1],
  );
  assertEquals(await stack.assertEqual(), 4);

  const row = await stack.row();
  const letters = await stack.deadLetters();
  assertEquals(
    letters.map(({ parked_at, ...letter }) => {
      assert(parked_at);
      return letter;
    }).sort((a, b) => String(a.table) < String(b.table) ? -1 : 1),
    tables.sort((a, b) => String(a) < String(b) ? -1 : 1).map((table) => ({
      table,
      key: null,
      reason: reasonOf(table),
      epoch: row.epoch,
      position: row.position,
      batch: row.batch,
    })),
  );
  assertEquals(row.dead_letters, tables.length);
  assertEquals((await standing(stack)).archive.length, count + 4);
  assert(!JSON.stringify([letters, stack.log]).includes("secret"));
});

Deno.test("sync() parks each message that names no row when it comes alone", async () => {
  await using stack = await startChain(servers);
  await insertItems(stack, 1, 2);
  await stack.drain();
  for (const [message, table] of MALFORMED) {
    await send(stack, message);
    const what = JSON.stringify(message);
    assertEquals((await stack.drain()).parked, 1, what);
    // It takes the place of an earlier one of its table.
    const newest = (await stack.deadLetters()).at(-1);
    assertEquals([newest?.table, newest?.reason], [table, reasonOf(table)]);
  }
  const tables = new Set(MALFORMED.map(([, table]) => table));
  assertEquals((await stack.deadLetters()).length, tables.size);
  await stack.sql`select libsql_sync.discard()`;

  for (const message of ODD) {
    // Only a message that names it can bring it.
    await stack.client.execute("DELETE FROM item WHERE id = 1");
    await send(stack, message);
    const what = JSON.stringify(message);
    assertEquals((await stack.drain()).parked, 0, what);
    assertEquals((await rowsOf(stack)).length, 2, what);
  }
  // What such a message names beside is read.
  await stack.client.execute("DELETE FROM item WHERE id = 1");
  await send(stack, { ...ITEM, keys: [["1"], [2]] });
  assertEquals((await stack.drain()).parked, 1);
  assertEquals(await stack.assertEqual(), 2);
});
