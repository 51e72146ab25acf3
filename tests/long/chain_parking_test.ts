/** What cannot be applied is set aside with a reason, and the rest goes on. */

import { assert, assertEquals } from "@std/assert";
import {
  dieAt,
  insertItems,
  rowsOf,
  saveReplica,
  send,
  standing,
  startChain,
} from "../db/support/chain.ts";
import { Servers, Stack } from "../db/support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

Deno.test("sync() parks rows whose values the replica cannot hold until they change", async () => {
  await using stack = await startChain(servers);
  await insertItems(stack, 1, 3);
  await stack.drain();
  const before = await rowsOf(stack);
  await stack.sql.unsafe(`
    update item set name = 'half', size = 0.5 where id = 1;
    update item set size = 9223372036854775808 where id = 2;
    insert into item values (4, 'nan', 'NaN'), (5, 'fine', 5), (6, repeat('x', 5100000), 6);
    insert into item values (7, repeat('ä', 2300000), 7);
    insert into item values (8, 'then half', 8);
    update item set size = 8.5 where id = 8;
    insert into part values (1, 'a', repeat('x', 5100000)), (1, 'b', 'fine');
  `).simple();
  await send(stack, {
    v: 1,
    table: "item",
    columns: ["id", "name"],
    rows: [["nine", "x"], [null, "x"]],
  });
  const { parked, processed } = await stack.drain();
  const letters = (await stack.deadLetters()).map((letter) => [
    letter.table,
    letter.key,
    letter.reason,
  ]) as [string, string[], string][];
  const key = ([, key]: [string, string[], string]) => JSON.stringify(key);
  letters.sort((a, b) => key(a) < key(b) ? -1 : 1);
  assertEquals(letters.map(([table, key]) => [table, key]), [
    ["part", ["1", "a"]],
    ["item", ["1"]],
    ["item", ["2"]],
    ["item", ["4"]],
    ["item", ["6"]],
    ["item", ["8"]],
    ["item", ["nine"]],
    ["item", [null]],
  ] as never);
  assertEquals(letters.map(([, , reason]) => reason.split(":")[0]), [
    "row too large",
    "column size",
    "column size",
    "column size",
    "row too large",
    "column size",
    "column id",
    "column id",
  ]);
  for (const letter of await stack.deadLetters()) {
    assert(!("message" in letter), "the row's values are in the source");
  }
  assertEquals(parked, 8);
  assertEquals(processed, (await standing(stack)).archive.length - 3);
  assertEquals((await stack.row()).dead_letters, 8);
  // What is parked stays as it was before, whole.
  const rows = await rowsOf(stack) as { id: number }[];
  assertEquals(rows.filter(({ id }) => id <= 2), before.slice(0, 2) as never);
  assertEquals(rows.filter(({ id }) => id >= 4).map(({ id }) => id), [5, 7]);

  // The next change of each heals it.
  await stack.sql`update item set size = 1, name = left(name, 100)`;
  await stack.sql`update part set note = 'short'`;
  assertEquals((await stack.drain()).parked, 0);
  assertEquals(await stack.assertEqual(), 10);
});

Deno.test("sync() leaves a parked row as it was, whole, until all of it comes", async () => {
  await using stack = await startChain(servers);
  await insertItems(stack, 1, 3);
  await stack.drain();
  const before = await rowsOf(stack);
  await stack.sql`update item set size = 0.5 where id <= 2`;
  assertEquals((await stack.drain()).parked, 2);
  // What else changes of it would make a row that never was.
  await stack.sql`update item set name = 'newer' where id <= 2`;
  assertEquals((await stack.drain()).parked, 0);
  assertEquals(await rowsOf(stack), before);
  assertEquals((await stack.row()).dead_letters, 2);
  // Held again, it is tried by itself; a whole row needs no trial.
  await stack.sql`update item set size = 7 where id = 1`;
  await stack.sql`update item set id = 5, size = 8 where id = 2`;
  const { position } = await stack.drain();
  assertEquals(await stack.assertEqual(), 3);
  assertEquals((await standing(stack)).dlq, []);
  // A letter that is closed is in no later batch.
  await stack.sql`update item set name = 'newest'`;
  const last = await stack.drain();
  assertEquals(Number(last.position), Number(position) + 1);
  assertEquals((await stack.row()).dead_letters, 0);
});

Deno.test("sync() closes the letters of rows that a truncate took", async () => {
  await using stack = await startChain(servers);
  await stack.sql`insert into item values (1, 'half', 0.5), (2, 'half', 0.5)`;
  await stack.sql`insert into part values (1, 'a', repeat('x', 5100000))`;
  assertEquals((await stack.drain()).parked, 3);
  await stack.sql`truncate item`;
  await stack.sql`insert into item values (2, 'half again', 0.5)`;
  await stack.drain();
  assertEquals(
    (await stack.deadLetters()).map(({ table, key }) => [table, key]),
    [["part", ["1", "a"]], ["item", ["2"]]],
  );
  await stack.sql`truncate item, part`;
  await stack.drain();
  assertEquals(await stack.deadLetters(), []);
  assertEquals(await stack.assertEqual(), 0);
});

/** Makes a replica's content be refused by hand. */
const HAND: [name: string, statements: string[], undo: string[]][] = [
  ["a trigger", [
    "CREATE TRIGGER by_hand BEFORE INSERT ON item WHEN NEW.id % 10 = 7 BEGIN SELECT RAISE(ABORT, 'not this one'); END",
  ], ["DROP TRIGGER by_hand"]],
  ["a unique index", [
    "CREATE UNIQUE INDEX by_hand ON item (iif(id % 10 = 7, 'same', id))",
    "INSERT INTO item (id) VALUES (-3)",
    "INSERT INTO item (id, name) VALUES (997, 'ghost')",
  ], [
    "DROP INDEX by_hand",
    "DELETE FROM item WHERE id IN (-3, 997)",
  ]],
  ["a check", [
    "DROP TABLE item",
    "CREATE TABLE item (id INTEGER NOT NULL PRIMARY KEY, name TEXT CHECK (name NOT LIKE '%7'), size INTEGER)",
  ], [
    "DROP TABLE item",
    "CREATE TABLE item (id INTEGER NOT NULL PRIMARY KEY, name TEXT, size INTEGER)",
    ...[...Array(61).keys()].filter((n) => n > 0 && n % 10 !== 7).map((n) =>
      `INSERT INTO item VALUES (${n}, 'item ${n}', ${n})`
    ),
  ]],
];

Deno.test("sync() finds and parks every row that the replica refuses", async () => {
  for (const [name, statements, undo] of HAND) {
    await using stack = await startChain(servers);
    await stack.drain();
    await stack.client.batch(statements, "write");
    await stack.sql`insert into part values (1, 'a', 'before')`;
    // Some in one statement, some alone.
    await stack
      .sql`insert into item select i, 'item ' || i, i from generate_series(1, 40) i`;
    await insertItems(stack, 41, 60);
    const result = await stack.drain();
    assertEquals([result.parked, result.processed], [6, 22], name);
    const letters = await stack.deadLetters();
    assertEquals(
      letters.map((letter) => (letter.key as string[])[0]).toSorted(),
      ["17", "27", "37", "47", "57", "7"],
      name,
    );
    for (const letter of letters) {
      assertEquals(
        letter.reason,
        "libSQL refused the row with SQLITE_CONSTRAINT",
      );
    }
    assertEquals((await stack.row()).dead_letters, 6, name);
    await stack.client.batch(undo, "write");
    await stack.sql`update item set name = 'healed' where id % 10 = 7`;
    assertEquals((await stack.drain()).parked, 0, name);
    assertEquals(await stack.assertEqual(), 61, name);
  }
});

Deno.test("sync() keeps what was parked when a worker died before its apply", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  const [, trigger] = HAND[0]!;
  await stack.client.batch(trigger, "write");
  await insertItems(stack, 1, 9);
  await stack.sql`insert into item values (10, 'half', 0.5)`;
  // The first apply is refused for row 7; the second never begins.
  await dieAt(stack, "apply", { when: "before", times: 2 });
  const { batches, dlq } = await standing(stack);
  const [pending] = batches.filter((b) => b.state === "pending");
  assertEquals(
    (pending!.parked as { key: string[] }[]).map(({ key }) => key),
    [["10"], ["7"]],
  );
  assertEquals(dlq, [], "filed before it was applied");

  // Row 7 would pass now, yet the batch is what it was.
  await stack.client.execute("DROP TRIGGER by_hand");
  const failOver = await saveReplica(stack);
  const result = await stack.drain();
  assertEquals([result.processed, result.parked], [10, 0]);
  assertEquals((await rowsOf(stack)).length, 8);
  assertEquals((await stack.deadLetters()).map(({ key }) => key), [
    ["10"],
    ["7"],
  ]);
  assertEquals((await stack.row()).dead_letters, 2);

  // Replayed: the same again, and no letter twice.
  const row = await stack.row();
  await failOver();
  await stack.drain();
  assertEquals(await stack.row(), row);
  assertEquals((await rowsOf(stack)).length, 8);
  assertEquals((await standing(stack)).dlq.length, 2);
});

Deno.test("sync() settles parked changes by the probe when a worker died after its apply", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  await insertItems(stack, 1, 2);
  await send(stack, { nonsense: true });
  await dieAt(stack, "apply", { when: "after" });
  assertEquals((await standing(stack)).dlq, []);
  await stack.drain();
  const letters = await stack.deadLetters();
  assertEquals(letters.map(({ message }) => message), [{ nonsense: true }]);
  assertEquals(await stack.assertEqual(), 2);
});

Deno.test("a source that was restored to before a change was parked finds it again", async () => {
  await using stack = await startChain(servers);
  await insertItems(stack, 1, 3);
  await stack.sql`update libsql_sync.chain set refill = true`;
  await stack.walk();
  await stack.sql`update item set size = 0.5 where id = 2`;
  await dieAt(stack, "apply", { when: "after" });
  // The backup was made between the claim and what was set aside.
  await stack
    .sql`update libsql_sync.batches set parked = '[]' where state = 'pending'`;
  await stack.drain();
  await stack.walk();
  const [letter, ...others] = await stack.deadLetters();
  assertEquals([letter?.key, others], [["2"], []]);
});

Deno.test("sync() parks what the replica refuses of a batch that is replayed", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  const failOver = await saveReplica(stack);
  await insertItems(stack, 1, 9);
  await stack.drain();
  await failOver();
  await stack.client.batch(HAND[0]![1], "write");
  const result = await stack.drain();
  assertEquals(result.parked, 1);
  assertEquals((await rowsOf(stack)).length, 8);
  assertEquals((await stack.deadLetters()).map(({ key }) => key), [["7"]]);
  await stack.client.batch(HAND[0]![2], "write");
  await stack.sql`update item set name = 'healed' where id = 7`;
  await stack.drain();
  assertEquals(await stack.assertEqual(), 9);
});

Deno.test("park() only adds to what is parked, and knows a batch that is gone", async () => {
  await using stack: Stack = await startChain(servers);
  await stack.drain();
  await insertItems(stack, 1, 3);
  await dieAt(stack, "apply", { when: "before" });
  const { epoch, batches } = await standing(stack);
  const { position, batch } = batches.at(-1)! as {
    position: number;
    batch: string;
  };
  const one = { msgId: "1", table: "item", key: ["1"], reason: "first" };
  await stack.withParts(async ({ source }) => {
    const of = { epoch, position, batch, kind: "again" as const };
    assert(await source.park(of, [one]));
    assert(await source.park(of, [{ ...one, reason: "second" }]));
    assert(await source.park(of, [{ ...one, key: ["2"] }]));
    assert(!await source.park({ ...of, batch: "other" }, [one]));
    assert(!await source.park({ ...of, kind: "replay" }, [one]));
    const parked = (await standing(stack)).batches.at(-1)!.parked as {
      key: string[];
      reason: string;
    }[];
    assertEquals(parked.map(({ key, reason }) => [key[0], reason]), [
      ["1", "first"],
      ["2", "first"],
    ]);
    await stack.drain();
    assert(!await source.park(of, [{ ...one, key: ["3"] }]));
  });
  assertEquals((await standing(stack)).dlq.length, 2);
});
