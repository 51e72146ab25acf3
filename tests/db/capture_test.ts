import { assert, assertEquals } from "@std/assert";
import postgres from "postgres";
import { configure, type RawSchema, Servers, Stack } from "./support/stack.ts";

// Deadlocks are on purpose here: they need not take a second each.
const servers = new Servers({ settings: { deadlock_timeout: "50ms" } });
const stacks: Stack[] = [];
Deno.test.afterAll(async () => {
  for (const stack of stacks) await stack[Symbol.asyncDispose]();
  await servers.stop();
});

/** A table, what is done to it, and what must be left. */
interface Case {
  /** What capture must withstand. */
  readonly when: string;
  /** The table's name; its DDL is in `setup`. */
  readonly table: string;
  /** The listed columns; id INTEGER and a TEXT unless told. */
  readonly columns?: Record<string, string>;
  /** id unless told. */
  readonly key?: string | string[];
  readonly setup: string;
  /** Each is one simple query, so one transaction unless it says otherwise. */
  readonly run: readonly string[];
  /** How many rows both sides have in the end. */
  readonly rows: number;
  /** How many messages are sent, where it matters. */
  readonly messages?: number;
  /** The fallback is expected, or needed: a leaf's keys are read by it. */
  readonly dynamic?: true;
}

/** A plain table of that name. */
const plain = (name: string) =>
  `create table ${name} (id bigint primary key, a text, unlisted int);`;

/** schema.json of some cases. */
function schemaOf(cases: readonly Case[]): RawSchema {
  return {
    tables: Object.fromEntries(cases.map(({ table, key, columns }) => [table, {
      key: key ?? "id",
      columns: columns ?? { id: "INTEGER", a: "TEXT" },
      indexes: [],
    }])),
  };
}

/** When the replica gets what was sent: all of it in one batch, or bit by bit. */
const DRAINS = ["at the end", "after each statement"] as const;

/** Stacks for a list of cases, each of which becomes a test of each kind. */
function testCases(cases: readonly Case[]): void {
  for (const drains of DRAINS) {
    let started: Promise<Stack> | undefined;
    const start = async () => {
      const stack = await Stack.start(servers, {
        schema: schemaOf(cases),
        setup: cases.map(({ setup }) => setup).join("\n"),
      });
      stacks.push(stack);
      return stack;
    };
    for (const of of cases) {
      const name = `capture() makes the replica equal when ${of.when}`;
      Deno.test(`${name}, drained ${drains}`, async () => {
        const stack = await (started ??= start());
        await using _ = of.dynamic ? null : await withoutFallback(stack.sql);
        await using sessions = new Sessions(stack);
        const sql = sessions.connect({ TimeZone: "Asia/Kolkata" });
        let messages = 0;
        for (const text of of.run) {
          await sql.unsafe(text).simple();
          if (drains === "at the end") continue;
          messages += (await stack.messages()).length;
          await stack.settle(schemaOf([of]));
        }
        messages += (await stack.messages()).length;
        assertEquals(await stack.settle(schemaOf([of])), of.rows);
        if (of.messages !== undefined) assertEquals(messages, of.messages);
      });
    }
  }
}

/** Without what it calls, the fallback sends a message that says it failed. */
async function withoutFallback(sql: postgres.Sql): Promise<AsyncDisposable> {
  const rename = (from: string, to: string) =>
    sql.unsafe(
      `alter function libsql_sync.${from}(oid, text, text) rename to ${to}`,
    );
  await rename("capture_sql", "capture_sql_away");
  return {
    async [Symbol.asyncDispose]() {
      await rename("capture_sql_away", "capture_sql");
    },
  };
}

/** Connections of one's own, closed at the end. */
class Sessions implements AsyncDisposable {
  readonly #open: postgres.Sql[] = [];
  constructor(readonly stack: Stack) {}
  connect(connection: Record<string, string> = {}): postgres.Sql {
    const { server, database } = this.stack;
    const sql = postgres(server.url({ database }), {
      max: 1,
      prepare: false,
      onnotice: () => {},
      connection,
    });
    this.#open.push(sql);
    return sql;
  }
  async [Symbol.asyncDispose]() {
    for (const sql of this.#open) await sql.end({ timeout: 5 });
  }
}

/** Asks again until it holds; fails after a deadline. */
async function until(what: string, holds: () => Promise<boolean>) {
  for (const deadline = Date.now() + 20_000; Date.now() < deadline;) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`waited 20 s for ${what}`);
}

// ---------------------------------------------------------------------------
// Triggers of the user's
// ---------------------------------------------------------------------------

testCases([
  {
    when: "a row's AFTER trigger updates the row again",
    table: "after_row",
    setup: `${plain("after_row")}
      create function after_row() returns trigger language plpgsql as $$
      begin
        if length(new.a) < 4 then update after_row set a = new.a || 'x' where id = new.id; end if;
        return null;
      end $$;
      create trigger again after insert or update on after_row for each row execute function after_row();`,
    run: [
      "insert into after_row select i, 'a' from generate_series(1, 3) i",
      "update after_row set a = 'b' where id < 3",
    ],
    rows: 3,
  },
  {
    when: "a row's AFTER trigger changes the key",
    table: "after_key",
    setup: `${plain("after_key")}
      create function after_key() returns trigger language plpgsql as $$
      begin
        if new.id < 100 then update after_key set id = id + 100 where id = new.id; end if;
        return null;
      end $$;
      create trigger again after insert or update on after_key for each row execute function after_key();`,
    run: [
      "insert into after_key select i, 'a' from generate_series(1, 3) i",
      "update after_key set id = 5 where id = 102",
    ],
    rows: 3,
  },
  {
    when: "a row's BEFORE trigger changes or drops it",
    table: "before_row",
    setup: `${plain("before_row")}
      create function before_row() returns trigger language plpgsql as $$
      begin
        if new.a = 'drop' then return null; end if;
        new.a := upper(new.a); new.id := new.id * 10;
        return new;
      end $$;
      create trigger change before insert or update on before_row for each row execute function before_row();`,
    run: [
      "insert into before_row values (1, 'a'), (2, 'drop'), (3, 'c')",
      "update before_row set a = 'z' where id = 10",
      "update before_row set a = 'drop' where id = 30",
    ],
    rows: 2,
  },
  {
    when: "RETURNING calls a function that updates the row",
    table: "returning_f",
    setup: `${plain("returning_f")}
      create function returning_f(bigint) returns text language sql as
        $$ update returning_f set a = a || '!' where id = $1 returning a $$;`,
    run: [
      "insert into returning_f select i, 'a' from generate_series(1, 3) i returning returning_f(id)",
      "update returning_f set a = 'b' where id = 2 returning returning_f(id)",
    ],
    rows: 3,
  },
  {
    when: "an AFTER INSERT trigger deletes the row",
    table: "after_gone",
    setup: `${plain("after_gone")}
      create function after_gone() returns trigger language plpgsql as $$
      begin delete from after_gone where id = new.id and a = 'go'; return null; end $$;
      create trigger go after insert on after_gone for each row execute function after_gone();`,
    run: ["insert into after_gone values (1, 'go'), (2, 'stay'), (3, 'go')"],
    rows: 1,
  },
  {
    when: "a deferred constraint trigger writes at commit",
    table: "deferred",
    setup: `${plain("deferred")}
      create function deferred() returns trigger language plpgsql as $$
      begin
        if new.a not like '%late' then update deferred set a = new.a || ' late' where id = new.id; end if;
        return null;
      end $$;
      create constraint trigger late after insert or update on deferred
        deferrable initially deferred for each row execute function deferred();`,
    run: [
      "begin; insert into deferred values (1, 'a'), (2, 'b'); update deferred set a = 'c' where id = 2; commit",
    ],
    rows: 2,
  },
  {
    when: "a statement's AFTER trigger that fires last writes again",
    table: "statement_last",
    setup: `${plain("statement_last")}
      create function statement_last() returns trigger language plpgsql as $$
      begin
        if pg_trigger_depth() < 2 then update statement_last set a = a || '+'; end if;
        return null;
      end $$;
      create trigger zzz after insert or update on statement_last for each statement execute function statement_last();`,
    run: [
      "insert into statement_last values (1, 'a'), (2, 'b')",
      "update statement_last set a = 'c' where id = 1",
    ],
    rows: 2,
  },
]);

// ---------------------------------------------------------------------------
// Statements of every kind
// ---------------------------------------------------------------------------

testCases([
  {
    when: "keys change",
    table: "key_change",
    setup: plain("key_change"),
    run: [
      "insert into key_change select i, 'a' || i from generate_series(1, 5) i",
      "update key_change set id = id + 1000",
      "update key_change set id = 7, a = 'seven' where id = 1001",
    ],
    rows: 5,
  },
  {
    when: "keys are swapped through a deferrable key, at once and in steps",
    table: "key_swap",
    setup: `create table key_swap (id bigint primary key deferrable, a text);`,
    run: [
      "insert into key_swap values (1, 'one'), (2, 'two'), (3, 'three')",
      "update key_swap set id = 3 - id where id < 3",
      "begin; set constraints all deferred; update key_swap set id = 2 where id = 3; update key_swap set id = 3 where a = 'one'; commit",
    ],
    rows: 3,
  },
  {
    when: "the table is truncated alone and between inserts",
    table: "truncated",
    setup: plain("truncated"),
    run: [
      "insert into truncated values (1, 'a'), (2, 'b')",
      "truncate truncated",
      "insert into truncated values (2, 'c'), (3, 'd')",
      "begin; insert into truncated values (4, 'e'); truncate truncated; insert into truncated values (5, 'f'); commit",
    ],
    rows: 1,
  },
  {
    when: "statements and savepoints are rolled back",
    table: "rolled_back",
    setup: plain("rolled_back"),
    run: [
      "insert into rolled_back values (1, 'a'), (2, 'b')",
      "begin; delete from rolled_back; rollback",
      `begin; update rolled_back set a = 'x' where id = 1; savepoint s; delete from rolled_back;
       insert into rolled_back values (9, 'ghost'); rollback to s; insert into rolled_back values (3, 'c'); commit`,
      "begin; truncate rolled_back; rollback",
    ],
    rows: 3,
    messages: 3,
  },
  {
    when: "an update changes nothing that is listed",
    table: "no_op",
    columns: { id: "INTEGER", a: "TEXT", j: "JSON" },
    setup:
      "create table no_op (id bigint primary key, a text, j json, unlisted int);",
    run: [
      `insert into no_op values (1, 'a', '{"x": 1}')`,
      "update no_op set a = a, j = j",
      "update no_op set unlisted = 5",
      "delete from no_op where id = 99",
      "insert into no_op select 1 where false",
      // The same value in another text is another text.
      `update no_op set j = '{"x":1}'`,
    ],
    rows: 1,
    messages: 2,
  },
  {
    when: "updates change some columns, and values to what equals them",
    table: "some_columns",
    columns: Object.fromEntries(
      [
        ["id", "INTEGER"],
        ...["n", "f", "b", "i", "j", "t", "v", "c", "at", "o", "bytes"].map((
          name,
        ) => [name, "TEXT"]),
      ],
    ),
    setup: `create extension if not exists citext with schema extensions;
      create domain some_domain as numeric;
      create table some_columns (id bigint primary key, n numeric, f float8, b char(5), i interval, j jsonb,
        t text, v varchar, c extensions.citext, at timestamptz, o some_domain, bytes bytea, unlisted int);`,
    run: [
      `insert into some_columns select k, 1.0, 0, 'a', '1 day', '{"x": 1.0}', 't', 'v', 'c', '2025-01-01', 1.0, 'b'
         from generate_series(1, 8) k`,
      "update some_columns set n = 1.00 where id = 1",
      "update some_columns set f = '-0' where id = 1",
      "update some_columns set b = 'a ' where id = 1",
      "update some_columns set i = '24 hours' where id in (1, 2)",
      `update some_columns set j = '{"x": 1.00}'`,
      "update some_columns set t = null, v = null where id = 3",
      "update some_columns set c = 'C', at = at + interval '1 microsecond' where id > 5",
      "update some_columns set o = 1.00, unlisted = 5 where id = 4",
      "update some_columns set bytes = null, t = case when id = 5 then t else t || id end",
      "update some_columns set id = id + 100, n = 5 where id < 3",
    ],
    rows: 8,
    // One of these changed nothing, by any of its images: a blank more in char(5).
    messages: 11,
  },
  {
    when:
      "a column has another type than attach() saw, whose equal values differ",
    table: "retyped",
    setup: "create table retyped (id bigint primary key, a int, unlisted int);",
    run: [
      "insert into retyped select i, 1 from generate_series(1, 3) i",
      "alter table retyped alter a type numeric",
      "update retyped set a = 1.0 where id = 1",
      "update retyped set a = 1.00",
    ],
    rows: 3,
    messages: 3,
    dynamic: true,
  },
  {
    when: "inserts conflict",
    table: "conflict",
    setup: plain("conflict"),
    run: [
      "insert into conflict values (1, 'a'), (2, 'b')",
      "insert into conflict values (2, 'c'), (3, 'd') on conflict (id) do update set a = excluded.a || conflict.a",
      "insert into conflict values (3, 'x'), (4, 'e') on conflict do nothing",
      "insert into conflict values (3, 'x') on conflict do nothing",
    ],
    rows: 4,
    messages: 4,
  },
  {
    when: "MERGE inserts, updates, deletes and does nothing",
    table: "merged",
    setup: plain("merged"),
    run: [
      "insert into merged select i, 'a' from generate_series(1, 6) i",
      `merge into merged t using (values (1, 'up'), (2, 'gone'), (3, 'same'), (9, 'new'), (10, 'skip')) s (id, a) on s.id = t.id
         when matched and s.a = 'gone' then delete
         when matched and s.a = 'same' then do nothing
         when matched then update set a = s.a
         when not matched and s.a = 'skip' then do nothing
         when not matched then insert (id, a) values (s.id, s.a)`,
    ],
    rows: 6,
    messages: 4,
  },
  {
    when: "one statement writes to it several times",
    table: "many_writes",
    setup: plain("many_writes"),
    run: [
      "insert into many_writes select i, 'a' from generate_series(1, 6) i",
      `with i as (insert into many_writes values (7, 'x') returning id),
            j as (insert into many_writes values (8, 'y') returning id),
            u as (update many_writes set a = 'u' where id = 1 returning id),
            v as (update many_writes set id = 20 where id = 2 returning id),
            d as (delete from many_writes where id = 3 returning id),
            e as (delete from many_writes where id = 4 returning id)
       update many_writes set a = 'main' where id = 5`,
    ],
    rows: 6,
  },
  {
    when: "foreign keys cascade",
    table: "child",
    columns: { id: "INTEGER", parent: "INTEGER", a: "TEXT" },
    setup: `create table parent (id bigint primary key);
      create table child (id bigint primary key, parent bigint default 0 references parent on delete cascade on update cascade, a text);
      create table grandchild (id bigint references child on delete set default on update cascade deferrable initially deferred);`,
    run: [
      "insert into parent values (0), (1), (2), (3); insert into child select i, i % 4, 'a' from generate_series(1, 12) i",
      "delete from parent where id = 1",
      "update parent set id = 30 where id = 3",
      "truncate parent cascade",
      "insert into parent values (0); insert into child values (1, 0, 'again')",
    ],
    rows: 1,
  },
  {
    when: "a view is written to",
    table: "under_view",
    setup: `${plain("under_view")}
      create view over_table as select id, a from under_view;`,
    run: [
      "insert into over_table values (1, 'a'), (2, 'b')",
      "update over_table set a = 'c' where id = 1; delete from over_table where id = 2",
    ],
    rows: 1,
  },
  {
    when: "keys have columns in another order than the table",
    table: "composite",
    key: ["b", "a"],
    columns: { a: "TEXT", b: "INTEGER", c: "TEXT" },
    setup:
      "create table composite (c text, a text, b int, primary key (a, b));",
    run: [
      "insert into composite select 'c' || i, 'a' || i % 3, i from generate_series(1, 9) i",
      "update composite set b = b + 1 where a = 'a1'",
      "update composite set c = null where a = 'a2'",
      "delete from composite where (a, b) in (('a0', 3), ('a0', 6))",
    ],
    rows: 7,
  },
  {
    when: "a unique index other than the primary key is listed",
    table: "other_key",
    setup:
      "create table other_key (real_id int primary key, id bigint not null unique deferrable, a text);",
    run: [
      "insert into other_key select i, 100 + i, 'a' || i from generate_series(1, 4) i",
      "update other_key set real_id = real_id + 50",
      "update other_key set id = 203 - id where id in (101, 102)",
      "delete from other_key where id = 104",
    ],
    rows: 3,
    messages: 3,
  },
  {
    when: "the key is citext and changes its case",
    table: "citext_key",
    key: "id",
    columns: { id: "TEXT", a: "TEXT" },
    setup: `create extension if not exists citext with schema extensions;
      create table citext_key (id extensions.citext primary key, a extensions.citext);`,
    run: [
      "insert into citext_key values ('A', 'one'), ('B', 'two'), ('C', 'three')",
      "update citext_key set id = 'a' where id = 'A'",
      "update citext_key set a = 'TWO' where id = 'B'",
      "delete from citext_key where id = 'c'; insert into citext_key values ('c', 'again')",
      "insert into citext_key values ('b', 'x') on conflict (id) do update set id = excluded.id",
    ],
    rows: 3,
  },
  {
    when: "the key's collation calls different texts equal",
    table: "icu_key",
    key: ["id", "b"],
    columns: { id: "TEXT", b: "TEXT", a: "TEXT" },
    setup:
      `create collation ignore_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
      create table icu_key (id text collate ignore_case, b text collate "C", a text collate ignore_case, primary key (id, b));`,
    run: [
      "insert into icu_key values ('A', 'k', 'one'), ('B', 'k', 'two'), ('É', 'k', 'three')",
      "update icu_key set id = 'a' where id = 'A'",
      "update icu_key set a = 'TWO' where id = 'b'",
      "update icu_key set id = 'é', b = 'K' where id = 'é'",
    ],
    rows: 3,
  },
  {
    when: "one collation that calls different texts equal is all the key has",
    table: "icu_only",
    columns: { id: "TEXT", a: "TEXT" },
    setup:
      "create table icu_only (id text collate ignore_case primary key, a text);",
    run: [
      "insert into icu_only values ('A', 'one'), ('B', 'two')",
      "update icu_only set id = 'a' where id = 'A'",
      "insert into icu_only values ('b', 'x') on conflict (id) do update set id = excluded.id",
    ],
    rows: 2,
  },
  {
    when: "the key is char(n)",
    table: "char_key",
    columns: { id: "TEXT", a: "TEXT" },
    setup: "create table char_key (id char(5) primary key, a text);",
    run: [
      "insert into char_key values ('a', 'one'), ('bb', 'two'), ('ccccc', 'three')",
      "update char_key set id = 'd' where id = 'a'",
      "delete from char_key where id = 'bb'",
    ],
    rows: 2,
  },
  {
    when: "the key is numeric and 5.00 becomes 5",
    table: "numeric_key",
    setup: "create table numeric_key (id numeric primary key, a text);",
    run: [
      "insert into numeric_key values (5.00, 'a'), (6, 'b'), (7.0, 'c')",
      "update numeric_key set id = 5 where id = 5",
      "delete from numeric_key where id = 7",
      "update numeric_key set id = 6.000 where id = 6",
    ],
    rows: 2,
  },
  ...([
    ["interval", "'1 day'", "'24:00'", "'2 days'"],
    ["jsonb", `'{"n": 1}'`, `'{"n": 1.00}'`, "'null'"],
    ["float8", "0", "'-0'", "'NaN'"],
    [
      "pair_key",
      "row(1, null)::pair_key",
      "row(2, null)::pair_key",
      "row(null, null)::pair_key",
    ],
    ["text[]", "array['a', null]", "array['b']", "'{}'"],
    ["tstzrange", "'[2024-01-01,)'", "'empty'", "'(,)'"],
    ["bytea", "'a'", "''", String.raw`'\x00'`],
    ["date", "'infinity'", "'0044-03-15 BC'", "'2024-01-01'"],
    ["boolean", "true", "false", "true"],
  ] as const).map(([type, one, two, three], at): Case => ({
    when: `the key's type is ${type}`,
    table: `key_type_${at}`,
    columns: { id: "TEXT", a: "TEXT" },
    setup: `${at === 0 ? "create type pair_key as (x int, y int);" : ""}
      create table key_type_${at} (id ${type} primary key, a text);`,
    run: [
      `insert into key_type_${at} values (${one}, 'one')`,
      `update key_type_${at} set id = ${two}`,
      `insert into key_type_${at} values (${three}, 'three')`,
      `update key_type_${at} set a = a || '!'`,
      `delete from key_type_${at} where id = ${three}`,
    ],
    rows: 1,
  })),
  {
    when: "json holds a NUL, whitespace and the same name twice",
    table: "json_column",
    columns: { id: "INTEGER", a: "JSON", b: "TEXT" },
    setup: "create table json_column (id bigint primary key, a json, b json);",
    run: [
      String
        .raw`insert into json_column values (1, '{"a": "\u0000", "a":  1}', '["\u0000"]'), (2, '"\u0000"', ' 1 ')`,
      String
        .raw`update json_column set a = '{"a" : "\u0000\u0001"}' where id = 2`,
    ],
    rows: 2,
  },
  {
    when: "a row has 300 columns",
    table: "wide",
    columns: {
      id: "INTEGER",
      ...Object.fromEntries(
        Array.from({ length: 299 }, (_, i) => [`c${i}`, "TEXT"]),
      ),
    },
    setup: `create table wide (id bigint primary key, ${
      Array.from({ length: 299 }, (_, i) => `c${i} text`).join(", ")
    });`,
    run: [
      "insert into wide (id, c0, c298) select i, 'a', 'z' from generate_series(1, 50) i",
      "update wide set c150 = 'm' where id % 2 = 0",
      "update wide set id = -id where id < 5",
    ],
    rows: 50,
  },
  {
    when: "listed columns are generated, and of a domain over a domain",
    table: "generated",
    columns: { id: "INTEGER", a: "TEXT", b: "INTEGER" },
    setup:
      `create domain small as int check (value < 100); create domain smaller as small;
      create table generated (id bigint generated always as identity primary key,
        a text generated always as (b::int::text || '!') stored, b smaller);`,
    run: [
      "insert into generated (b) values (1), (2), (3)",
      "update generated set b = 50 where id = 2; delete from generated where id = 1",
    ],
    rows: 2,
  },
]);

// ---------------------------------------------------------------------------
// Names
// ---------------------------------------------------------------------------

/** Column names that collide with PL/pgSQL, with aliases, or with anything. */
const NAMES = [
  ..."n o t k c d l m r x i s v".split(" "),
  ...("messages found cells live changed touched key live_key touched_key n1 o1 " +
    "new_rows old_rows message kind bytes new old tg_op tg_argv sqlstate sqlerrm " +
    "value record array select order user table row from where end begin then")
    .split(" "),
  "UPPER",
  "with space",
  'quote"s',
  "it's",
  "semi;colon--",
  "100% %s %I %L %1$s",
  "back\\slash",
  "$body$ $sql$",
  "日本語 ünï 🙂",
  "?",
  "dot.ted",
  "l".repeat(63),
];
const quoted = (name: string) => `"${name.replaceAll('"', '""')}"`;

const TABLE_NAMES = [
  ...NAMES.filter((name) => !/^(UPPER|[a-z])$/.test(name)).slice(0, 12),
  ...NAMES.filter((name) => /[^a-z0-9_]/.test(name)),
  "l".repeat(63),
];

testCases([
  {
    when: "its columns have the strangest names",
    table: "strange",
    key: ["n", 'quote"s', "100% %s %I %L %1$s"],
    columns: Object.fromEntries(NAMES.map((name) => [name, "TEXT"])),
    setup: `create table strange (${
      NAMES.map((name) => `${quoted(name)} text default 'd'`).join(", ")
    }, primary key ("100% %s %I %L %1$s", n, "quote""s"));`,
    run: [
      "insert into strange (n) values ('1'), ('2'), ('3')",
      ...NAMES.filter((name) => name !== "n").map((name) =>
        `update strange set ${quoted(name)} = ${
          quoted(name)
        } || '!' where n <> '3'`
      ),
      "update strange set n = 'x' where n = '1'",
      "delete from strange where n = '2'",
    ],
    rows: 2,
  },
  ...TABLE_NAMES.map((table): Case => ({
    when: `its name is ${table}`,
    table,
    setup: plain(quoted(table)),
    run: [
      `insert into ${quoted(table)} values (1, 'a'), (2, 'b')`,
      `update ${quoted(table)} set a = 'c' where id = 1; delete from ${
        quoted(table)
      } where id = 2`,
      `truncate ${quoted(table)}; insert into ${quoted(table)} values (5, 'e')`,
    ],
    rows: 1,
    messages: 5,
  })),
]);

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
  const steps: [title: string, text: string, rows: number, dynamic?: true][] = [
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
    ["one leaf is truncated", "truncate parts_eu_low", 0, true],
    [
      "a middle partition is truncated after an insert",
      "begin; insert into parts values (77, 'eu', 'x'); truncate parts_eu; insert into parts values (78, 'eu', 'y'); commit",
      0,
      true,
    ],
    [
      "all of it is truncated",
      "truncate parts; insert into parts values (1, 'us', 'after')",
      1,
      true,
    ],
  ];
  for (const [title, text, rows, dynamic] of steps) {
    await t.step(title, async () => {
      await using sessions = new Sessions(stack);
      {
        await using _ = dynamic ? null : await withoutFallback(sql);
        await sessions.connect().unsafe(text).simple();
      }
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
    await using _ = await withoutFallback(sql);
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
    await using _ = await withoutFallback(sql);
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

Deno.test("capture() says so when the key's column is gone, and the user's write is well", async () => {
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
  await sql`insert into other values (1, 'goes on')`;
  const body = await stack.drain();
  assertEquals(body.success, true);
  const letters = await stack.deadLetters();
  assertEquals(
    letters.map(({ table, key }) => [table, key]),
    Array(3).fill(["changing", null]),
  );
  for (const { reason } of letters) {
    assert(String(reason).includes("libsql_sync.attach()"), String(reason));
  }
  assertEquals(
    await stack.assertEqual({ tables: { other: CHANGING.tables.other! } }),
    1,
  );
  await sql`select libsql_sync.attach()`.then(
    () => {
      throw new Error("attach() took a table without its key");
    },
    ({ message }) =>
      assertEquals(
        message,
        "Cannot attach: public.changing has no unique, not null key (id)",
      ),
  );
  // The key comes back, and with it everything.
  await sql.unsafe(
    "alter table changing add column id bigint primary key generated by default as identity",
  );
  await sql`select libsql_sync.attach()`;
  await sql.unsafe("insert into changing values ('back', 'again')");
  await stack.drain();
  const { rows } = await stack.client.execute("select a from changing");
  assertEquals(rows.map((row) => row.a), ["back"]);
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
  assertEquals(await stack.settle(), 2);
  await sql`insert into old_name values (9, 'a', 'b')`;
  assertEquals(await stack.settle(), 2);
  await sql`select libsql_sync.attach()`;
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

const BULK: RawSchema = {
  tables: {
    bulk: {
      key: "id",
      columns: { id: "INTEGER", a: "TEXT", n: "INTEGER" },
      indexes: [],
    },
    more: { key: "id", columns: { id: "INTEGER", a: "TEXT" }, indexes: [] },
    most: { key: "id", columns: { id: "INTEGER", a: "TEXT" }, indexes: [] },
  },
};
const BULK_SETUP = `create table bulk (id bigint primary key, a text, n int);
  ${plain("more")} ${plain("most")}`;

Deno.test("capture() bounds its messages when statements have 10,000 rows", async (t) => {
  await using stack = await Stack.start(servers, {
    schema: BULK,
    setup: BULK_SETUP,
  });
  const { sql } = stack;
  await using _ = await withoutFallback(sql);
  for (
    const [title, text, rows] of [
      [
        "insert",
        "insert into bulk select i, 'row ' || i, nullif(i, 1 + i / 7 * 7) from generate_series(1, 10000) i",
        10_000,
      ],
      ["update", "update bulk set n = n + 1", 10_000],
      ["key change", "update bulk set id = id + 20000", 10_000],
      [
        "rows of 2 kB",
        "insert into bulk select -i, repeat(md5(i::text), 64), i from generate_series(1, 10000) i",
        20_000,
      ],
      ["delete", "delete from bulk where id % 2 = 0", 10_000],
    ] as const
  ) {
    await t.step(title, async () => {
      await sql.unsafe(text);
      for (const message of await stack.messages()) {
        const { rows = [], deletes = [] } = message as {
          rows?: string[][];
          deletes?: string[][];
        };
        assert(rows.length <= 1000 && deletes.length <= 1000);
        const bytes = new TextEncoder().encode(JSON.stringify(message)).length;
        assert(bytes < 300_000, `${bytes} bytes`);
      }
      assertEquals(await stack.settle(), rows);
    });
  }
  await t.step("copy", async () => {
    const writable =
      await sql`copy bulk (id, a, n) from stdin with (format csv)`.writable();
    const lines = Array.from(
      { length: 10_000 },
      (_, i) => `${100_000 + i},"copied ""${i}""",\n`,
    );
    await new Promise<void>((resolve, reject) => {
      writable.on("error", reject).on("finish", resolve);
      writable.end(lines.join(""));
    });
    assertEquals(await stack.settle(), 20_000);
  });
  await t.step("truncate of several tables", async () => {
    await sql.unsafe(
      "insert into more values (1, 'a'); insert into most values (1, 'a'), (2, 'b');",
    ).simple();
    assertEquals(await stack.settle(), 20_003);
    await sql`truncate bulk, more restart identity`;
    assertEquals((await stack.messages()).length, 2);
    assertEquals(await stack.settle(), 2);
  });
});

Deno.test("capture() reads single rows by their key when the session's first statement had many", async () => {
  await using stack = await Stack.start(servers, {
    schema: BULK,
    setup: BULK_SETUP,
  });
  await using sessions = new Sessions(stack);
  const session = sessions.connect();
  await session`insert into bulk select i, repeat('x', 100), i from generate_series(1, 20000) i`;
  // Plans made before it are not kept.
  await session`analyze bulk`;
  await session`update bulk set n = n + 1`;
  await session`delete from bulk where id > 10000`;
  await session`insert into bulk select i from generate_series(20001, 40000) i`;
  const scans = async () => {
    await session`select pg_stat_force_next_flush()`;
    const [found] =
      await session`select seq_scan::int as n from pg_stat_user_tables where relname = 'bulk'`;
    return found?.n;
  };
  const before = await scans();
  for (let id = 1; id <= 20; id++) {
    await session.unsafe(`update bulk set n = 0 where id = ${id}`);
    await session.unsafe(`insert into bulk values (${-id})`);
    await session.unsafe(`delete from bulk where id = ${id}`);
  }
  assertEquals(await scans(), before);
});

Deno.test("capture() sees every row when a role that may not writes", async () => {
  await using stack = await Stack.start(servers, {
    schema: BULK,
    setup: `${BULK_SETUP}
      alter table bulk enable row level security;
      grant all on bulk, more to authenticated;
      create policy own on bulk to authenticated using (n = 1) with check (true);`,
  });
  const { sql } = stack;
  await using _ = await withoutFallback(sql);
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
  // The fallback as well.
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
  await using _ = await withoutFallback(sql);
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
  Deno.test(`capture() sends no row that somebody deleted since a ${level} transaction's snapshot`, async () => {
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

Deno.test("capture() renders a value as the same text when sessions are set differently", async () => {
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
    p: ["xml", "'<a>b</a>'"],
  } as const;
  const columns = Object.keys(types);
  const schema: RawSchema = {
    tables: {
      rendered: {
        key: "id",
        columns: {
          id: "INTEGER",
          ...Object.fromEntries(columns.map((name) => [name, "TEXT"])),
        },
        indexes: [],
      },
    },
  };
  await using stack = await Stack.start(servers, {
    schema,
    setup: `create table rendered (id bigint primary key, ${
      Object.entries(types).map(([name, [type]]) => `${name} ${type}`).join(
        ", ",
      )
    });
    insert into rendered values (0, ${
      Object.values(types).map(([, value]) => value).join(", ")
    });`,
  });
  const { sql } = stack;
  await using sessions = new Sessions(stack);
  const settings: Record<string, string>[] = [
    {},
    { TimeZone: "America/New_York", DateStyle: "German, DMY" },
    { TimeZone: "Pacific/Kiritimati", DateStyle: "SQL, MDY" },
    { TimeZone: "Asia/Kolkata", DateStyle: "Postgres, DMY" },
    { IntervalStyle: "iso_8601", bytea_output: "escape" },
    { IntervalStyle: "sql_standard", extra_float_digits: "-10" },
    { extra_float_digits: "3", lc_monetary: "C", search_path: "public" },
    { xmlbinary: "hex", quote_all_identifiers: "on" },
    { plan_cache_mode: "force_generic_plan", enable_hashjoin: "off" },
  ];
  for (const [n, setting] of settings.entries()) {
    const session = sessions.connect(setting);
    const list = columns.join(", ");
    await session.unsafe(
      `insert into rendered (id, ${list}) select ${
        n + 1
      }, ${list} from rendered where id = 0`,
    );
    // The fallback renders it as well as the static branch.
    await sql.unsafe("alter table rendered rename to away");
    await session.unsafe(`update away set id = ${n + 100} where id = ${n + 1}`);
    await sql.unsafe("alter table away rename to rendered");
  }
  const texts = (await stack.messages()).filter(({ rows }) => rows).map(
    (message) => {
      const { rows, columns } = message as {
        rows: string[][];
        columns: string[];
      };
      return JSON.stringify(
        rows[0]!.filter((_, at) => columns[at] !== "id"),
      );
    },
  );
  assertEquals(texts.length, 2 * settings.length);
  assertEquals([...new Set(texts)].length, 1, [...new Set(texts)].join("\n"));
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
    v: 1,
    table: "bulk",
    columns: ["id", "n"],
    rows: [["1", "1"]],
  }]);
  const left =
    await sql`select from pg_trigger where tgname like 'replicate%' and tgrelid in ('more'::regclass, 'most'::regclass)`;
  assertEquals(left.length, 0);
});
