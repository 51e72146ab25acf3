import { assert, assertEquals } from "@std/assert";
import { SUPERUSER } from "../../lib/dev/postgres.ts";
import { type RawSchema, Servers, Stack } from "../db/support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

const VALUES = { n: "INTEGER", flag: "BOOLEAN", doc: "JSON", label: "TEXT" };
/** A key per way to order it, and how to make the i-th of 3,000. */
const KEYS: Record<
  string,
  { key: Record<string, string>; type: string; of: string }
> = {
  ints: {
    key: { id: "INTEGER" },
    type: "id bigint primary key",
    of: "i - 1500",
  },
  uuids: {
    key: { id: "TEXT" },
    type: "id uuid primary key",
    of: "md5(i::text)::uuid",
  },
  icu: {
    key: { id: "TEXT" },
    type: `id text collate "de-x-icu" primary key`,
    of: "(array['ä','a','A','Z','ß','é','😀','_','1','zz'])[1 + i % 10] || i",
  },
  english: {
    key: { id: "TEXT" },
    type: `id text collate "en-US-x-icu" primary key`,
    of: "(array['Über','uber','UBER','co-op','coop'])[1 + i % 5] || i",
  },
  loose: {
    key: { id: "TEXT" },
    type: "id text collate loose primary key",
    of: "(array['Ä','b','C'])[1 + i % 3] || i",
  },
  insensitive: {
    key: { id: "TEXT" },
    type: "id extensions.citext primary key",
    of: "(array['Ä','b','C'])[1 + i % 3] || i",
  },
  pairs: {
    key: { b: "TEXT", a: "INTEGER" },
    type: "a integer, b varchar, primary key (a, b)",
    of: "i % 50, 'k' || i",
  },
  exact: {
    key: { id: "INTEGER" },
    type: "id numeric(12, 2) primary key",
    of: "i",
  },
};
const ROWS = 3000;

const schema: RawSchema = {
  tables: Object.fromEntries(
    Object.entries(KEYS).map(([name, { key }]) => [name, {
      key: Object.keys(key),
      columns: { ...key, ...VALUES },
      indexes: ["n", ["flag", "label"]],
    }]),
  ),
};

const SETUP = `
  create extension if not exists citext schema extensions;
  create collation if not exists loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
` + Object.entries(KEYS).map(([name, { type }]) => `
  create table ${name} (${type}, n bigint, flag boolean, doc jsonb, label text);
`).join("");

const FILL = Object.entries(KEYS).map(([name, { key, of }]) => {
  const columns = name === "pairs" ? "a, b" : Object.keys(key).join(", ");
  return `insert into ${name} (${columns}, n, flag, doc, label)
    select ${of}, i, i % 2 = 0, jsonb_build_object('i', i), 'label ' || i from generate_series(1, ${ROWS}) i;`;
}).join("\n");

/** SQL on the replica that plants one difference, and how it counts. */
interface Plant {
  readonly name: string;
  readonly sql: (table: string) => string;
  readonly differing: number;
  readonly ghosts: number;
}

/** The n-th row in the replica's order, from the end where it is negative. */
const AT = (table: string, n: number) =>
  `rowid = (SELECT rowid FROM ${table} ORDER BY ${
    Object.keys(KEYS[table]!.key).map((key) => n < 0 ? `${key} DESC` : key)
      .join(", ")
  } LIMIT 1 OFFSET ${n < 0 ? -1 - n : n})`;
const changed = (name: string, set: string, n: number): Plant => ({
  name,
  sql: (table) => `UPDATE ${table} SET ${set} WHERE ${AT(table, n)}`,
  differing: 1,
  ghosts: 0,
});
const missing = (name: string, n: number): Plant => ({
  name,
  sql: (table) => `DELETE FROM ${table} WHERE ${AT(table, n)}`,
  differing: 1,
  ghosts: 0,
});
/** A row the source does not have; text keys get what sorts where it hurts. */
const ghost = (name: string, text: string, number: number): Plant => ({
  name,
  sql: (table) => {
    const key = Object.entries(KEYS[table]!.key);
    const cells = key.map(([, type]) =>
      type === "INTEGER" ? `${number}` : `'${text}'`
    );
    return `INSERT INTO ${table} (${
      key.map(([column]) => column).join(", ")
    }, label) VALUES (${cells.join(", ")}, 'ghost')`;
  },
  differing: 0,
  ghosts: 1,
});
const PLANTS: Plant[] = [
  changed("text", "label = label || ' '", 10),
  changed("text to NULL", "label = NULL", 20),
  changed("text of another type", "label = x'6c'", 30),
  changed("text in another case", "label = upper(label)", 40),
  changed("text with more behind a NUL", "label = label || char(0) || 'x'", 45),
  changed(
    "a BLOB that SQLite's JSON takes for the text",
    "label = jsonb(json_quote(label))",
    46,
  ),
  changed(
    "text whose JSON passes sqld's bound of a value",
    "label = replace(hex(zeroblob(500000)), '0', char(1))",
    47,
  ),
  changed("integer", "n = n + 1", 50),
  changed("integer to a fraction", "n = n + 0.5", 55),
  changed("integer of another type", "n = 'twelve'", 60),
  changed("integer to NULL", "n = NULL", 70),
  changed("boolean", "flag = 1 - flag", 80),
  changed("boolean of another type", "flag = 'true'", 90),
  changed("JSON", "doc = '{}'", 100),
  changed("JSON spaced otherwise", "doc = replace(doc, ' ', '')", 110),
  changed("the whole row", "n = -1, flag = NULL, doc = NULL, label = ''", 120),
  changed("the first row", "n = -2", 0),
  changed("the last row", "n = -3", -1),
  missing("in the middle", 1500),
  missing("near the start", 5),
  missing("near the end", -20),
  ghost("first", " ", -99999),
  ghost("last", "\u{10ffff}", 99999),
  ghost("umlaut", "Ärger-ghost", 77777),
  ghost("emoji", "😀-ghost", 88888),
  ghost("mixed case", "UbErGhOsT", 66666),
];

Deno.test("POST /verify finds every planted difference and no other, and repairs them, while the source is busy", async () => {
  await using stack = await Stack.start(servers, { schema, setup: SETUP });
  const { sql, client } = stack;
  await stack.run(FILL);
  await stack.drain();
  await stack.finish("/backfill");
  await stack.assertEqual();

  // What the scrub mends by itself would be missing from the counts.
  await sql`select libsql_sync.scrub(0)`;
  let planted = 0;
  const expected: Record<string, { differing: number; ghosts: number }> = {};
  for (const table of Object.keys(KEYS)) {
    expected[table] = { differing: 0, ghosts: 0 };
    for (const plant of PLANTS) {
      const { rowsAffected } = await client.execute(plant.sql(table));
      assertEquals(rowsAffected, 1, `${plant.name} in ${table}`);
      expected[table].differing += plant.differing;
      expected[table].ghosts += plant.ghosts;
      planted += 1;
    }
  }
  // Another spelling of a key is another row there, though not here.
  await client.execute(
    "UPDATE insensitive SET id = lower(id) WHERE id LIKE 'C2_' AND id <> lower(id) AND rowid = (SELECT max(rowid) FROM insensitive WHERE id LIKE 'C2_')",
  );
  expected.insensitive!.differing += 1;
  expected.insensitive!.ghosts += 1;

  // Writers of new rows, all the while: they would show as false alarms.
  let isBusy = true;
  let written = 0;
  const writer = (async () => {
    for (let i = 100_000; isBusy; i++) {
      for (const table of ["ints", "exact"]) {
        await sql.unsafe(
          `insert into ${table} (id, n, label) values (${i}, 1, 'busy')`,
        );
        await sql.unsafe(
          `update ${table} set n = n + 1 where label = 'busy' and id > ${
            i - 20
          }`,
        );
        if (i % 3 === 0) {
          await sql.unsafe(`delete from ${table} where id = ${i}`);
        }
        written += 1;
      }
    }
  })();
  try {
    const verified = await stack.finish("/verify");
    assertEquals(found(verified), expected);
    assertEquals(await sample(stack), "twelve", "a verify changes nothing");
    const repaired = await stack.finish("/verify?repair=true");
    assertEquals(found(repaired), expected);
    const again = await stack.finish("/verify");
    assertEquals(again.differences, 0);
  } finally {
    isBusy = false;
    await writer;
  }
  assert(written > 0 && planted === PLANTS.length * Object.keys(KEYS).length);
  await stack.drain();
  await stack.assertEqual();
});

Deno.test("POST /verify?table= looks at one table, and refuses one that is not listed", async () => {
  await using stack = await Stack.start(servers, { schema, setup: SETUP });
  await stack.run(FILL);
  await stack.drain();
  const { body, status } = await stack.post("/verify?table=nowhere");
  assertEquals([status, body.error], [400, "bad_request"]);
  const one = await stack.finish("/verify?table=icu");
  assertEquals(Object.keys(one.tables as object), ["icu"]);
});

Deno.test("a page follows the key's index and sorts nothing, for any type and collation of the key", async () => {
  await using stack = await Stack.start(servers, { schema, setup: SETUP });
  await stack.run(FILL);
  for (const table of Object.keys(KEYS)) {
    const [query] = await stack
      .sql`select libsql_sync.rows_sql(${table}::regclass, ${table}, true) as text`;
    const place = table === "pairs"
      ? "array['7', 'k57']"
      : table === "uuids"
      ? "array[md5('7')]"
      : "array['7']";
    const sql = query!.text.replaceAll("$1", place).replaceAll("$2", "100");
    const plan = (await stack.sql.unsafe(`explain ${sql}`)).map((row) =>
      row["QUERY PLAN"]
    ).join("\n");
    assert(/Index (Only )?Scan/.test(plan), `${table}: ${plan}`);
    assert(!/Sort|Seq Scan/.test(plan), `${table}: ${plan}`);
  }
});

Deno.test("the scrub finds and repairs drift without being asked, a page a sync", async () => {
  await using stack = await Stack.start(servers);
  const { sql, client } = stack;
  await stack.run(`
    insert into manifest (app_version_id, file_name, s3_path, file_hash)
    select i, 'f' || i, 's', 'h' from generate_series(1, 2500) i`);
  await stack.drain();
  await stack.finish("/backfill");
  await client.execute(
    "UPDATE manifest SET file_name = 'wrong' WHERE id = 2400",
  );
  await client.execute("INSERT INTO manifest (id) VALUES (999999)");
  const before = await walkGen(stack);
  let syncs = 0;
  for (; await walkGen(stack) < before + 2; syncs++) {
    assert(syncs < 60, "a pass ends");
    await stack.sync();
  }
  assert(syncs > 5, "a pass takes its time");
  await stack.assertEqual();
  // Turned off, a sync with nothing to do moves nothing.
  await sql`select libsql_sync.scrub(0)`;
  await stack.sync();
  const { position } = await stack.row();
  await stack.sync();
  assertEquals((await stack.row()).position, position);
});

Deno.test("a row written past the triggers, and one the replica alone has, are healed by a backfill", async () => {
  await using stack = await Stack.start(servers);
  await stack.run(`
    insert into orgs (created_by, name, management_email) select gen_random_uuid(), 'o' || i, 'm' from generate_series(1, 100) i`);
  await stack.drain();
  await stack.run(
    `set session_replication_role = replica;
     update orgs set name = 'past' where id in (select id from orgs order by id limit 10);
     delete from orgs where id in (select id from orgs order by id desc limit 10);`,
    { user: SUPERUSER },
  );
  const result = await stack.finish("/backfill?table=orgs");
  assertEquals(found(result), { orgs: { differing: 10, ghosts: 10 } });
  await stack.assertEqual();
});

function found(body: Record<string, unknown>) {
  const tables = body.tables as Record<
    string,
    { differing: number; ghosts: number }
  >;
  return Object.fromEntries(
    Object.entries(tables).map((
      [name, { differing, ghosts }],
    ) => [name, { differing, ghosts }]),
  );
}

async function walkGen(stack: Stack): Promise<number> {
  return Number((await stack.row()).walk_gen);
}

async function sample(stack: Stack) {
  const { rows } = await stack.client.execute(
    `SELECT n FROM ints WHERE typeof(n) = 'text'`,
  );
  return rows[0]?.n;
}
