import { assert, assertEquals } from "@std/assert";
import { compareTables, describeDifferences } from "../../lib/dev/compare.ts";
import { seededRandom } from "../../lib/dev/random.ts";
import { SyncError } from "../../lib/errors.ts";
import { walkAfterBatch } from "../contract/source.ts";
import {
  ALL,
  dieAt,
  Hand,
  saveReplica,
  SCHEMA,
  syncWith,
  until,
  withWorker,
} from "./support/chain.ts";
import { configure, type RawSchema, Servers, Stack } from "./support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

const SEED = Number(Deno.env.get("SEED") ?? 7);
const ROUNDS = Number(Deno.env.get("ROUNDS") ?? 40);
const ITEM = SCHEMA.tables.item!;
const PART = SCHEMA.tables.part!;
const LATE = {
  key: "id",
  columns: { id: "INTEGER", note: "TEXT" },
  indexes: [],
};
const SETUP = `
  create table item (id bigint primary key, name text, size numeric);
  create table part (item bigint, code text, note text, primary key (item, code));
  create table late (id bigint primary key, note text);
`;
const ROWS = `
  insert into item select i, 'item ' || i, i from generate_series(1, 50) i;
  insert into part select i, 'code ' || i, 'note' from generate_series(1, 50) i;
  insert into late select i, 'late ' || i from generate_series(1, 50) i;
`;

/** A stack with few rows, that walks by itself and does not scrub. */
async function start(
  options: { schema?: RawSchema; setup?: string; walks?: boolean } = {},
): Promise<Stack> {
  const stack = await Stack.start(servers, {
    schema: options.schema ?? SCHEMA,
    setup: options.setup ?? SETUP + ROWS,
    walks: options.walks ?? true,
  });
  await stack.sql`select libsql_sync.scrub(0)`;
  return stack;
}

/** Syncs with a worker of a schema until it says that everything is equal. */
async function walkWith(stack: Stack, schema: RawSchema): Promise<void> {
  await withWorker(stack, { schema }, async (port) => {
    for (let tries = 0; tries < 20; tries++) {
      const { status, body } = await stack.post("/sync", { port });
      assertEquals(status, 200, JSON.stringify(body));
      if (body.walk_done === true && body.drained === true) return;
    }
    throw new Error("not walked after 20 syncs");
  });
}

async function replicaKeys({ client }: Stack, table = "item") {
  const { rows } = await client.execute(`SELECT id FROM ${table} ORDER BY id`);
  return rows.map(({ id }) => Number(id));
}

Deno.test("a walk asked for before a table is listed does not say that every table was walked", async () => {
  await using stack = await start();
  await stack.walk();
  await stack.sql`select libsql_sync.backfill()`;
  const schema: RawSchema = { tables: { ...SCHEMA.tables, late: LATE } };
  await configure(stack.sql, schema);
  await walkWith(stack, schema);
  await stack.assertEqual(schema);
});

Deno.test("a walk asked for of a table that is listed no more does not stop the queue", async () => {
  const schema: RawSchema = { tables: { ...SCHEMA.tables, late: LATE } };
  await using stack = await start({ schema });
  await stack.walk();
  await stack.sql`select libsql_sync.verify(false, 'late')`;
  await stack.sql`select libsql_sync.backfill()`;
  await configure(stack.sql, SCHEMA);
  await stack.sql`insert into item values (777, 'after', 1)`;
  await walkWith(stack, SCHEMA);
  await stack.assertEqual(SCHEMA);
});

Deno.test("a table taken out of schema.json while its indexes wait does not stop the queue", async () => {
  const schema: RawSchema = {
    tables: { ...SCHEMA.tables, late: { ...LATE, indexes: ["note"] } },
  };
  await using stack = await start({ schema });
  await stack.walk();
  await stack.client.execute(
    `UPDATE _libsql_sync SET unindexed = '["late"]', fresh = '["late"]'`,
  );
  await configure(stack.sql, SCHEMA);
  await walkWith(stack, SCHEMA);
  await stack.assertEqual(SCHEMA);
  assertEquals((await stack.row()).unindexed, "[]");
});

Deno.test("a worker of an older schema.json leaves a newer one's indexes alone and says that it is outdated", async () => {
  await using stack = await start();
  await stack.walk();
  const schema: RawSchema = {
    tables: {
      item: { ...ITEM, indexes: ["name", "size"] },
      part: PART,
      late: LATE,
    },
  };
  await configure(stack.sql, schema);
  await withWorker(stack, { schema }, async (port) => {
    await stack.post("/sync", { port });
  });
  await stack.client.batch([
    "DROP INDEX idx_item__size",
    `UPDATE _libsql_sync SET unindexed = '["item", "late"]'`,
  ], "write");
  const { status, body } = await stack.post("/sync");
  assertEquals([status, body.error], [409, "schema_outdated"]);
  await walkWith(stack, schema);
  await withWorker(stack, { schema }, async (port) => {
    await stack.post("/sync", { port });
  });
  const { rows } = await stack.client.execute(
    "SELECT count(*) AS n FROM sqlite_master WHERE name = 'idx_item__size'",
  );
  assertEquals(Number(rows[0]!.n), 1);
  // A walk of it that is in the middle of a table the older one does not know.
  await stack.client.execute("UPDATE _libsql_sync SET probed_at = 0");
});

Deno.test("an index that cannot be built now does not hold up the queue", async () => {
  await using stack = await start();
  await stack.walk();
  await stack.client.execute(
    `UPDATE _libsql_sync SET unindexed = '["item", "part"]'`,
  );
  await stack.sql`insert into item values (777, 'after', 1)`;
  let tried = 0;
  const result = await syncWith(stack, () => ({
    replica: {
      buildIndexes() {
        tried += 1;
        return Promise.reject(
          new SyncError("replica_unreachable", "no answer"),
        );
      },
    },
  }));
  assertEquals([result.drained, tried], [true, 1]);
  await stack.assertEqual();
  await stack.sync();
  assertEquals((await stack.row()).unindexed, "[]");
});

Deno.test("sync() spends no more calls on indexes than it has", async () => {
  await using stack = await start();
  await stack.walk();
  await stack.client.batch([
    "DROP INDEX idx_item__name",
    `UPDATE _libsql_sync SET unindexed = '["item", "part"]'`,
  ], "write");
  let calls = 0;
  await syncWith(stack, ({ replica }) => ({
    budget: { callsLeft: () => calls === 0 ? 20 : 6 },
    replica: {
      buildIndexes: (...args) => {
        calls += 1;
        return replica.buildIndexes(...args);
      },
    },
  }));
  assertEquals(calls, 1, "the rest is left to the next sync");
});

Deno.test("a batch claimed before the replica's tables were mended is refused after", async () => {
  await using stack = await start();
  await stack.walk();
  await stack.sql`insert into part values (777, 'after', 'x')`;
  await stack.withParts(async (parts) => {
    const stalled = new Hand(parts);
    const batch = await stalled.batch();
    const before = (await stalled.replica.probe())!;
    const { steps } = parts.plan(batch);
    await stack.client.execute("DROP TABLE item");
    await parts.replica.alter({ from: before.schema_hash });
    const late = await parts.replica.apply(batch, steps, {
      parked: 0,
      walk: {
        before,
        after: walkAfterBatch(before, batch),
      },
    }).then(() => "applied", (error) => error.code);
    assertEquals(late, "replica_moved");
    await parts.source.release(stalled.lease);
  }, SCHEMA);
  await stack.walk();
  await stack.drain();
  await stack.assertEqual();
});

Deno.test("a row deleted past the queue before a nuke does not come back as a ghost", async () => {
  await using stack = await start();
  await stack.walk();
  await stack.sql`insert into item values (777, 'ghost', 1)`;
  await stack.sql`drop trigger replicate_item_libsql_delete on item`;
  await stack.sql`delete from item where id = 777`;
  await stack.sql`select libsql_sync.attach()`;
  assertEquals((await stack.post("/nuke")).status, 200);
  await stack.walk();
  await stack.drain();
  await stack.assertEqual();
});

for (
  const { how, messages } of [
    { how: "was handed out", messages: undefined },
    { how: "was not handed out whole", messages: 1 },
    { how: "was split", messages: 2 },
  ]
) {
  Deno.test(`a row deleted past the queue does not come back when a nuke finds that what reopens ${how}`, async () => {
    await using stack = await start();
    await stack.walk();
    await stack.sql`insert into item values (776, 'stays', 1)`;
    await stack.sql`insert into item values (777, 'ghost', 1)`;
    await stack.sql`drop trigger replicate_item_libsql_delete on item`;
    await stack.sql`delete from item where id = 777`;
    await stack.sql`select libsql_sync.attach()`;
    await stack.withParts(async (parts) => {
      const hand = new Hand(parts);
      const batch = await hand.batch({ messages });
      assertEquals(batch.reopen, true);
      if (messages === 2) {
        const split = { batch: batch.batch, messages: 1 };
        assertEquals(
          await hand.apply(await hand.batch({ split })),
          "applied",
        );
      } else if (messages === 1) {
        assertEquals(await hand.apply(batch), "applied");
      }
      await parts.source.claim({
        lease: hand.lease,
        row: await parts.replica.probe(),
        size: { messages: 0, bytes: 0 },
      });
    }, SCHEMA);
    assertEquals((await stack.post("/nuke")).status, 200);
    await stack.walk();
    await stack.drain();
    await stack.assertEqual();
  });
}

Deno.test("a delete whose capture failed leaves no ghost behind in a table that was created empty", async () => {
  await using stack = await start({ setup: SETUP });
  await stack.post("/nuke?refill=false");
  await stack
    .sql`insert into item values (1, 'ghost', 1), (2, 'stays', 1), (3, 'ghost', 1)`;
  await stack.drain();
  await stack.sql`alter table item drop constraint item_pkey`;
  await stack.sql`alter table item rename size to other`;
  await stack.sql`delete from item where id in (1, 3)`;
  await stack.sql`alter table item rename other to size`;
  await stack.sql`alter table item add primary key (id)`;
  await stack.drain();
  assertEquals((await stack.deadLetters()).length, 1);
  await stack.finish("/backfill");
  await stack.walk();
  assertEquals((await stack.deadLetters()).length, 0);
  await stack.assertEqual();
});

Deno.test("the first fill of a new replica builds its indexes last", async () => {
  await using stack = await start({
    setup: SETUP +
      "insert into item select i, 'item ' || i, i from generate_series(1, 5000) i;",
  });
  await dieAt(stack, "apply", { when: "after", times: 3 });
  const row = await stack.row();
  assertEquals([row.walk_done, row.unindexed], [0, '["item"]']);
  await stack.walk();
  await stack.sync();
  assertEquals((await stack.row()).unindexed, "[]");
  await stack.assertEqual();
});

Deno.test("dead letters stay open where the table could not be read", async () => {
  await using stack = await start();
  await stack.walk();
  await stack.sql`update item set size = 0.5 where id = 3`;
  await stack.drain();
  assertEquals((await stack.deadLetters()).length, 1);
  await stack.sql`alter table item drop constraint item_pkey`;
  const backfill = await stack.finish("/backfill?table=item");
  assertEquals((await stack.deadLetters()).length, 1, JSON.stringify(backfill));
  await stack.sql`select libsql_sync.redrive()`;
  await stack.sync();
  assertEquals((await stack.deadLetters()).length, 1);
  await stack.sql`alter table item add primary key (id)`;
  await stack.sql`update item set size = 7 where id = 4`;
  await stack.run(
    "set session_replication_role = replica; update item set size = 6 where id = 3",
    { user: "supabase_admin" },
  );
  await stack.finish("/backfill?table=item");
  assertEquals((await stack.deadLetters()).length, 0);
  await stack.walk();
  await stack.assertEqual();
});

Deno.test("a letter filed after a walk was asked for stays open when the source's clock went back", async () => {
  await using stack = await start();
  await stack.walk();
  await stack.sql`update item set size = 0.5 where id = 3`;
  await stack.drain();
  const [letter] = await stack.sql`select id from libsql_sync.dead_letters()`;
  await stack.sql`select libsql_sync.verify(repair => true)`;
  await stack
    .sql`update libsql_sync.walks set requested_at = requested_at + interval '1 hour'`;
  await stack.finish("/verify?repair=true");
  const [again] = await stack.sql`select id from libsql_sync.dead_letters()`;
  assert(Number(again?.id) > Number(letter?.id), JSON.stringify(again));
});

Deno.test("a scrub that never began does not keep other walks waiting when it is turned off", async () => {
  await using stack = await start();
  await stack.walk();
  await stack.sql`select libsql_sync.scrub(1000)`;
  // More messages than a first batch takes: the walk is noted, its page is not.
  await stack.sql.unsafe(
    "do $$ begin for i in 1..1200 loop insert into item values (1000 + i, 'x', i); end loop; end $$",
  );
  await dieAt(stack, "apply", { when: "after" });
  const noted = await stack
    .sql`select kind from libsql_sync.walks order by walk_gen desc limit 1`;
  assertEquals(noted[0]!.kind, "scrub");
  await stack.sql`select libsql_sync.scrub(0)`;
  await stack.drain();
  const { differences } = await stack.finish("/verify");
  assertEquals(differences, 0);
  const [work] = await stack.sql`select libsql_sync.has_work() as it_has`;
  assertEquals(work!.it_has, false);
});

Deno.test("a replica in doubt is walked at once, not at the pace of a scrub it forgot", async () => {
  await using stack = await start();
  await stack.walk();
  const failOver = await saveReplica(stack);
  await stack.sql`select libsql_sync.scrub(1)`;
  await stack.sync();
  await failOver();
  await stack.sql`update libsql_sync.chain set reopen = true`;
  await stack.walk();
  const walks = await stack
    .sql`select kind from libsql_sync.walks where kind = 'backfill'`;
  assertEquals(walks.length, 2);
});

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

Deno.test("keys alone are looked up for the replica's keys, whatever the size of the rows", async () => {
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
      'keys', (select jsonb_agg(jsonb_build_array(i::text)) from generate_series(1, 1201) i))), 0), '')::json as page
    from (select (1, 'redrive', array['late'],
      case when ${half}::text = 'keys' then (select jsonb_agg(jsonb_build_array(i::text)) from generate_series(1, 1201) i) end,
      true, false, '', now(), null, '{}', 0)::libsql_sync.walks as w) w`;
  const [back] = await page("back");
  assertEquals([back!.page.failed, back!.page.ghosts], [undefined, [["1201"]]]);
  const [keys] = await page("keys");
  assertEquals([keys!.page.failed, keys!.page.last], [undefined, false]);
  assert(keys!.page.rows < 5, "a redrive has pages as well");
});

Deno.test("redrive() of many letters goes through all of them, a page at a time", async () => {
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

Deno.test("a table that is locked is walked when the lock is gone", async () => {
  await using stack = await start();
  const locker = await stack.sql.reserve();
  await locker`begin`;
  await locker`lock table part in access exclusive mode`;
  const started = performance.now();
  const { success } = await stack.sync();
  const ms = performance.now() - started;
  await locker`rollback`;
  locker.release();
  assertEquals(success, true);
  assert(ms < 4_500, `the sync took ${ms} ms`);
  await stack.walk();
  await stack.assertEqual();
});

Deno.test("a page is of the queue's snapshot, though a TRUNCATE is waited for", async () => {
  await using stack = await start();
  await stack.walk();
  await stack.sql`select libsql_sync.backfill('item')`;
  const open = Promise.withResolvers<void>();
  const truncating = stack.sql.begin(async (tx) => {
    await tx`truncate item`;
    await tx`insert into part values (99, 'with it', 'of one transaction')`;
    await open.promise;
  });
  const claiming = stack.withParts(async ({ source, replica }) => {
    const lease = crypto.randomUUID();
    await source.lease(lease);
    return await source.claim({
      lease,
      row: await replica.probe(),
      size: ALL,
      page: { rows: 1000, bytes: 1e6, scrub: false, keys: null },
      walked: [],
    });
  });
  await until("the claim waits for the table", async () => {
    const [found] = await stack.sql`
      select from pg_locks where not granted and relation = 'item'::regclass`;
    return found !== undefined;
  });
  open.resolve();
  await truncating;
  const claim = await claiming;
  // Where the wait was too long there is no page.
  if (claim.do !== "batch" || claim.page === null) return;
  // Either both the page and the queue know of it, or neither does.
  assertEquals(
    claim.page.cells.length === 0,
    claim.messages.length > 0,
    JSON.stringify(claim),
  );
});

Deno.test("verify() sets nothing aside, whatever a row's size and characters", async () => {
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

Deno.test("a ghost whose key no source could have is taken out", async () => {
  await using stack = await start({
    schema: {
      tables: {
        item: { key: "id", columns: { id: "TEXT" }, indexes: [] },
        part: { key: "id", columns: { id: "TEXT" }, indexes: [] },
        late: {
          key: ["id", "is"],
          columns: { id: "TEXT", is: "BOOLEAN" },
          indexes: [],
        },
      },
    },
    setup: `
      create domain short as text check (length(value) < 5);
      create table item (id text primary key);
      create table part (id short primary key);
      create table late (id text, "is" boolean, primary key (id, "is"));
      insert into item values (''), ('a'), ('b');
      insert into part values (''), ('a'), ('b');
      insert into late values ('', true), ('', false), ('a', true);`,
  });
  await stack.walk();
  await stack.client.batch([
    "INSERT INTO item VALUES ('a' || char(0) || 'b'), (x'ff')",
    "INSERT INTO part VALUES ('too long'), ('c')",
    `INSERT INTO late VALUES ('a', 5), ('b', 0)`,
  ], "write");
  const { tables } = await stack.finish("/backfill");
  const ghosts = Object.values(tables as Record<string, { ghosts: number }>)
    .map((found) => found.ghosts);
  assertEquals(ghosts, [2, 2, 2]);
  assertEquals(await stack.deadLetters(), []);
  await stack.walk();
  await stack.assertEqual();
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

Deno.test("a table whose only key is an index in another order is walked in that order", async () => {
  await using stack = await start({
    schema: {
      tables: {
        item: { key: "id", columns: { id: "TEXT" }, indexes: [] },
        part: { key: "id", columns: { id: "TEXT" }, indexes: [] },
      },
    },
    setup: `
      create collation if not exists loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
      create table item (id text collate "en-US-x-icu" not null);
      create unique index on item (id text_pattern_ops);
      create table part (id text collate loose not null);
      create unique index on part (id collate "C");
      insert into item select x || i from generate_series(1, 700) i, (values ('a'), ('B'), ('c'), ('D'), ('é')) v (x);
      insert into part select x || i from generate_series(1, 1500) i, (values ('a'), ('A')) v (x);`,
  });
  await stack.walk();
  await stack.assertEqual();
});

Deno.test("has_work() sees a batch that nobody applied, and a schema the replica has not", async () => {
  await using stack = await start();
  await stack.walk();
  await stack.sync();
  const hasWork = async () =>
    (await stack.sql`select libsql_sync.has_work() as it`)[0]!.it;
  assertEquals(await hasWork(), false);
  await stack.sql`drop trigger replicate_item_libsql_update on item`;
  await stack.sql`select libsql_sync.attach()`;
  await dieAt(stack, "apply", { when: "before" });
  assertEquals(await hasWork(), true);
  await stack.walk();
  await stack.sync();
  assertEquals(await hasWork(), false);
  const schema: RawSchema = {
    tables: { item: { ...ITEM, indexes: [] }, part: PART },
  };
  await configure(stack.sql, schema);
  assertEquals(await hasWork(), true);
  await walkWith(stack, schema);
  assertEquals(await hasWork(), false);
});

Deno.test("rows the replica refuses by a rule of its own are set aside, and the walk ends", async () => {
  await using stack = await start({ setup: SETUP });
  await stack.walk();
  await stack.client.execute(
    "CREATE TRIGGER no_sevens BEFORE INSERT ON item WHEN NEW.id % 700 = 7 BEGIN SELECT RAISE(ABORT, 'no'); END",
  );
  await stack.run(
    "set session_replication_role = replica; insert into item select i, 'i', i from generate_series(1, 3000) i",
    { user: "supabase_admin" },
  );
  await stack.sql`select libsql_sync.backfill()`;
  for (let syncs = 0; syncs < 6; syncs++) await stack.sync();
  assertEquals((await stack.deadLetters()).length, 5);
  assertEquals((await replicaKeys(stack)).length, 2995);
  assertEquals((await stack.row()).walk_done, 1);
  await stack.client.execute("DROP TRIGGER no_sevens");
  await stack.sql`select libsql_sync.redrive()`;
  await stack.sync();
  assertEquals(await stack.deadLetters(), []);
  await stack.assertEqual();
});

Deno.test("no state is called equal while a failover has taken back what closed a letter", async () => {
  await using stack = await start();
  await stack.walk();
  await stack.client.execute(
    "CREATE TRIGGER strict BEFORE UPDATE ON item WHEN NEW.name = 'bad' BEGIN SELECT RAISE(ABORT, 'no'); END",
  );
  await stack.sql`update item set name = 'bad' where id = 3`;
  await stack.drain();
  await stack.client.execute("DROP TRIGGER strict");
  const failOver = await saveReplica(stack);
  // Before the redrive another walk is due, so that it is not the first again.
  await stack.sql`select libsql_sync.verify()`;
  await stack.sql`select libsql_sync.redrive()`;
  for (let syncs = 0; syncs < 4; syncs++) await stack.sync();
  assertEquals(await stack.deadLetters(), []);
  await stack.sql`insert into part values (777, 'after', 'x')`;
  await stack.drain();
  await failOver();
  const states: unknown[] = [];
  const nameOf = async () =>
    (await stack.client.execute("SELECT name FROM item WHERE id = 3")).rows[0]!
      .name;
  await syncWith(stack, ({ replica }) => ({
    replica: {
      apply: async (...args) => {
        const applied = await replica.apply(...args);
        const { drained, walk_done } = applied.row;
        if (drained && walk_done) states.push(await nameOf());
        return applied;
      },
    },
  }));
  assertEquals(states.filter((name) => name !== "bad"), []);
  await stack.walk();
  await stack.assertEqual();
});

Deno.test("a table of 300 columns is walked, verified and mended", async () => {
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

Deno.test("a table that is rebuilt is put in place under the views and triggers somebody made on it", async () => {
  await using stack = await start();
  await stack.walk();
  await stack.client.batch([
    "CREATE VIEW sizes AS SELECT id, size FROM item",
    "CREATE VIEW large AS SELECT id FROM sizes WHERE size > '40'",
    "CREATE TABLE seen (id INTEGER)",
    "CREATE TRIGGER see AFTER INSERT ON item BEGIN INSERT INTO seen VALUES (NEW.id); END",
    "CREATE TRIGGER part_see AFTER DELETE ON part BEGIN DELETE FROM item WHERE id = -1; END",
  ], "write");
  const schema: RawSchema = {
    tables: {
      item: { ...ITEM, columns: { ...ITEM.columns, size: "TEXT" } },
      part: PART,
    },
  };
  await configure(stack.sql, schema);
  await walkWith(stack, schema);
  await stack.sql`insert into item values (777, 'after', 1)`;
  await withWorker(stack, { schema }, async (port) => {
    await stack.post("/sync", { port });
  });
  await stack.assertEqual(schema);
  const { rows } = await stack.client.execute(
    "SELECT (SELECT count(*) FROM large) AS large, (SELECT count(*) FROM seen) AS seen, (SELECT count(*) FROM sqlite_master WHERE type = 'trigger' AND name LIKE '%see') AS triggers",
  );
  assertEquals({ ...rows[0] }, { large: 15, seen: 1, triggers: 2 });
});

/** Every kind of trouble, in any order; whenever the row says so, both sides are equal. */
Deno.test("whenever the row says drained and walked, both sides are equal but for open letters", async () => {
  const random = seededRandom(SEED);
  const late: RawSchema = { tables: { ...SCHEMA.tables, late: LATE } };
  await using stack = await start({
    schema: late,
    setup: SETUP +
      "insert into item select i, 'i' || i, i from generate_series(1, 120) i; insert into part select i, 'c', 'n' from generate_series(1, 60) i;",
  });
  const { sql } = stack;
  await sql`select libsql_sync.scrub(15)`;
  const said: string[] = [];
  let checks = 0;
  /** The source stands still while a sync runs, so every applied batch can be judged. */
  const check = async (row: { drained: number; walk_done: number }) => {
    if (row.drained !== 1 || row.walk_done !== 1) return;
    // The source may be ahead of a batch that is issued again or replayed.
    const [{ n }] = await sql<[{ n: number }]>`
      select count(*)::int as n from pgmq.q_replicate_data_libsql q where not exists (
        select from libsql_sync.batches b cross join unnest(b.msg_ids) r
        where b.state = 'pending' and q.msg_id >= lower(r) and q.msg_id < upper(r))`;
    const [{ behind }] = await sql<[{ behind: boolean }]>`
      select exists (select from libsql_sync.batches b, libsql_sync.chain c where b.epoch = c.epoch
        and b.position > ${Number((await stack.row()).position)}) as behind`;
    const [{ reopen }] = await sql<
      [{ reopen: boolean }]
    >`select reopen from libsql_sync.chain`;
    if (n > 0 || behind || reopen) return;
    checks += 1;
    const { differences } = await compareTables({
      sql,
      client: stack.client,
      schema: late,
    });
    const letters =
      await sql`select table_name, key from libsql_sync.dead_letters()`;
    const pending =
      await sql`select parked from libsql_sync.batches where state = 'pending'`;
    const open = new Set([
      ...letters.map((l) => `${l.table_name} ${(l.key ?? []).join()}`),
      ...pending.flatMap(({ parked }) =>
        parked.map((p: { table: string; key: string[] | null }) =>
          `${p.table} ${(p.key ?? []).join()}`
        )
      ),
    ]);
    const whole = new Set(
      letters.filter((l) => l.key === null).map((l) => l.table_name),
    );
    const wrong = differences.filter(({ table, key, kind }) => {
      // Dropped by hand: nobody knows until a batch writes to it.
      if (kind === "table") return false;
      const parts = key?.startsWith("[") ? JSON.parse(key).join() : key;
      return !open.has(`${table} ${parts}`) && !whole.has(table);
    });
    assertEquals(
      describeDifferences({
        differences: wrong,
        rows: 0,
        hasMore: false,
        skipped: [],
      }),
      [],
      `seed ${SEED}, after ${said.join(", ")}`,
    );
  };
  const go = (calls: number, dies: number) => {
    let left = calls;
    let applies = 0;
    let isDead = false;
    return syncWith(stack, ({ source, replica }) => ({
      budget: { callsLeft: () => left-- },
      source: {
        claim: (request) =>
          source.claim(
            request.page
              ? { ...request, page: { ...request.page, rows: 25 } }
              : request,
          ),
        release: (lease) =>
          isDead ? Promise.reject(new Error("dead")) : source.release(lease),
      },
      replica: {
        async apply(...args) {
          applies += 1;
          if (applies === dies) {
            if (random.below(2) === 0) {
              await check((await replica.apply(...args)).row);
            }
            isDead = true;
            throw new Error("dead");
          }
          const applied = await replica.apply(...args);
          await check(applied.row);
          return applied;
        },
      },
    })).then(() => {}, async (error) => {
      if (!isDead) throw error;
      await sql`update libsql_sync.chain set lease_until = now() - interval '1 second'`;
    });
  };
  let failOver: (() => Promise<void>) | null = null;
  let next = 1_000;
  const id = () => 1 + random.below(140);
  const acts: [string, () => Promise<unknown>][] = [
    [
      "insert",
      () =>
        sql`insert into item select i, 'new', i from generate_series(${next}::int, ${next +=
          7}::int) i on conflict do nothing`,
    ],
    [
      "update",
      () =>
        sql`update item set name = name || '+' where id between ${id()} and ${id()}`,
    ],
    ["delete", () => sql`delete from item where id = ${id()}`],
    [
      "part",
      () => sql`update part set code = code || 'x' where item = ${id()}`,
    ],
    [
      "late",
      () =>
        sql`insert into late values (${id()}, 'l') on conflict (id) do update set note = late.note || 'x'`,
    ],
    ["truncate", () => sql`truncate late`],
    [
      "refused",
      () => sql`update item set size = size + 0.5 where id = ${id()}`,
    ],
    [
      "mended",
      () => sql`update item set size = trunc(size) where size <> trunc(size)`,
    ],
    ["past the queue", () =>
      sql.begin(async (tx) => {
        await tx`drop trigger replicate_item_libsql_delete on item`;
        await tx`delete from item where id = ${id()}`;
        await tx`select libsql_sync.attach()`;
      })],
    ["verify", () => sql`select libsql_sync.verify()`],
    ["repair", () => sql`select libsql_sync.verify(true, 'item')`],
    ["backfill", () => sql`select libsql_sync.backfill()`],
    ["redrive", () => sql`select libsql_sync.redrive()`],
    ["nuke", () => stack.post("/nuke")],
    ["epoch", () => sql`select libsql_sync.begin_epoch('test', false)`],
    ["drop", () => stack.client.execute("DROP TABLE IF EXISTS late")],
    ["save", async () => {
      failOver = await saveReplica(stack);
    }],
    ["fail over", async () => {
      await failOver?.();
    }],
  ];
  const weights = acts.flatMap((act, at) =>
    Array(at < 7 ? 6 : at === 13 ? 1 : 2).fill(act)
  );
  for (let round = 0; round < ROUNDS; round++) {
    for (let i = random.below(4); i >= 0; i--) {
      const [name, act] = weights[random.below(weights.length)]!;
      said.push(name);
      await act();
    }
    const dies = random.below(3) === 0 ? 1 + random.below(4) : 0;
    said.push(`sync ${dies}`);
    await go(8 + random.below(30), dies);
  }
  for (let tries = 0; tries < 20; tries++) await go(45, 0);
  const row = await stack.row();
  assertEquals([row.drained, row.walk_done], [1, 1], `seed ${SEED}`);
  assert(checks > 10, `${checks} checks`);
});
