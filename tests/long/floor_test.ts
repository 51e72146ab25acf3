/**
 * Ring 3. The queue's floor: no claim reads what was settled long ago, and no
 * message is ever below it.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import postgres from "postgres";
import { type RawSchema, Servers, Stack } from "../db/support/stack.ts";

const servers = new Servers({ settings: { max_prepared_transactions: "5" } });
const SCHEMA: RawSchema = {
  tables: {
    notes: { key: "id", columns: { id: "INTEGER", body: "TEXT" }, indexes: [] },
  },
};
const SETUP = "create table notes (id bigint primary key, body text);";

async function start(): Promise<Stack> {
  return await Stack.start(servers, {
    schema: SCHEMA,
    setup: SETUP,
    walks: false,
  });
}

async function floorOf({ sql }: Stack): Promise<number> {
  const [chain] = await sql`select floor from libsql_sync.chain`;
  return Number(chain!.floor);
}

/** Fills and drains the queue, so that its floor rises wherever it may. */
async function churn(stack: Stack, first: number): Promise<void> {
  for (let id = first; id < first + 4; id++) {
    await stack.sql`insert into notes values (${id}, 'between')`;
    await stack.drain();
  }
}

/** Writes a row in a transaction of its own that is still open when it returns. */
async function openWriter(stack: Stack, id: number) {
  const sql = postgres(stack.server.url({ database: stack.database }), {
    max: 1,
    prepare: false,
    onnotice: () => {},
  });
  await sql.unsafe(`begin; insert into notes values (${id}, 'late')`).simple();
  const [sequence] = await stack
    .sql`select last_value from pgmq.q_replicate_data_libsql_msg_id_seq`;
  return {
    drawn: Number(sequence!.last_value),
    async end(statement: string): Promise<void> {
      await sql.unsafe(statement).simple();
      await sql.end({ timeout: 5 });
    },
  };
}

Deno.test("claim() keeps the floor below a message that is revealed late", async () => {
  await using stack = await start();
  await churn(stack, 1);
  const writer = await openWriter(stack, 100);
  await churn(stack, 11);
  const floor = await floorOf(stack);
  assert(floor > 1 && floor <= writer.drawn, `${floor} of ${writer.drawn}`);
  await writer.end("commit");
  await stack.drain();
  await churn(stack, 21);
  assert(await floorOf(stack) > writer.drawn);
  assertEquals(await stack.settle(), 13);
});

Deno.test("claim() keeps the floor below a message of a transaction that was prepared", async () => {
  await using stack = await start();
  await churn(stack, 1);
  const writer = await openWriter(stack, 100);
  await churn(stack, 11);
  await writer.end("prepare transaction 'late'");
  await churn(stack, 21);
  const floor = await floorOf(stack);
  assert(floor <= writer.drawn, `${floor} of ${writer.drawn}`);
  await stack.run("commit prepared 'late'");
  await stack.drain();
  assertEquals(await stack.settle(), 13);
});

Deno.test("claim() raises the floor past a message that is rolled back", async () => {
  await using stack = await start();
  const writer = await openWriter(stack, 100);
  await churn(stack, 1);
  await writer.end("rollback");
  await churn(stack, 11);
  assert(await floorOf(stack) > writer.drawn);
  assertEquals(await stack.settle(), 8);
});

Deno.test("claim() reads no dead message when an old snapshot keeps them all", async () => {
  await using stack = await start();
  await using reader = await openSnapshot(stack);
  await stack
    .sql`insert into notes select g, 'x' from generate_series(1, 5000) g`;
  // A message a row, as 5,000 statements would have sent.
  await stack.sql.unsafe(`do $$ begin for i in 1..20000 loop
    update notes set body = i::text where id = 1 + i % 5000; end loop; end $$`)
    .simple();
  await stack.drain();
  await churn(stack, 10_001);
  await stack.sql`insert into notes values (20000, 'next')`;
  const [dead] = await stack
    .sql`select count(*) as live from pgmq.q_replicate_data_libsql`;
  assertEquals(Number(dead!.live), 1);
  assertEquals(await reader.rows(), 0);
  for (
    const [query, most] of [
      [
        "select libsql_sync.head_tables((select floor from libsql_sync.chain), '{}', 10000)",
        100,
      ],
      // The catalog and the row are read as well.
      [
        "select libsql_sync.read_changes((select floor from libsql_sync.chain), null, '{}', 10000, 10000000)",
        250,
      ],
      ["select libsql_sync.queued()", 100],
      ["select libsql_sync.has_work()", 100],
    ] as const
  ) {
    await stack.sql.unsafe(query);
    const [plan] = await stack.sql.unsafe(
      `explain (analyze, buffers, format json) ${query}`,
    );
    const blocks = plan!["QUERY PLAN"][0].Plan["Shared Hit Blocks"];
    assert(blocks < most, `${query} read ${blocks} blocks`);
  }
  assertEquals(await stack.settle(), 5005);
});

Deno.test("claim() finds messages below the floor when the numbers began again", async () => {
  await using stack = await start();
  await churn(stack, 1);
  await stack
    .sql`alter sequence pgmq.q_replicate_data_libsql_msg_id_seq restart`;
  await stack.sql`insert into notes values (100, 'again')`;
  assertEquals(await stack.settle(), 5);
});

Deno.test("claim() finds messages when the sessions draw many numbers at once", async () => {
  await using stack = await start();
  await stack
    .sql`alter sequence pgmq.q_replicate_data_libsql_msg_id_seq cache 20`;
  await churn(stack, 1);
  assertEquals(await floorOf(stack), 0);
  await churn(stack, 11);
  assertEquals(await stack.settle(), 8);
});

Deno.test("tidy() finds what was put back by hand below the floor", async () => {
  await using stack = await start();
  await churn(stack, 1);
  await stack.client.execute("DELETE FROM notes WHERE id = 1");
  await stack.sql`with back as (
    delete from pgmq.a_replicate_data_libsql a
    where a.msg_id = (select min(msg_id) from pgmq.a_replicate_data_libsql)
    returning a.msg_id, a.vt, a.message)
    insert into pgmq.q_replicate_data_libsql (msg_id, vt, message)
    overriding system value select * from back`;
  await stack.sql`select libsql_sync.tidy()`;
  assertEquals(await stack.settle(), 4);
});

/** A snapshot that stays open, as a long report holds one. */
async function openSnapshot(stack: Stack) {
  const sql = postgres(stack.server.url({ database: stack.database }), {
    max: 1,
    prepare: false,
    onnotice: () => {},
  });
  await sql.unsafe("begin isolation level repeatable read").simple();
  const rows = async () => {
    const [found] = await sql`select count(*) from notes`;
    return Number(found!.count);
  };
  await rows();
  return {
    rows,
    async [Symbol.asyncDispose]() {
      await sql.end({ timeout: 5 });
    },
  };
}

Deno.test.afterAll(() => servers.stop());
