/** The failure table of the chain: what happens, and what becomes of it. */

import { assert, assertEquals, assertNotEquals } from "@std/assert";
import type { Batch } from "../../lib/chain/claim.ts";
import {
  dieAt,
  expireLease,
  Hand,
  insertItems,
  rowsOf,
  saveReplica,
  standing,
  startChain,
  syncWith,
} from "./support/chain.ts";
import { Servers } from "./support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

Deno.test("sync() applies the same batch when a worker died before its apply", async () => {
  await using stack = await startChain(servers);
  await insertItems(stack, 1, 5);
  await dieAt(stack, "apply", { when: "before" });
  const before = await standing(stack);
  assertEquals(before.batches.map((b) => [b.position, b.state]), [[
    1,
    "pending",
  ]]);
  assertEquals((await stack.row()).position, 0);

  // What came meanwhile is not in it: a position keeps what it contains.
  await insertItems(stack, 6, 8);
  const seen: Omit<Batch, "messages" | "page">[] = [];
  const result = await syncWith(stack, ({ replica }) => ({
    replica: {
      apply(batch, ...rest) {
        seen.push(batch);
        return replica.apply(batch, ...rest);
      },
    },
  }));
  assertEquals(seen.map((b) => [b.kind, b.position, b.messageCount]), [
    ["again", 1, 5],
    ["new", 2, 3],
  ]);
  assertEquals(seen[0]!.batch, before.batches[0]!.batch);
  assertEquals(seen[0]!.drained, true);
  assertEquals(result.processed, 8);
  assertEquals((await standing(stack)).queue, []);
  assertEquals((await standing(stack)).archive, [1, 2, 3, 4, 5, 6, 7, 8]);
  assertEquals(await stack.assertEqual(), 8);
});

Deno.test("sync() settles by the probe when a worker died after its apply", async () => {
  await using stack = await startChain(servers);
  await insertItems(stack, 1, 5);
  await dieAt(stack, "apply", { when: "after" });
  const applied = await stack.row();
  assertEquals(applied.position, 1);
  assertEquals((await standing(stack)).queue.length, 5);

  const result = await syncWith(stack, () => ({
    replica: { apply: () => Promise.reject(new Error("applied twice")) },
  }));
  assertEquals([result.processed, result.batches], [5, 0]);
  assertEquals((await stack.row()).batch, applied.batch);
  const after = await standing(stack);
  assertEquals([after.position, after.batch], [1, applied.batch]);
  assertEquals([after.queue, after.archive], [[], [1, 2, 3, 4, 5]]);
  assertEquals(await stack.assertEqual(), 5);
});

Deno.test("apply() is refused and rolled back when a stalled request lands later", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  await stack.withParts(async (parts) => {
    const stalled = new Hand(parts);
    await insertItems(stack, 1, 3);
    const batch = await stalled.batch();
    await expireLease(stack);
    await stack.sync();
    // The same rows in another state: were it applied, they would show it.
    await stack.sql`update item set name = 'newer', size = size + 100`;
    assertEquals(await stalled.apply(batch), "replica_moved");
    await stack.drain();
    const [row, rows] = [await stack.row(), await rowsOf(stack)];
    assertEquals(await stalled.apply(batch), "replica_moved");
    assertEquals(await stack.row(), row);
    assertEquals(await rowsOf(stack), rows);
  });
  assertEquals(await stack.assertEqual(), 3);
});

Deno.test("claim() keeps the version before ackable when a split batch lands late", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  for (const lands of ["before", "after"] as const) {
    const from = lands === "before" ? 1 : 101;
    await stack.withParts(async (parts) => {
      const hand = new Hand(parts);
      await insertItems(stack, from, from + 9);
      const whole = await hand.batch();
      const half = await hand.batch({
        split: { batch: whole.batch, messages: 4 },
      });
      assertEquals([half.kind, half.messageCount], ["again", 4]);
      assertEquals([half.position, half.prev, half.drained], [
        whole.position,
        whole.prev,
        false,
      ]);
      assertNotEquals(half.batch, whole.batch);
      assertEquals(
        half.messages.flatMap(([ids]) => ids),
        whole.messages.flatMap(([ids]) => ids).slice(0, 4),
      );
      // Asked again it stays as it was cut, whoever asks.
      assertEquals((await hand.batch()).batch, half.batch);

      const first = lands === "before" ? whole : half;
      const second = lands === "before" ? half : whole;
      assertEquals(await hand.apply(first), "applied");
      assertEquals(await hand.apply(second), "replica_moved");
      const next = await hand.again();
      assertEquals(next.acked, first.messageCount);
      await hand.source.release(hand.lease);
    });
    await stack.drain();
    assertEquals(await stack.assertEqual(), lands === "before" ? 10 : 20);
    assertEquals((await standing(stack)).queue, []);
  }
  const versions = (await standing(stack)).batches.map((b) => b.position);
  assertEquals(versions, [...new Set(versions)]);
});

Deno.test("sync() lets one of two workers win when a lease has run out", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  await insertItems(stack, 1, 5);
  await stack.withParts((one) =>
    stack.withParts(async (two) => {
      const [first, second] = [new Hand(one), new Hand(two)];
      const batch = await first.batch();
      assertEquals((await second.claim()).do, "busy");
      await expireLease(stack);
      const same = await second.batch();
      assertEquals([same.kind, same.batch], ["again", batch.batch]);
      const { plan } = two;
      assertEquals(same.messageCount, batch.messageCount);
      assertEquals(plan(same).steps[0]!.json, plan(batch).steps[0]!.json);
      const outcomes = await Promise.all([
        first.apply(batch),
        second.apply(same),
      ]);
      assertEquals(outcomes.sort(), ["applied", "replica_moved"]);
      // The one without the lease is told so, whoever of them won.
      assertEquals((await first.again()).do, "busy");
      const settled = await second.again();
      assertEquals([settled.do, settled.acked], ["idle", 5]);
    })
  );
  // Two claims at the same moment: nobody waits, one is busy.
  await insertItems(stack, 6, 10);
  const answers = await Promise.all([1, 2, 3, 4].map(() => stack.sync()));
  const processed = answers.map((answer) => answer.processed as number);
  assertEquals(processed.reduce((sum, n) => sum + n), 5);
  assert(answers.some((answer) => answer.busy));
  assertEquals(await stack.assertEqual(), 10);
});

Deno.test("sync() replays from the archive when a failover lost commits", async () => {
  await using stack = await startChain(servers);
  await insertItems(stack, 1, 3);
  await stack.drain();
  const failOver = await saveReplica(stack);
  const positions: Record<string, unknown>[] = [];
  const remember = async () => {
    positions.push(await stack.row());
  };
  await remember();
  await stack.sql`insert into item values (10, 'ten', 1), (11, 'eleven', 2)`;
  await stack.drain();
  await remember();
  await stack.sql`update item set id = id + 1000 where id < 3`;
  await stack.sql`insert into part values (1, 'a', 'x'), (1, 'b', null)`;
  // Parked: the replay must know it as the first apply did.
  await stack.sql`insert into item values (12, 'twelve', 0.5)`;
  await stack.drain();
  await remember();
  await stack.sql`truncate part`;
  await stack.sql`update item set id = 13, size = 13 where id = 12`;
  await stack.sql`delete from item where id = 10`;
  await stack.drain();
  await remember();
  const before = await standing(stack);

  await failOver();
  assertEquals((await stack.row()).position, positions[0]!.position);
  const replayed: Record<string, unknown>[] = [];
  const kinds: string[] = [];
  const result = await syncWith(stack, ({ replica }) => ({
    replica: {
      async apply(batch, ...rest) {
        kinds.push(batch.kind);
        const applied = await replica.apply(batch, ...rest);
        const { bytes: _, ...row } = applied.row;
        replayed.push({ id: 1, ...row });
        return applied;
      },
    },
  }));
  // Every row as it was: ids, drained, snapshot, source_time, dead letters.
  assertEquals(replayed, positions.slice(1));
  assertEquals(kinds, ["replay", "replay", "replay"]);
  assertEquals([result.processed, result.parked], [0, 0]);
  assertEquals(await standing(stack), before);
  assertEquals(await stack.assertEqual(), 5);
});

Deno.test("sync() replays and goes on when commits are lost under a pending batch", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  const failOver = await saveReplica(stack);
  await insertItems(stack, 1, 3);
  await stack.drain();
  await stack.sql`update item set name = 'second'`;
  await dieAt(stack, "apply", { when: "before" });
  const { position } = await stack.row();
  await failOver();
  const result = await stack.drain();
  assertEquals(result.processed, 1);
  assertEquals(result.position, Number(position) + 1);
  assertEquals(await stack.assertEqual(), 3);
});

Deno.test("sync() starts a new epoch without a wipe when a lost batch cannot be replayed", async () => {
  for (const loss of ["trimmed", "message gone"] as const) {
    await using stack = await startChain(servers);
    await insertItems(stack, 1, 3);
    const { epoch } = await stack.drain();
    const failOver = await saveReplica(stack);
    await insertItems(stack, 4, 6);
    await stack.drain();
    if (loss === "trimmed") {
      await stack.sql`update libsql_sync.chain set replay_window = '0'`;
      for (const id of [7, 8]) {
        await insertItems(stack, id, id);
        await stack.drain();
      }
      const { batches, archive } = await standing(stack);
      assertEquals(
        batches.map((b) => b.state),
        ["trimmed", "trimmed", "trimmed", "trimmed"],
      );
      assertEquals(archive, []);
    } else {
      await stack
        .sql`delete from pgmq.a_replicate_data_libsql where msg_id = 5`;
    }
    await failOver();
    const kept = await rowsOf(stack);
    await dieAt(stack, "adopt", { when: "after" });
    assertEquals(await rowsOf(stack), kept, "readers see an emptied replica");
    const result = await stack.drain();
    assertNotEquals(result.epoch, epoch);
    const row = await stack.row();
    assertEquals(
      [row.from_epoch, row.walk_done, row.position],
      [epoch, 0, 1],
    );
    // What the archive no longer has is the walk's to bring; the rest goes on.
    await stack.sql`select libsql_sync.backfill()`;
    await stack.walk();
    assertEquals(await stack.assertEqual(), loss === "trimmed" ? 8 : 6);
  }
});

Deno.test("sync() takes a message whose id appears late", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  await stack.sql.begin(async (open) => {
    await open`insert into item values (1, 'drawn first', 1)`;
    await stack.sql`insert into item values (2, 'seen first', 2)`;
    const result = await stack.drain();
    assertEquals([result.processed, result.queued], [1, 0]);
    assertEquals((await rowsOf(stack)).length, 1);
  });
  const [late] = (await standing(stack)).queue;
  assert(late! < (await standing(stack)).archive[0]!);
  assertEquals((await stack.drain()).processed, 1);
  assertEquals(await stack.assertEqual(), 2);
});
