import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import postgres from "postgres";
import { parseConfig } from "../../lib/config/config.ts";
import { SUPERUSER } from "../../lib/dev/postgres.ts";
import { SyncError } from "../../lib/errors.ts";
import { nuke } from "../../lib/sync/nuke.ts";
import type { SyncResult } from "../../lib/sync/result.ts";
import { sync } from "../../lib/sync/sync.ts";
import { createWorker } from "../../lib/worker.ts";
import {
  Hand,
  insertItems,
  rowsOf,
  saveReplica,
  SCHEMA,
  standing,
  startChain,
  until,
} from "../db/support/chain.ts";
import { SECRET, Servers, Stack } from "../db/support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

const MB = 1_048_576;

async function call<T>({ sql }: Stack, expression: string): Promise<T> {
  const [row] = await sql.unsafe(`select ${expression} as value`);
  return row!.value as T;
}

const tick = (stack: Stack) =>
  call<string | null>(stack, "public.process_libsql_replication_batch()");

async function count({ sql }: Stack, of: string): Promise<number> {
  return Number((await sql.unsafe(`select count(*) as n from ${of}`))[0]!.n);
}

/** A stack with two tables, which fills and scrubs by itself. */
async function start(): Promise<Stack> {
  return await Stack.start(servers, {
    schema: SCHEMA,
    setup: `
      create table public.item (id bigint primary key, name text, size numeric);
      create table public.part (item bigint, code text, note text, primary key (item, code));`,
  });
}

/** A connection that may hold a transaction open. */
async function withConnection<T>(
  stack: Stack,
  run: (sql: postgres.Sql) => Promise<T>,
): Promise<T> {
  const url = stack.server.url({ database: stack.database });
  const sql = postgres(url, { max: 1, onnotice: () => {} });
  try {
    return await run(sql);
  } finally {
    await sql.end({ timeout: 1 });
  }
}

/** Writes to its own range of keys until told to stop: all kinds, some rolled back. */
async function write(
  stack: Stack,
  options: { from: number; signal: AbortSignal },
): Promise<number> {
  const { from, signal } = options;
  return await withConnection(stack, async (sql) => {
    let n = 0;
    for (; !signal.aborted; n++) {
      const id = from + n % 50;
      await sql.unsafe(
        [
          `insert into item values (${id}, 'w${n}', ${n}) on conflict (id) do update set name = excluded.name`,
          `begin; update item set size = ${n} where id >= ${from} and id < ${
            from + 50
          }; insert into part values (${id}, 'c${n}', null); commit`,
          `begin; delete from item where id = ${id}; rollback`,
          `update item set id = id + 25 where id = ${from} and not exists (select from item where id = ${
            from + 25
          })`,
          `delete from item where id = ${from + (n * 7) % 50}`,
          `delete from part where item = ${id}`,
        ][n % 6]!,
      ).simple();
    }
    return n;
  });
}

Deno.test("cap_queue() loses nothing when writers are busy before, during and after it", async () => {
  await using stack = await start();
  const { sql } = stack;
  await insertItems(stack, 1, 200);
  await stack.drain();
  await sql`update libsql_sync.chain set queue_mb_max = 1`;
  const { epoch } = await standing(stack);

  const controller = new AbortController();
  const writers = [100_000, 200_000, 300_000].map((from) =>
    write(stack, { from, signal: controller.signal })
  );
  let capped;
  try {
    // What nobody will hear of but from the walk.
    await insertItems(stack, 1_001, 13_000);
    await sql`delete from item where id between 1 and 100`;
    await sql`update item set name = 'changed' where id between 101 and 150`;
    await until("the queue is capped", async () => {
      await tick(stack);
      return (await standing(stack)).epoch !== epoch;
    });
    capped = await call<Record<string, unknown>>(stack, "libsql_sync.status()");
    assert(
      Number(capped.queued) < 10_000,
      `${capped.queued} messages are left`,
    );
    const { reason, wipe } = capped.last_epoch as Record<string, unknown>;
    assertEquals(wipe, false);
    assertStringIncludes(String(reason), "over its cap of 1 MB");
    // The next tick finds work, and the worker follows while they write.
    assert(await tick(stack) !== null);
    await stack.sync();
    await stack.sync();
  } finally {
    controller.abort();
  }
  for (const written of await Promise.all(writers)) assert(written > 100);
  await stack.drain();
  await until(
    "the walk is done",
    async () => (await stack.sync()).walk_done === true,
  );
  assert(await stack.assertEqual() > 12_000);
  assertEquals(
    stack.log.filter(({ event }) => event === "adopt").map(({ wipe }) => wipe),
    [false],
  );
});

Deno.test("cap_queue() goes ahead when a batch is in flight, which is followed by the new epoch", async () => {
  await using stack = await startChain(servers);
  const { sql } = stack;
  await insertItems(stack, 1, 100);
  await stack.drain();
  await sql`update libsql_sync.chain set queue_mb_max = 1`;
  await insertItems(stack, 101, 12_000);
  await sql`delete from item where id <= 50`;
  await stack.withParts(async (parts) => {
    const hand = new Hand(parts, stack.schema);
    const batch = await hand.batch({ rows: 500 });
    assertEquals(await call(stack, "libsql_sync.cap_queue()"), true);
    assertEquals((await standing(stack)).queue, []);
    // It lands on the epoch it was made for, and that one has ended.
    assertEquals(await hand.apply(batch), "applied");
    const next = await hand.again();
    assertEquals([next.do, "wipe" in next && next.wipe], ["adopt", false]);
    await parts.source.release(hand.lease);
  });
  await sql`insert into item values (20000, 'after', 1)`;
  await stack.drain();
  await until(
    "the walk is done",
    async () => (await stack.sync()).walk_done === true,
  );
  assertEquals(await stack.assertEqual(), 11_951);
});

Deno.test("cap_queue() gives up soon and changes nothing when a writer's transaction is open", async () => {
  await using stack = await startChain(servers);
  const { sql } = stack;
  await sql`update libsql_sync.chain set queue_mb_max = 1`;
  await insertItems(stack, 1, 12_000);
  const before = await standing(stack);
  await withConnection(stack, async (writer) => {
    await writer.unsafe("begin; insert into item values (20000, 'open', 1)")
      .simple();
    const started = performance.now();
    const capping = call(stack, "libsql_sync.cap_queue()");
    // A second writer comes while it waits, and waits behind it, not for it.
    await until(
      "it waits",
      async () => await count(stack, "pg_locks where not granted") > 0,
    );
    await sql`insert into item values (20001, 'behind', 1)`;
    const waitedMs = performance.now() - started;
    assertEquals(await capping, false);
    assert(waitedMs < 2_000, `a writer waited ${waitedMs} ms`);
    assertEquals((await standing(stack)).epoch, before.epoch);
    assertEquals((await standing(stack)).queue.length, before.queue.length + 1);
    await writer.unsafe("commit");
  });
  // As long as somebody holds the chain's row, too.
  await withConnection(stack, async (worker) => {
    await worker.unsafe("begin; select from libsql_sync.chain for update")
      .simple();
    assertEquals(await call(stack, "libsql_sync.cap_queue()"), false);
    await worker.unsafe("commit");
  });
  assertEquals(await call(stack, "libsql_sync.cap_queue()"), true);
  assertEquals((await standing(stack)).queue, []);
});

Deno.test("cap_queue() leaves the queue alone when it is small, short, or has no cap", async () => {
  await using stack = await startChain(servers);
  const { sql } = stack;
  const capped = () => call(stack, "libsql_sync.cap_queue()");
  await insertItems(stack, 1, 12_000);
  assertEquals(await capped(), false);
  await sql`update libsql_sync.chain set queue_mb_max = null`;
  assertEquals(await capped(), false);
  await sql`delete from pgmq.q_replicate_data_libsql where msg_id > 10000`;
  await sql`update libsql_sync.chain set queue_mb_max = 1`;
  assertEquals(await capped(), false);
  assertEquals((await standing(stack)).queue.length, 10_000);
  assertEquals((await standing(stack)).epochs.length, 1);
});

Deno.test("process_libsql_replication_batch() keeps the queue to its cap when paused, and when secrets are missing", async () => {
  await using stack = await startChain(servers);
  const { sql } = stack;
  await sql`update libsql_sync.chain set queue_mb_max = 1`;
  await sql`select libsql_sync.pause()`;
  await insertItems(stack, 1, 12_000);
  assertEquals(await tick(stack), null);
  assertEquals((await standing(stack)).queue, []);
  await sql`select libsql_sync.resume()`;
  await sql`delete from vault.secrets`;
  await insertItems(stack, 12_001, 24_000);
  assertEquals(await tick(stack), null);
  assertEquals((await standing(stack)).queue, []);
  assertEquals((await standing(stack)).epochs.length, 3);
  await assertRejects(
    () => tick(stack),
    postgres.PostgresError,
    "found neither",
  );
});

/** A sync of a worker whose replica may be so large, with what it logged. */
async function syncWithin(
  stack: Stack,
  replicaMbMax: number,
): Promise<{ result: SyncResult; log: unknown[][] }> {
  const log: unknown[][] = [];
  const result = await stack.withParts((parts) =>
    sync({
      ...parts,
      replicaMbMax,
      log: (...line: unknown[]) => void log.push(line),
    })
  );
  return { result, log };
}

/** How much the replica holds, asked of it directly. */
async function replicaBytes({ client }: Stack): Promise<number> {
  const ask = async (name: string) =>
    Number((await client.execute(`PRAGMA ${name}`)).rows[0]![0]);
  const pages = await ask("page_count") - await ask("freelist_count");
  return pages * await ask("page_size");
}

async function fillReplica(stack: Stack): Promise<number> {
  await stack
    .sql`insert into item select i, repeat('x', 1000), i from generate_series(1, 4000) i`;
  await stack.drain();
  await until(
    "the walk is done",
    async () => (await stack.sync()).walk_done === true,
  );
  return await replicaBytes(stack);
}

Deno.test("sync() reports the replica's size, and warns when 80 % of it is taken", async () => {
  await using stack = await start();
  const bytes = await fillReplica(stack);
  assert(bytes > 4 * MB);
  const body = await stack.sync();
  assertEquals(body.replica_mb, Math.ceil(bytes / MB));
  assertEquals("warnings" in body, false);
  const line = stack.log.findLast(({ event }) => event === "sync");
  assertEquals(line?.replica_mb, body.replica_mb);
  const status = await call<{ replica: { bytes: number } }>(
    stack,
    "libsql_sync.status()",
  );
  assertEquals(status.replica.bytes, bytes);

  const near = await syncWithin(stack, bytes / MB / 0.81);
  assertEquals(near.result.warnings?.length, 1);
  assertStringIncludes(near.result.warnings![0]!, "LIBSQL_MAX_MB");
  assertEquals(near.log.map(([level, event]) => [level, event]), [[
    "warn",
    "replica_size",
  ]]);
  const far = await syncWithin(stack, bytes / MB / 0.79);
  assertEquals([far.result.warnings, far.log], [undefined, []]);
});

Deno.test("sync() stops before it applies anything when 95 % of the replica's room is taken", async () => {
  await using stack = await start();
  const { sql } = stack;
  const bytes = await fillReplica(stack);
  await sql`insert into item values (5000, 'one more', 1)`;
  const before = [await rowsOf(stack), (await stack.row()).position];
  const full = bytes / MB / 0.96;
  for (let i = 0; i < 2; i++) {
    const error = await assertRejects(
      () => syncWithin(stack, full),
      SyncError,
      "LIBSQL_MAX_MB",
    );
    assertEquals([error.code, error.retry], ["replica_full", false]);
    assertEquals([await rowsOf(stack), (await stack.row()).position], before);
    assertEquals((await standing(stack)).queue.length, 1);
    assertEquals((await standing(stack)).lease, null);
  }
  // As a user sees it.
  const settings: Record<string, string> = {
    LIBSQL_URL: stack.sqld.url,
    PGMQ_URL: stack.server.url({ database: stack.database }),
    WEBHOOK_SIGNATURE: SECRET,
    LIBSQL_MAX_MB: "4",
  };
  const worker = createWorker({
    config: () => parseConfig((name) => settings[name]),
    schema: stack.schema,
    log: () => {},
    now: Date.now,
  });
  const response = await worker(
    new Request("http://worker/sync", {
      method: "POST",
      headers: { "x-webhook-signature": SECRET },
    }),
  );
  assertEquals(response.status, 507);
  assertEquals((await response.json()).error, "replica_full");

  // The ways out: more room; or fewer rows and a replica filled anew.
  await syncWithin(stack, full * 2);
  assertEquals(await stack.assertEqual(), 4001);
  await sql`delete from item where id <= 3000`;
  await assertRejects(() => syncWithin(stack, full), SyncError);
  await stack.withParts((parts) =>
    nuke({ ...parts, replicaMbMax: full }, { refill: true })
  );
  await until(
    "the walk is done",
    async () => (await syncWithin(stack, full)).result.walk_done === true,
  );
  assertEquals(await stack.assertEqual(), 1001);
  const small = await replicaBytes(stack);
  assert(small < bytes / 2, "pages that are free again are room");
});

/** Runs of pg_cron, as far back as said: `ours` of our job among `others`. */
async function insertRuns(
  stack: Stack,
  options: { ours: number; others: number; ago: string },
): Promise<void> {
  const { ours, others, ago } = options;
  await stack.run(
    `insert into cron.job_run_details (jobid, username, status, start_time, end_time)
     select case when i % ${Math.ceil((ours + others) / ours)} = 0
         then (select jobid from cron.job where jobname = 'process_libsql_replication') else 999999 end,
       'postgres', 'succeeded', now() - '${ago}'::interval, now() - '${ago}'::interval
     from generate_series(1, ${ours + others}) i`,
    { user: SUPERUSER },
  );
}

Deno.test("process_libsql_replication_batch() trims the runs of our own job, 1,000 at a time", async () => {
  await using stack = await startChain(servers);
  const { sql } = stack;
  await insertRuns(stack, { ours: 2_500, others: 22_500, ago: "2 days" });
  await insertRuns(stack, { ours: 5, others: 5, ago: "23 hours" });
  const ours = async () =>
    await count(
      stack,
      "cron.job_run_details where jobid = (select jobid from cron.job where jobname = 'process_libsql_replication')",
    );
  assertEquals(await ours(), 2_505);
  for (let ticks = 0, before = await ours(); await ours() > 5; ticks++) {
    await tick(stack);
    const left = await ours();
    assert(before - left <= 1_000 && ticks < 10, `${before} to ${left}`);
    before = left;
  }
  await tick(stack);
  assertEquals(await ours(), 5);
  assertEquals(await count(stack, "cron.job_run_details"), 22_510);
  // What was looked through is not looked through again, and what comes later is.
  assert(
    await call<number>(stack, "(select cron_run from libsql_sync.chain)") > 0,
  );
  await insertRuns(stack, { ours: 50, others: 1, ago: "25 hours" });
  await tick(stack);
  assertEquals(await ours(), 5);
  // A sequence that began again.
  await stack.run(
    "truncate cron.job_run_details; alter sequence cron.runid_seq restart",
    { user: SUPERUSER },
  );
  await tick(stack);
  await insertRuns(stack, { ours: 50, others: 1, ago: "25 hours" });
  await tick(stack);
  assertEquals(await ours(), 0);

  // Where the role may not, or there is nothing, the call is made all the same.
  await sql`insert into item values (1, 'a', 1)`;
  await stack.run("revoke all on cron.job_run_details from postgres", {
    user: SUPERUSER,
  });
  assert(await tick(stack) !== null);
  await stack.run("drop table cron.job_run_details", { user: SUPERUSER });
  assert(await tick(stack) !== null);
});

Deno.test("trim_versions() takes away more than syncs add, and not the head", async () => {
  await using stack = await startChain(servers);
  const { sql } = stack;
  await sql`update libsql_sync.chain set replay_window = '0'`;
  for (let i = 1; i <= 15; i++) {
    await insertItems(stack, i, i);
    await stack.drain();
  }
  const { position, batches, archive } = await standing(stack);
  assertEquals(position, 15);
  // The head, and those that the last claim of each sync settled after it trimmed.
  assert(batches.length <= 2, `${batches.length} of ${position}`);
  assert(archive.length <= 2);

  // Backlog of an hour: gone within a few syncs, eight at a time.
  await sql`update libsql_sync.chain set replay_window = '1 hour'`;
  for (let i = 16; i <= 35; i++) {
    await insertItems(stack, i, i);
    await stack.drain();
  }
  const kept = () => count(stack, "libsql_sync.batches");
  const backlog = await kept();
  assert(backlog >= 20);
  await sql`update libsql_sync.chain set replay_window = '0'`;
  await insertItems(stack, 36, 36);
  await stack.drain();
  assert(await kept() <= backlog - 7);
  // And by ticks alone; the head is never trimmed, nor what it may lose.
  await tick(stack);
  const left = await standing(stack);
  assertEquals(left.batches.map(({ batch }) => batch), [left.batch]);
  assertEquals(left.archive.length, 1);

  // Versions of epochs before, and what was handed out and never landed.
  await sql`insert into libsql_sync.batches (epoch, position, batch, prev, msg_ids, messages, drained, snapshot, source_time, dead_letters)
    select e, i, gen_random_uuid(), '', '{}', 0, true, '', now(), 0
    from unnest(array['00000000-old', 'ffffffff-old', ${left.epoch}]) e, generate_series(1, 15) i`;
  // What is above the head may still land, for a day.
  await sql`insert into libsql_sync.batches (epoch, position, batch, prev, msg_ids, messages, drained, snapshot, source_time, dead_letters, handed_at)
    select ${left.epoch}, ${
    left.position + 1
  }::bigint, b, ${left.batch}, '{}', 0, true, '', now(), 0, now() - age
    from (values ('above', interval '20 hours'), ('long ago', '2 days')) v (b, age)`;
  const trim = (most: number) =>
    call<number>(stack, `libsql_sync.trim_versions(${most})`);
  assertEquals([await trim(8), await trim(1_000), await trim(8)], [8, 38, 0]);
  assertEquals(
    (await standing(stack)).batches.map(({ batch }) => batch),
    [left.batch, "above"],
  );
});

Deno.test("sync() begins a new epoch without a wipe when the replica stands at a trimmed position", async () => {
  await using stack = await start();
  const { sql } = stack;
  await insertItems(stack, 1, 100);
  await stack.drain();
  const { epoch } = await standing(stack);
  const rewind = await saveReplica(stack);
  await stack.sqld.start();
  await sql`update libsql_sync.chain set replay_window = '0'`;
  for (let i = 101; i <= 110; i++) {
    await insertItems(stack, i, i);
    await sql`delete from item where id = ${i - 100}`;
    await stack.drain();
  }
  await tick(stack);
  assertEquals((await standing(stack)).batches.length, 1);
  await rewind();
  const body = await stack.sync();
  const { reason, wipe } = (await standing(stack)).epochs.at(-1)!;
  assert(body.epoch !== epoch);
  assertEquals(wipe, false);
  assertStringIncludes(String(reason), "not on record");
  await until(
    "the walk is done",
    async () => (await stack.sync()).walk_done === true,
  );
  assertEquals(await stack.assertEqual(), 100);
});

Deno.test("tidy() bounds walks, discarded dead letters and what lies in the archive without a batch", async () => {
  await using stack = await start();
  const { sql } = stack;
  await insertItems(stack, 1, 10);
  await stack.drain();
  await until(
    "the walk is done",
    async () => (await stack.sync()).walk_done === true,
  );
  // A full pass, long ago; 300 walks of one table since; and three to come.
  const seen = await call<number>(
    stack,
    "(select (seen ->> 'walk_gen')::int from libsql_sync.chain)",
  );
  assert(seen > 0);
  await sql`insert into libsql_sync.walks (kind, tables, repair, closes, reason, ended_at)
    select 'redrive', '{item}', true, false, 'test', now() from generate_series(1, 303)`;
  const newest = await call<number>(
    stack,
    "(select max(walk_gen)::int from libsql_sync.walks)",
  );
  await sql`update libsql_sync.chain set seen = seen || jsonb_build_object('walk_gen', ${
    newest - 3
  }::int)`;
  // Archived by somebody else two hours ago, and now.
  await sql`insert into pgmq.a_replicate_data_libsql (msg_id, vt, message, archived_at)
    select 1000000 + i, now(), '{}', now() - '2 hours'::interval from generate_series(1, 1500) i`;
  await sql`insert into pgmq.a_replicate_data_libsql (msg_id, vt, message) values (2000000, now(), '{}')`;
  await sql`insert into pgmq.a_replicate_data_libsql_dlq (msg_id, vt, message, archived_at)
    select i, now(), '{}', now() - case when i <= 1500 then '31 days' else '29 days' end::interval from generate_series(1, 1600) i`;
  const archived = (await standing(stack)).archive.length;
  const full = await call(
    stack,
    "libsql_sync.status() #> '{last_full_pass,walk_gen}'",
  );

  await tick(stack);
  assertEquals((await standing(stack)).archive.length, archived - 1_000);
  assertEquals(await count(stack, "pgmq.a_replicate_data_libsql_dlq"), 600);
  await tick(stack);
  assertEquals((await standing(stack)).archive.length, archived - 1_500);
  assertEquals(await count(stack, "pgmq.a_replicate_data_libsql_dlq"), 100);
  const walks =
    await sql`select walk_gen::int as n from libsql_sync.walks order by 1`;
  assertEquals(walks.length, 101);
  assertEquals(walks.at(-1)!.n, newest);
  assertEquals(
    await call(stack, "libsql_sync.status() #> '{last_full_pass,walk_gen}'"),
    full,
  );

  // What a batch needs to be put back is there as long as the batch is.
  await sql`update pgmq.a_replicate_data_libsql set archived_at = archived_at - '2 hours'::interval where msg_id < 1000000`;
  await sql`update libsql_sync.batches set settled_at = settled_at - '2 hours'::interval`;
  await sql`update libsql_sync.chain set replay_window = '3 hours'`;
  assertEquals(await call(stack, "libsql_sync.tidy()"), 0);
  // A claim may be reading it.
  await sql`update libsql_sync.chain set replay_window = '0'`;
  await withConnection(stack, async (worker) => {
    await worker.unsafe("begin; select from libsql_sync.chain for update")
      .simple();
    assertEquals(await call(stack, "libsql_sync.tidy()"), 0);
    assert((await standing(stack)).archive.length > 0);
    await worker.unsafe("commit");
  });
  await sql`select libsql_sync.tidy()`;
  // But for what may belong to a batch that is being settled.
  assertEquals((await standing(stack)).archive, [2_000_000]);
});
