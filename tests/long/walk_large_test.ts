/** Walks over many rows, large rows and keys of many types. */

import { assert, assertEquals } from "@std/assert";
import { syncWith } from "../db/support/chain.ts";
import { type RawSchema, Servers } from "../db/support/stack.ts";
import {
  LATE,
  SETUP,
  startWalk,
  type WalkOptions,
} from "../db/support/walk.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

const start = (options: WalkOptions = {}) => startWalk(servers, options);

Deno.test("keys of any size are read from the replica in answers it can give", async () => {
  await using stack = await start({
    schema: {
      tables: {
        item: { key: "id", columns: { id: "TEXT", note: "TEXT" }, indexes: [] },
      },
    },
    setup: `
      create table item (id text primary key, note text);
      insert into item select lpad(i::text, 30000, 'x'), i from generate_series(1, 600) i;`,
  });
  await stack.walk();
  await stack.client.execute(
    "INSERT INTO item VALUES ('a ghost', ''), ('z ghost', '')",
  );
  const { tables } = await stack.finish("/backfill");
  assertEquals((tables as { item: { ghosts: number } }).item.ghosts, 2);
  await stack.assertEqual();
});

Deno.test("keys alone are looked up for the replica's keys, for any size of the rows", async () => {
  await using stack = await start({
    setup: `${SETUP}
      insert into late select i, repeat('a', 1000000) from generate_series(1, 1200) i;`,
    schema: { tables: { late: LATE } },
    walks: false,
  });
  const page = (half: string) =>
    stack.sql`
    select array_to_string(libsql_sync.read_page(w, ${
      JSON.stringify({
        walk_gen: 1,
        walk_at: JSON.stringify({ half, table: "late" }),
      })
    }::text::jsonb, jsonb_build_object('rows', 2000, 'bytes', 524288, 'keys', jsonb_build_object(
      'at', ${
      JSON.stringify({ half, table: "late" })
    }::text, 'after', '["1201"]'::jsonb, 'last', true,
      'keys', (select jsonb_agg(jsonb_build_array(i::text)) from generate_series(1, 1201) i))), true), '')::json as page
    from (select (1, 'redrive', array['late'],
      case when ${half}::text = 'keys' then (select jsonb_agg(jsonb_build_array(i::text)) from generate_series(1, 1201) i) end,
      true, false, '', now(), null, '{}', 0)::libsql_sync.walks as w) w`;
  const [back] = await page("back");
  assertEquals([back!.page.failed, back!.page.ghosts], [undefined, [["1201"]]]);
  const [keys] = await page("keys");
  assertEquals([keys!.page.failed, keys!.page.last], [undefined, false]);
  assert(keys!.page.rows < 5, "a redrive has pages as well");
});

Deno.test("redrive() of many letters repairs all of them, a page at a time", async () => {
  await using stack = await start({
    setup: SETUP +
      "insert into item select i, repeat('a', 1000), i + 0.5 from generate_series(1, 3000) i;",
  });
  await stack.walk();
  assertEquals((await stack.deadLetters()).length, 3000);
  await stack.run(
    "set session_replication_role = replica; update item set size = id; delete from item where id = 2999",
    { user: "supabase_admin" },
  );
  await stack.sql`select libsql_sync.redrive()`;
  for (let syncs = 0; syncs < 5; syncs++) await stack.sync();
  assertEquals((await stack.deadLetters()).length, 0);
  await stack.assertEqual();
});

Deno.test("verify() parks nothing, for any size and characters of a row", async () => {
  await using stack = await start({
    setup:
      `${SETUP} insert into item values (1, repeat('"', 4900000), 1), (2, repeat(E'\\n', 3000000), 2)`,
  });
  await stack.walk();
  await stack.assertEqual();
  const { differences, parked } = await stack.finish("/verify");
  assertEquals([differences, parked], [0, 0]);
  await stack.client.execute("UPDATE item SET size = 5 WHERE id = 1");
  assertEquals((await stack.finish("/verify")).differences, 1);
  assertEquals(await stack.deadLetters(), []);
});

/** A key's type, what makes the i-th, and how schema.json declares it. */
const KEYS: Record<string, { type: string; of: string; declared?: string }> = {
  padded: { type: "char(8)", of: "'k' || i" },
  bits: { type: "bit(12)", of: "i::bit(12)" },
  bytes: { type: "bytea", of: "decode(md5(i::text), 'hex')" },
  moments: {
    type: "timestamptz",
    of:
      "timestamptz '2024-02-29 23:59:59.123456+05:30' + i * interval '1 hour 1 microsecond'",
  },
  exact: { type: "numeric", of: "i * 1.10" },
  doubles: { type: "float8", of: "i * 0.1 - 1" },
  moods: { type: "mood", of: "('m' || i)::mood" },
  spans: { type: "interval", of: "i * interval '1 day'" },
  nets: { type: "inet", of: "'10.0.0.0'::inet + i" },
  lists: { type: "text[]", of: "array['a b', i::text, null]" },
  docs: { type: "jsonb", of: "jsonb_build_object('i', i)", declared: "JSON" },
  texts: { type: "text", of: "'t' || i", declared: "JSON" },
  ranges: { type: "int4range", of: "int4range(i, i + 5)" },
};

Deno.test("a walk of small pages reads keys of any type once, and finds no ghosts", async () => {
  const schema: RawSchema = {
    tables: Object.fromEntries(
      Object.entries(KEYS).map(([name, { declared }]) => [name, {
        key: "id",
        columns: { id: declared ?? "TEXT", n: "INTEGER" },
        indexes: [],
      }]),
    ),
  };
  await using stack = await start({
    schema,
    setup: `create type mood as enum (${
      Array.from({ length: 50 }, (_, i) => `'m${50 - i}'`).join(", ")
    });` +
      Object.entries(KEYS).map(([name, { type, of }]) => `
      create table ${name} (id ${type} primary key, n integer);
      insert into ${name} select ${of}, i from generate_series(1, 50) i;`)
        .join(""),
  });
  await stack.sql`select libsql_sync.scrub(20)`;
  const small = async (verb: () => Promise<unknown>) => {
    await verb();
    for (let tries = 0; tries < 40; tries++) {
      const result = await syncWith(stack, ({ source }) => ({
        source: {
          claim: (request) =>
            source.claim(
              request.page
                ? { ...request, page: { ...request.page, rows: 20 } }
                : request,
            ),
        },
      }));
      const [{ n }] = await stack.sql<[{ n: number }]>`
        select count(*)::int as n from libsql_sync.walks where ended_at is null and kind <> 'scrub'`;
      if (result.walk_done && n === 0) return;
    }
    throw new Error("the walk does not end");
  };
  await small(async () => {});
  await stack.assertEqual();
  for (const table of Object.keys(KEYS)) {
    await stack.client.execute(`UPDATE ${table} SET n = -1 WHERE n = 7`);
    await stack.client.execute(`DELETE FROM ${table} WHERE n = 9`);
  }
  await small(() => stack.sql`select libsql_sync.backfill()`.then());
  await stack.assertEqual();
  const { rows } = await stack.client.execute(
    "SELECT table_name, rows, differing, ghosts FROM _libsql_sync_walks WHERE walk_gen = (SELECT max(walk_gen) FROM _libsql_sync_walks WHERE differing > 0) ORDER BY 1",
  );
  assertEquals(
    rows.map(({ table_name, rows, differing, ghosts }) => [
      table_name,
      rows,
      differing,
      ghosts,
    ]),
    Object.keys(KEYS).sort().map((table) => [table, 50, 2, 0]),
  );
});

Deno.test("a table of 300 columns is walked, verified and repaired", async () => {
  const names = Array.from({ length: 300 }, (_, i) => `c${i}`);
  await using stack = await start({
    schema: {
      tables: {
        item: {
          key: ["c0", "c1"],
          columns: Object.fromEntries(
            names.map((name, i) => [name, i % 2 ? "TEXT" : "INTEGER"]),
          ),
          indexes: [],
        },
      },
    },
    setup: `create table item (${
      names.map((name, i) => `${name} ${i % 2 ? "text" : "bigint"}`).join(", ")
    }, primary key (c0, c1));
      insert into item select ${
      names.map((_, i) => i % 2 ? `'t' || i` : "i").join(", ")
    } from generate_series(1, 500) i;`,
  });
  await stack.walk();
  await stack.client.execute("UPDATE item SET c299 = NULL WHERE c0 < 10");
  assertEquals((await stack.finish("/verify")).differences, 9);
  assertEquals((await stack.finish("/backfill")).differences, 9);
  await stack.sql`select libsql_sync.scrub(1)`;
  for (let syncs = 0; syncs < 5; syncs++) await stack.sync();
  await stack.sql`select libsql_sync.scrub(20000)`;
  for (let syncs = 0; syncs < 3; syncs++) await stack.sync();
  await stack.assertEqual();
});
