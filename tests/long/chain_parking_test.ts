/** What cannot be applied is set aside with a reason, and the rest goes on. */

import { assert, assertEquals } from "@std/assert";
import type { Batch } from "../../lib/chain/claim.ts";
import {
  dieAt,
  Hand,
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
    ["item", null],
  ] as never);
  assertEquals(letters.map(([, , reason]) => reason.split(":")[0]), [
    "row too large",
    "column size",
    "column size",
    "column size",
    "row too large",
    "column size",
    "malformed message",
  ]);
  for (const letter of await stack.deadLetters()) {
    assert(!("message" in letter), "the row's values are in the source");
  }
  // What a message that is too large for one batch is about may come twice.
  assert(Number(parked) >= 7);
  assertEquals(processed, (await standing(stack)).archive.length - 3);
  assertEquals((await stack.row()).dead_letters, 7);
  // What is parked stays as it was before, whole.
  const rows = await rowsOf(stack) as { id: number }[];
  assertEquals(rows.filter(({ id }) => id <= 2), before.slice(0, 2) as never);
  assertEquals(rows.filter(({ id }) => id >= 4).map(({ id }) => id), [5, 7]);

  // The next change of each heals it.
  await stack.sql`update item set size = 1, name = left(name, 100)`;
  await stack.sql`update part set note = 'short'`;
  assertEquals((await stack.drain()).parked, 0);
  assertEquals((await stack.deadLetters()).map(({ key }) => key), [null]);
  assertEquals(await stack.assertEqual(), 10);
});

Deno.test("sync() leaves a parked row as it was, whole, until all of it can be held", async () => {
  await using stack = await startChain(servers);
  await insertItems(stack, 1, 3);
  await stack.drain();
  const before = await rowsOf(stack);
  await stack.sql`update item set size = 0.5 where id <= 2`;
  assertEquals((await stack.drain()).parked, 2);
  // What else changes of it would make a row that never was.
  await stack.sql`update item set name = 'newer' where id <= 2`;
  assertEquals((await stack.drain()).parked, 2);
  assertEquals(await rowsOf(stack), before);
  assertEquals((await stack.row()).dead_letters, 2);
  // It can be held again, under its key and under another.
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
  await stack.sql`update libsql_sync.chain set refill = true`;
  await stack.walk();
  await stack.sql`truncate item`;
  await stack.sql`insert into item values (2, 'half again', 0.5)`;
  await stack.drain();
  // The table has rows again: the walk takes out what is gone.
  await stack.walk();
  assertEquals(
    (await stack.deadLetters()).map(({ table, key }) => [table, key]),
    [["item", ["2"]], ["part", ["1", "a"]]],
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

Deno.test("sync() keeps what was parked when a worker died before its apply, until it changes", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  const [, trigger] = HAND[0]!;
  await stack.client.batch(trigger, "write");
  await insertItems(stack, 1, 9);
  await stack.sql`insert into item values (10, 'half', 0.5)`;
  // The first apply is refused for row 7; the second never begins.
  await dieAt(stack, "apply", { when: "before", times: 2 });
  const { batches, dlq } = await standing(stack);
  const [handed] = batches.filter(({ state }) => state === "handed");
  assertEquals(
    (handed!.parked as { key: string[] }[]).map(({ key }) => key),
    [["10"], ["7"]],
  );
  assertEquals(dlq, [], "filed before it was applied");

  // Row 7 would pass now, yet it was parked, and no message of it came since.
  await stack.client.execute("DROP TRIGGER by_hand");
  const failOver = await saveReplica(stack);
  const result = await stack.drain();
  assertEquals([result.processed, result.parked], [10, 0]);
  const keys = async () => (await stack.deadLetters()).map(({ key }) => key);
  const both = [["10"], ["7"]];
  assertEquals([(await rowsOf(stack)).length, await keys()], [8, both]);
  assertEquals((await stack.row()).dead_letters, 2);

  // Put back and applied again: the same again, and no letter twice.
  await failOver();
  await stack.drain();
  assertEquals([(await rowsOf(stack)).length, await keys()], [8, both]);
  assertEquals((await stack.row()).dead_letters, 2);

  await stack.sql`update item set size = 1 where id in (7, 10)`;
  await stack.drain();
  assertEquals([await stack.assertEqual(), await keys()], [10, []]);
  assertEquals((await stack.row()).dead_letters, 0);
});

Deno.test("claim() files what the version that landed had parked, and not what another had", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  const [one, two] = ["1", "2"].map((key) => ({
    table: "item",
    key: [key],
    reason: `parked ${key}`,
  }));
  await insertItems(stack, 1, 3);
  await stack.withParts(async (parts) => {
    const hand = new Hand(parts);
    const early = await hand.batch();
    assert(await hand.source.park(early, [one!]));
    const late = await hand.batch();
    assert(await hand.source.park(late, [two!]));
    assertEquals(await hand.apply(lacking(early, "1")), "applied");
    assertEquals(await hand.apply(lacking(late, "2")), "replica_moved");
    assertEquals((await hand.again()).acked, 3);
    await hand.source.release(hand.lease);
  });
  assertEquals((await stack.deadLetters()).map(({ key }) => key), [["1"]]);
  assertEquals(
    (await rowsOf(stack)).map((row) => (row as { id: number }).id),
    [2, 3],
  );
});

/** A batch without the row of a key. */
function lacking(batch: Batch, key: string): Batch {
  const tables = batch.tables.map((of) => ({
    ...of,
    rows: of.rows.filter(([id]) => id !== key),
  }));
  return { ...batch, tables };
}

Deno.test("claim() files the letters again that a lost version had closed, under their old ids", async () => {
  await using stack = await startChain(servers);
  await stack.sql`insert into item values (1, 'half', 0.5), (2, 'half', 0.5)`;
  await stack.drain();
  const letters = async () =>
    await stack
      .sql`select msg_id::int, message -> 'key' as key from pgmq.q_replicate_data_libsql_dlq order by 1`
      .then((rows) => rows.map((row) => ({ ...row })));
  const before = await letters();
  const failOver = await saveReplica(stack);
  await stack.sqld.start();
  // One is closed, one parked for another reason, one new.
  await stack.sql.unsafe(`
    update item set size = 1 where id = 1;
    update item set size = 'NaN' where id = 2;
    insert into item values (3, 'half', 0.5);`).simple();
  await stack.drain();
  assertEquals((await letters()).map(({ key }) => key), [["2"], ["3"]]);
  await failOver();
  await stack.withParts(async (parts) => {
    const hand = new Hand(parts);
    const { putBack } = await hand.batch();
    assertEquals(putBack, 1);
    await hand.source.release(hand.lease);
  });
  assertEquals(await letters(), before);
  await stack.drain();
  assertEquals((await letters()).map(({ key }) => key), [["2"], ["3"]]);
  await stack.sql`update item set size = 1`;
  await stack.drain();
  assertEquals([await letters(), await stack.assertEqual()], [[], 3]);
});

Deno.test("sync() settles unusable messages by the probe when a worker died after its apply", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  await insertItems(stack, 1, 2);
  await send(stack, { nonsense: true });
  await dieAt(stack, "apply", { when: "after" });
  assertEquals((await standing(stack)).dlq, []);
  await stack.drain();
  assertEquals(
    (await stack.deadLetters()).map(({ table, key, reason }) => [
      table,
      key,
      reason,
    ]),
    [[
      null,
      null,
      'malformed message: expected a table\'s name in "table", found none',
    ]],
  );
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
    .sql`update libsql_sync.batches set parked = '[]' where state = 'handed'`;
  await stack.drain();
  await stack.walk();
  const [letter, ...others] = await stack.deadLetters();
  assertEquals([letter?.key, others], [["2"], []]);
});

Deno.test("sync() parks what the replica refuses of a batch that was put back", async () => {
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
  const one = { table: "item", key: ["1"], reason: "first" };
  await stack.withParts(async ({ source }) => {
    const of = { epoch, position, batch };
    assert(await source.park(of, [one]));
    assert(await source.park(of, [{ ...one, reason: "second" }]));
    assert(await source.park(of, [{ ...one, key: ["2"] }]));
    assert(!await source.park({ ...of, batch: "other" }, [one]));
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
  // Another version landed, which left them out as well.
  assertEquals(
    (await stack.deadLetters()).map(({ key }) => key),
    [["1"], ["2"]],
  );
  assertEquals(
    (await rowsOf(stack)).map((row) => (row as { id: number }).id),
    [3],
  );
});
