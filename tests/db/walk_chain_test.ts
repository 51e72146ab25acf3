import { assert, assertEquals } from "@std/assert";
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
import { LATE, SETUP, startWalk, type WalkOptions } from "./support/walk.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

const ITEM = SCHEMA.tables.item!;
const PART = SCHEMA.tables.part!;
const start = (options: WalkOptions = {}) => startWalk(servers, options);

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

Deno.test("a batch claimed before the replica's tables were repaired is refused after", async () => {
  await using stack = await start();
  await stack.walk();
  await stack.sql`insert into part values (777, 'after', 'x')`;
  await stack.withParts(async (parts) => {
    const stalled = new Hand(parts);
    const batch = await stalled.batch();
    const before = (await stalled.replica.probe())!;
    const { steps } = parts.plan(batch.tables, batch.unusable);
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
  const { how, rows } of [
    { how: "was handed out", rows: undefined },
    { how: "was applied in part", rows: 1 },
  ]
) {
  Deno.test(`a row deleted past the queue does not come back when a nuke finds that what opens the walk ${how}`, async () => {
    await using stack = await start();
    await stack.walk();
    await stack.sql`insert into item values (776, 'stays', 1)`;
    await stack.sql`insert into item values (777, 'ghost', 1)`;
    await stack.sql`drop trigger replicate_item_libsql_delete on item`;
    await stack.sql`delete from item where id = 777`;
    await stack.sql`select libsql_sync.attach()`;
    await stack.withParts(async (parts) => {
      const hand = new Hand(parts);
      const batch = await hand.batch(rows === undefined ? {} : { rows });
      assertEquals([batch.reopen, batch.page], [true, null]);
      if (rows !== undefined) assertEquals(await hand.apply(batch), "applied");
      await parts.source.claim({
        lease: hand.lease,
        row: await parts.replica.probe(),
        size: { rows: 0, bytes: 0 },
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
  await stack.sql`alter table item rename id to other`;
  await stack.sql`delete from item where other in (1, 3)`;
  await stack.sql`alter table item rename other to id`;
  assertEquals(await stack.messages(), [
    { v: 2, table: "item", walk: "42703" },
  ]);
  await stack.drain();
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

Deno.test("dead letters stay open when the table could not be read", async () => {
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
  await stack.sql`update libsql_sync.chain set walk_wanted = walk_wanted + 1`;
  await stack.walk();
  const walks = await stack
    .sql`select kind from libsql_sync.walks where kind = 'backfill'`;
  assertEquals(walks.length, 2);
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
    claim.messages > 0,
    JSON.stringify(claim),
  );
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

Deno.test("has_work() sees a batch that was not applied, and a schema the replica has not", async () => {
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

Deno.test("rows the replica refuses by a rule of its own are parked, and the walk ends", async () => {
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

Deno.test("a table that is rebuilt is put in place under the views and triggers made on it by hand", async () => {
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

Deno.test("a table that was emptied and has rows again is walked, and shows no state that never was", async () => {
  await using stack = await start();
  await stack.walk();
  for (
    const [how, expected] of [
      [
        "truncate item; insert into item values (7, 'again', 7), (60, 'new', 60)",
        [7, 60],
      ],
      [
        "begin; truncate item; insert into item values (8, 'at once', 8); commit",
        [8],
      ],
    ] as const
  ) {
    await stack.run(how);
    const seen: number[][] = [];
    const before = await replicaKeys(stack);
    await syncWith(stack, ({ replica }) => ({
      replica: {
        apply: async (...args) => {
          const applied = await replica.apply(...args);
          const { drained, walk_done } = applied.row;
          const keys = await replicaKeys(stack);
          if (drained && walk_done) assertEquals(keys, [...expected]);
          seen.push(keys);
          return applied;
        },
      },
    }));
    // Not one that is empty: the source's snapshots have rows.
    assertEquals(seen.filter((keys) => keys.length === 0), []);
    assert(seen[0]!.length > before.length - 1, "rows went before the walk");
    await stack.walk();
    assertEquals(await replicaKeys(stack), [...expected]);
    await stack.assertEqual();
  }
  await stack.sql`truncate item`;
  assertEquals((await stack.sync()).walk_done, true);
  assertEquals(await replicaKeys(stack), []);
  await stack.assertEqual();
});
