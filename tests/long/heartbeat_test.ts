/** The heartbeat: an idle system shows that its whole way still works. */

import { assert, assertEquals } from "@std/assert";
import { startChain } from "../db/support/chain.ts";
import { Servers, type Stack } from "../db/support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

type Heartbeat = {
  at: string | null;
  ticked_at: string | null;
  stale: boolean;
  silent: string | null;
};

async function heartbeat({ sql }: Stack): Promise<Heartbeat> {
  const [row] = await sql`select libsql_sync.status() as status`;
  return row!.status.heartbeat;
}

/** Lets so many minutes go by, for source and replica. */
async function letPass(stack: Stack, minutes: number): Promise<void> {
  await stack
    .sql`update libsql_sync.chain set seen_at = seen_at - ${minutes} * interval '1 minute',
    ticked_at = ticked_at - ${minutes} * interval '1 minute'`;
  await stack.client.execute({
    sql: "UPDATE _libsql_sync SET probed_at = probed_at - ?",
    args: [minutes * 60],
  });
}

/** The cron's call; whether it asked pg_net for one. */
async function tick({ sql }: Stack): Promise<boolean> {
  const [row] =
    await sql`select public.process_libsql_replication_batch() as id`;
  return row!.id !== null;
}

/** pg_net sends what it was asked for. */
async function send(stack: Stack): Promise<void> {
  const requests = await stack
    .sql`delete from net.http_request_queue returning url, headers, convert_from(body, 'UTF8') as body`;
  for (const { url, headers, body } of requests) {
    const response = await fetch(url, { method: "POST", headers, body });
    assertEquals(response.status, 200, await response.text());
  }
}

/** How many seconds ago the replica was last written to, as a reader asks. */
async function silence({ client }: Stack): Promise<number> {
  const { rows } = await client.execute(
    "SELECT unixepoch() - probed_at AS seconds FROM _libsql_sync",
  );
  return Number(rows[0]!.seconds);
}

Deno.test("an idle system is looked at after 15 minutes, all the way to the replica and back", async () => {
  await using stack = await startChain(servers);
  await stack.sql`update libsql_sync.chain set refill = true`;
  await stack.walk();
  await tick(stack);
  assertEquals((await heartbeat(stack)).stale, false);
  await letPass(stack, 14);
  assertEquals(await tick(stack), false, "nothing to do");
  await letPass(stack, 2);
  assert(await silence(stack) >= 16 * 60);
  const before = await heartbeat(stack);
  assertEquals(await tick(stack), true);
  await send(stack);
  const after = await heartbeat(stack);
  assert(Date.parse(after.at!) - Date.parse(before.at!) > 15 * 60_000);
  assert(await silence(stack) < 10 * 60);
  assertEquals([after.stale, after.silent], [false, null]);
});

Deno.test("a heartbeat is stale after 25 minutes, and says whether the cron or what follows is silent", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  await tick(stack);
  const standing = async () => {
    const { stale, silent } = await heartbeat(stack);
    const [doctor] = await stack
      .sql`select level from libsql_sync.doctor(array['replica']) where name = 'replica'`;
    assertEquals(doctor!.level === "error", stale);
    return [stale, silent];
  };
  await letPass(stack, 24);
  assertEquals(await standing(), [false, null]);
  await letPass(stack, 2);
  assertEquals(await standing(), [true, "cron"]);
  // The cron comes again, and pg_net sends nothing, or the worker fails.
  assertEquals(await tick(stack), true);
  assertEquals(await standing(), [true, "worker"]);
  await stack.sql`select libsql_sync.pause()`;
  assertEquals(await standing(), [false, null]);
  await stack.sql`select libsql_sync.resume()`;
  assertEquals(await standing(), [true, "worker"]);
  await send(stack);
  assertEquals(await standing(), [false, null]);
});

Deno.test("a worker that never came is missed 25 minutes after the installation", async () => {
  await using stack = await startChain(servers);
  const first = await heartbeat(stack);
  assertEquals(first, {
    at: null,
    ticked_at: null,
    stale: false,
    silent: null,
  });
  await stack
    .sql`update libsql_sync.epochs set begun_at = begun_at - interval '26 minutes'`;
  assertEquals((await heartbeat(stack)).silent, "cron");
  await tick(stack);
  assertEquals((await heartbeat(stack)).silent, "worker");
  await send(stack);
  assertEquals((await heartbeat(stack)).stale, false);
});
