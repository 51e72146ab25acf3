/**
 * Ring 3. What is done to one table, and what the replica must have of it: the
 * cases of capture's tests, run in both lanes.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import postgres from "postgres";
import { type RawSchema, type Servers, Stack } from "./stack.ts";

/** A table, what is done to it, and what must be left. */
export interface Case {
  /** What capture must withstand. */
  readonly when: string;
  /** The table's name; its DDL is in `setup`. */
  readonly table: string;
  /** The listed columns; id INTEGER and a TEXT by default. */
  readonly columns?: Record<string, string>;
  /** id by default. */
  readonly key?: string | string[];
  readonly setup: string;
  /** Each is one simple query, so one transaction unless it says otherwise. */
  readonly run: readonly string[];
  /** How many rows both sides have in the end. */
  readonly rows: number;
  /** How many messages are sent, if it matters. */
  readonly messages?: number;
  /** Whether rows are there again after a TRUNCATE, so that a walk takes out what is gone. */
  readonly walks?: true;
}

/** A plain table of that name. */
export const plain = (name: string) =>
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

/** Tables for statements that write many rows. */
export const BULK: RawSchema = {
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
/** Makes them. */
export const BULK_SETUP =
  `create table bulk (id bigint primary key, a text, n int);
  ${plain("more")} ${plain("most")}`;

/** Connections of one's own, closed at the end. */
export class Sessions implements AsyncDisposable {
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
export async function until(what: string, holds: () => Promise<boolean>) {
  for (const deadline = Date.now() + 60_000; Date.now() < deadline;) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`waited 60 s for ${what}`);
}

// ---------------------------------------------------------------------------
// The user's triggers
// ---------------------------------------------------------------------------

const TRIGGERS: readonly Case[] = [
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
];

// ---------------------------------------------------------------------------
// Statements of every kind
// ---------------------------------------------------------------------------

const STATEMENTS: readonly Case[] = [
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
    walks: true,
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
    messages: 10,
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
];

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

const NAMED: readonly Case[] = [
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
    walks: true,
    messages: 5,
  })),
];

/**
 * Registers a test of each case.
 *
 * @param options The servers; when the replica gets what was sent: all of it in
 *   one batch, or bit by bit.
 * @returns Ends the stacks of the tests, to be called after all of them.
 */
export function testCases(
  options: { servers: Servers; drains: "at the end" | "after each statement" },
): () => Promise<void> {
  const { servers, drains } = options;
  const stacks: Stack[] = [];
  for (const cases of [TRIGGERS, STATEMENTS, NAMED]) {
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
        await using sessions = new Sessions(stack);
        const sql = sessions.connect({ TimeZone: "Asia/Kolkata" });
        let messages = 0;
        const settle = async () => {
          const queued = await stack.messages();
          // Keys or a truncate say all of it.
          assertEquals(queued.filter(({ walk }) => walk !== undefined), []);
          messages += queued.length;
          if (of.walks) {
            await stack.sql`update libsql_sync.chain set refill = true`;
            await stack.drain();
            await stack.walk();
          }
          return await stack.settle(schemaOf([of]));
        };
        for (const text of of.run) {
          await sql.unsafe(text).simple();
          if (drains === "after each statement") await settle();
        }
        assertEquals(await settle(), of.rows);
        if (of.messages !== undefined) assertEquals(messages, of.messages);
      });
    }
  }
  return async () => {
    for (const stack of stacks) await stack[Symbol.asyncDispose]();
  };
}
