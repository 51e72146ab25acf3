/** Bad input from every side: it is set aside or told, and the next sync goes on. */

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { insertItems, SCHEMA, send, startChain } from "../db/support/chain.ts";
import { SECRET, Servers, serveWorker } from "../db/support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

Deno.test("sync() opens the walk for a failed capture with any message, and goes on", async () => {
  await using stack = await startChain(servers);
  await stack.sql`update libsql_sync.chain set refill = true`;
  await stack.walk();
  const { walk_gen } = await stack.row();
  // Cut after five units, each of the first two would end in half a character.
  for (const failed of ["1234😀", "😀😀😀", "\u001b[31m", "", "42P01"]) {
    await send(stack, { v: 1, table: "item", failed });
    await send(stack, { v: 2, table: "item", walk: failed });
  }
  await insertItems(stack, 1, 2);
  const { parked, processed } = await stack.drain();
  assertEquals([parked, processed], [0, 12]);
  assertEquals(await stack.deadLetters(), []);
  // Nothing is called equal before it came through.
  await stack.walk();
  assert(Number((await stack.row()).walk_gen) > Number(walk_gen));
  assertEquals(await stack.assertEqual(), 2);
});

Deno.test("sync() bounds what a replica answers, and follows it nowhere", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  await insertItems(stack, 1, 2);
  let answer = (_: URL): Response => new Response();
  let sent = 0;
  const paths = new Set<string>();
  const fake = Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen: () => {} },
    (request) => {
      const url = new URL(request.url);
      paths.add(url.pathname);
      return answer(url);
    },
  );
  const libsqlUrl = `http://127.0.0.1:${fake.addr.port}`;
  const worker = serveWorker(
    { libsqlUrl, pgmqUrl: stack.server.url({ database: stack.database }) },
    SCHEMA,
  );
  const endless = () => {
    const chunk = new Uint8Array(1_048_576).fill(0x20);
    return new Response(
      new ReadableStream({
        pull(controller) {
          sent += 1;
          controller.enqueue(chunk);
        },
      }),
    );
  };
  const answers: Record<string, () => Response> = {
    nothing: () => new Response(),
    "half of it": () => new Response('{"baton":null,"results":[{"type":"ok",'),
    HTML: () => new Response("<html>", { headers: { server: "x" } }),
    "another shape": () => Response.json({ results: [null, 5] }),
    "no body at all": () => new Response(null, { status: 204 }),
    "a redirect": () =>
      new Response(null, {
        status: 307,
        headers: { location: `${libsqlUrl}/elsewhere` },
      }),
    "no end": endless,
  };
  try {
    for (const [name, make] of Object.entries(answers)) {
      answer = make;
      const started = Date.now();
      const response = await fetch(
        `http://127.0.0.1:${worker.addr.port}/sync`,
        { method: "POST", headers: { "x-webhook-signature": SECRET } },
      );
      const body = await response.json();
      assertEquals([name, response.status, body.error], [
        name,
        503,
        "replica_unreachable",
      ]);
      if (name === "a redirect") {
        assertStringIncludes(body.message, "HTTP 307");
      }
      assert(Date.now() - started < 15_000, name);
    }
    assertEquals(paths.has("/elsewhere"), false);
    // A sync asks four times.
    assert(sent < 4 * 40, `${sent} MB were sent`);
  } finally {
    await worker.shutdown();
    await fake.shutdown();
  }
  await stack.drain();
  assertEquals(await stack.assertEqual(), 2);
});

Deno.test("a setting that the driver refuses is reported without its words", async () => {
  const worker = serveWorker({
    libsqlUrl: "http://127.0.0.1:9",
    pgmqUrl: "postgres://u:secret@127.0.0.1:9/db?target_session_attrs=bogus",
  }, SCHEMA);
  try {
    const response = await fetch(
      `http://127.0.0.1:${worker.addr.port}/sync`,
      { method: "POST", headers: { "x-webhook-signature": SECRET } },
    );
    const { error, message } = await response.json();
    assertEquals([response.status, error], [500, "config_invalid"]);
    assertStringIncludes(message, "PGMQ_URL");
    assert(!/secret|bogus/.test(message), message);
  } finally {
    await worker.shutdown();
  }
});
