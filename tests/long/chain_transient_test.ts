/** Failures that pass: of sqld, of what stands before it, of PostgreSQL. */

import { assert, assertEquals } from "@std/assert";
import {
  expireLease,
  insertItems,
  rowsOf,
  standing,
  startChain,
  syncWith,
  until,
  withWorker,
} from "../db/support/chain.ts";
import { isApply, Proxy } from "../db/support/http_proxy.ts";
import { SECRET, Servers } from "../db/support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

Deno.test("sync() succeeds when libSQL answers with passing errors or loses answers", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  await using proxy = new Proxy(() => stack.sqld.url);
  const FAULTS = [
    { status: 502 },
    { status: 421 },
    { status: 429 },
    { lose: 502 },
    { lose: 504 },
  ] as const;
  let id = 0;
  await withWorker(stack, { libsqlUrl: proxy.url }, async (port) => {
    for (const fault of FAULTS) {
      // Each request of a sync in turn, probe and apply, and three in a row.
      for (const [from, to] of [[1, 1], [2, 2], [1, 3]] as const) {
        id += 1;
        await insertItems(stack, id, id);
        proxy.requests = 0;
        proxy.decide = () =>
          proxy.requests >= from && proxy.requests <= to ? fault : undefined;
        const name = JSON.stringify({ fault, from, to });
        const { status, body } = await stack.post("/sync", { port });
        assertEquals([status, body.processed], [200, 1], name);
        assertEquals(await stack.assertEqual(), id, name);
        assertEquals((await standing(stack)).archive.length, id, name);
      }
    }
  });
});

Deno.test("sync() answers 503 and moves nothing when libSQL keeps failing", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  await insertItems(stack, 1, 3);
  await using proxy = new Proxy(() => stack.sqld.url);
  proxy.decide = (body) => isApply(body) ? { status: 500 } : undefined;
  await withWorker(stack, { libsqlUrl: proxy.url }, async (port) => {
    const response = await fetch(`http://127.0.0.1:${port}/sync`, {
      method: "POST",
      headers: { "x-webhook-signature": SECRET },
    });
    const body = await response.json();
    assertEquals([response.status, body.error], [503, "replica_unreachable"]);
    assert(Number(response.headers.get("retry-after")) > 0);
    assertEquals((await standing(stack)).queue.length, 3);
    assertEquals((await standing(stack)).lease, null);
    proxy.decide = () => undefined;
    const again = await stack.post("/sync", { port });
    assertEquals([again.body.processed, again.body.batches], [3, 1]);
  });
  assertEquals(await stack.assertEqual(), 3);
});

Deno.test("sync() answers 500 replica_unauthorized when libSQL refuses the token", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  await using proxy = new Proxy(() => stack.sqld.url);
  await withWorker(stack, { libsqlUrl: proxy.url }, async (port) => {
    for (const status of [401, 403]) {
      proxy.requests = 0;
      proxy.decide = () => ({ status });
      const { body, ...answer } = await stack.post("/sync", { port });
      assertEquals([answer.status, body.error], [500, "replica_unauthorized"]);
      assertEquals(proxy.requests, 1, "a token does not get right by asking");
    }
  });
});

Deno.test("sync() goes on when sqld is killed and started in the middle", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  await insertItems(stack, 1, 10_000);
  await using proxy = new Proxy(() => stack.sqld.url);
  let applies = 0;
  proxy.decide = async (body) => {
    if (isApply(body) && ++applies === 2) {
      await stack.sqld.kill();
      await stack.sqld.start();
    }
    return undefined;
  };
  await withWorker(stack, { libsqlUrl: proxy.url }, async (port) => {
    const { status, body } = await stack.post("/sync", { port });
    assertEquals(status, 200, JSON.stringify(body));
  });
  assert(applies > 2);
  await stack.drain();
  assertEquals(await stack.assertEqual(), 10_000);
});

Deno.test("sync() answers 503 with Retry-After when nothing listens at the source or the replica", async () => {
  await using stack = await startChain(servers);
  const listener = Deno.listen({ port: 0, hostname: "127.0.0.1" });
  const dead = listener.addr.port;
  listener.close();
  for (
    const [code, urls] of [
      ["source_unreachable", {
        pgmqUrl: `postgres://postgres:x@127.0.0.1:${dead}/postgres`,
      }],
      ["replica_unreachable", { libsqlUrl: `http://127.0.0.1:${dead}` }],
    ] as const
  ) {
    await withWorker(stack, urls, async (port) => {
      for (const path of ["sync", "nuke"]) {
        const response = await fetch(`http://127.0.0.1:${port}/${path}`, {
          method: "POST",
          headers: { "x-webhook-signature": SECRET },
        });
        const body = await response.json();
        assertEquals([response.status, body.error], [503, code]);
        assert(Number(response.headers.get("retry-after")) > 0);
        assert(!JSON.stringify(body).includes("127.0.0.1"));
      }
    });
  }
  assertEquals((await standing(stack)).lease, null);
});

Deno.test("sync() goes on when the source's connection is cut between claim and ack", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  await insertItems(stack, 1, 3);
  let isCut = false;
  const result = await syncWith(stack, ({ replica }) => ({
    replica: {
      async apply(...args) {
        const row = await replica.apply(...args);
        if (!isCut) {
          isCut = true;
          await stack.sql`
            select pg_terminate_backend(pid) from pg_stat_activity
            where datname = current_database() and query like '%libsql_sync.claim%' and pid <> pg_backend_pid()`;
        }
        return row;
      },
    },
  }));
  assert(isCut);
  assertEquals([result.processed, result.batches], [3, 1]);
  assertEquals(await stack.assertEqual(), 3);
});

Deno.test("sync() leaves nothing behind when its answer to the caller is lost", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  await insertItems(stack, 1, 3);
  await using proxy = new Proxy(() => stack.sqld.url);
  const held = Promise.withResolvers<void>();
  let isHeld = false;
  proxy.decide = async (body) => {
    if (isApply(body)) {
      isHeld = true;
      await held.promise;
    }
    return undefined;
  };
  await withWorker(stack, { libsqlUrl: proxy.url }, async (port) => {
    const abort = new AbortController();
    const call = fetch(`http://127.0.0.1:${port}/sync`, {
      method: "POST",
      headers: { "x-webhook-signature": SECRET },
      signal: abort.signal,
    }).then(() => "answered", () => "gone");
    await until("the apply is held", () => isHeld);
    abort.abort();
    assertEquals(await call, "gone");
    await expireLease(stack);
    // Another worker carries on while the request is still on its way.
    await stack.drain();
    const rows = await rowsOf(stack);
    held.resolve();
    await until("the worker gave up", async () => {
      return (await standing(stack)).lease === null;
    });
    assertEquals(await rowsOf(stack), rows);
  });
  assertEquals(await stack.assertEqual(), 3);
});
