/**
 * Ring 3. First, do no harm: the user's write succeeds whatever became of the queue,
 * and what could not be queued reaches the replica before it is called equal again.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import postgres from "postgres";
import { SUPERUSER } from "../../lib/dev/postgres.ts";
import { migrate } from "../../lib/dev/supabase.ts";
import {
  configure,
  type RawSchema,
  Servers,
  Stack,
} from "../db/support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

const SCHEMA: RawSchema = {
  tables: {
    notes: { key: "id", columns: { id: "INTEGER", body: "TEXT" }, indexes: [] },
    parts: {
      key: ["id", "day"],
      columns: { id: "INTEGER", day: "INTEGER", body: "TEXT" },
      indexes: [],
    },
  },
};
const SETUP = `create table notes (id bigint primary key, body text);
  create table parts (id bigint, day int, body text, primary key (id, day)) partition by list (day);
  create table parts_1 partition of parts for values in (1);
  create table parts_2 partition of parts for values in (2);
  insert into notes select i, 'before' from generate_series(1, 50) i;
  insert into parts select i, 1 + i % 2, 'before' from generate_series(1, 50) i`;

/** Every kind of write, of one row and of many, and in every isolation level. */
const WRITES = [
  "insert into notes values (101, 'one')",
  "insert into notes select i, 'many' from generate_series(102, 120) i",
  "update notes set body = 'changed' where id = 1",
  "update notes set id = id + 1000 where id between 2 and 10",
  "delete from notes where id = 11",
  "delete from notes where id between 12 and 20",
  "insert into parts values (101, 1, 'one')",
  "update parts set day = 2 where id = 102 or id = 2",
  "truncate parts_1",
  "insert into parts_1 values (103, 1, 'after')",
  "merge into notes n using (values (1), (500)) v (id) on n.id = v.id when matched then delete when not matched then insert values (v.id, 'merged')",
  "begin isolation level serializable; insert into notes values (601, 'serializable'); commit",
  "begin isolation level repeatable read; update notes set body = 'repeatable' where id = 101; commit",
];

/** What became of the queue, and what an operator does about it. */
const TROUBLES: readonly {
  readonly name: string;
  readonly breaks: string;
  /** Statements, or the migration. */
  readonly repairs: string;
}[] = [
  {
    name: "its queue is dropped",
    breaks: "select pgmq.drop_queue('replicate_data_libsql')",
    repairs: "migration",
  },
  {
    name: "its queue's table is gone, as after a restore without schema pgmq",
    breaks: "drop extension pgmq cascade; drop schema if exists pgmq cascade",
    repairs: "migration",
  },
  {
    name: "its queue has another name now",
    breaks:
      "alter table pgmq.q_replicate_data_libsql rename to q_replicate_data_libsql_away",
    repairs:
      "alter table pgmq.q_replicate_data_libsql_away rename to q_replicate_data_libsql",
  },
  {
    name: "capture may not use schema pgmq",
    breaks:
      "create role keeper; grant keeper to current_user; alter schema pgmq owner to keeper; revoke all on schema pgmq from postgres, public; grant usage on schema pgmq to keeper",
    repairs:
      "alter schema pgmq owner to postgres; grant usage on schema pgmq to postgres",
  },
  {
    name: "capture may not write to its queue",
    breaks:
      "alter table pgmq.q_replicate_data_libsql owner to supabase_admin; revoke all on pgmq.q_replicate_data_libsql from postgres; grant select on pgmq.q_replicate_data_libsql to postgres",
    repairs: "alter table pgmq.q_replicate_data_libsql owner to postgres",
  },
  {
    name: "its queue's policies hold capture off",
    breaks: "alter table pgmq.q_replicate_data_libsql force row level security",
    repairs:
      "alter table pgmq.q_replicate_data_libsql no force row level security",
  },
  {
    name: "its queue's next numbers are taken",
    breaks:
      'insert into pgmq.q_replicate_data_libsql (msg_id, vt, message) overriding system value select 1 + i + (select last_value from pgmq.q_replicate_data_libsql_msg_id_seq), now(), \'{"v": 1, "table": "notes", "columns": ["id", "body"], "rows": []}\' from generate_series(0, 30, 3) i',
    repairs: "select",
  },
];

for (const { name, breaks, repairs } of TROUBLES) {
  Deno.test(`a user's write succeeds when ${name}, and what it wrote is walked`, async () => {
    await using stack = await Stack.start(servers, {
      schema: SCHEMA,
      setup: SETUP,
    });
    await stack.sql`update libsql_sync.chain set scrub_rows = 0`;
    await stack.walk();
    await stack.settle();
    await stack.run(breaks, { user: SUPERUSER });
    for (const write of WRITES) await stack.run(write);
    if (repairs === "migration") {
      await migrate(stack.server.url({ database: stack.database }));
      await configure(stack.sql, SCHEMA);
    } else await stack.run(repairs, { user: SUPERUSER });
    // At no moment from here on is the replica called equal while it is not.
    for (let tries = 0; tries < 30; tries++) {
      const { drained, walk_done, success } = (await stack.post("/sync")).body;
      if (success !== true || drained !== true || walk_done !== true) continue;
      await stack.assertEqual();
      return;
    }
    throw new Error("not equal after 30 syncs");
  });
}

Deno.test("what went with a queue that was dropped is walked, though nothing was written meanwhile", async () => {
  await using stack = await Stack.start(servers, {
    schema: SCHEMA,
    setup: SETUP,
  });
  await stack.sql`update libsql_sync.chain set scrub_rows = 0`;
  await stack.walk();
  await stack.settle();
  for (const write of WRITES) await stack.run(write);
  await stack.run(
    "select pgmq.drop_queue('replicate_data_libsql'); select pgmq.create('replicate_data_libsql')",
  );
  await stack.walk();
  await stack.drain();
  await stack.assertEqual();
});

Deno.test("nothing is called equal while a transaction is open whose change could not be queued", async () => {
  await using stack = await Stack.start(servers, {
    schema: SCHEMA,
    setup: SETUP,
  });
  await stack.sql`update libsql_sync.chain set scrub_rows = 0`;
  await stack.walk();
  const away = "alter table pgmq.q_replicate_data_libsql rename to q_away";
  const back = "alter table pgmq.q_away rename to q_replicate_data_libsql";
  await stack.run(away, { user: SUPERUSER });
  const writer = postgres(stack.server.url({ database: stack.database }), {
    max: 1,
    prepare: false,
  });
  await writer.unsafe("begin; insert into notes values (700, 'late')").simple();
  await stack.run(back, { user: SUPERUSER });
  for (let syncs = 0; syncs < 5; syncs++) {
    assertEquals((await stack.sync()).walk_done, false);
  }
  await writer.unsafe("commit").simple();
  await writer.end();
  await stack.walk();
  await stack.drain();
  await stack.assertEqual();
});

Deno.test("what a failed capture left out is walked at once", async () => {
  await using stack = await Stack.start(servers, {
    schema: SCHEMA,
    setup: SETUP,
  });
  await stack.sql`update libsql_sync.chain set scrub_rows = 0`;
  await stack.walk();
  await stack.run(
    `set session_replication_role = replica;
     insert into notes select i, 'past the triggers' from generate_series(1001, 9000) i;
     insert into pgmq.q_replicate_data_libsql (vt, message) values (now(), '{"v": 1, "table": "notes", "failed": "54000"}')`,
    { user: SUPERUSER },
  );
  for (let tries = 0; tries < 30; tries++) {
    const { drained, walk_done } = await stack.sync();
    if (drained !== true || walk_done !== true) continue;
    await stack.assertEqual();
    assertEquals((await stack.row()).dead_letters, 0);
    return;
  }
  throw new Error("not walked after 30 syncs");
});

/** What one session keeps of PL/pgSQL after it wrote to so many listed tables. */
async function compiled(tables: number): Promise<{ each: number; n: number }> {
  const names = Array.from({ length: tables }, (_, i) => `wide_${i}`);
  const columns = Array.from({ length: 29 }, (_, i) => `c${i}`);
  const database = await servers.database();
  const server = await servers.postgres();
  const sql = postgres(server.url({ database }), {
    max: 1,
    prepare: false,
    onnotice: () => {},
  });
  try {
    for (const name of names) {
      await sql.unsafe(
        `create table ${name} (id bigint primary key, ${
          columns.map((column) => `${column} text`).join()
        })`,
      );
    }
    await configure(sql, {
      tables: Object.fromEntries(names.map((name) => [name, {
        key: "id",
        columns: Object.fromEntries([
          ["id", "INTEGER"],
          ...columns.map((column) => [column, "TEXT"]),
        ]),
        indexes: [],
      }])),
    });
    for (const name of names) {
      await sql.unsafe(
        `insert into ${name} (id) values (1); update ${name} set c1 = 'x'; delete from ${name}`,
      ).simple();
    }
    const [kept] = await sql`
      select count(*)::int as n, sum(total_bytes)::float8 as bytes
      from pg_backend_memory_contexts where name = 'PL/pgSQL function'
        and ident ~ 'replicate_|trigger_http'`;
    return { each: kept!.bytes / tables, n: kept!.n / tables };
  } finally {
    await sql.end({ timeout: 5 });
  }
}

Deno.test("what a session keeps for a table does not depend on how many are listed", async () => {
  const few = await compiled(3);
  const many = await compiled(20);
  assertEquals(many.n, few.n);
  assert(
    many.each < few.each * 1.2,
    `${Math.round(many.each)} bytes a table of 20, ${
      Math.round(few.each)
    } of 3`,
  );
});
