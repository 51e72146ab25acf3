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
import { until } from "../db/support/capture_cases.ts";

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
  "insert into notes select i, 'bulk' from generate_series(3001, 5000) i",
  "update notes set body = 'changed in bulk' where id > 3000",
  "delete from notes where id > 3900",
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

Deno.test("what capture could not name is walked at once", async () => {
  await using stack = await Stack.start(servers, {
    schema: SCHEMA,
    setup: SETUP,
  });
  await stack.sql`update libsql_sync.chain set scrub_rows = 0`;
  await stack.walk();
  await stack.run(
    `set session_replication_role = replica;
     insert into notes select i, 'past the triggers' from generate_series(1001, 9000) i;
     insert into pgmq.q_replicate_data_libsql (vt, message) values (now(), '{"v": 2, "table": "notes", "walk": "54000"}')`,
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

/** A connection of one's own to a new database that has these tables. */
async function connect(
  setup: string,
): Promise<{ url: string; sql: postgres.Sql }> {
  const database = await servers.database();
  const url = (await servers.postgres()).url({ database });
  const sql = open(url);
  await sql.unsafe(setup).simple();
  return { url, sql };
}

const open = (url: string) =>
  postgres(url, { max: 1, prepare: false, onnotice: () => {} });

/** The most memory of its own that a session has while a statement runs, less what it had; MB. */
async function growth(sql: postgres.Sql, statement: string): Promise<number> {
  const [session] = await sql`select pg_backend_pid() as pid`;
  const own = async () => {
    const status = await Deno.readTextFile(`/proc/${session!.pid}/status`);
    return Number(/RssAnon:\s+(\d+)/.exec(status)![1]) / 1024;
  };
  const before = await own();
  let most = before;
  let ended = false;
  const run = sql.unsafe(statement).simple().finally(() => ended = true);
  while (!ended) {
    most = Math.max(most, await own());
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  await run;
  return most - before;
}

/** Ways to make 400 partitions, and the statement that writes their DDL. */
const SCHEMES = {
  range:
    "partition by range (d); select format('create table p_%s partition of p for values from (%1$s) to (%s)', i, i + 1) from generate_series(0, 399) i",
  list:
    "partition by list (d); select format('create table p_%s partition of p for values in (%1$s)', i) from generate_series(0, 399) i",
  hash:
    "partition by hash (d); select format('create table p_%s partition of p for values with (modulus 400, remainder %1$s)', i) from generate_series(0, 399) i",
  "two levels":
    "partition by range (d); select format('create table p_%s partition of p for values from (%s) to (%s) partition by hash (id)', i, i * 20, i * 20 + 20) from generate_series(0, 19) i union all select format('create table p_%s_%s partition of p_%1$s for values with (modulus 20, remainder %2$s)', i, j) from generate_series(0, 19) i, generate_series(0, 19) j",
};

for (const [scheme, ddl] of Object.entries(SCHEMES)) {
  Deno.test(`capture locks no partition that a statement did not touch: ${scheme}`, async () => {
    const [by, parts] = ddl.split("; ");
    const { sql } = await connect(
      `create table p (id bigint, d int, a text, primary key (id, d)) ${by}`,
    );
    for (const { format } of await sql.unsafe(parts!)) await sql.unsafe(format);
    const locks = async () => {
      await sql.unsafe(`begin;
        insert into p values (1, 7, 'a'), (2, 7, 'a');
        update p set a = 'b' where d = 7 and id in (1, 2);
        delete from p where d = 7 and id in (1, 2)`).simple();
      const [held] = await sql`
        select count(*)::int as n from pg_locks where pid = pg_backend_pid()`;
      await sql.unsafe("commit");
      return held!.n;
    };
    const bare = await locks();
    await configure(sql, {
      tables: {
        p: {
          key: ["id", "d"],
          columns: { id: "INTEGER", d: "INTEGER", a: "TEXT" },
          indexes: [],
        },
      },
    });
    const captured = await locks();
    assert(captured - bare <= 12, `${captured} locks, ${bare} without capture`);
    assertEquals(
      [...await sql`select message -> 'keys' as keys from pgmq.q_replicate_data_libsql`],
      Array(3).fill({ keys: [["1", "7"], ["2", "7"]] }),
    );
    await sql.end();
  });
}

Deno.test("serializable transactions that insert other rows do not fail", async () => {
  const { url, sql } = await connect("create table x (id bigint primary key)");
  await configure(sql, {
    tables: { x: { key: "id", columns: { id: "INTEGER" }, indexes: [] } },
  });
  for (let pair = 0; pair < 10; pair++) {
    const sessions = [open(url), open(url)];
    for (const session of sessions) {
      await session.unsafe("begin isolation level serializable");
    }
    for (const id of [1, 2]) {
      for (const [who, session] of sessions.entries()) {
        await session.unsafe(
          `insert into x values (${pair * 10 + id * 2 + who})`,
        );
      }
    }
    for (const session of sessions) await session.unsafe("commit");
    for (const session of sessions) await session.end();
  }
  const [found] = await sql`
    select (select count(*)::int from x) as rows,
      (select count(*)::int from pgmq.q_replicate_data_libsql) as messages`;
  assertEquals({ ...found }, { rows: 40, messages: 40 });
  await sql.end();
});

Deno.test("a large statement takes no more memory for being captured", async (t) => {
  const { url, sql } = await connect(
    `create table wide (id bigint primary key, a text);
     alter table wide alter a set storage external;
     create table small (id bigint primary key, n int)`,
  );
  await configure(sql, {
    tables: {
      wide: { key: "id", columns: { id: "INTEGER", a: "TEXT" }, indexes: [] },
      small: {
        key: "id",
        columns: { id: "INTEGER", n: "INTEGER" },
        indexes: [],
      },
    },
  });
  await sql.end();
  for (
    const [statement, keys] of [
      [
        "insert into wide select i, (select string_agg(md5(i::text || j), '') from generate_series(1, 94) j) from generate_series(1, 60000) i",
        60_000,
      ],
      ["update wide set a = a || 'x'", 60_000],
      ["delete from wide", 60_000],
      ["insert into small select i from generate_series(1, 500000) i", 500_000],
      ["update small set n = 1", 500_000],
      ["update small set id = -id", 1_000_000],
    ] as const
  ) {
    await t.step(statement, async () => {
      const session = open(url);
      await session`truncate pgmq.q_replicate_data_libsql`;
      const grown = await growth(session, statement);
      assert(grown < 30, `${Math.round(grown)} MB`);
      const [queued] = await session`
        select sum(jsonb_array_length(message -> 'keys'))::int as keys,
          max(jsonb_array_length(message -> 'keys')) as most
        from pgmq.q_replicate_data_libsql`;
      assertEquals({ ...queued }, { keys, most: 1000 });
      await session.end();
    });
  }
});

/** What one session keeps of PL/pgSQL, and in all, after it wrote to so many listed tables. */
async function compiled(
  tables: number,
): Promise<{ each: number; n: number; megabytes: number }> {
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
    const [all] = await sql`
      select sum(total_bytes)::float8 as bytes from pg_backend_memory_contexts`;
    return {
      each: kept!.bytes / tables,
      n: kept!.n / tables,
      megabytes: all!.bytes / 1048576,
    };
  } finally {
    await sql.end({ timeout: 5 });
  }
}

Deno.test("what a session keeps for a table does not depend on how many are listed", async () => {
  const few = await compiled(3);
  const many = await compiled(40);
  assertEquals(many.n, few.n);
  assert(many.megabytes < 60, `${Math.round(many.megabytes)} MB`);
  assert(
    many.each < few.each * 1.2,
    `${Math.round(many.each)} bytes a table of 40, ${
      Math.round(few.each)
    } of 3`,
  );
});

Deno.test("attach() ends no writer by a deadlock: it waits for a table only while it holds none", async () => {
  const schema = (column: string): RawSchema => ({
    tables: Object.fromEntries(
      ["a", "b"].map((name) => [name, {
        key: "id",
        columns: { id: "INTEGER", [column]: "TEXT" },
        indexes: [],
      }]),
    ),
  });
  await using stack = await Stack.start(servers, {
    schema: schema("n"),
    setup:
      "create table a (id bigint primary key, n text, m text); create table b (id bigint primary key, n text, m text)",
  });
  const url = stack.server.url({ database: stack.database });
  const writer = open(url);
  const other = open(url);
  try {
    await writer.unsafe("begin; insert into b values (1)").simple();
    const attached = other`
      update libsql_sync.tables set columns = '[{"name": "id", "type": "INTEGER"}, {"name": "m", "type": "TEXT"}]'`
      .then(() => other`select libsql_sync.attach() as made`);
    await until("attach() waits for a table", async () => {
      const [waiting] = await stack.sql`
        select count(*)::int as n from pg_locks where not granted
        and relation in ('a'::regclass, 'b'::regclass)`;
      return waiting!.n > 0;
    });
    await writer.unsafe("insert into a values (1); commit").simple();
    await attached;
    const [stale] = await stack
      .sql`select count(*)::int as n from libsql_sync.stale_functions()`;
    assertEquals(stale!.n, 0);
  } finally {
    await writer.end({ timeout: 5 });
    await other.end({ timeout: 5 });
  }
});
