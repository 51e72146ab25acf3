import { assert, assertEquals } from "@std/assert";
import postgres from "postgres";
import {
  BULK,
  BULK_SETUP,
  plain,
  Sessions,
  testCases,
  until,
} from "./support/capture_cases.ts";
import { SUPERUSER } from "../../lib/dev/postgres.ts";
import { configure, type RawSchema, Servers, Stack } from "./support/stack.ts";

// Deadlocks are on purpose here: they need not take a second each.
const servers = new Servers({ settings: { deadlock_timeout: "50ms" } });

const endCases = testCases({ servers, drains: "at the end" });
Deno.test.afterAll(async () => {
  await endCases();
  await servers.stop();
});

// ---------------------------------------------------------------------------
// What is queued
// ---------------------------------------------------------------------------

/** A connection of one's own. */
const connect = (url: string, connection: Record<string, string> = {}) =>
  postgres(url, { max: 1, prepare: false, onnotice: () => {}, connection });

/** Takes what is queued: a line each, "table: key, key", a key's parts joined by "/". */
async function takeQueued(sql: postgres.Sql): Promise<string[]> {
  const rows = await sql`
    with taken as (delete from pgmq.q_replicate_data_libsql returning msg_id, message)
    select message from taken order by msg_id`;
  const isBulk = rows.length > 1 &&
    rows.some(({ message }) => message.keys?.length === 1000);
  return rows.map(({ message: { v, table, keys, ...rest } }) => {
    assertEquals(v, 2);
    if (!keys) return `${table} ${JSON.stringify(rest)}`;
    assertEquals(rest, {});
    const texts = keys.map((key: string[]) => key.join("/")).sort();
    return `${table}: ${
      isBulk || texts.length > 20 ? `${texts.length} keys` : texts.join(", ")
    }`;
  });
}

const KINDS_SETUP =
  `create extension if not exists citext with schema extensions;
  create table t (id bigint primary key, a text, j json, unlisted int);
  create table pair (a text, c text, b int, primary key (a, b));
  create table ci (id extensions.citext primary key, a text);
  create table nested (id bigint primary key, a text);
  create function nested() returns trigger language plpgsql as $$
  begin update nested set a = 'b' where id = new.id; return null; end $$;
  create trigger nested after insert on nested for each row execute function nested();
  create table parts (id bigint, region text, a text, primary key (id, region)) partition by list (region);
  create table parts_eu partition of parts for values in ('eu');
  create table parts_us partition of parts for values in ('us');
  create function keep() returns trigger language plpgsql as
    $$ begin if new.a = 'kept' then return null; end if; return new; end $$;
  create trigger keep before insert on parts_us for each row execute function keep();
  grant insert, update, select on t to authenticated;`;
const KINDS_SCHEMA: RawSchema = {
  tables: {
    t: {
      key: "id",
      columns: { id: "INTEGER", a: "TEXT", j: "JSON" },
      indexes: [],
    },
    pair: {
      key: ["b", "a"],
      columns: { a: "TEXT", b: "INTEGER", c: "TEXT" },
      indexes: [],
    },
    ci: { key: "id", columns: { id: "TEXT", a: "TEXT" }, indexes: [] },
    nested: { key: "id", columns: { id: "INTEGER", a: "TEXT" }, indexes: [] },
    parts: {
      key: ["id", "region"],
      columns: { id: "INTEGER", region: "TEXT", a: "TEXT" },
      indexes: [],
    },
  },
};

const KINDS: readonly (readonly [text: string, queued: readonly string[]])[] = [
  ["insert into t values (1, 'a')", ["t: 1"]],
  ["insert into t select i, 'a', '{}' from generate_series(2, 5) i", [
    "t: 2, 3, 4, 5",
  ]],
  ["insert into t select 1 where false", []],
  [
    "insert into t values (5, 'x'), (6, 'y') on conflict (id) do update set a = excluded.a",
    ["t: 5", "t: 6"],
  ],
  ["insert into t values (5, 'x') on conflict do nothing", []],
  ["update t set a = 'b' where id = 1", ["t: 1"]],
  ["update t set a = 'c' where id in (1, 2)", ["t: 1, 2"]],
  ["update t set a = case id when 2 then 'd' else a end", ["t: 2"]],
  // The same value in another text is another text.
  [`update t set j = '{ }' where id = 2`, ["t: 2"]],
  ["update t set a = a, unlisted = 1", []],
  ["update t set a = a, unlisted = 2 where id = 1", []],
  ["update t set id = 10 where id = 1", ["t: 1, 10"]],
  ["update t set id = id + 100 where id < 4", ["t: 102, 103, 2, 3"]],
  ["delete from t where id = 10", ["t: 10"]],
  ["delete from t where id > 100", ["t: 102, 103"]],
  ["delete from t where id = 99", []],
  [
    "merge into t using (values (4, 'u'), (5, null), (7, 'n')) s (id, a) on s.id = t.id when matched and s.a is null then delete when matched then update set a = s.a when not matched then insert values (s.id, s.a)",
    ["t: 5", "t: 4", "t: 7"],
  ],
  [
    "with i as (insert into t values (8, 'x')), d as (delete from t where id = 7) update t set a = 'w' where id = 6",
    ["t: 6", "t: 7", "t: 8"],
  ],
  [
    "begin; insert into t values (9); savepoint s; delete from t; rollback to s; commit",
    [
      "t: 9",
    ],
  ],
  ["begin; truncate t; rollback", []],
  [
    "begin isolation level repeatable read; update t set a = 'r' where id = 9; commit",
    [
      "t: 9",
    ],
  ],
  [
    "begin isolation level serializable; insert into t values (11), (12); commit",
    [
      "t: 11, 12",
    ],
  ],
  [
    "begin; set local role authenticated; insert into t values (13); update t set a = 'z' where id = 13; commit",
    ["t: 13", "t: 13"],
  ],
  ["truncate t", ['t {"truncate":true}']],
  ["truncate t, pair", ['t {"truncate":true}', 'pair {"truncate":true}']],
  ["insert into pair values ('x', 'c', 1), ('y', 'c', 2)", [
    "pair: 1/x, 2/y",
  ]],
  ["update pair set b = 3 where b = 1", ["pair: 1/x, 3/x"]],
  ["insert into ci values ('A', '1'), ('B', '1')", ["ci: A, B"]],
  ["update ci set id = 'a' where id = 'A'", ["ci: A, a"]],
  ["update ci set id = upper(id), a = '2'", ["ci: A, B, a"]],
  ["delete from ci where id = 'b'", ["ci: B"]],
  ["insert into nested values (1, 'a'), (2, 'a')", [
    "nested: 1",
    "nested: 2",
    "nested: 1, 2",
  ]],
  ["insert into parts values (1, 'eu', 'a'), (2, 'eu', 'a'), (3, 'us', 'a')", [
    "parts: 1/eu, 2/eu, 3/us",
  ]],
  ["update parts set region = 'us' where id = 1", ["parts: 1/eu, 1/us"]],
  ["update parts_us set a = 'b'", ["parts: 1/us, 3/us"]],
  // A trigger keeps it from its new partition.
  ["update parts set region = 'us', a = 'kept' where id = 2", ["parts: 2/eu"]],
  ["insert into parts_eu values (4, 'eu', 'a')", ["parts: 4/eu"]],
  ["delete from parts_eu where id = 4", ["parts: 4/eu"]],
  ["truncate parts_us", [
    'parts {"walk":"truncate of one partition"}',
  ]],
  ["truncate parts", ['parts {"truncate":true}']],
  ["begin; truncate parts; truncate parts_eu; commit", [
    'parts {"truncate":true}',
  ]],
  // Around what fits into one message.
  ["insert into t select i from generate_series(1, 1000) i", ["t: 1000 keys"]],
  ["insert into t select i from generate_series(1001, 2001) i", [
    "t: 1000 keys",
    "t: 1 keys",
  ]],
  ["update t set id = -id where id <= 500", ["t: 1000 keys"]],
  ["update t set id = -id where id between 501 and 1001", [
    "t: 1000 keys",
    "t: 2 keys",
  ]],
  ["update t set unlisted = 5", []],
  ["update t set a = 'm' where abs(id) % 2 = 0", ["t: 1000 keys"]],
  ["delete from t", ["t: 1000 keys", "t: 1000 keys", "t: 1 keys"]],
];

Deno.test("capture() queues the keys of the rows that a statement changed, old and new", async (t) => {
  const database = await servers.database();
  const sql = connect((await servers.postgres()).url({ database }), {
    TimeZone: "Asia/Kolkata",
  });
  await sql.unsafe(KINDS_SETUP).simple();
  await configure(sql, KINDS_SCHEMA);
  for (const [text, queued] of KINDS) {
    await t.step(text, async () => {
      await sql.unsafe(text).simple();
      assertEquals(await takeQueued(sql), [...queued]);
    });
  }
  await sql.end();
});

for (
  const [when, ddl, ...kinds] of [
    [
      "a column that is compared is gone",
      "alter table changing drop column b",
      ["changing: 1, 1, 2, 2"],
      ["changing: 3, 3"],
      ["changing: 1000 keys", "changing: 204 keys"],
    ],
    [
      "the key's column has another name",
      "alter table changing rename column id to other_id",
      ['changing {"walk":"42703"}'],
      ['changing {"walk":"42703"}'],
      ['changing {"walk":"42703"}'],
    ],
  ] as const
) {
  Deno.test(`capture() sends keys, or has the table walked, when ${when}`, async () => {
    const database = await servers.database();
    const server = await servers.postgres();
    const sql = connect(server.url({ database }));
    await sql.unsafe(
      `create table changing (id bigint primary key, a text, b text);
      insert into changing select i, 'a', 'b' from generate_series(1, 602) i;`,
    )
      .simple();
    await configure(sql, { tables: { changing: CHANGING.tables.changing! } });
    await sql`update changing set a = 'plans are made' where id < 3`;
    await takeQueued(sql);
    await sql.unsafe(ddl).simple();
    for (
      const [at, where] of ["in (1, 2)", "= 3", "> 0"].entries()
    ) {
      const id = ddl.includes("other_id") ? "other_id" : "id";
      await sql.unsafe(`update changing set a = a || '!' where ${id} ${where}`);
      assertEquals(await takeQueued(sql), [...kinds[at]!]);
    }
    await sql.end();
  });
}

Deno.test("capture() has the table walked when a key cannot be rendered", async () => {
  const database = await servers.database();
  const server = await servers.postgres();
  const sql = connect(server.url({ database, user: SUPERUSER }));
  // Declared as JSON, a value is what its type's cast to json makes of it.
  await sql.unsafe(`create extension if not exists cube with schema extensions;
    create function public.cube_json(extensions.cube) returns json language plpgsql immutable as $$
    begin
      if extensions.cube_dim($1) = 3 then raise exception 'not supported'; end if;
      return to_json($1::text);
    end $$;
    create cast (extensions.cube as json) with function public.cube_json(extensions.cube);
    create table spaces (id extensions.cube primary key, n int);
    alter table spaces owner to postgres;`).simple();
  const owner = connect(server.url({ database }));
  await configure(owner, {
    tables: {
      spaces: {
        key: "id",
        columns: { id: "JSON", n: "INTEGER" },
        indexes: [],
      },
    },
  });
  const walk = 'spaces {"walk":"P0001"}';
  for (
    const [text, queued] of [
      ["insert into spaces values ('(1,2)')", ['spaces: "(1, 2)"']],
      ["insert into spaces values ('(1,2,3)')", [walk]],
      ["insert into spaces values ('(4,5)'), ('(4,5,6)')", [walk]],
      ["update spaces set n = 1", [walk]],
      ["delete from spaces where id = '(1,2,3)'", [walk]],
      ["update spaces set n = 2 where id = '(1,2)'", ['spaces: "(1, 2)"']],
    ] as const
  ) {
    await owner.unsafe(`set search_path = public, extensions; ${text}`)
      .simple();
    assertEquals(await takeQueued(owner), [...queued]);
  }
  await owner.end();
  await sql.end();
});

// ---------------------------------------------------------------------------
// Partitions
// ---------------------------------------------------------------------------

const PARTS =
  `create table parts (id bigint, region text, a text, primary key (id, region)) partition by list (region);
  create table parts_eu partition of parts for values in ('eu') partition by range (id);
  create table parts_eu_low partition of parts_eu for values from (0) to (100);
  create table parts_eu_high partition of parts_eu for values from (100) to (maxvalue);
  -- Its columns stand in another order.
  create table parts_us (a text, gone int, region text not null, id bigint not null);
  alter table parts_us drop column gone;
  alter table parts attach partition parts_us for values in ('us');`;
const PARTS_SCHEMA: RawSchema = {
  tables: {
    parts: {
      key: ["id", "region"],
      columns: { id: "INTEGER", region: "TEXT", a: "TEXT" },
      indexes: [],
    },
  },
};

Deno.test("capture() makes the replica equal when a table is partitioned", async (t) => {
  await using stack = await Stack.start(servers, {
    schema: PARTS_SCHEMA,
    setup: PARTS,
  });
  const { sql } = stack;
  const steps: [title: string, text: string, rows: number, walks?: number][] = [
    [
      "rows go through the parent",
      "insert into parts select i, case i % 2 when 0 then 'eu' else 'us' end, 'a' from generate_series(1, 200) i",
      200,
    ],
    [
      "rows go straight into leaves",
      "insert into parts_us values ('direct', 'us', 1000); insert into parts_eu_low values (0, 'eu', 'direct'); insert into parts_eu values (1000, 'eu', 'middle')",
      203,
    ],
    [
      "leaves are changed directly",
      "update parts_us set a = 'b' where id < 10; delete from parts_eu_high where id < 110; update parts_eu set a = 'c' where id < 10",
      198,
    ],
    [
      "rows move between partitions",
      "update parts set region = 'us' where region = 'eu' and id < 20; update parts set id = id + 500 where region = 'eu' and id < 40",
      198,
    ],
    [
      "rows move between sub-partitions",
      "update parts_eu set id = id + 2000 where id < 60",
      198,
    ],
    [
      "MERGE moves and deletes",
      "merge into parts p using (values (41, 'us'), (43, 'eu'), (45, null)) s (id, region) on s.id = p.id when matched and s.region is null then delete when matched then update set region = s.region when not matched then insert values (s.id, s.region, 'm')",
      197,
    ],
    ["one leaf is truncated", "truncate parts_eu_low", 0, 1],
    [
      "a middle partition is truncated after an insert",
      "begin; insert into parts values (77, 'eu', 'x'); truncate parts_eu; insert into parts values (78, 'eu', 'y'); commit",
      0,
      3,
    ],
    [
      "all of it is truncated",
      "truncate parts; insert into parts values (1, 'us', 'after')",
      1,
    ],
    [
      "all of it and then one leaf are truncated, which tells the keys of both",
      "begin; truncate parts; insert into parts values (2, 'eu', 'goes'), (3, 'us', 'stays'); truncate parts_eu_low; commit",
      1,
    ],
    [
      "all of it is truncated in a savepoint that is undone, and then one leaf",
      "begin; savepoint s; truncate parts; rollback to s; truncate parts_us; insert into parts values (4, 'eu', 'after'); commit",
      1,
      1,
    ],
  ];
  for (const [title, text, rows, walks = 0] of steps) {
    await t.step(title, async () => {
      await using sessions = new Sessions(stack);
      await sessions.connect().unsafe(text).simple();
      const queued = await stack.messages();
      assertEquals(queued.filter(({ walk }) => walk).length, walks);
      if (walks > 0) await stack.walk();
      const found = await stack.settle();
      if (rows > 0) assertEquals(found, rows);
    });
  }

  await t.step("attach() attaches new partitions", async () => {
    await sql.unsafe(
      `create table parts_asia partition of parts for values in ('asia') partition by hash (id);
       create table parts_asia_0 partition of parts_asia for values with (modulus 1, remainder 0);`,
    ).simple();
    // Through the parent they are seen at once.
    await sql`insert into parts values (5, 'asia', 'early')`;
    assertEquals(await stack.settle(), 2);
    assertEquals([...await sql`select libsql_sync.attach() as made`], [{
      made: 8,
    }]);
    await sql`insert into parts_asia_0 values (6, 'asia', 'direct')`;
    assertEquals(await stack.settle(), 3);
  });

  await t.step("a detached partition says nothing of the table", async () => {
    await sql.unsafe(
      "update parts set a = 'kept' where region = 'us'; delete from parts where region = 'asia'; alter table parts detach partition parts_asia;",
    ).simple();
    await stack.settle();
    await sql`insert into parts_asia values (1, 'us', 'no longer ours')`.catch(
      () => {},
    );
    await sql`insert into parts_asia_0 values (9, 'asia', 'no longer ours')`;
    await sql`update parts_asia set a = 'x'`;
    await sql`truncate parts_asia`;
    assertEquals(await stack.settle(), 1);
    await sql`select libsql_sync.attach()`;
    const left =
      await sql`select from pg_trigger where tgrelid in ('parts_asia'::regclass, 'parts_asia_0'::regclass)`;
    assertEquals(left.length, 0);
  });
});

// ---------------------------------------------------------------------------
// Tables that change
// ---------------------------------------------------------------------------

/** A table with a listed column b that changes. */
const CHANGING: RawSchema = {
  tables: {
    changing: {
      key: "id",
      columns: { id: "INTEGER", a: "TEXT", b: "TEXT" },
      indexes: [],
    },
    other: { key: "id", columns: { id: "INTEGER", a: "TEXT" }, indexes: [] },
  },
};
const CHANGING_SETUP = `${plain("other")}
  create table changing (id bigint primary key, a text, b text);`;
const WRITES = `insert into changing (id, a) values (10, 'new'), (11, 'new');
  update changing set a = 'changed' where id in (1, 10);
  update changing set id = 12 where id = 2;
  delete from changing where id in (3, 11);
  insert into other values (1, 'x') on conflict (id) do update set a = other.a || 'x';`;

for (
  const { when, ddl, after, kept } of [
    {
      when: "a listed column is dropped",
      ddl: "alter table changing drop column b",
      kept: true,
    },
    {
      when: "a listed column is renamed",
      ddl: "alter table changing rename column b to c",
      kept: true,
    },
    {
      when: "a listed column's type changes",
      ddl:
        "alter table changing alter column a type varchar(99), alter column b type jsonb using to_jsonb(b)",
      after: "update changing set b = '{}'",
    },
    {
      when: "the key's type changes",
      ddl: "alter table changing alter column id type numeric(20, 2)",
    },
    {
      when: "a column is dropped and added again",
      ddl:
        "alter table changing drop column b; alter table changing add column b uuid",
      after: "update changing set b = gen_random_uuid()",
    },
    {
      when: "the key is another index",
      ddl:
        "alter table changing drop constraint changing_pkey; create unique index on changing (id)",
    },
    {
      when: "row level security is forced",
      ddl:
        "alter table changing enable row level security; alter table changing force row level security",
    },
  ] as { when: string; ddl: string; after?: string; kept?: boolean }[]
) {
  Deno.test(`capture() never fails the user's write when ${when}`, async () => {
    await using stack = await Stack.start(servers, {
      schema: CHANGING,
      setup: CHANGING_SETUP,
    });
    const { sql, client } = stack;
    // One session writes, whose plans are older than what another one changes.
    await using sessions = new Sessions(stack);
    const writer = sessions.connect();
    await writer`insert into changing select i, 'a' || i, 'b' || i from generate_series(1, 6) i`;
    await writer`update changing set a = a || '!'`;
    await writer`insert into changing values (0, 'gone')`;
    await writer`delete from changing where id = 0`;
    assertEquals(await stack.settle(), 6);
    await sql.unsafe(ddl).simple();
    await writer.unsafe(WRITES).simple();
    if (after) await writer.unsafe(after).simple();
    assertEquals(await stack.settle(), 7);
    const first = await client.execute("select b from changing where id = 1");
    // What the source does not have any more stays as it was.
    if (kept) assertEquals(first.rows[0]?.b, "b1");

    await sql`select libsql_sync.attach()`;
    await writer.unsafe(
      "delete from changing where id = 10; update changing set id = 2 where id = 12; insert into changing (id, a) values (3, 'again')",
    ).simple();
    await writer`update changing set a = 'after attach()'`;
    assertEquals(await stack.settle(), 7);
    if (kept) {
      const again = await client.execute("select b from changing where id = 1");
      assertEquals(again.rows[0]?.b, "b1");
    }
  });
}

Deno.test("capture() leaves the columns that are gone as they were when 5.00 becomes 5", async () => {
  await using stack = await Stack.start(servers, {
    schema: CHANGING,
    setup: `${
      plain("other")
    } create table changing (id numeric primary key, a text, b text);`,
  });
  const { sql, client } = stack;
  await sql.unsafe("insert into changing values (5.00, 'a', 'kept')");
  await stack.settle();
  await sql.unsafe("alter table changing drop column b");
  await sql.unsafe("update changing set id = 5, a = 'x'");
  assertEquals(await stack.settle(), 1);
  const { rows } = await client.execute("select a, b from changing");
  assertEquals({ ...rows[0] }, { a: "x", b: "kept" });
});

Deno.test("capture() has the table walked when the key's column is gone, and the user's write is well", async () => {
  await using stack = await Stack.start(servers, {
    schema: CHANGING,
    setup: CHANGING_SETUP,
  });
  const { sql } = stack;
  await sql.unsafe("insert into changing values (1, 'a', 'b')");
  await stack.settle();
  await sql.unsafe("alter table changing drop column id");
  await sql.unsafe("insert into changing values ('c', 'd')");
  await sql.unsafe("update changing set a = 'x'; delete from changing;")
    .simple();
  assertEquals(
    await stack.messages(),
    Array(3).fill({ v: 2, table: "changing", walk: "42703" }),
  );
  await sql`insert into other values (1, 'goes on')`;
  await stack.drain();
  assertEquals(
    await stack.assertEqual({ tables: { other: CHANGING.tables.other! } }),
    1,
  );
  const error = await sql`select libsql_sync.attach()`.then(
    () => null,
    (error) => error,
  );
  assertEquals(
    error?.message,
    "Cannot attach: public.changing has no unique, not null key (id)",
  );
  // The key comes back, and with it everything.
  await sql.unsafe(
    "alter table changing add column id bigint primary key generated by default as identity",
  );
  await sql`select libsql_sync.attach()`;
  await sql.unsafe("insert into changing values ('back', 'again')");
  await stack.finish("/backfill");
  assertEquals(await stack.settle(), 2);
});

Deno.test("capture() follows a renamed table, and nothing of an old one, when tables trade names", async () => {
  await using stack = await Stack.start(servers, {
    schema: CHANGING,
    setup: CHANGING_SETUP,
  });
  const { sql, client } = stack;
  const count = async () =>
    (await client.execute("select count(*) as n from changing")).rows[0]?.n;
  await sql.unsafe("insert into changing values (1, 'a', 'b'), (2, 'a', 'b')");
  await stack.settle();
  await sql.unsafe("alter table changing rename to old_name");
  await sql.unsafe(
    "insert into old_name values (3, 'a', 'b'); update old_name set a = 'x'; delete from old_name where id = 1;",
  ).simple();
  await stack.drain();
  assertEquals(await stack.deadLetters(), []);
  assertEquals(await count(), 2);

  // Another table takes the name: the old one's rows are not the table's.
  await sql.unsafe(
    "create table changing (id bigint primary key, a text, b text)",
  );
  await sql`insert into changing select id, a, b from old_name`;
  await sql`truncate old_name`;
  await sql`insert into old_name values (9, 'a', 'b')`;
  // What is written to the new one is not captured yet.
  await sql`select libsql_sync.attach()`;
  await stack.drain();
  await stack.walk();
  assertEquals(await stack.settle(), 2);
  await sql`delete from old_name`;
  await sql`truncate old_name`;
  await sql`insert into changing values (5, 'five', 'b')`;
  assertEquals(await stack.settle(), 3);
  const left =
    await sql`select from pg_trigger where tgrelid = 'old_name'::regclass`;
  assertEquals(left.length, 0);
});

// ---------------------------------------------------------------------------
// Many rows, many tables, many sessions
// ---------------------------------------------------------------------------

Deno.test("capture() reads nothing of the table that is written to", async () => {
  const database = await servers.database();
  const sql = connect((await servers.postgres()).url({ database }));
  await sql.unsafe(BULK_SETUP).simple();
  await configure(sql, BULK);
  await sql`insert into bulk select i, repeat('x', 100), i from generate_series(1, 20000) i`;
  await sql`analyze bulk`;
  const read = async () => {
    await sql`select pg_stat_force_next_flush()`;
    const [found] = await sql`
      select s.seq_scan::int as scans, s.idx_scan::int as keys
      from pg_stat_user_tables s where s.relname = 'bulk'`;
    return found!;
  };
  const before = await read();
  await sql`insert into bulk select i from generate_series(20001, 40000) i`;
  await sql`insert into bulk values (0)`;
  assertEquals(await read(), before);
  // One scan by key each, which is the statement's own.
  await sql.unsafe("update bulk set n = 0 where id = 1");
  await sql.unsafe("delete from bulk where id = 2");
  await sql.unsafe("update bulk set n = n + 1");
  const after = await read();
  assertEquals(after.keys - before.keys, 2);
  assertEquals(after.scans - before.scans, 1);
  await sql.end();
});

Deno.test("capture() sees every row when a role that may not writes", async () => {
  await using stack = await Stack.start(servers, {
    schema: BULK,
    setup: `${BULK_SETUP}
      alter table bulk enable row level security;
      grant all on bulk, more to authenticated;
      create policy own on bulk to authenticated using (n = 1) with check (true);`,
  });
  await using sessions = new Sessions(stack);
  const user = sessions.connect();
  await user.unsafe("set role authenticated");
  // The second row is hidden from its own writer.
  await user.unsafe("insert into bulk values (1, 'seen', 1), (2, 'hidden', 2)");
  await user.unsafe("update bulk set a = a || '!'");
  await user.unsafe("insert into more values (1, 'a'); truncate more;")
    .simple();
  assertEquals((await user`select id from bulk`).length, 1);
  assertEquals(await stack.settle(), 2);
  for (
    const query of [
      "select from pgmq.q_replicate_data_libsql",
      "insert into pgmq.q_replicate_data_libsql (vt, message) values (now(), '{}')",
      "select from libsql_sync.tables",
    ]
  ) {
    const error = await user.unsafe(query).then(() => null, (error) => error);
    assertEquals(error?.code, "42501", query);
  }
});

Deno.test("capture() runs nothing of the writer's when the writer shadows types and tables", async () => {
  await using stack = await Stack.start(servers, {
    schema: BULK,
    setup: `${BULK_SETUP} grant all on bulk to authenticated;
      create table seen (by text); grant insert on seen to authenticated;`,
  });
  await using sessions = new Sessions(stack);
  const user = sessions.connect();
  // pg_temp is searched first for types and tables, unless a path says otherwise.
  await user.unsafe(`set role authenticated;
    create function pg_temp.spy() returns boolean language plpgsql as $$
    begin insert into public.seen values (current_user); return true; end $$;
    create domain pg_temp.text as pg_catalog.text check (pg_temp.spy());
    create domain pg_temp.jsonb as pg_catalog.jsonb check (pg_temp.spy());
    create domain pg_temp.record as pg_catalog.text check (pg_temp.spy());
    create domain pg_temp.oid as pg_catalog.oid check (pg_temp.spy());
    create domain pg_temp.name as pg_catalog.name check (pg_temp.spy());
    create temp table new_rows (id bigint); create temp table live (id bigint);
    create temp table changed (id bigint);`).simple();
  await user.unsafe(
    "insert into public.bulk values (1, 'a', 1), (2, 'b', 2); update public.bulk set id = id + 10, a = 'c'; delete from public.bulk where id = 12;",
  ).simple();
  assertEquals([...await stack.sql`select distinct by from seen`], []);
  assertEquals(await stack.settle(), 1);
  // Also what is sent when a column is gone.
  await stack.sql.unsafe("alter table bulk drop column n");
  await user.unsafe(
    "insert into public.bulk values (5, 'a'); update public.bulk set a = 'd'; truncate public.bulk; insert into public.bulk values (6, 'a');",
  ).simple();
  assertEquals([...await stack.sql`select distinct by from seen`], []);
  assertEquals(await stack.settle(), 1);
});

Deno.test("capture() leaves the replica equal when sessions of every isolation level write at once", async () => {
  await using stack = await Stack.start(servers, {
    schema: BULK,
    setup: BULK_SETUP,
  });
  const { sql } = stack;
  await sql`insert into bulk select i, 'start', 0 from generate_series(1, 12) i`;
  await using sessions = new Sessions(stack);
  let aborted = 0;
  let committed = 0;
  const levels = ["read committed", "repeatable read", "serializable"];
  await Promise.all(Array.from({ length: 9 }, async (_, who) => {
    const session = sessions.connect();
    const random = createRandom(who + 1);
    for (let i = 0; i < 25; i++) {
      const pick = () => 1 + Math.floor(random() * 12);
      const statements = Array.from({ length: 3 }, () =>
        [
          `update bulk set n = n + 1, a = 'by ${who}' where id in (${pick()}, ${pick()})`,
          `delete from bulk where id = ${pick()}`,
          `insert into bulk values (${pick()}, 'up ${who}', 1) on conflict (id) do update set n = bulk.n + 1`,
          `insert into bulk select ${pick()}, 'in', 2 on conflict do nothing`,
          `update bulk set id = ${pick()} where id = ${pick()} and not exists (select from bulk where n < 0)`,
          `select from bulk where id < 5 for update`,
        ][Math.floor(random() * 6)]);
      try {
        await session.unsafe(
          `begin isolation level ${levels[who % 3]}; ${
            statements.join("; ")
          }; ${random() < 0.1 ? "rollback" : "commit"}`,
        ).simple();
        committed++;
      } catch (error) {
        // Lost races, deadlocks, and keys that were taken: never ours.
        const { code } = error as { code: string };
        assert(["40001", "40P01", "23505"].includes(code), String(error));
        aborted++;
        await session.unsafe("rollback");
      }
      if (who === 0 && i % 5 === 0) await stack.sync();
    }
  }));
  assert(committed > 50, `${committed} committed, ${aborted} aborted`);
  await stack.settle();
});

for (const level of ["repeatable read", "serializable"]) {
  Deno.test(`capture() sends no row that was deleted since a ${level} transaction's snapshot`, async () => {
    await using stack = await Stack.start(servers, {
      schema: BULK,
      setup: BULK_SETUP,
      walks: false,
    });
    const { sql } = stack;
    await sql`insert into bulk select i, 'start', 0 from generate_series(1, 500) i`;
    // Room on the first page: a new row lies before an old one there.
    await sql`delete from bulk where id < 100`;
    await stack.drain();
    await sql`vacuum bulk`;
    await sql`insert into more select i, 'start' from generate_series(1, 9) i`;
    await sql.begin(`isolation level ${level}`, async (tx) => {
      await tx`select count(*) from most`;
      // And no room: a new row lies behind.
      await sql`delete from more where id in (4, 5)`;
      await tx`insert into more values (4, 'mine')`;
      await tx`insert into more values (5, 'mine')`;
      await tx`update more set a = 'still mine' where a = 'mine' and id = 5`;
      // What the snapshot still sees under keys that are free.
      await sql`delete from bulk where id in (400, 401, 402, 403, 404)`;
      await tx`insert into bulk values (400, 'mine', 1)`;
      await tx`insert into bulk values (401, 'moves', 1)`;
      await tx`update bulk set id = 1001 where a = 'moves'`;
      await tx`savepoint a`;
      await tx`insert into bulk values (402, 'mine', 1), (403, 'goes', 1)`;
      await tx`delete from bulk where a = 'goes'`;
      await tx`release savepoint a`;
      await tx`update bulk set n = 2 where a = 'mine'`;
      await tx`savepoint b`;
      await tx`insert into bulk values (404, 'undone', 1)`;
      await tx`rollback to savepoint b`;
      await tx`update bulk set n = n + 1 where id between 300 and 310`;
    });
    assertEquals(await stack.settle(), 399 + 9);
  });
}

Deno.test("capture() leaves the last state when transactions commit in the opposite order of their statements", async () => {
  await using stack = await Stack.start(servers, {
    schema: BULK,
    setup: BULK_SETUP,
  });
  const { sql } = stack;
  await sql`insert into bulk select i, 'start', 0 from generate_series(1, 4) i`;
  await using sessions = new Sessions(stack);
  const [early, late, third] = [
    sessions.connect(),
    sessions.connect(),
    sessions.connect(),
  ];
  // A query of this driver's starts when it is awaited.
  const run = (session: postgres.Sql, text: string) =>
    session.unsafe(text).simple().then(() => {});
  const isWaiting = async (count: number) =>
    (await sql`select from pg_locks where not granted and locktype in ('transactionid', 'tuple')`)
      .length >= count;

  // Its message has the smallest id and becomes visible last.
  await early.unsafe("begin; update bulk set a = 'early' where id = 1")
    .simple();
  await late.unsafe(
    "begin; update bulk set a = 'late' where id = 2; commit; begin; update bulk set a = 'late' where id = 3",
  ).simple();
  assertEquals((await stack.drain()).drained, true);
  // Both wait for it in a queue, the one by FOR UPDATE.
  const second = run(
    late,
    "update bulk set a = a || ' then late', n = n + 1 where id = 1; commit",
  );
  await until("the second to wait", () => isWaiting(1));
  const last = run(
    third,
    "begin; select from bulk where id = 1 for update; update bulk set a = a || ' then third', n = n + 1 where id = 1; delete from bulk where id = 4; commit",
  );
  await until("the third to wait", () => isWaiting(2));
  await stack.drain();
  await early.unsafe("update bulk set n = 1 where id = 1; commit").simple();
  await second;
  await last;
  assertEquals(await stack.settle(), 3);
  // Nobody's update was lost, whoever of the two came first.
  const { rows } = await stack.client.execute(
    "select n from bulk where id = 1",
  );
  assertEquals(rows[0]?.n, 3);
});

/** Numbers in [0, 1) that are the same in every run. */
function createRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6D2B79F5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

// ---------------------------------------------------------------------------
// One rendering
// ---------------------------------------------------------------------------

Deno.test("capture() renders a key as the same text when sessions are set differently", async () => {
  const types = {
    a: ["timestamptz", "'2024-07-01 12:00:00.5+00'"],
    b: ["date", "'2024-07-01'"],
    c: ["interval", "'1 year 2 months 3 days 04:05:06.7'"],
    d: ["bytea", String.raw`'\xdeadbeef'`],
    e: ["double precision", "0.1::float8 + 0.2"],
    f: ["real", "1.0::float4 / 3"],
    g: ["money", "1234.5::numeric"],
    h: ["timestamptz[]", "array['2024-07-01 12:00+00'::timestamptz]"],
    i: ["tstzrange", "'[2024-07-01 12:00+00, infinity)'"],
    j: [
      "jsonb",
      "to_jsonb('2024-07-01 12:00+00'::timestamptz at time zone 'UTC')",
    ],
    k: ["regclass", "'pg_catalog.pg_class'"],
    l: ["interval[]", "array['1 day -00:01'::interval]"],
    m: ["float8[]", "array[0.1::float8 + 0.2, 'NaN']"],
    n: ["bytea[]", String.raw`array['\x00'::bytea]`],
    o: ["timetz", "'12:00:00.123+05:30'"],
    p: ["inet", "'10.0.0.1'"],
  } as const;
  const names = Object.keys(types);
  const database = await servers.database();
  const url = (await servers.postgres()).url({ database });
  const sql = connect(url);
  const settings: Record<string, string>[] = [
    {},
    { TimeZone: "America/New_York", DateStyle: "German, DMY" },
    { TimeZone: "Pacific/Kiritimati", DateStyle: "SQL, MDY" },
    { TimeZone: "Asia/Kolkata", DateStyle: "Postgres, DMY" },
    { IntervalStyle: "iso_8601", bytea_output: "escape" },
    { IntervalStyle: "sql_standard", extra_float_digits: "-10" },
    { extra_float_digits: "3", lc_monetary: "C", search_path: "public" },
    { quote_all_identifiers: "on" },
    { plan_cache_mode: "force_generic_plan", enable_hashjoin: "off" },
  ];
  try {
    const texts: string[] = [];
    for (const [name, [type, value]] of Object.entries(types)) {
      await sql.unsafe(
        `create table key_${name} (id ${type} primary key, n int);
         create table value_${name} (id ${type});
         insert into value_${name} values (${value})`,
      ).simple();
    }
    await configure(sql, {
      tables: Object.fromEntries(names.map((name) => [`key_${name}`, {
        key: "id",
        columns: { id: "TEXT", n: "INTEGER" },
        indexes: [],
      }])),
    });
    for (const setting of settings) {
      const session = connect(url, setting);
      await session.unsafe(
        names.map((name) =>
          `insert into key_${name} select id, 1 from value_${name};
         update key_${name} set n = 2;
         delete from key_${name};`
        ).join("\n"),
      ).simple();
      await session.end();
      for (const name of names) {
        const queued = await sql`select message ->> 'keys' as keys
          from pgmq.q_replicate_data_libsql where message ->> 'table' = ${`key_${name}`}`;
        assertEquals(queued.length, 3);
        texts.push(...queued.map(({ keys }) => `${name} ${keys}`));
      }
      await sql`delete from pgmq.q_replicate_data_libsql`;
    }
    const distinct = [...new Set(texts)];
    assertEquals(distinct.length, names.length, distinct.join("\n"));
    assert(distinct.includes('a [["2024-07-01T12:00:00.5+00:00"]]'));
    assert(distinct.includes('g [["$1,234.50"]]'));
    assert(distinct.includes('p [["10.0.0.1"]]'));
  } finally {
    await sql.end();
  }
});

Deno.test("configure() changes what is captured when a table or a column is taken out", async () => {
  await using stack = await Stack.start(servers, {
    schema: BULK,
    setup: BULK_SETUP,
  });
  const { sql } = stack;
  await configure(sql, {
    tables: {
      bulk: { ...BULK.tables.bulk!, columns: { id: "INTEGER", n: "INTEGER" } },
    },
  });
  await sql.unsafe(
    "insert into bulk values (1, 'secret', 1); insert into more values (1, 'secret'); update bulk set a = 'secret'; truncate most;",
  ).simple();
  assertEquals(await stack.messages(), [{
    v: 2,
    table: "bulk",
    keys: [["1"]],
  }]);
  const left =
    await sql`select from pg_trigger where tgname like 'replicate%' and tgrelid in ('more'::regclass, 'most'::regclass)`;
  assertEquals(left.length, 0);
});
