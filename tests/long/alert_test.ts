import { assert, assertEquals, assertMatch } from "@std/assert";
import { insertItems, SCHEMA, startChain } from "../db/support/chain.ts";
import {
  SECRET,
  Servers,
  serveWorker,
  type Stack,
} from "../db/support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

/** A webhook that keeps what it is told, and answers as it is told to. */
class Webhook implements AsyncDisposable {
  readonly told: {
    text: string;
    alerts: { name: string; detail: string | null }[];
  }[] = [];
  status = 200;
  readonly #server = Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen: () => {} },
    async (request) => {
      assertEquals(request.method, "POST");
      this.told.push(await request.json());
      return new Response(null, { status: this.status });
    },
  );

  get url(): string {
    return `http://127.0.0.1:${this.#server.addr.port}/hooks/hunter2`;
  }

  /** What was told since the last time: names, with "over" where it is so. */
  take(): string[] {
    return this.told.splice(0).flatMap(({ alerts }) =>
      alerts.map(({ name, detail }) => detail === null ? `${name} over` : name)
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.shutdown();
  }
}

interface Told {
  readonly stack: Stack;
  readonly hook: Webhook;
  readonly log: Record<string, unknown>[];
  /** A signed POST to the worker that has the webhook. */
  post(
    path: string,
  ): Promise<{ status: number; body: Record<string, unknown> }>;
  /** A signed GET of either worker, which must succeed. */
  get(path: string, options?: { without: true }): Promise<void>;
}

/** A chain with two workers: one has a webhook, the stack's own has none. */
async function withWebhook(run: (told: Told) => Promise<void>): Promise<void> {
  await using stack = await startChain(servers);
  await using hook = new Webhook();
  const log: Record<string, unknown>[] = [];
  const pgmqUrl = stack.server.url({ database: stack.database });
  const urls = { libsqlUrl: stack.sqld.url, pgmqUrl };
  const worker = serveWorker(urls, SCHEMA, log, {
    ALERT_WEBHOOK_URL: hook.url,
  });
  const { port } = worker.addr;
  try {
    await run({
      stack,
      hook,
      log,
      post: (path) => stack.post(path, { port }),
      async get(path, options) {
        const to = options?.without ? stack.worker.addr.port : port;
        const response = await fetch(`http://127.0.0.1:${to}${path}`, {
          headers: { "x-webhook-signature": SECRET },
        });
        await response.body?.cancel();
        assertEquals(response.status, 200);
      },
    });
    assert(!JSON.stringify(log).includes("hunter2"), "no address in a log");
  } finally {
    await worker.shutdown();
  }
}

Deno.test("the alert webhook is notified of a parked change once, and once more when it is over", async () => {
  await withWebhook(async ({ stack, hook, post }) => {
    await insertItems(stack, 1, 2);
    await post("/sync");
    assertEquals(hook.take(), []);
    await stack.sql`insert into item values (3, 'a secret name', 0.5)`;
    await post("/sync");
    assertEquals(hook.told.map(({ text }) => text), [
      "LibSQL Sync: parked changes: 1 (deno task dlq list)",
    ]);
    assertEquals(hook.take(), ["parked"]);
    await stack.sql`insert into item values (4, 'another', 0.5)`;
    await post("/sync");
    await post("/sync");
    assertEquals(hook.take(), []);
    await stack.sql`update item set size = 1`;
    await post("/sync");
    assertMatch(
      hook.told[0]!.text,
      /^LibSQL Sync: over: no change is parked/,
    );
    assertEquals(hook.take(), ["parked over"]);
    await post("/sync");
    assertEquals(hook.take(), []);
  });
});

Deno.test("the alert webhook is notified again by the next sync when it failed, and fails nothing", async () => {
  await withWebhook(async ({ stack, hook, post, log }) => {
    hook.status = 500;
    await stack.sql`insert into item values (3, 'a', 0.5), (4, 'b', 1)`;
    const { status, body } = await post("/sync");
    assertEquals([status, body.parked], [200, 1]);
    assertEquals(hook.take(), ["parked"]);
    assert(
      log.some(({ event, sent, status }) =>
        event === "alert" && sent === false && status === 500
      ),
    );
    hook.status = 204;
    await post("/sync");
    assertEquals(hook.take(), ["parked"]);
    await post("/sync");
    assertEquals(hook.take(), []);
  });
});

Deno.test("the alert webhook is notified of drift that a walk found, and that it was repaired", async () => {
  await withWebhook(async ({ stack, hook, post }) => {
    await insertItems(stack, 1, 3);
    await post("/sync");
    await stack.client.execute("DELETE FROM item WHERE id = 2");
    await post("/verify");
    assertMatch(hook.told[0]!.text, /a walk found rows that differ: 1 /);
    assertEquals(hook.take(), ["drift"]);
    await post("/sync");
    assertEquals(hook.take(), [], "it is still so");
    await post("/verify?repair=true");
    assertEquals(hook.take(), ["drift over"]);
    await post("/verify");
    assertEquals(hook.take(), []);
  });
});

Deno.test("the alert webhook is notified that the replica lost batches, and that it has them again", async () => {
  await withWebhook(async ({ stack, hook, post }) => {
    await insertItems(stack, 1, 3);
    await post("/sync");
    await stack.sqld.backup(`${stack.folder}/kept`);
    await insertItems(stack, 4, 6);
    await post("/sync");
    await stack.sqld.restore(`${stack.folder}/kept`);
    await post("/sync");
    assertEquals(hook.take(), ["rewind"]);
    await post("/sync");
    assertEquals(hook.take(), ["rewind over"]);
    await stack.assertEqual();
  });
});

Deno.test("the alert webhook is notified of a chain that was broken, and that the replica follows again", async () => {
  await withWebhook(async ({ stack, hook, post }) => {
    await insertItems(stack, 1, 3);
    await post("/sync");
    await post("/nuke");
    await post("/sync");
    assertEquals(hook.take(), [], "a nuke is meant");
    // The source was restored: it knows nothing of what the replica has.
    await stack
      .sql`update libsql_sync.chain set position = 0, batch = epoch, handed = 0`;
    await stack.sql`delete from libsql_sync.batches`;
    assertEquals((await post("/sync")).status, 409);
    assertMatch(hook.told[0]!.text, /the chain was broken: replica_ahead/);
    assertEquals(hook.take(), ["epoch"]);
    assertEquals((await post("/sync")).status, 409);
    assertEquals(hook.take(), []);
    assertEquals((await post("/nuke")).status, 200);
    await post("/sync");
    assertEquals(hook.take(), ["epoch over"]);
  });
});

Deno.test("the alert webhook is notified of silence when the status is asked for, and when syncs are back", async () => {
  await withWebhook(async ({ stack, hook, post, get }) => {
    // Where no worker ever came.
    await stack
      .sql`update libsql_sync.epochs set begun_at = now() - interval '2 days'`;
    await get("/status");
    assertMatch(hook.told[0]!.text, /^LibSQL Sync: no sync for 2 days/);
    assertEquals(hook.take(), ["stale"]);
    await post("/sync");
    assertEquals(hook.take(), ["stale over"]);
    await stack
      .sql`update libsql_sync.chain set seen_at = now() - interval '1 hour'`;
    // A worker without a webhook takes nothing away from the one that has it.
    await get("/status", { without: true });
    assertEquals(hook.take(), []);
    await get("/metrics");
    assertMatch(
      hook.told[0]!.text,
      /^LibSQL Sync: no sync for 01:00:\d\d: the cron is silent /,
    );
    assertEquals(hook.take(), ["stale"]);
    await get("/status");
    assertEquals(hook.take(), []);
    await post("/sync");
    assertEquals(hook.take(), ["stale over"]);
  });
});
