/** Messages of any JSON beside good ones: each is applied or parked, and the rest arrives. */

import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { parseConfig } from "../../lib/config/config.ts";
import { openCarrier } from "../../lib/connect/open_carrier.ts";
import { parseSchema, schemaHash } from "../../lib/schema.ts";
import { createSource } from "../../lib/source/source.ts";
import {
  insertItems,
  SCHEMA,
  startChain,
  syncWith,
} from "../db/support/chain.ts";
import { Servers, settingsOf, type Stack } from "../db/support/stack.ts";
import { seed } from "../seed.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

const MESSAGES = 600;
/** Keys of the random messages: no row of the source has them. */
const STRANGER = -1;

/** Messages that are nearly right. */
const NEARLY = fc.record(
  {
    v: fc.constantFrom<unknown>(1, 1, 1.0, "1", 2, 2, null),
    table: fc.constantFrom<unknown>(
      ...["item", "item", "part", "nowhere", "", null, 5],
    ),
    columns: fc.oneof(
      fc.constantFrom<unknown>(["id", "name"], ["id"], ["id", "id"], [
        "item",
        "code",
      ]),
      fc.jsonValue({ maxDepth: 1 }),
    ),
    rows: fc.oneof(
      fc.constantFrom<unknown>(
        ...[[[`${STRANGER}`, "x"]], [["x", "x"]], [[null, "x"]], [], [[]]],
        [[`${STRANGER}`]],
      ),
      fc.jsonValue({ maxDepth: 2 }),
    ),
    key: fc.constantFrom<unknown>(
      ["id"],
      ["item", "code"],
      ["code", "item"],
      [],
    ),
    keys: fc.oneof(
      fc.constantFrom<unknown>(
        [[`${STRANGER}`]],
        [[`${STRANGER}`, "x"]],
        [[
          "x",
        ]],
        [[null]],
        [[STRANGER]],
        [[[]]],
        [[]],
        [],
        "x",
      ),
      fc.jsonValue({ maxDepth: 2 }),
    ),
    deletes: fc.oneof(
      fc.constantFrom<unknown>([[`${STRANGER}`]], [[`${STRANGER}`, "x"]], [[
        "x",
      ]]),
      fc.jsonValue({ maxDepth: 2 }),
    ),
    oversize: fc.jsonValue({ maxDepth: 1 }),
    failed: fc.constantFrom<unknown>("42P01", "x", 5, null),
    type: fc.constantFrom<unknown>(
      "INSERT",
      "UPDATE",
      "DELETE",
      "insert",
      5,
      null,
    ),
    record: fc.oneof(
      fc.constantFrom<unknown>({ id: STRANGER }, { id: "x", name: {} }, {}),
      fc.jsonValue({ maxDepth: 2 }),
    ),
    old_record: fc.constantFrom<unknown>({ id: STRANGER }, { id: [] }, null, 5),
  },
  { requiredKeys: ["table"] },
);

const DEEP: Record<string, [open: string, close: string]> = {
  "arrays in arrays": ["[", "]"],
  "objects in objects": ['{"a":', "}"],
};

/** What jsonb takes: no NUL, no half character. */
function isStorable(value: unknown): boolean {
  const text = JSON.stringify(value);
  return !/\\u0000|\\ud[89a-f]/i.test(text) && text.isWellFormed();
}

async function sendAll({ sql }: Stack, messages: unknown[]): Promise<void> {
  await sql`
    insert into pgmq.q_replicate_data_libsql (vt, message)
    select now(), value from jsonb_array_elements(${
    JSON.stringify(messages)
  }::text::jsonb) with ordinality m (value, n) order by n`;
}

Deno.test("sync() applies or parks each of many messages of any JSON, and what is beside them arrives", async () => {
  await using stack = await startChain(servers);
  const messages = fc.sample(
    fc.oneof(
      { weight: 3, arbitrary: NEARLY },
      fc.jsonValue({ stringUnit: "binary" }),
    ),
    { seed: seed(), numRuns: MESSAGES * 2 },
  ).filter(isStorable).slice(0, MESSAGES);
  assertEquals(messages.length, MESSAGES);
  // A truncate that nobody made would be right to empty a table.
  for (let at = 0; at < MESSAGES; at += 100) {
    await insertItems(stack, at + 1, at + 5);
    await sendAll(stack, messages.slice(at, at + 100));
  }
  const result = await stack.drain();
  assertEquals(result.processed, MESSAGES + 5 * (MESSAGES / 100));
  const [left] = await stack
    .sql`select count(*)::int from pgmq.q_replicate_data_libsql`;
  assertEquals(left!.count, 0);
  const letters = await stack.deadLetters();
  // One for each table that is named, and none with a key that no row has.
  const named = letters.map(({ table, key, reason }) => {
    assert(key === null && typeof reason === "string");
    return `${table} ${reason}`;
  });
  assert(new Set(named).size === named.length && named.length > 3, `${named}`);
  const { rows } = await stack.client.execute(
    `SELECT count(*) FILTER (WHERE id <> ${STRANGER}) AS good FROM item`,
  );
  assertEquals(rows[0]!.good, 5 * (MESSAGES / 100));
  // A walk takes away what no row stands for, and brings what was overwritten.
  await stack.finish("/backfill");
  assertEquals(await stack.assertEqual(), 5 * (MESSAGES / 100));
});

Deno.test("sync() parks rows that name no table, alone and beside others", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  const bad = ["", '"table": null, ', '"table": 5, ', '"table": ["item"], '];
  for (const besides of [0, 3]) {
    for (const table of bad) {
      await stack.sql.unsafe(
        `select pgmq.send('replicate_data_libsql', '{"v": 1, ${table}"columns": ["id"], "rows": [["${STRANGER}"]]}'::jsonb)`,
      );
    }
    await insertItems(stack, 1, besides);
    const { parked, queued } = await stack.drain();
    // Missing and null are one reason.
    assertEquals([parked, queued], [bad.length - 1, 0]);
    assertEquals((await stack.deadLetters()).length, bad.length - 1);
    assertEquals((await stack.row()).dead_letters, bad.length - 1);
  }
  assertEquals(await stack.assertEqual(), 3);
});

/** Longer than a machine that does much else takes for a message of 1 GB. */
const PATIENCE_MS = 300_000;

/** Drains by a worker that waits for the source longer than the 10 s of a call. */
async function drainPatiently(stack: Stack): Promise<void> {
  const settings = await settingsOf({
    libsqlUrl: stack.sqld.url,
    pgmqUrl: stack.server.url({ database: stack.database }),
  });
  const carrier = openCarrier(parseConfig((name) => settings[name]), {
    timeoutMs: PATIENCE_MS,
  });
  const source = createSource(carrier, {
    schemaHash: await schemaHash(parseSchema(SCHEMA)),
    leaseSeconds: 20,
    alerts: false,
  });
  try {
    for (let tries = 0; tries < 50; tries++) {
      const { queued, drained } = await syncWith(stack, () => ({ source }));
      if (queued === 0 && drained) return;
    }
    throw new Error("still queued after 50 syncs");
  } finally {
    await carrier.close();
  }
}

Deno.test("sync() parks what is too deep or too large, however small it lies in the queue", async () => {
  await using stack = await startChain(servers);
  const { sql } = stack;
  await insertItems(stack, 1, 2);
  const cases: Record<string, string> = {
    // 12 bytes each in jsonb, 131,072 as text: 400 MB in all.
    "numbers of many digits":
      `jsonb_build_object('table', 'item', 'type', 'INSERT', 'record',
        (select jsonb_object_agg('c' || n, '1e131071'::jsonb) || '{"id": 1}' from generate_series(1, 3000) n))`,
    "numbers of many digits in ours":
      `jsonb_build_object('v', 1, 'table', 'item', 'rows',
        (select jsonb_agg('1e131071'::jsonb) from generate_series(1, 300)))`,
    // Compressed, 1 MB in the queue; 90 MB as text.
    "a text that compresses":
      `jsonb_build_object('table', 'item', 'type', 'INSERT', 'record', jsonb_build_object('id', 1, 'name', repeat('x', 90000000)))`,
    // Each byte becomes six.
    "a text of control characters":
      `jsonb_build_object('v', 1, 'table', 'item', 'columns', '["id", "name"]'::jsonb, 'rows',
        jsonb_build_array(jsonb_build_array('1', repeat(chr(1), 190000000))))`,
    "a table's name of 100 MB":
      `jsonb_build_object('v', 1, 'table', repeat('x', 100000000))`,
    "objects in objects of ours":
      `('{"v":1,"table":"item","rows":' || repeat('{"a":', 5000) || '1' || repeat('}', 5000) || '}')::jsonb`,
  };
  // As deep as PostgreSQL itself takes.
  for (const [name, [open, close]] of Object.entries(DEEP)) {
    let [from, to] = [1_000, 100_000];
    while (to - from > 1) {
      const depth = Math.floor((from + to) / 2);
      const isTaken = await sql.unsafe(
        `select (repeat('${open}', ${depth}) || '1' || repeat('${close}', ${depth}))::jsonb is null`,
      ).then(() => true, () => false);
      [from, to] = isTaken ? [depth, to] : [from, depth];
    }
    cases[name] =
      `(repeat('${open}', ${from}) || '1' || repeat('${close}', ${from}))::jsonb`;
  }
  for (const [name, message] of Object.entries(cases)) {
    await sql.unsafe(
      `insert into pgmq.q_replicate_data_libsql (vt, message) select now(), ${message}`,
    );
    await insertItems(stack, 3, 3);
    try {
      await drainPatiently(stack);
    } catch (error) {
      throw new Error(name, { cause: error });
    }
    await sql`delete from item where id = 3`;
  }
  await stack.drain();
  assertEquals(await stack.assertEqual(), 2);
  const letters = await sql`
    select message ->> 'reason' as reason from pgmq.q_replicate_data_libsql_dlq order by msg_id`;
  const reasons = letters.map(({ reason }) => reason);
  // Those of row triggers have a key, and what is large in them is read nowhere; the
  // others leave a letter for each table and reason, which is small.
  assertEquals(
    reasons.map((reason) => reason.slice(0, 17)),
    ['table "xxxxxxxxxx', "malformed message", "malformed message"],
  );
  assert(reasons.every((reason) => reason.length < 200));
});

Deno.test("sync() brings what one statement wrote to many rows, nulls among them", async () => {
  await using stack = await startChain(servers);
  const { sql } = stack;
  await sql`insert into item (id, name, size)
    select i, case when i % 3 > 0 then repeat('x', i % 50) end, nullif(i % 5, 0)
    from generate_series(1, 1500) i`;
  const messages = await stack.messages();
  assertEquals(messages.length, 2);
  const { parked } = await stack.drain();
  assertEquals(parked, 0);
  assertEquals(await stack.assertEqual(), 1_500);
});

Deno.test("a walk goes on when dead letters have keys of any size and shape", async () => {
  await using stack = await startChain(servers);
  const { sql } = stack;
  await sql`update libsql_sync.chain set refill = true`;
  await insertItems(stack, 1, 2);
  // As messages with such keys would leave them, 90 MB in all.
  await sql`
    insert into pgmq.q_replicate_data_libsql_dlq (vt, message)
    select now(), jsonb_build_object('table', 'item', 'key', jsonb_build_array(repeat('9', 3000000) || n),
      'reason', 'too long', 'parked_at', '2020-01-01')
    from generate_series(1, 30) n`;
  for (const key of [[5], [null], [[]], [{}], [], ["1", "2"], [true]]) {
    await sql`select pgmq.send('replicate_data_libsql_dlq'::text, ${
      JSON.stringify({
        table: "item",
        key,
        reason: "by hand",
        parked_at: "2020-01-01",
      })
    }::text::jsonb)`;
  }
  await stack.finish("/backfill");
  await sql`select libsql_sync.redrive()`;
  await stack.drain();
  await stack.walk();
  assertEquals(await stack.assertEqual(), 2);
});
