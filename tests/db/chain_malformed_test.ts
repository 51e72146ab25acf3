/** Messages that cannot be read are set aside, and the rest goes on. */

import { assert, assertEquals } from "@std/assert";
import { insertItems, send, standing, startChain } from "./support/chain.ts";
import { Servers } from "./support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

const ITEM = { v: 1, table: "item" };
const ROWS = { ...ITEM, columns: ["id", "name"] };
const CLASSIC = { table: "item", type: "INSERT" };

/** Messages nobody should send, and what is said of each. */
const MALFORMED: [message: unknown, reason: string][] = [
  [null, "expected an object, found null"],
  [true, "found a boolean"],
  [7, "found a number"],
  ["text", "found a string"],
  [[ITEM], "found an array"],
  [{}, `expected a table's name in "table", found nothing`],
  [{ table: 5 }, `in "table", found a number`],
  [{ table: ["item"] }, `in "table", found an array`],
  [{ v: 1, table: "nowhere", truncate: true }, `table "nowhere" is not in`],
  [{ v: 1, table: "😀".repeat(80), truncate: true }, "is not in schema.json"],
  [{ v: 1, table: "constructor", truncate: true }, "is not in schema.json"],
  [{ ...ITEM, v: 2, truncate: true }, `expected "v": 1`],
  [{ ...ITEM, v: "1", truncate: true }, `expected "v": 1`],
  [ITEM, "found none"],
  [{ ...ITEM, row: [["1"]] }, "found none"],
  [{ ...ITEM, truncate: false }, `expected true in "truncate"`],
  [{ ...ITEM, truncate: "yes" }, `expected true in "truncate"`],
  [{ ...ITEM, deletes: [["1"]] }, `expected the key (id) in "key"`],
  [{ ...ITEM, key: ["name"], deletes: [["1"]] }, "expected the key (id)"],
  [{ ...ITEM, key: "id", deletes: [["1"]] }, "expected the key (id)"],
  [{ ...ITEM, key: ["id"], deletes: null }, "expected keys of 1 text(s)"],
  [{ ...ITEM, key: ["id"], deletes: "1" }, "expected keys of 1 text(s)"],
  [{ ...ITEM, key: ["id"], deletes: [[1]] }, "expected keys of 1 text(s)"],
  [{ ...ITEM, key: ["id"], deletes: [["1", "2"]] }, "expected keys of 1"],
  [{ ...ITEM, key: ["id"], oversize: [{}] }, "expected keys of 1 text(s)"],
  [
    { v: 1, table: "part", key: ["item"], deletes: [["1"]] },
    "expected the key (item, code)",
  ],
  [{ ...ITEM, rows: [["1"]] }, `expected column names in "columns"`],
  [{ ...ROWS, columns: ["id", "id"], rows: [["1", "1"]] }, "column names"],
  [{ ...ROWS, columns: ["id", 5], rows: [["1", "1"]] }, "column names"],
  [{ ...ROWS, columns: ["id", "secret"], rows: [["1", "x"]] }, "1 other(s)"],
  [{ ...ROWS, columns: ["name"], rows: [["x"]] }, "expected the key (id)"],
  [{ ...ROWS, rows: [["1"]] }, "expected rows of 2 text(s)"],
  [{ ...ROWS, rows: [["1", 5]] }, "expected rows of 2 text(s)"],
  [{ ...ROWS, rows: [["1", { a: 1 }]] }, "expected rows of 2 text(s)"],
  [{ ...ROWS, rows: { "0": ["1", "x"] } }, "expected rows of 2 text(s)"],
  [{ ...ROWS, rows: "rows" }, "expected rows of 2 text(s)"],
  [{ ...ITEM, updates: [["1"]] }, `expected column names in "columns"`],
  [{ ...ROWS, columns: ["name"], updates: [["x"]] }, "expected the key (id)"],
  [{ ...ROWS, columns: ["id"], updates: [["1"]] }, "a column beside the key"],
  [{ ...ROWS, updates: [["1", 5]] }, "expected rows of 2 text(s)"],
  [{ ...ROWS, updates: { "0": ["1", "x"] } }, "expected rows of 2 text(s)"],
  [{ ...ROWS, rows: [["1", "x"]], updates: 5 }, "expected rows of 2 text(s)"],
  [{ ...ITEM, failed: "42P01 and more" }, "SQLSTATE 42P01: run"],
  [CLASSIC, "classic message with type, record and the whole key"],
  [{ ...CLASSIC, record: 5 }, "classic message"],
  [{ ...CLASSIC, record: [1] }, "classic message"],
  [{ ...CLASSIC, record: { name: "no key" } }, "classic message"],
  [{ ...CLASSIC, type: "UPSERT", record: { id: 1 } }, "classic message"],
  [{ ...CLASSIC, type: "DELETE", old_record: null }, "classic message"],
  [{ ...CLASSIC, type: "DELETE", old_record: {} }, "classic message"],
  [{ ...CLASSIC, type: 5, record: { id: 1 } }, "classic message"],
];

Deno.test("sync() parks whole messages that it cannot read and applies the rest", async () => {
  await using stack = await startChain(servers);
  await insertItems(stack, 1, 2);
  for (const [message] of MALFORMED) await send(stack, message);
  await stack
    .sql`insert into pgmq.q_replicate_data_libsql (vt, message) values (now(), null)`;
  await insertItems(stack, 3, 4);
  const count = MALFORMED.length + 1;
  const result = await stack.drain();
  assertEquals(
    [result.processed, result.parked, result.batches],
    [count + 4, count, 1],
  );
  assertEquals(await stack.assertEqual(), 4);

  const letters = await stack.deadLetters();
  assertEquals(letters.length, count);
  const row = await stack.row();
  for (const [at, [message, reason]] of MALFORMED.entries()) {
    const letter = letters[at]!;
    assert(
      (letter.reason as string).includes(reason),
      `${JSON.stringify(message)}: ${letter.reason}`,
    );
    assertEquals(letter.message, message);
    assertEquals(letter.key, null);
    assertEquals(
      [letter.epoch, letter.position, letter.batch],
      [row.epoch, row.position, row.batch],
    );
    assert(Number(letter.msg_id) > 0 && letter.parked_at);
  }
  assertEquals(letters.at(-1)!.message, null);
  assertEquals(row.dead_letters, count);
  // The archive has them too: a replay parks them again, and no second letter.
  assertEquals((await standing(stack)).archive.length, count + 4);
});
