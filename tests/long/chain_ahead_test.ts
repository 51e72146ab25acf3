/**
 * Ring 3. A batch that is handed out while the one before it is applied.
 *
 * @module
 */

import { assert, assertEquals, assertNotEquals } from "@std/assert";
import type { Batch, Claim } from "../../lib/chain/claim.ts";
import { SyncError } from "../../lib/errors.ts";
import {
  batchOf,
  expireLease,
  Hand,
  insertItems,
  saveReplica,
  send,
  standing,
  startChain,
  syncWith,
} from "../db/support/chain.ts";
import { Servers, type Stack } from "../db/support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

/** A chain whose replica has the schema and nothing else. */
async function start(): Promise<Stack> {
  const stack = await startChain(servers);
  await stack.drain();
  return stack;
}

/** The first cells of a batch's rows: their keys. */
const keysOf = ({ tables }: Batch) =>
  tables.flatMap(({ rows }) => rows).map(([key]) => Number(key));

Deno.test("sync() makes one apply and one claim a batch when the queue is long", async () => {
  await using stack = await start();
  await insertItems(stack, 1, 3_000);
  const calls: string[] = [];
  const size = { rows: 500, bytes: 1_000_000 };
  const result = await syncWith(stack, ({ source, replica }) => ({
    source: {
      claim: (request) => {
        calls.push("claim");
        return source.claim({
          ...request,
          ...(request.size.rows === 0 ? {} : { size }),
        });
      },
    },
    replica: {
      apply: (...args) => {
        calls.push("apply");
        return replica.apply(...args);
      },
    },
  }));
  assertEquals([result.processed, result.drained], [3_000, true]);
  const applies = calls.filter((call) => call === "apply").length;
  assertEquals(applies, 6);
  // The first batch is claimed by itself, and the last settles what is left.
  assert(calls.length - applies <= applies + 2, calls.join(" "));
  assertEquals(await stack.assertEqual(), 3_000);
});

Deno.test("claim() hands out ahead what the batch before does not have", async () => {
  await using stack = await start();
  await insertItems(stack, 1, 6);
  await stack.withParts(async (parts) => {
    const hand = new Hand(parts);
    const first = await hand.batch({ rows: 4 });
    const second = await hand.ahead(first, 1);
    assertEquals([second.position, second.prev, second.drained], [
      first.position + 1,
      first.batch,
      false,
    ]);
    assertEquals([keysOf(first), keysOf(second)], [[1, 2, 3, 4], [5]]);
    assertEquals(await hand.apply(first), "applied");
    const third = await hand.ahead(second);
    assertEquals([third.acked, third.prev, third.drained], [
      4,
      second.batch,
      true,
    ]);
    assertEquals((await hand.again({ ahead: third.batch })).do, "none");
    assertEquals(await hand.apply(second), "applied");
    assertEquals(await hand.apply(third), "applied");
    // Two batches at once, as nothing was claimed in between.
    const settled = await hand.again();
    assertEquals([settled.do, settled.acked], ["idle", 2]);
  });
  const { queue, archive, batches } = await standing(stack);
  assertEquals([queue, archive.length], [[], 6]);
  assert(batches.every(({ state }) => state === "settled"));
  assertEquals(await stack.assertEqual(), 6);
});

Deno.test("claim() hands out another batch when the one ahead was lost with its worker", async () => {
  await using stack = await start();
  for (const lands of ["lost", "fresh"] as const) {
    const from = lands === "lost" ? 1 : 101;
    await insertItems(stack, from, from + 5);
    await stack.withParts((one) =>
      stack.withParts(async (two) => {
        const [dead, heir] = [new Hand(one), new Hand(two)];
        const first = await dead.batch({ rows: 2 });
        const lost = await dead.ahead(first, 2);
        assertEquals(await dead.apply(first), "applied");
        await expireLease(stack);
        await insertItems(stack, from + 6, from + 6);
        const fresh = await heir.batch();
        assertEquals([fresh.position, fresh.prev], [
          lost.position,
          lost.prev,
        ]);
        assertNotEquals(fresh.batch, lost.batch);
        assertEquals(fresh.messages, 5);
        // The dead one's request may still land, and then it is what counts.
        const [winner, loser] = lands === "lost"
          ? [lost, fresh]
          : [fresh, lost];
        assertEquals(await heir.apply(winner), "applied");
        assertEquals(await heir.apply(loser), "replica_moved");
        assertEquals((await heir.again()).acked, winner.messages);
        await heir.source.release(heir.lease);
      })
    );
    await stack.drain();
    assertEquals(await stack.assertEqual(), lands === "lost" ? 7 : 14);
  }
});

Deno.test("sync() applies no page ahead of one that another worker took its place with", async () => {
  await using stack = await start();
  await insertItems(stack, 1, 9_000);
  await stack.drain();
  await stack.client.execute("DELETE FROM item");
  await stack.sql`select libsql_sync.backfill()`;
  let isFirst = true;
  await syncWith(stack, ({ replica }) => ({
    replica: {
      async apply(batch, ...rest) {
        if (!isFirst || batch.page === null) {
          return await replica.apply(batch, ...rest);
        }
        isFirst = false;
        // Its request is lost, and it is taken for dead: another batch lands in
        // its place, without a page.
        await insertItems(stack, 9_001, 9_001);
        await stack.withParts(async (parts) => {
          const heir = new Hand(parts);
          // What it claims ahead meanwhile holds the lease for longer.
          let claim: Claim = { do: "busy", acked: 0, putBack: 0 };
          for (let tries = 0; claim.do === "busy" && tries < 100; tries++) {
            await expireLease(stack);
            claim = await heir.claim();
          }
          const other = batchOf(claim);
          assertEquals([other.position, other.prev, other.page], [
            batch.position,
            batch.prev,
            null,
          ]);
          assertNotEquals(other.batch, batch.batch);
          assertEquals(await heir.apply(other), "applied");
          await heir.source.release(heir.lease);
        });
        throw new SyncError("replica_unreachable", "lost");
      },
    },
  }));
  assert(!isFirst);
  await stack.walk();
  assertEquals(await stack.assertEqual(), 9_001);
});

Deno.test("claim() hands out nothing ahead on a branch that the replica left", async () => {
  await using stack = await start();
  await insertItems(stack, 1, 8);
  await stack.withParts(async (parts) => {
    const hand = new Hand(parts);
    const large = await hand.batch({ rows: 4 });
    const ahead = await hand.ahead(large);
    const small = await hand.batch({ rows: 2 });
    assertEquals([small.position, small.messages], [large.position, 2]);
    // Either may land until one has.
    assertEquals(keysOf(await hand.ahead(small, 2)), [3, 4]);
    assertEquals(await hand.apply(small), "applied");
    assertEquals(await hand.apply(ahead), "replica_moved");
    assertEquals((await hand.again({ ahead: large.batch })).do, "none");
    const next = await hand.batch();
    assertEquals([next.messages, next.prev], [6, small.batch]);
    assertEquals(await hand.apply(next), "applied");
    await hand.again();
    await hand.source.release(hand.lease);
  });
  await stack.drain();
  const { batches, queue, archive } = await standing(stack);
  assertEquals(
    batches.filter(({ state }) => state === "settled")
      .map(({ messages }) => messages),
    [0, 2, 6],
  );
  assertEquals([queue, archive.length], [[], 8]);
  assertEquals(await stack.assertEqual(), 8);
});

Deno.test("claim() hands out nothing ahead of a batch that drains, is not on record, or is settled", async () => {
  await using stack = await start();
  await insertItems(stack, 1, 4);
  await stack.withParts(async (parts) => {
    const hand = new Hand(parts);
    const all = await hand.batch();
    assertEquals((await hand.again({ ahead: all.batch })).do, "none");
    const unknown = crypto.randomUUID();
    assertEquals((await hand.again({ ahead: unknown })).do, "none");
    assertEquals(await hand.apply(all), "applied");
    assertEquals((await hand.again({ ahead: all.batch })).do, "none");
    await hand.source.release(hand.lease);
  });
  assertEquals(await stack.assertEqual(), 4);
});

Deno.test("sync() drops what it claimed ahead when the batch before parked something", async () => {
  await using stack = await start();
  await insertItems(stack, 1, 3);
  await send(stack, { v: 1, table: "item" });
  await insertItems(stack, 4, 6);
  const counts: number[] = [];
  await syncWith(stack, ({ source, replica }) => ({
    source: {
      claim: (request) =>
        source.claim({
          ...request,
          ...(request.size.rows === 0
            ? {}
            : { size: { rows: 4, bytes: 1_000_000 } }),
        }),
    },
    replica: {
      async apply(...args) {
        const applied = await replica.apply(...args);
        counts.push(Number(applied.row.dead_letters));
        return applied;
      },
    },
  }));
  // The next batch was claimed anew, and counts the letter.
  assertEquals(counts, [1, 1]);
  assertEquals((await stack.deadLetters()).length, 1);
  assertEquals(await stack.assertEqual(), 6);
});

Deno.test("sync() puts back both batches when a failover loses one that was claimed ahead", async () => {
  await using stack = await start();
  const restore = await saveReplica(stack);
  await insertItems(stack, 1, 6);
  await stack.withParts(async (parts) => {
    const hand = new Hand(parts);
    const first = await hand.batch({ rows: 3 });
    const second = await hand.ahead(first);
    assertEquals(await hand.apply(first), "applied");
    assertEquals(await hand.apply(second), "applied");
    assertEquals((await hand.again()).acked, 6);
    await hand.source.release(hand.lease);
  });
  await restore();
  // What they brought is claimed again, and fits into one.
  const { batches, processed } = await stack.drain();
  assertEquals([batches, processed], [1, 6]);
  assertEquals(await stack.assertEqual(), 6);
});
