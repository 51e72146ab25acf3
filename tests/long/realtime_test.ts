/** Realtime: changes arrive within a second, by one call however many writes. */

import { assert, assertEquals } from "@std/assert";
import postgres from "postgres";
import { SUPERUSER } from "../../lib/dev/postgres.ts";
import { migrate, putSecret } from "../../lib/dev/supabase.ts";
import { startTicker } from "../../lib/dev/ticker.ts";
import {
  insertItems,
  startChain,
  syncWith,
  until,
} from "../db/support/chain.ts";
import { Servers, type Stack } from "../db/support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

const JOB = "libsql_sync_realtime";
const LONG = 60_000;

/** A walked chain with realtime on, and nobody who looks. */
async function startRealtime(): Promise<Stack> {
  const stack = await startChain(servers);
  await stack.sql`update libsql_sync.chain set refill = true`;
  await stack.walk();
  await stack.sql`select libsql_sync.realtime(true)`;
  return stack;
}

/** One look, as the job has it. */
async function watch({ sql }: Pick<Stack, "sql">): Promise<boolean> {
  const [row] = await sql`select libsql_sync.watch() as on`;
  return row!.on as boolean;
}

/** How many calls wait in pg_net. */
async function calls({ sql }: Pick<Stack, "sql">): Promise<number> {
  const [row] =
    await sql`select count(*)::int as n from net.http_request_queue`;
  return row!.n as number;
}

/** Sends what waits in pg_net, as its worker does. */
async function send(stack: Stack): Promise<void> {
  await stack.sql`delete from net.http_request_queue`;
  await stack.sync();
}

async function jobs({ sql }: Stack): Promise<string[]> {
  const rows =
    await sql`select jobname from cron.job where database = current_database() order by 1`;
  return rows.map(({ jobname }) => jobname as string);
}

Deno.test("realtime() brings changes without another call, and leaves none when it is off", async () => {
  await using stack = await startRealtime();
  // The other job comes every 5 minutes: here never.
  await stack.sql`select cron.unschedule('process_libsql_replication')`;
  const ticker = startTicker({
    url: stack.server.url({ database: stack.database, user: SUPERUSER }),
    cronEveryMs: 1_000,
    log: () => {},
  });
  try {
    for (let round = 0; round < 3; round++) {
      await insertItems(stack, round * 10 + 1, round * 10 + 10);
      await until("the rows arrive", async () => {
        const { rows } = await stack.client.execute(
          "SELECT count(*) AS n FROM item",
        );
        return Number(rows[0]!.n) === round * 10 + 10;
      }, LONG);
    }
    await stack.assertEqual();
    // Off: the run under way ends, and no other begins.
    await stack.sql`select libsql_sync.realtime(false)`;
    await until("the run ends", async () => {
      const [row] = await stack.sql`
        select count(*)::int as n from cron.job_run_details d
        where d.command ~ 'libsql_sync.watch' and d.status <> 'succeeded'`;
      return row!.n === 0;
    }, LONG);
    await insertItems(stack, 100, 101);
    assertEquals(await watch(stack), false);
    assertEquals(await calls(stack), 0);
  } finally {
    await ticker.stop();
  }
});

Deno.test("watch() calls once however many writes, and again when the chain has moved", async () => {
  await using stack = await startRealtime();
  assertEquals(await watch(stack), true);
  assertEquals(await calls(stack), 0, "idle");
  for (let id = 1; id <= 5; id++) {
    await insertItems(stack, id, id);
    assertEquals(await watch(stack), true);
    // However long this test takes.
    await stack
      .sql`update libsql_sync.chain set wake_at = now() + interval '1 hour'`;
  }
  assertEquals(await calls(stack), 1);
  await send(stack);
  assertEquals((await stack.row()).drained, 1);
  await watch(stack);
  assertEquals(await calls(stack), 0, "idle again");
  await insertItems(stack, 6, 6);
  await watch(stack);
  assertEquals(await calls(stack), 1);
  // The call is one that the worker takes, signed.
  const [request] = await stack
    .sql`select url, headers, convert_from(body, 'UTF8') as body from net.http_request_queue`;
  const response = await fetch(request!.url, {
    method: "POST",
    headers: request!.headers,
    body: request!.body,
  });
  assertEquals([response.status, (await response.json()).processed], [200, 1]);

  // What is idle is not written to.
  await watch(stack);
  const place = async () =>
    (await stack.sql`select xmin::text, ctid::text from libsql_sync.chain`)[0];
  const before = await place();
  for (let look = 0; look < 3; look++) await watch(stack);
  assertEquals(await place(), before);
});

Deno.test("watch() waits for another watch(), and calls for what came meanwhile", async () => {
  await using stack = await startRealtime();
  await insertItems(stack, 1, 3);
  await stack
    .sql`update libsql_sync.chain set lease = 'other', lease_until = now() + interval '1 minute'`;
  await watch(stack);
  assertEquals(await calls(stack), 0);
  await stack
    .sql`update libsql_sync.chain set lease = null, lease_until = null`;
  // A claim holds the chain's row: no look waits for it.
  await stack.sql.begin(async (sql) => {
    await sql`select from libsql_sync.chain for update`;
    await watch(stack);
    assertEquals(await calls(stack), 0);
  });
  await watch(stack);
  assertEquals(await calls(stack), 1);
  // Held off, nothing is called for.
  await send(stack);
  await watch(stack);
  await stack.sql`select libsql_sync.pause()`;
  await insertItems(stack, 4, 4);
  await watch(stack);
  assertEquals(await calls(stack), 0);
});

Deno.test("watch() repeats a call that nothing came of, later each time", async () => {
  await using stack = await startRealtime();
  const { sql } = stack;
  await insertItems(stack, 1, 1);
  const waits: number[] = [];
  const tried = await sql.reserve();
  for (let call = 1; call <= 8; call++) {
    await watch(stack);
    assertEquals(await calls(stack), call);
    // How long until it calls again: the shortest of these that is enough.
    for (const seconds of [2, 7, 14, 28, 56, 112, 224, 400]) {
      await sql`update libsql_sync.chain set wake_at = clock_timestamp() - ${seconds} * interval '1 second'`;
      // Only to see whether it would.
      await tried`begin`;
      await watch({ sql: tried });
      const isDue = await calls({ sql: tried }) > call;
      await tried`rollback`;
      if (isDue) {
        waits.push(seconds);
        break;
      }
    }
  }
  tried.release();
  assertEquals(waits, [7, 14, 28, 56, 112, 224, 400, 400]);
  const told = async () =>
    (await sql`select level from libsql_sync.doctor(array['cron']) where name = 'realtime'`)
      .map(({ level }) => level);
  assertEquals(await told(), ["error"]);
  // The cron's own call comes through: then it is as if nothing had been.
  await send(stack);
  await watch(stack);
  assertEquals(await told(), ["ok"]);
  await insertItems(stack, 2, 2);
  await watch(stack);
  assertEquals(await calls(stack), 1);
});

Deno.test("watch() fails for no writer when the secrets or pg_net are gone", async () => {
  await using stack = await startRealtime();
  const { sql } = stack;
  await sql`delete from vault.secrets where name = 'libsql_webhook_signature'`;
  await insertItems(stack, 1, 1);
  assertEquals(await watch(stack), true);
  assertEquals(await calls(stack), 0);
  await putSecret(sql, {
    name: "libsql_webhook_signature",
    value: "test-webhook-signature",
  });
  await sql`update libsql_sync.chain set wake_at = wake_at - interval '6 seconds'`;
  await watch(stack);
  assertEquals(await calls(stack), 1);
});

Deno.test("no writer waits for a look, nor a look for a writer", async () => {
  await using stack = await startRealtime();
  const writer = postgres(stack.server.url({ database: stack.database }), {
    max: 1,
    connection: { lock_timeout: 2_000 },
  });
  try {
    await writer`begin`;
    await writer`insert into item values (1, 'open', 1)`;
    // What is open calls nobody; what is committed does.
    await watch(stack);
    assertEquals(await calls(stack), 0);
    await insertItems(stack, 2, 2);
    await stack.sql.begin(async (sql) => {
      await sql`select libsql_sync.watch()`;
      await writer`insert into item values (3, 'at once', 3)`;
      await writer`commit`;
      await writer`update item set name = 'again' where id = 2`;
    });
    assertEquals(await calls(stack), 1);
    await send(stack);
    await stack.drain();
    assertEquals(await stack.assertEqual(), 3);
  } finally {
    await writer.end({ timeout: 1 });
  }
});

Deno.test("a sync scrubs a page a minute when realtime is on", async () => {
  await using stack = await startRealtime();
  await stack
    .sql`update libsql_sync.chain set scrub_rows = 1000, scrubbed_at = null`;
  const pages = async (times: number) => {
    const before = Number((await stack.row()).position);
    for (let n = 0; n < times; n++) await stack.sync();
    return Number((await stack.row()).position) - before;
  };
  assertEquals(await pages(3), 1);
  await stack
    .sql`update libsql_sync.chain set scrubbed_at = scrubbed_at - interval '61 seconds'`;
  assertEquals(await pages(3), 1);
  await stack.sql`select libsql_sync.realtime(false)`;
  assertEquals(await pages(3), 3);
});

Deno.test("a sync ends under writes that never pause when realtime is on", async () => {
  await using stack = await startRealtime();
  let id = 0;
  const batches = async () => {
    let [applied, ms] = [0, 0];
    await syncWith(stack, ({ replica }) => ({
      // A batch takes a fifth of a second, and each time somebody has written.
      now: () => ms,
      replica: {
        async apply(...args) {
          const made = await replica.apply(...args);
          ms += 200;
          if (++applied < 12) await insertItems(stack, ++id, id);
          return made;
        },
      },
    }));
    return applied;
  };
  await insertItems(stack, ++id, id);
  assertEquals(await batches(), 6);
  assertEquals(await calls(stack), 0);
  await watch(stack);
  assertEquals(await calls(stack), 1, "the rest is called for");
  await stack.sql`select libsql_sync.realtime(false)`;
  assertEquals(await batches(), 12);
  await stack.assertEqual();
});

Deno.test("trim_cron_runs() trims the runs of this job as well, at the pace they come", async () => {
  await using stack = await startRealtime();
  const { sql } = stack;
  // A run takes a minute: of a day there are 1,440, and tidy() comes 288 times.
  await sql`insert into cron.job_run_details (runid, jobid, status, start_time, end_time)
    select n, j.jobid, 'succeeded', t, t from cron.job j
    cross join generate_series(now() - interval '3 days', now(), interval '1 minute') with ordinality t (t, n)
    where j.jobname = ${JOB}`;
  for (let tidied = 0; tidied < 3; tidied++) {
    await sql`select libsql_sync.tidy()`;
  }
  const [row] = await sql`select count(*)::int as n from cron.job_run_details`;
  assert(row!.n >= 1_440 && row!.n <= 1_442, String(row!.n));
});

Deno.test("realtime() is shown, stays over a migration, and is removed by uninstall()", async () => {
  await using stack = await startRealtime();
  const { sql } = stack;
  const shown = async () => {
    const [row] = await sql`select libsql_sync.status() as status`;
    return row!.status.realtime;
  };
  const both = [JOB, "process_libsql_replication"];
  assertEquals([await shown(), await jobs(stack)], [true, both]);
  // What somebody changed is put right; twice is as once.
  await sql`select cron.schedule(${JOB}, '59 seconds', 'select 1')`;
  await migrate(stack.server.url({ database: stack.database }));
  const [job] = await sql`select * from cron.job where jobname = ${JOB}`;
  assertEquals(job!.schedule, "1 seconds");
  assert(job!.command.includes("libsql_sync.watch("));
  const doctor = async () =>
    (await sql`select level from libsql_sync.doctor(array['cron', 'leftovers']) where name in ('realtime', 'leftover')`)
      .map(({ level }) => level);
  assertEquals(await doctor(), ["ok"]);
  await sql`insert into cron.job_run_details (runid, jobid, status, return_message) select 1, jobid, 'failed', 'ERROR: gone' from cron.job where jobname = ${JOB}`;
  assertEquals(await doctor(), ["error"]);
  await sql`select cron.unschedule(${JOB})`;
  assertEquals(await doctor(), ["error"]);

  await sql`select libsql_sync.realtime(true)`;
  await sql`select libsql_sync.realtime(false)`;
  await sql`select libsql_sync.realtime(false)`;
  assertEquals([await shown(), await jobs(stack)], [false, both.slice(1)]);
  await migrate(stack.server.url({ database: stack.database }));
  assertEquals(await jobs(stack), both.slice(1));

  await sql`select libsql_sync.realtime(true)`;
  await sql`select libsql_sync.uninstall('uninstall')`;
  assertEquals(await jobs(stack), []);
});
