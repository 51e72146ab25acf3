/** Batches that are too much for the replica: the next claims are smaller. */

import { assert, assertEquals } from "@std/assert";
import { SyncError } from "../../lib/errors.ts";
import { sync } from "../../lib/sync/sync.ts";
import {
  insertItems,
  standing,
  startChain,
  syncWith,
  until,
  withWorker,
} from "../db/support/chain.ts";
import { isApply, Proxy } from "../db/support/http_proxy.ts";
import { Servers } from "../db/support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

Deno.test("sync() halves a batch that libSQL takes too long for until it fits", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  await insertItems(stack, 1, 800);
  const sizes: number[] = [];
  const result = await syncWith(stack, ({ replica, now, budget }) => {
    let ms = 0;
    return {
      now: (() => now() + ms) as never,
      budget: { ...budget, msLeft: () => 8_000 },
      replica: {
        async apply(batch, ...rest) {
          sizes.push(batch.messages);
          if (batch.messages <= 200) {
            return await replica.apply(batch, ...rest);
          }
          ms += 5_000;
          throw new SyncError("replica_unreachable", "too long");
        },
      },
    };
  });
  // The worker asks for half, and the source takes the second failure into account.
  assertEquals(sizes.slice(0, 3), [800, 400, 100]);
  assertEquals(result.processed, 800);
  assertEquals(await stack.assertEqual(), 800);
  const { queue, archive } = await standing(stack);
  assertEquals([queue, archive.length], [[], 800]);
});

Deno.test("sync() claims less after a slow batch used up its time, until one fits", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  await insertItems(stack, 1, 80);
  const sizes: number[] = [];
  // Each sync has a worker of its own, as an isolate that has just begun, and time for one
  // apply that fails, as with a hung libSQL.
  let applied = 0;
  for (let syncs = 0; syncs < 16 && applied === 0; syncs++) {
    await stack.withParts((parts) => {
      let ms = 0;
      return sync({
        ...parts,
        now: () => parts.now() + ms,
        budget: {
          ...parts.budget,
          msLeft: () => 8_000 - ms,
          callsLeft: () => 45,
        },
        replica: {
          ...parts.replica,
          async apply(batch, ...rest) {
            sizes.push(batch.messages);
            if (batch.messages <= 10) {
              applied += batch.messages;
              return await parts.replica.apply(batch, ...rest);
            }
            ms += 10_000;
            throw new SyncError("replica_unreachable", "no answer");
          },
        },
      }).catch((error) => assertEquals(error.code, "replica_unreachable"));
    });
    assertEquals((await standing(stack)).lease, null);
  }
  assert(applied > 0, `${sizes}`);
  assertEquals(
    (await stack.client.execute("SELECT * FROM item")).rows.length,
    applied,
  );
  await stack.drain();
  assertEquals(await stack.assertEqual(), 80);
});

Deno.test("sync() settles the whole batch when it lands after a smaller one was claimed", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  const before = await stack.row();
  await insertItems(stack, 1, 40);
  // The apply times out, and is carried out all the same once another was claimed.
  const result = await syncWith(stack, ({ replica, now }) => {
    let ms = 0;
    let late: (() => Promise<unknown>) | undefined;
    return {
      now: (() => now() + ms) as never,
      budget: { msLeft: () => 8_000 },
      replica: {
        async apply(...args) {
          if (args[0].messages === 40) {
            late = () => replica.apply(...args);
            ms += 5_000;
            throw new SyncError("replica_unreachable", "no answer");
          }
          await late!();
          return await replica.apply(...args);
        },
      },
    };
  });
  assertEquals(result.processed, 40);
  assertEquals((await stack.row()).position, Number(before.position) + 1);
  const { batches, queue } = await standing(stack);
  // The third was claimed ahead of the second.
  assertEquals(
    batches.map((b) => [b.position, b.messages, b.state]),
    [
      [1, 0, "settled"],
      [2, 40, "settled"],
      [2, 20, "handed"],
      [3, 20, "handed"],
    ],
  );
  assertEquals(queue, []);
  assertEquals(await stack.assertEqual(), 40);
});

Deno.test("sync() gives up on a libSQL that hangs, and settles what lands after", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  await insertItems(stack, 1, 100);
  await using proxy = new Proxy(() => stack.sqld.url);
  const open = Promise.withResolvers<void>();
  let applies = 0;
  proxy.decide = async (body) => {
    if (isApply(body) && ++applies === 1) await open.promise;
    return undefined;
  };
  await withWorker(stack, { libsqlUrl: proxy.url }, async (port) => {
    const { status, body } = await stack.post("/sync", { port });
    assertEquals([status, body.error], [503, "replica_unreachable"]);
    const { batches, lease } = await standing(stack);
    assertEquals(lease, null);
    assertEquals(
      batches.filter((b) => b.state === "handed").map((b) => b.messages),
      [100],
    );
    // What hung is carried out at last, before the next sync.
    open.resolve();
    await until("it landed", async () => (await stack.row()).position === 2);
    const next = await stack.post("/sync", { port });
    assertEquals([next.body.processed, next.body.batches], [100, 0]);
  });
  assertEquals(await stack.assertEqual(), 100);
});
