import { assert, assertEquals, assertMatch } from "@std/assert";
import { SUPERUSER } from "../../lib/dev/postgres.ts";
import type { WorkerStatus } from "../../lib/status/status.ts";
import { insertItems, startChain } from "../db/support/chain.ts";
import { SECRET, Servers, Stack } from "../db/support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

/** A signed GET. */
async function get(
  stack: Stack,
  path: string,
  headers: Record<string, string> = { "x-webhook-signature": SECRET },
): Promise<Response> {
  const { port } = stack.worker.addr;
  return await fetch(`http://127.0.0.1:${port}${path}`, { headers });
}

async function statusOf(stack: Stack, query = ""): Promise<WorkerStatus> {
  const response = await get(stack, `/status${query}`);
  const body = await response.json();
  assertEquals(response.status, 200, JSON.stringify(body));
  assertEquals(response.headers.get("cache-control"), "no-store");
  return body;
}

Deno.test("GET /status reports lag, depth, counts and the last syncs when changes arrive, and when they are applied", async () => {
  await using stack = await startChain(servers);
  await insertItems(stack, 1, 3);
  await stack
    .sql`update pgmq.q_replicate_data_libsql set enqueued_at = now() - interval '90 seconds' where msg_id = 1`;
  const before = await statusOf(stack);
  assert(before.lag_seconds >= 90 && before.lag_seconds < 3_600);
  assertEquals(
    [before.queued, before.queued_exact, before.drained, before.position],
    [3, true, false, 0],
  );
  assertEquals([before.syncs, before.totals.syncs, before.letters], [
    [],
    0,
    null,
  ]);

  await stack.sync();
  const after = await statusOf(stack);
  assertEquals(
    [after.lag_seconds, after.queued, after.drained, after.position],
    [0, 0, true, after.replica_position],
  );
  assertEquals([after.version, after.schema.here], [null, after.schema.source]);
  const [last] = after.syncs;
  assertEquals(
    [last!.n, last!.processed, last!.parked, last!.queued, last!.error],
    [1, 3, 0, 0, null],
  );
  assert(last!.lag_ms >= 90_000);
  assertEquals(
    after.minutes.map((
      { syncs, failed, processed },
    ) => [syncs, failed, processed]),
    [[1, 0, 3]],
  );
  assertEquals(
    after.tables.map(({ name, applied, drift }) => [name, applied, drift]),
    [["item", 3, 0], ["part", 0, 0]],
  );
  assertEquals([after.totals.syncs, after.totals.processed], [1, 3]);
});

Deno.test("GET /status keeps the last 20 syncs and three hours of minutes, and forgets older ones", async () => {
  await using stack = await startChain(servers);
  for (let n = 0; n < 22; n++) await stack.sync();
  const { syncs, totals } = await statusOf(stack);
  assertEquals(totals.syncs, 22);
  assertEquals(
    syncs.map(({ n }) => n),
    Array.from({ length: 20 }, (_, i) => 22 - i),
  );
  const [kept] = await stack
    .sql`select (select count(*)::int from libsql_sync.syncs) as syncs`;
  assertEquals(kept!.syncs, 20);
  // A minute of another time is written over, and never shown.
  await stack.sql`update libsql_sync.minutes set minute = minute - 180`;
  assertEquals((await statusOf(stack)).minutes, []);
  await stack.sync();
  const { minutes } = await statusOf(stack);
  assertEquals(minutes.map(({ syncs }) => syncs), [1]);
});

Deno.test("GET /status reports why the last sync failed", async () => {
  await using stack = await startChain(servers);
  await stack.sync();
  await stack
    .sql`insert into libsql_sync.schemas (hash, spec) values ('newer', '{}')`;
  assertEquals((await stack.post("/sync")).status, 409);
  const { syncs, totals, warnings } = await statusOf(stack);
  assertEquals([syncs[0]!.error, totals.failed, totals.syncs], [
    "schema_outdated",
    1,
    2,
  ]);
  assert(warnings.some(({ found }) => /schema\.json here is not/.test(found)));
});

Deno.test("GET /status counts drift and says when a walk was through", async () => {
  await using stack = await Stack.start(servers);
  await stack
    .sql`insert into orgs (id, created_by, name, management_email) select gen_random_uuid(), gen_random_uuid(), 'o' || i, 'e' from generate_series(1, 5) i`;
  await stack.walk();
  const orgsOf = async () =>
    (await statusOf(stack)).tables.find(({ name }) => name === "orgs")!;
  const filled = await orgsOf();
  assertEquals(filled.drift, 0);
  assert(filled.verified_at !== null);
  await stack.client.execute("DELETE FROM orgs WHERE name IN ('o1', 'o2')");
  const { differences } = await stack.finish("/verify?repair=true");
  assertEquals(differences, 2);
  const mended = await orgsOf();
  assertEquals(mended.drift, 2);
  assert(mended.verified_at! > filled.verified_at!);
  await stack.finish("/verify");
  assertEquals((await orgsOf()).drift, 2);
});

Deno.test("GET /status?letters=true lists dead letters, and POST /redrive tries one again", async () => {
  await using stack = await startChain(servers);
  await stack.sql`insert into item values (1, 'one', 0.5), (2, 'two', 0.5)`;
  await stack.drain();
  const { letters, dead_letters } = await statusOf(stack, "?letters=true");
  assertEquals(dead_letters, 2);
  assertEquals(letters!.map(({ table, key }) => [table, key]), [
    ["item", ["2"]],
    ["item", ["1"]],
  ]);
  assertMatch(letters![0]!.reason, /^column size: /);
  assertEquals(JSON.stringify(letters).includes("two"), false);

  // Past the triggers: only a redrive looks again.
  await stack.run(
    "set session_replication_role = replica; update item set size = 5",
    { user: SUPERUSER },
  );
  const [newest] = letters!;
  const { status, body } = await stack.post(`/redrive?id=${newest!.id}`);
  assertEquals([status, body.tried], [200, 1]);
  await stack.drain();
  assertEquals((await statusOf(stack)).dead_letters, 1);
  for (
    const [query, code] of [["id=x", 400], ["id=", 400], ["other=1", 400], [
      "id=999",
      200,
    ]] as const
  ) {
    assertEquals((await stack.post(`/redrive?${query}`)).status, code, query);
  }
  const all = await stack.post("/redrive");
  assertEquals(all.status, 200);
  await stack.drain();
  assertEquals((await statusOf(stack)).dead_letters, 0);
});

Deno.test("GET /status counts a queue up to 10,000, and reads no more of a longer one", async () => {
  await using stack = await startChain(servers);
  await stack
    .sql`insert into pgmq.q_replicate_data_libsql (vt, message) select now(), '{}' from generate_series(1, 10050)`;
  const { queued, queued_exact } = await statusOf(stack);
  assertEquals([queued, queued_exact], [10_000, false]);
});

Deno.test("GET /status answers only requests with the secret, in either header", async () => {
  await using stack = await startChain(servers);
  for (const path of ["/status", "/metrics"]) {
    assertEquals((await get(stack, path, {})).status, 401);
    assertEquals(
      (await get(stack, path, { authorization: "Bearer wrong" })).status,
      401,
    );
    const response = await get(stack, path, {
      authorization: `Bearer ${SECRET}`,
    });
    assertEquals(response.status, 200);
    await response.body?.cancel();
  }
  const { port } = stack.worker.addr;
  const sync = await fetch(`http://127.0.0.1:${port}/sync`, {
    method: "POST",
    headers: { authorization: `Bearer ${SECRET}` },
  });
  assertEquals(sync.status, 401);
  await sync.body?.cancel();
});

Deno.test("GET /metrics reports what /status does, as OpenMetrics", async () => {
  await using stack = await startChain(servers);
  await insertItems(stack, 1, 4);
  await stack.sync();
  const response = await get(stack, "/metrics");
  assertMatch(
    response.headers.get("content-type")!,
    /^application\/openmetrics-text; version=1\.0\.0/,
  );
  const lines = (await response.text()).split("\n");
  for (
    const line of [
      "# TYPE libsql_sync_lag_seconds gauge",
      "libsql_sync_lag_seconds 0",
      "libsql_sync_queued_messages 0",
      "libsql_sync_messages_processed_total 4",
      'libsql_sync_syncs_total{outcome="success"} 1',
      'libsql_sync_table_rows_applied_total{table="item"} 4',
      "libsql_sync_schema_agrees 1",
      "libsql_sync_last_sync_success 1",
    ]
  ) assert(lines.includes(line), line);
  assertEquals(lines.slice(-2), ["# EOF", ""]);
});
