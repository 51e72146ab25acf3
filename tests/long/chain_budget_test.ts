/** What one request may spend, what it counts, and who must wait. */

import { assert, assertEquals } from "@std/assert";
import { SyncError } from "../../lib/errors.ts";
import { newPace } from "../../lib/sync/batch_size.ts";
import { sync } from "../../lib/sync/sync.ts";
import {
  insertItems,
  saveReplica,
  standing,
  startChain,
  syncWith,
  until,
  withWorker,
} from "../db/support/chain.ts";
import { isApply, Proxy } from "../db/support/http_proxy.ts";
import { Servers, type Stack } from "../db/support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

/** Calls a worker may make to either database; Bunny ends it at 50. */
const CALLS_MAX = 45;

Deno.test("sync() goes on after the last one's budget ended, and counts every message once", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  await insertItems(stack, 1, 13_000);
  const before = await stack.row();
  let processed = 0;
  let batches = 0;
  let syncs = 0;
  for (; syncs < 20; syncs++) {
    let left = 10;
    const result = await syncWith(stack, () => ({
      budget: { callsLeft: () => --left },
    }));
    processed += result.processed;
    batches += result.batches;
    const remaining = 13_000 - processed;
    assertEquals(
      [result.queued, result.queued_exact],
      [Math.min(remaining, 10_000), remaining <= 10_000],
    );
    // Whatever it stopped at is settled, and nothing is held.
    assertEquals((await standing(stack)).lease, null);
    assertEquals((await standing(stack)).queue.length, remaining);
    if (remaining === 0 && result.drained) break;
    assertEquals(result.drained, remaining === 0);
  }
  assert(syncs > 1 && syncs < 20, `${syncs} syncs`);
  assertEquals(processed, 13_000);
  assertEquals(
    (await stack.row()).position,
    Number(before.position) + batches,
  );
  assertEquals(await stack.assertEqual(), 13_000);
});

Deno.test("sync() does not call a replica level, and is called again, while what it lost is left", async () => {
  await using stack = await startChain(servers);
  const isCalled = async () =>
    (await stack.sql`select public.process_libsql_replication_batch() as id`)[
      0
    ]!
      .id !== null;
  await stack.drain();
  const failOver = await saveReplica(stack);
  for (let id = 1; id <= 12; id++) {
    await insertItems(stack, id, id);
    await stack.drain();
  }
  const { position: last } = await standing(stack);
  assert(!await isCalled());
  await failOver();
  let syncs = 0;
  for (let position = 0; position < last; syncs++) {
    let left = 10;
    const result = await syncWith(stack, ({ source }) => ({
      budget: { callsLeft: () => --left },
      source: {
        // A row at a time.
        claim: ({ size, ...request }) =>
          source.claim({
            ...request,
            size: { ...size, rows: Math.min(size.rows, 1) },
          }),
      },
    }));
    assert(result.position! > position, "it does not get on");
    position = result.position!;
    const { drained } = await stack.row();
    assertEquals(
      [result.queued, result.drained, drained],
      [last - position, position === last, position === last ? 1 : 0],
    );
    assertEquals(await isCalled(), position < last);
  }
  assert(syncs > 1);
  assertEquals((await stack.drain()).drained, true);
  assertEquals(await stack.assertEqual(), 12);

  // A new epoch that the replica does not follow yet is something to do too.
  const { epoch } = await standing(stack);
  await stack.withParts(({ source }) =>
    source.reset({ expected: epoch, wipe: false, reason: "test" })
  );
  assert(await isCalled());
  await stack.drain();
  assert(!await isCalled());
});

Deno.test("sync() stops in time when its wall budget is over", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  await insertItems(stack, 1, 40_000);
  let applies = 0;
  const result = await syncWith(stack, ({ replica }) => ({
    budget: { msLeft: () => applies < 2 ? 1 : 0 },
    replica: {
      apply: (...args) => {
        applies += 1;
        return replica.apply(...args);
      },
    },
  }));
  assertEquals(applies, 2);
  assertEquals(result.processed + result.queued, 40_000);
  assert(result.processed > 0 && result.queued > 0);
  await stack.drain();
  assertEquals(await stack.assertEqual(), 40_000);
});

/** The sizes of batches that a sync applies where every answer takes 3 s. */
async function sizesFarAway(
  stack: Stack,
  options: {
    messages: number;
    /** Whether that is so for what is read as well. */
    reads: boolean;
    /** Applies that get no answer. */
    failing?: readonly number[];
  },
): Promise<number[]> {
  const { messages, reads, failing = [] } = options;
  await insertItems(stack, 1, messages);
  const sizes: number[] = [];
  const result = await syncWith(stack, ({ replica, now }) => {
    let ms = 0;
    return {
      now: (() => now() + ms) as never,
      budget: {
        callsLeft: () => 45,
        msLeft: () => sizes.length < 30 ? 8_000 : 0,
      },
      replica: {
        probe: () => {
          if (reads) ms += 3_000;
          return replica.probe();
        },
        apply: (batch, ...rest) => {
          sizes.push(batch.messages);
          ms += 3_000;
          if (failing.includes(sizes.length)) {
            throw new SyncError("replica_unreachable", "no answer");
          }
          return replica.apply(batch, ...rest);
        },
      },
    };
  });
  assertEquals(
    [result.processed, result.drained],
    [messages, true],
    String(sizes),
  );
  assertEquals(await stack.assertEqual(), messages);
  return sizes;
}

Deno.test("sync() makes progress when every apply takes long, with any size", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  await sizesFarAway(stack, { messages: 20_000, reads: false });
});

Deno.test("sync() makes no smaller batches for a long way to the replica, nor for good after failures", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  const failing = [2, 4, 6, 8];
  const sizes = await sizesFarAway(stack, {
    messages: 60_000,
    reads: true,
    failing,
  });
  assert(Math.max(...sizes.slice(failing.at(-1))) >= 4_000, String(sizes));
});

Deno.test("sync() counts the queue exactly up to 10,000, and says when it does not", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  await stack.withParts(async ({ source }) => {
    await source.lease("somebody else's");
    let length = 0;
    for (
      const [more, queued, isExact] of [
        [0, 0, true],
        [9_999, 9_999, true],
        [1, 10_000, true],
        [1, 10_000, false],
        [5_000, 10_000, false],
      ] as const
    ) {
      length += more;
      await stack.sql`
        insert into pgmq.q_replicate_data_libsql (vt, message)
        select now(), '{"v": 1, "table": "item", "columns": ["id"], "rows": []}' from generate_series(1, ${more}::int)`;
      const body = await stack.sync();
      assertEquals(body, {
        success: true,
        processed: 0,
        parked: 0,
        batches: 0,
        queued,
        queued_exact: isExact,
        busy: true,
      }, `${length} messages`);
    }
    await source.release("somebody else's");
  });
  assertEquals((await stack.drain()).queued_exact, true);
});

Deno.test("sync() answers busy at once and touches no replica while another runs", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  await insertItems(stack, 1, 3);
  await using proxy = new Proxy(() => stack.sqld.url);
  await using bystander = new Proxy(() => stack.sqld.url);
  const open = Promise.withResolvers<void>();
  let isHeld = false;
  proxy.decide = async (body) => {
    if (isApply(body)) {
      isHeld = true;
      await open.promise;
    }
    return undefined;
  };
  await withWorker(stack, { libsqlUrl: proxy.url }, async (port) => {
    const running = stack.post("/sync", { port });
    await until("the first is at its apply", () => isHeld);
    await withWorker(stack, { libsqlUrl: bystander.url }, async (second) => {
      const answers = await Promise.all(
        [1, 2, 3].map(() => stack.post("/sync", { port: second })),
      );
      for (const { status, body } of answers) {
        assertEquals([status, body.success, body.busy], [200, true, true]);
        assertEquals([body.processed, body.queued], [0, 3]);
      }
    });
    assertEquals(bystander.requests, 0);
    // Not even where its replica is out of reach.
    await withWorker(
      stack,
      { libsqlUrl: "http://127.0.0.1:1" },
      async (second) => {
        const { status, body } = await stack.post("/sync", { port: second });
        assertEquals([status, body.busy], [200, true]);
      },
    );
    open.resolve();
    const { status, body } = await running;
    assertEquals([status, body.processed, body.busy], [200, 3, undefined]);
  });
  assertEquals(await stack.assertEqual(), 3);
});

Deno.test("sync() is not ended by others who ask for the lease meanwhile", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  await insertItems(stack, 1, 3_000);
  let isOver = false;
  const askers = [1, 2, 3].map(async () => {
    await stack.withParts(async ({ source }) => {
      while (!isOver) {
        const answer = await source.lease("somebody else's");
        if (answer.do === "granted") await source.release("somebody else's");
      }
    });
  });
  let processed = 0;
  for (let tries = 0; processed === 0 && tries < 100; tries++) {
    const body = await stack.sync();
    // Busy only before it began.
    if (body.busy) assertEquals(body.processed, 0);
    else processed = body.processed as number;
  }
  isOver = true;
  await Promise.all(askers);
  assertEquals(processed, 3_000);
  assertEquals(await stack.assertEqual(), 3_000);
});

Deno.test("sync() keeps within its calls when the replica refuses many rows", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  await stack.client.execute(
    "CREATE TRIGGER by_hand BEFORE INSERT ON item WHEN NEW.id % 50 = 0 BEGIN SELECT RAISE(ABORT, 'no'); END",
  );
  // In one message of 1,000 rows, and in many messages.
  await stack
    .sql`insert into item select i, 'item ' || i, i from generate_series(1, 1000) i`;
  await insertItems(stack, 1_001, 3_000);
  let parked = 0;
  let syncs = 0;
  for (;;) {
    const { result, spent } = await stack.withParts(async (parts) => {
      const result = await sync(parts);
      return { result, spent: CALLS_MAX - parts.budget.callsLeft() };
    });
    assert(spent <= CALLS_MAX, `${spent} calls`);
    assertEquals((await standing(stack)).lease, null);
    parked += result.parked;
    if (result.queued === 0 && result.drained) break;
    assert(++syncs < 10, "it does not get on");
  }
  // What a version parked that never landed is parked again.
  assert(parked >= 60);
  assertEquals((await stack.deadLetters()).length, 60);
  await stack.client.execute("DROP TRIGGER by_hand");
  await stack.sql`update item set name = 'healed' where id % 50 = 0`;
  await stack.drain();
  assertEquals(await stack.assertEqual(), 3_000);
});

Deno.test("sync() leaves a slow search for a refused row to the next sync, in smaller batches", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  await stack.client.execute(
    "CREATE TRIGGER by_hand BEFORE INSERT ON item WHEN NEW.id = 777 BEGIN SELECT RAISE(ABORT, 'no'); END",
  );
  await insertItems(stack, 1, 1_000);
  const sizes: number[] = [];
  // One worker.
  const pace = newPace();
  for (let syncs = 0;; syncs++) {
    assert(syncs < 12, "it does not get on");
    const result = await stack.withParts((parts) => {
      let ms = 0;
      const { replica, budget, now } = parts;
      return sync({
        ...parts,
        pace,
        now: () => now() + ms,
        budget: { ...budget, msLeft: () => 8_000 - ms },
        replica: {
          ...replica,
          async apply(batch, ...rest) {
            sizes.push(batch.messages);
            // As slow as rows are many: 4 s for 1,000.
            ms += batch.messages * 4;
            return await replica.apply(batch, ...rest);
          },
        },
      });
    });
    if (result.queued === 0 && result.drained) break;
  }
  assertEquals(sizes.slice(0, 2), [1_000, 500]);
  assertEquals((await stack.deadLetters()).map(({ key }) => key), [["777"]]);
  await stack.client.execute("DROP TRIGGER by_hand");
  await stack.sql`update item set name = 'healed' where id = 777`;
  await stack.drain();
  assertEquals(await stack.assertEqual(), 1_000);
});
