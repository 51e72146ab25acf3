import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { SUPERUSER } from "../../lib/dev/postgres.ts";
import { type RawSchema, Servers, Stack } from "./support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

/** A cell of the replica: its storage class and its text. */
type Cell = [type: string, text: string | null];
const NULL: Cell = ["null", null];
const text = (value: string): Cell => ["text", value];
const integer = (value: string): Cell => ["integer", value];

/** Values of one type of PostgreSQL's under one declared type. */
interface Case {
  readonly type: string;
  readonly declared: string;
  /** SQL of each value and the cell it becomes; null: what the oracle says. */
  readonly values: readonly (readonly [sql: string, cell: Cell | null])[];
}

const LONG = "select repeat('0123456789abcdé\n', 65536)";
const CASES: readonly Case[] = [
  {
    type: "bigint",
    declared: "INTEGER",
    values: [
      ["9223372036854775807", integer("9223372036854775807")],
      ["-9223372036854775808", integer("-9223372036854775808")],
      ["9007199254740993", integer("9007199254740993")],
      ["0", integer("0")],
      ["null", NULL],
    ],
  },
  {
    type: "bigint",
    declared: "TEXT",
    values: [["9223372036854775807", text("9223372036854775807")]],
  },
  {
    type: "numeric",
    declared: "INTEGER",
    values: [
      ["5.00", integer("5")],
      ["-0.0", integer("0")],
      ["-9223372036854775808.000", integer("-9223372036854775808")],
      ["1e18", integer("1000000000000000000")],
    ],
  },
  {
    type: "numeric",
    declared: "TEXT",
    values: [
      [
        "123456789012345678901234567890.12345678901234567890",
        text("123456789012345678901234567890.12345678901234567890"),
      ],
      ["1.10", text("1.10")],
      ["100", text("100")],
      ["0.00", text("0.00")],
      ["1e-20", text("0.00000000000000000001")],
      ["'NaN'", text("NaN")],
      ["'-Infinity'", text("-Infinity")],
    ],
  },
  {
    type: "float8",
    declared: "TEXT",
    values: [
      ["'NaN'", text("NaN")],
      ["'Infinity'", text("Infinity")],
      ["0.1::float8 + 0.2", text("0.30000000000000004")],
      ["'-0'", text("-0")],
      ["1e308", text("1e+308")],
      ["5e-324", text("5e-324")],
    ],
  },
  {
    type: "float8",
    declared: "INTEGER",
    values: [
      ["1e15", integer("1000000000000000")],
      ["'-0'", integer("0")],
      ["-3", integer("-3")],
    ],
  },
  { type: "real", declared: "TEXT", values: [["1.5", text("1.5")]] },
  {
    type: "boolean",
    declared: "BOOLEAN",
    values: [["true", integer("1")], ["false", integer("0")], ["null", NULL]],
  },
  {
    type: "boolean",
    declared: "TEXT",
    values: [["true", text("true")], ["false", text("false")]],
  },
  {
    type: "int",
    declared: "BOOLEAN",
    values: [["1", integer("1")], ["0", integer("0")]],
  },
  {
    type: "text",
    declared: "BOOLEAN",
    values: [["'t'", integer("1")], ["'false'", integer("0")]],
  },
  ...["JSON", "TEXT"].map((declared): Case => ({
    type: "jsonb",
    declared,
    values: [
      [
        `'{"b": [1, 2.50, null], "a": "x"}'`,
        text('{"a": "x", "b": [1, 2.50, null]}'),
      ],
      ["'[]'", text("[]")],
      ["'{}'", text("{}")],
      ["'true'", text("true")],
      ["'9007199254740993'", text("9007199254740993")],
      [
        `'{"n": 123456789012345678901234567890.10, "m": [9223372036854775808]}'`,
        text(
          '{"m": [9223372036854775808], "n": 123456789012345678901234567890.10}',
        ),
      ],
      [`'"str"'`, text('"str"')],
      [String.raw`'"q\" \n 🙂"'`, text(String.raw`"q\" \n 🙂"`)],
      [`'"[1]"'`, text('"[1]"')],
      ["'null'", text("null")],
      ["null", NULL],
    ],
  })),
  {
    type: "json",
    declared: "JSON",
    values: [
      [`' {"a":  1, "a": 2} '`, text(' {"a":  1, "a": 2} ')],
      [`'"s"'`, text('"s"')],
    ],
  },
  {
    type: "json",
    declared: "TEXT",
    values: [[`'[1,2]'`, text("[1,2]")]],
  },
  {
    type: "text",
    declared: "TEXT",
    values: [
      ["''", text("")],
      ["null", NULL],
      ["'null'", text("null")],
      [
        String.raw`'\ '' " \n \u0041 % $1 ? :x --'`,
        text(String.raw`\ ' " \n \u0041 % $1 ? :x --`),
      ],
      [
        String.raw`E'\u0001\b\t\n\r\u001f\u007f\u0085\u2028\ufeff\uffff'`,
        text("\u0001\b\t\n\r\u001f\u007f\u0085\u2028\ufeff\uffff"),
      ],
      ["'🙂👩‍👩‍👧 é é 日本'", text("🙂👩‍👩‍👧 é é 日本")],
      [`(${LONG})`, null],
      ["'  padded  '", text("  padded  ")],
    ],
  },
  {
    type: "text",
    declared: "JSON",
    values: [["'a \"b\"'", text('"a \\"b\\""')], [
      "'{\"a\":1}'",
      text('"{\\"a\\":1}"'),
    ]],
  },
  {
    type: "timestamptz",
    declared: "TEXT",
    values: [
      [
        "'2024-07-01 12:00:00.123456+02'",
        text("2024-07-01T10:00:00.123456+00:00"),
      ],
      ["'infinity'", text("infinity")],
      ["'-infinity'", text("-infinity")],
      ["'0044-03-15 12:00:00+00 BC'", text("0044-03-15T12:00:00+00:00 BC")],
      [
        "'294276-12-31 23:59:59.999999+00'",
        text("294276-12-31T23:59:59.999999+00:00"),
      ],
    ],
  },
  {
    type: "timestamp",
    declared: "TEXT",
    values: [["'2024-07-01 12:00'", text("2024-07-01T12:00:00")], [
      "'infinity'",
      text("infinity"),
    ]],
  },
  {
    type: "date",
    declared: "TEXT",
    values: [["'2024-02-29'", text("2024-02-29")], [
      "'0044-03-15 BC'",
      text("0044-03-15 BC"),
    ]],
  },
  {
    type: "timetz",
    declared: "TEXT",
    values: [["'12:00:00.5+05:30'", text("12:00:00.5+05:30")]],
  },
  {
    type: "interval",
    declared: "TEXT",
    values: [[
      "'1 year -2 days 03:04:05.6'",
      text("1 year -2 days +03:04:05.6"),
    ], ["'0'", text("00:00:00")]],
  },
  {
    type: "bytea",
    declared: "TEXT",
    values: [[String.raw`'\x00ff10'`, text("\\x00ff10")], ["''", text("\\x")]],
  },
  {
    type: "text[]",
    declared: "TEXT",
    values: [
      [`array['a', 'b "c"', null, '']`, text('["a","b \\"c\\"",null,""]')],
      ["'{}'", text("[]")],
    ],
  },
  {
    type: "int[]",
    declared: "JSON",
    values: [["'{{1,2},{3,NULL}}'", text("[[1,2],[3,null]]")]],
  },
  {
    type: "jsonb[]",
    declared: "JSON",
    values: [
      [
        `array['{"a": 9007199254740993}', '"x"', null, 'null']::jsonb[]`,
        text('[{"a": 9007199254740993},"x",null,null]'),
      ],
    ],
  },
  {
    type: "pair",
    declared: "TEXT",
    values: [["row(1, 'a')", text('{"x":1,"y":"a"}')], [
      "row(null, null)",
      text('{"x":null,"y":null}'),
    ]],
  },
  {
    type: "mood",
    declared: "TEXT",
    values: [["'sad ''n'' happy'", text("sad 'n' happy")]],
  },
  {
    type: "uuid",
    declared: "TEXT",
    values: [[
      "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'",
      text("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ]],
  },
  {
    type: "int4range",
    declared: "TEXT",
    values: [["'[1,5]'", text("[1,6)")], ["'empty'", text("empty")]],
  },
  {
    type: "tstzrange",
    declared: "TEXT",
    values: [["'[2024-01-01 00:00+01,)'", text('["2023-12-31 23:00:00+00",)')]],
  },
  {
    type: "int4multirange",
    declared: "TEXT",
    values: [["'{[1,2),[5,7)}'", text("{[1,2),[5,7)}")]],
  },
  {
    type: "inet",
    declared: "TEXT",
    values: [["'10.0.0.1/8'", text("10.0.0.1/8")], ["'::1'", text("::1")]],
  },
  {
    type: "hstore",
    declared: "TEXT",
    values: [["'a=>1, b=>NULL'", text('"a"=>"1", "b"=>NULL')]],
  },
  { type: "citext", declared: "TEXT", values: [["'MiXed'", text("MiXed")]] },
  {
    type: "email",
    declared: "TEXT",
    values: [["'A@b'", text("A@b")], ["null", NULL]],
  },
  { type: "positive", declared: "INTEGER", values: [["7", integer("7")]] },
  {
    type: "document",
    declared: "JSON",
    values: [[`'{"a": 1}'`, text('{"a": 1}')]],
  },
  {
    type: "tags",
    declared: "JSON",
    values: [["array['a','b']", text('["a","b"]')]],
  },
  { type: "char(5)", declared: "TEXT", values: [["'ab'", text("ab   ")]] },
  { type: '"char"', declared: "TEXT", values: [["'c'", text("c")]] },
  { type: "bit(4)", declared: "TEXT", values: [["B'0101'", text("0101")]] },
  {
    type: "money",
    declared: "TEXT",
    values: [["12.5::numeric", text("$12.50")]],
  },
  { type: "point", declared: "TEXT", values: [["'(1,2.5)'", text("(1,2.5)")]] },
  {
    type: "tsvector",
    declared: "TEXT",
    values: [["'a:1 b'", text("'a':1 'b'")]],
  },
  {
    type: "xml",
    declared: "TEXT",
    values: [["'<a>&lt;b</a>'", text("<a>&lt;b</a>")]],
  },
];

const TYPES = `create extension if not exists citext with schema public;
  create extension if not exists hstore with schema public;
  create type pair as (x int, y text);
  create type mood as enum ('sad ''n'' happy');
  create domain email as citext check (value like '%@%');
  create domain positive as int8 check (value > 0);
  create domain document as jsonb;
  create domain tags as text[];`;

/** A table per case. */
const tableOf = (at: number) => `v${at}`;
const SCHEMA: RawSchema = {
  tables: Object.fromEntries(CASES.map(({ declared }, at) => [tableOf(at), {
    key: "id",
    columns: { id: "INTEGER", v: declared },
    indexes: [],
  }])),
};

/** The cells of 1,000 ids of a table of the replica, by id. */
async function cellsOf(
  stack: Stack,
  table: string,
  from: number,
): Promise<Cell[]> {
  const { rows } = await stack.client.execute(
    `select typeof(v), cast(v as text) from ${table} where id >= ${from} and id < ${
      from + 1000
    } order by id`,
  );
  return rows.map((row) => [String(row[0]), row[1] as string | null]);
}

/** How the keys of rows come to the source: a message of one table, or what else brings them. */
const WAYS: Record<string, string | ((stack: Stack) => Promise<unknown>)> = {
  capture: () => Promise.resolve(),
  "a message of keys": `jsonb_build_object('v', 2, 'table', $table,
    'keys', jsonb_agg(jsonb_build_array(id::text)))`,
  "a classic message": `jsonb_build_object('type', 'INSERT', 'table', $table,
    'old_record', null, 'record', to_jsonb(t))`,
  "a message of 0.1.0": `jsonb_build_object('v', 1, 'table', $table,
    'columns', array['id', 'v'], 'rows', jsonb_agg(jsonb_build_array(id::text, 'other')))`,
  "a page": async (stack) => {
    await stack.sql`delete from pgmq.q_replicate_data_libsql`;
    await stack.finish("/backfill");
  },
};

Deno.test("sync() stores each value exactly whichever way its key comes", async (t) => {
  await using stack = await Stack.start(servers, {
    walks: false,
    schema: SCHEMA,
    setup: TYPES +
      CASES.map(({ type }, at) =>
        `create table ${tableOf(at)} (id bigint primary key, v ${type});`
      ).join("\n"),
  });
  const { sql } = stack;
  for (const [at, [name, way]] of Object.entries(WAYS).entries()) {
    const from = at * 1000;
    await sql.unsafe(
      CASES.flatMap(({ values }, at) =>
        values.map(([value], id) =>
          `insert into ${tableOf(at)} values (${from + id}, ${value});`
        )
      ).join("\n"),
    ).simple();
    if (typeof way !== "string") await way(stack);
    else {
      await sql`delete from pgmq.q_replicate_data_libsql`;
      await sql.unsafe(
        [...CASES.keys()].map(tableOf).map((table) =>
          `select pgmq.send('replicate_data_libsql', ${
            way.replace("$table", `'${table}'`)
          }) from ${table} t where id >= ${from};`
        ).join("\n"),
      ).simple();
    }
    await stack.settle();
    await t.step(name, async (t) => {
      for (const [at, { type, declared, values }] of CASES.entries()) {
        await t.step(`${type} declared ${declared}`, async () => {
          const cells = await cellsOf(stack, tableOf(at), from);
          assertEquals(
            cells.map((cell, id) => values[id]?.[1] === null ? null : cell),
            values.map(([, cell]) => cell),
          );
        });
      }
    });
  }
});

Deno.test("sync() parks a row with its reason when its column cannot hold a value, and heals it later", async () => {
  const schema: RawSchema = {
    tables: {
      odd: {
        key: "id",
        columns: { id: "INTEGER", n: "INTEGER", b: "BOOLEAN", a: "TEXT" },
        indexes: [],
      },
    },
  };
  await using stack = await Stack.start(servers, {
    walks: false,
    schema,
    setup: "create table odd (id numeric primary key, n text, b text, a text);",
  });
  const { sql } = stack;
  await sql.unsafe(
    `insert into odd values (1, '1', 't', 'well'), (2, '9223372036854775808', null, 'secret'),
    (3, '1.5', null, 'secret'), (4, 'secret', null, 'x'), (5, '', null, 'x'), (6, 'NaN', null, 'x'),
    (7, null, 'secret', 'x'), (8.5, null, null, 'x'), (1e30, null, null, 'x'), (9, '9', 'f', 'well')`,
  );
  const body = await stack.drain();
  assertEquals([body.success, body.parked], [true, 8]);
  const letters = await stack.deadLetters();
  assertEquals(
    letters.map(({ key, reason }) => [(key as string[])[0], reason]).sort((
      a,
      b,
    ) => Number(a[0]) - Number(b[0])),
    [
      [
        "2",
        "column n: expected an exact integer of 64 bits: found a number beyond 64 bits of 19 characters",
      ],
      [
        "3",
        "column n: expected an exact integer of 64 bits: found a fraction of 3 characters",
      ],
      [
        "4",
        "column n: expected an exact integer of 64 bits: found text of 6 characters",
      ],
      ["5", "column n: expected an exact integer of 64 bits: found empty text"],
      [
        "6",
        "column n: expected an exact integer of 64 bits: found text of 3 characters",
      ],
      ["7", "column b: expected true or false: found text of 6 characters"],
      [
        "8.5",
        "column id: expected an exact integer of 64 bits: found a fraction of 3 characters",
      ],
      [
        "1000000000000000000000000000000",
        "column id: expected an exact integer of 64 bits: found a number beyond 64 bits of 31 characters",
      ],
    ],
  );
  for (const line of [...stack.log, ...letters]) {
    assert(!JSON.stringify(line).includes("secret"));
  }
  const { rows } = await stack.client.execute("select id from odd order by id");
  assertEquals(rows.map((row) => row.id), [1, 9]);
  await sql`update odd set n = id::bigint::text, b = 'true', id = trunc(id) where id < 100`;
  await sql`delete from odd where id > 100`;
  await stack.drain();
  assertEquals(await stack.assertEqual(), 9);
});

Deno.test("sync() parks a row that PostgreSQL cannot read, alone: of a change, of a page and after a nuke", async () => {
  await using stack = await Stack.start(servers, {
    schema: {
      tables: {
        fragile: {
          key: "id",
          columns: { id: "INTEGER", v: "JSON", n: "INTEGER" },
          indexes: ["n"],
        },
      },
    },
    setup: `
      create type glass as enum ('whole', 'broken secret');
      create function shatter(glass) returns json language plpgsql immutable as $$
      begin
        if $1 = 'broken secret' then raise exception 'shattered: %', $1; end if;
        return to_json($1::text);
      end $$;
      create cast (glass as json) with function shatter(glass);
      create table fragile (id bigint primary key, v glass, n int);
      insert into fragile select i, 'whole', i from generate_series(1, 300) i;
      update fragile set v = 'broken secret' where id in (7, 250);`,
  });
  const { sql } = stack;
  const parked = async () => {
    const letters = await stack.deadLetters();
    for (const { reason } of letters) {
      assertEquals(reason, "PostgreSQL cannot read the row: P0001");
    }
    return letters.map(({ key }) => Number((key as string[])[0])).sort((a, b) =>
      a - b
    );
  };
  const replicaIds = async () => {
    const { rows } = await stack.client.execute("select id from fragile");
    return new Set(rows.map(({ id }) => Number(id)));
  };
  await sql`select libsql_sync.scrub(0)`;
  // The pages that fill the replica.
  await stack.walk();
  assertEquals(await parked(), [7, 250]);
  assertEquals((await replicaIds()).size, 298);

  // A change: the rows beside it go on, and the replica keeps what it had.
  await sql`update fragile set n = n + 1000, v = case when id in (20, 21) then 'broken secret' else v end where id < 100`;
  await stack.drain();
  assertEquals(await parked(), [7, 20, 21, 250]);
  const { rows } = await stack.client.execute(
    "select id from fragile where id < 100 and n < 1000 order by id",
  );
  assertEquals(rows.map(({ id }) => id), [20, 21]);

  assertEquals((await stack.post("/nuke")).status, 200);
  await stack.walk();
  assertEquals(await parked(), [7, 20, 21, 250]);
  assertEquals((await replicaIds()).size, 296);

  // Absence is always sent.
  await sql`delete from fragile where id in (7, 300)`;
  await stack.drain();
  assertEquals(await parked(), [20, 21, 250]);
  assertEquals((await replicaIds()).has(300), false);

  // A change heals one, a redrive another, a walk the last.
  await sql`update fragile set v = 'whole' where id = 20`;
  await stack.drain();
  assertEquals(await parked(), [21, 250]);
  await stack.run(
    "set session_replication_role = replica; update fragile set v = 'whole' where id in (21, 250)",
    { user: SUPERUSER },
  );
  const [letter] =
    await sql`select id from libsql_sync.dead_letters() where key = '["21"]'`;
  await sql`select libsql_sync.redrive(array[${letter!.id}]::bigint[])`;
  await stack.drain();
  await stack.walk();
  assertEquals(await parked(), [250]);
  await stack.finish("/backfill");
  assertEquals(await parked(), []);
  assertEquals(await stack.assertEqual(), 298);
  assert(!JSON.stringify(stack.log).includes("secret"));
});

Deno.test("sync() makes every cell equal when values are random", async () => {
  const columns = {
    id: "INTEGER",
    n: "TEXT",
    i: "INTEGER",
    f: "TEXT",
    b: "BOOLEAN",
    s: "TEXT",
    j: "JSON",
    t: "TEXT",
    l: "JSON",
    y: "TEXT",
  };
  await using stack = await Stack.start(servers, {
    walks: false,
    schema: {
      tables: {
        random: { key: ["id", "s"], columns, indexes: ["i", ["b", "n"]] },
      },
    },
    setup:
      `create table random (id bigint, n numeric, i numeric(30, 5), f float8, b boolean, s text collate "C",
      j jsonb, t timestamptz, l text[], y bytea, primary key (s, id));`,
  });
  const { sql } = stack;
  // PostgreSQL's text holds no U+0000, its jsonb no half of a surrogate pair.
  const string = fc.string({ unit: "binary", maxLength: 30 }).map((value) =>
    value.replaceAll("\u0000", "")
  );
  const option = <T>(arbitrary: fc.Arbitrary<T>) =>
    fc.option(arbitrary, { freq: 6 });
  const row = fc.record({
    id: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }).map(String),
    n: option(
      fc.tuple(fc.bigInt({ min: -(10n ** 40n), max: 10n ** 40n }), fc.nat(20))
        .map(([digits, scale]) => `${digits}e-${scale}`),
    ),
    i: option(
      fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }).map(String),
    ),
    f: option(fc.double().map(String)),
    b: option(fc.boolean()),
    s: string,
    j: option(
      fc.json().filter((value) => !/\\u(0000|d[89a-f])/i.test(value)),
    ),
    t: option(
      fc.tuple(fc.integer(), fc.nat(999_999)).map(([seconds, micros]) =>
        `${new Date(seconds * 1000).toISOString().slice(0, 19)}.${
          String(micros).padStart(6, "0")
        }Z`
      ),
    ),
    l: option(fc.array(option(string), { maxLength: 4 })),
    y: option(
      fc.uint8Array({ maxLength: 8 }).map((bytes) => `\\x${bytes.toHex()}`),
    ),
  });
  const changes = fc.record({
    rows: fc.array(row, { minLength: 20, maxLength: 40 }),
    modulo: fc.integer({ min: 2, max: 7 }),
  });
  let rows = 0;
  await fc.assert(
    fc.asyncProperty(changes, async ({ rows: given, modulo }) => {
      await sql`insert into random
        select distinct on (r.s, r.id) r.id, r.n, r.i, r.f, r.b, r.s, r.j, r.t,
          case when r.l is not null then array(select json_array_elements_text(r.l)) end, r.y
        from json_to_recordset(${JSON.stringify(given)}::text::json)
          r (id bigint, n numeric, i numeric, f float8, b boolean, s text, j jsonb, t timestamptz, l json, y bytea)
        on conflict (s, id) do update set n = excluded.n, j = excluded.j`;
      await sql`update random set n = n * 3, i = null, b = not b, s = s || '''"', t = t - interval '1 day', y = y || '\\x00'
        where abs(id % ${modulo}) = 1`;
      await sql`delete from random where abs(id % 11) = ${modulo}`;
      rows = await stack.settle();
    }),
    { seed: 20251031, numRuns: 15, endOnFailure: true },
  );
  assert(rows > 200, `${rows} rows`);
});

// ---------------------------------------------------------------------------
// The classic message {record, old_record, type, table}
// ---------------------------------------------------------------------------

const CLASSIC: RawSchema = {
  tables: {
    classic: {
      key: "id",
      columns: {
        id: "INTEGER",
        n: "INTEGER",
        b: "BOOLEAN",
        a: "TEXT",
        big: "TEXT",
        j: "JSON",
      },
      indexes: [],
    },
  },
};
const CLASSIC_SETUP =
  "create table classic (id bigint primary key, n bigint, b boolean, a text, big numeric, j jsonb, unlisted text);";

Deno.test("sync() makes the replica equal when a classic row trigger sends the messages", async () => {
  await using stack = await Stack.start(servers, {
    walks: false,
    schema: CLASSIC,
    setup: CLASSIC_SETUP,
  });
  const { sql } = stack;
  await sql.unsafe(`
    create function classic_send() returns trigger language plpgsql as $$
    begin
      perform pgmq.send('replicate_data_libsql', jsonb_build_object('type', tg_op, 'table', tg_table_name,
        'record', case when tg_op in ('INSERT', 'UPDATE') then to_jsonb(new) end,
        'old_record', case when tg_op in ('UPDATE', 'DELETE') then to_jsonb(old) end));
      return null;
    end $$;
    drop trigger replicate_classic_libsql on classic;
    drop trigger replicate_classic_libsql_update on classic;
    drop trigger replicate_classic_libsql_delete on classic;
    drop trigger replicate_classic_libsql_truncate on classic;
    create trigger classic_rows after insert or update or delete on classic for each row execute function classic_send();
    create trigger classic_truncate after truncate on classic for each statement execute function classic_send();
  `).simple();
  const step = async (text: string, rows: number) => {
    await sql.unsafe(text).simple();
    assertEquals(await stack.settle(), rows, text);
  };
  await step(
    `insert into classic values
      (1, 9223372036854775807, true, 'a''b"c', 123456789012345678901234567890.10, '{"n": [9007199254740993, 1.10], "o": {"p": 123456789012345678901234567890}}', 'x'),
      (2, -9223372036854775808, false, '', 1.00, '[1, "2", null]', 'x'),
      (3, null, null, null, null, null, null),
      (9007199254740993, 0, true, '🙂', 0, '"text"', 'x')`,
    4,
  );
  await step(
    "update classic set a = 'changed', j = '[true]' where id in (1, 3)",
    4,
  );
  await step("update classic set id = id + 10 where id < 10", 4);
  await step("delete from classic where id in (11, 9007199254740993)", 2);
  await step(
    "update classic set id = 50 where id = 12; insert into classic (id) values (12); update classic set id = 51 where id = 12",
    3,
  );
  await step("truncate classic", 0);
  await step("insert into classic (id, a) values (1, 'again')", 1);
});

Deno.test("sync() finds a row by its key whatever the table's domains refuse", async () => {
  await using stack = await Stack.start(servers, {
    schema: {
      tables: {
        listed: {
          key: "k",
          columns: { k: "JSON", v: "TEXT" },
          indexes: [],
        },
        named: { key: "k", columns: { k: "TEXT", v: "TEXT" }, indexes: [] },
      },
    },
    setup: `
      create domain present as text not null;
      create domain name_of as text;
      create table listed (k int[] primary key, v text, other present);
      create table named (k name_of primary key, v text);
      insert into named values ('old', 'before');
      alter domain name_of add check (value <> 'old') not valid;`,
  });
  await stack.walk();
  await stack.sql`insert into listed values ('{1,2}', 'a', 'there')`;
  await stack.sql`update named set v = 'after'`;
  await stack.drain();
  assertEquals(await stack.assertEqual(), 2);
});

Deno.test("read_rows() fetches no large values that it cannot hand out, whatever came before", async () => {
  await using stack = await Stack.start(servers, {
    schema: {
      tables: {
        sizes: {
          key: "id",
          columns: { id: "INTEGER", v: "TEXT" },
          indexes: [],
        },
      },
    },
    setup: `create table sizes (id bigint primary key, v text);
      alter table sizes alter v set storage external`,
    walks: false,
  });
  const sql = await stack.sql.reserve();
  const fetched = async () => {
    await sql`select pg_stat_force_next_flush()`;
    const [row] = await sql`
      select (toast_blks_hit + toast_blks_read)::int as blocks
      from pg_statio_user_tables where relname = 'sizes'`;
    return row!.blocks as number;
  };
  await sql`insert into sizes select g, repeat('x', case when g > 1400 then 20000 else 1 end)
    from generate_series(1, 2400) g`;
  const before = await fetched();
  const [read] = await sql`
    select n from libsql_sync.read_rows('sizes'::regclass, 'sizes',
      array(select jsonb_build_array(g::text) from generate_series(1, 2400) g), true, 1000000, 'infinity')`;
  const blocks = await fetched() - before;
  sql.release();
  assert(read!.n > 1400 && read!.n < 1460, `${read!.n} rows`);
  assert(blocks > 0 && blocks < 2000, `${blocks} blocks`);
});

Deno.test("sync() reads the rows that a message names, whatever else it says", async () => {
  await using stack = await Stack.start(servers, {
    walks: false,
    schema: CLASSIC,
    setup: CLASSIC_SETUP,
  });
  const { sql, client } = stack;
  const send = (message: unknown) =>
    sql`select pgmq.send('replicate_data_libsql', ${
      typeof message === "string" ? message : JSON.stringify(message)
    }::text::jsonb)`;
  const table = "classic";
  const ids = async () =>
    (await client.execute("select id from classic order by id")).rows.map((
      { id },
    ) => id);
  /** Rows that no message of capture names. */
  const change = async (text: string) => {
    await sql.unsafe(text).simple();
    await sql`delete from pgmq.q_replicate_data_libsql`;
  };

  await change(
    `insert into classic select i, i, true, 'a ' || i, i + 0.10, '{"n": 1.10}', 'x' from generate_series(1, 20) i`,
  );
  for (
    const message of [
      { type: "INSERT", table, record: { id: 1, n: "secret", unlisted: "x" } },
      { type: "insert", table, record: { id: "2" }, schema: "public" },
      // Both keys, and neither says what became of its row.
      { type: "UPDATE", table, record: { id: 3 }, old_record: { id: 4 } },
      { type: "DELETE", table, record: null, old_record: { id: 5 } },
      { type: "DELETE", table, record: { id: 6 }, old_record: { id: 99 } },
      { type: "UPSERT", table, record: { id: 7 } },
      { table, record: { id: 8 } },
      {
        v: 1,
        table,
        columns: ["unlisted", "id"],
        rows: [["secret", "9"]],
        updates: [["secret", "10"]],
        key: ["id"],
        deletes: [["11"], ["98"]],
        oversize: [["12"]],
      },
      { v: 2, table, keys: [["13"], ["97"], ["013"], ["x"]] },
    ]
  ) await send(message);
  assertEquals((await stack.drain()).parked, 0);
  assertEquals(await ids(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]);

  // Rows are there again: the walk takes out what is gone.
  await change("truncate classic; insert into classic (id) values (14), (30)");
  await send({ type: "TRUNCATE", table });
  await sql`update libsql_sync.chain set refill = true`;
  await stack.walk();
  assertEquals(await ids(), [14, 30]);
  await change("truncate classic");
  await send({ type: "truncate", table });
  await stack.drain();
  assertEquals(await ids(), []);
});
