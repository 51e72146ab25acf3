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

const UNNAMED =
  'malformed message: expected a table\'s name in "table", found none';
const unlisted = (name: string) => `table "${name}" is not in schema.json`;

/** Messages nobody should send: the table that their letter names, or what it says if none. */
const MALFORMED: [message: unknown, of: string][] = [
  [null, UNNAMED],
  [true, UNNAMED],
  [7, UNNAMED],
  ["secret", UNNAMED],
  [[ITEM], UNNAMED],
  [{}, UNNAMED],
  [{ table: "nowhere", v: 2, keys: [["1"]] }, unlisted("nowhere")],
  [{ table: "nowhere", v: 2, truncate: true }, unlisted("nowhere")],
  [{ table: "nowhere", v: 2, walk: "secret" }, unlisted("nowhere")],
  [{ table: "constructor", v: 2, keys: [["1"]] }, unlisted("constructor")],
  [{ table: "😀".repeat(80), v: 2, keys: [["1"]] }, unlisted("😀".repeat(63))],
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

/** What a letter says: its table and its reason. */
const letterOf = (of: string) =>
  of === "item" || of === "part"
    ? {
      table: of,
      reason:
        'malformed message: expected {"v": 2, "table", "keys": [[text, ...], ...]}, found another',
    }
    : { table: null, reason: of };

Deno.test("sync() parks messages that name no row, a letter for each table, and applies the rest", async () => {
  await using stack = await startChain(servers);
  await insertItems(stack, 1, 2);
  for (const [message] of MALFORMED) await send(stack, message);
  await stack
    .sql`insert into pgmq.q_replicate_data_libsql (vt, message) values (now(), null)`;
  await insertItems(stack, 3, 4);
  const count = MALFORMED.length + 1;
  const kinds = [...new Set(MALFORMED.map(([, of]) => of))].sort();
  const result = await stack.drain();
  assertEquals(
    [result.processed, result.parked, result.batches],
    [count + 4, kinds.length, 1],
  );
  assertEquals(await stack.assertEqual(), 4);

  const row = await stack.row();
  const letters = await stack.deadLetters();
  const byReason = (a: { reason?: unknown }, b: { reason?: unknown }) =>
    JSON.stringify(a) < JSON.stringify(b) ? -1 : 1;
  const { epoch, position, batch } = row;
  assertEquals(
    letters.map(({ parked_at, table, key, reason, ...more }) => {
      assert(parked_at);
      return { table, reason, key, ...more };
    }).sort(byReason),
    kinds.map((of) => ({
      ...letterOf(of),
      key: null,
      epoch,
      position,
      batch,
    })).sort(byReason),
  );
  assertEquals(row.dead_letters, kinds.length);
  assertEquals((await standing(stack)).archive.length, count + 4);
  assert(!JSON.stringify([letters, stack.log]).includes("secret"));
});

Deno.test("sync() parks each message that names no row when it comes alone", async () => {
  await using stack = await startChain(servers);
  await insertItems(stack, 1, 2);
  await stack.drain();
  for (const [message, of] of MALFORMED) {
    await send(stack, message);
    const what = JSON.stringify(message);
    assertEquals((await stack.drain()).parked, 1, what);
    const newest = (await stack.deadLetters()).at(-1)!;
    const { table, reason } = newest;
    assertEquals({ table, reason }, letterOf(of), what);
  }
  // A letter takes the place of an earlier one that says the same.
  assertEquals(
    (await stack.deadLetters()).length,
    new Set(MALFORMED.map(([, of]) => of)).size,
  );
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
