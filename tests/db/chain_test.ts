/** The failure table of the chain: what happens, and what becomes of it. */

import { assert, assertEquals, assertNotEquals } from "@std/assert";
import type { BatchHead } from "../../lib/chain/claim.ts";
import {
  batchOf,
  dieAt,
  expireLease,
  Hand,
  insertItems,
  rowsOf,
  saveReplica,
  send,
  standing,
  startChain,
  syncWith,
} from "./support/chain.ts";
import { Servers } from "./support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

Deno.test("sync() applies a new version when a worker died before its apply", async () => {
  await using stack = await startChain(servers);
  await insertItems(stack, 1, 5);
  await dieAt(stack, "apply", { when: "before" });
  const before = await standing(stack);
  assertEquals(before.batches.map((b) => [b.position, b.state, b.messages]), [
    [1, "handed", 5],
  ]);
  assertEquals((await stack.row()).position, 0);

  // What came meanwhile is in it: it is read again.
  await insertItems(stack, 6, 8);
  const seen: BatchHead[] = [];
  const result = await syncWith(stack, ({ replica }) => ({
    replica: {
      apply(batch, ...rest) {
        seen.push(batch);
        return replica.apply(batch, ...rest);
      },
    },
  }));
  assertEquals(seen.map((b) => [b.position, b.messages, b.drained]), [
    [1, 8, true],
  ]);
  assertEquals(result.processed, 8);
  const after = await standing(stack);
  // The one that was lost may still land: it stays on record.
  assertEquals(after.batches.map((b) => [b.batch, b.prev, b.state]), [
    [before.batches[0]!.batch, before.batch, "handed"],
    [seen[0]!.batch, before.batch, "settled"],
  ]);
  assertEquals([after.queue, after.archive], [[], [1, 2, 3, 4, 5, 6, 7, 8]]);
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

Deno.test("claim() settles whichever version of a position landed", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  for (const lands of ["whole", "part"] as const) {
    await stack.sql`truncate item`;
    await stack.drain();
    await stack.withParts(async (parts) => {
      const hand = new Hand(parts);
      await insertItems(stack, 1, 10);
      const whole = await hand.batch();
      const part = await hand.batch({ rows: 4 });
      assertEquals([whole.messages, part.messages], [10, 4]);
      assertEquals([whole.drained, part.drained], [true, false]);
      assertEquals([part.position, part.prev], [whole.position, whole.prev]);
      assertNotEquals(part.batch, whole.batch);

      const [first, second] = lands === "whole" ? [whole, part] : [part, whole];
      assertEquals(await hand.apply(first), "applied");
      assertEquals(await hand.apply(second), "replica_moved");
      const next = await hand.again();
      assertEquals([next.acked, next.putBack], [first.messages, 0]);
      const { batches, batch } = await standing(stack);
      assertEquals(batch, first.batch);
      assertEquals(
        batches.filter(({ position }) => position === first.position)
          .map(({ batch, state }) => [batch, state]),
        [whole, part].map(({ batch }) => [
          batch,
          batch === first.batch ? "settled" : "handed",
        ]),
      );
      await hand.source.release(hand.lease);
    });
    await stack.drain();
    assertEquals(await stack.assertEqual(), 10);
    assertEquals((await standing(stack)).queue, []);
  }
});

Deno.test("claim() moves to another branch when a stalled version lands after a failover", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  const failOver = await saveReplica(stack);
  await stack.withParts(async (parts) => {
    const [stalled, other] = [new Hand(parts), new Hand(parts)];
    await insertItems(stack, 1, 6);
    const late = await stalled.batch({ rows: 2 });
    await expireLease(stack);
    const first = await other.batch({ rows: 4 });
    assertEquals(await other.apply(first), "applied");
    const second = batchOf(await other.again());
    assertEquals(await other.apply(second), "applied");
    assertEquals((await other.again()).do, "idle");
    const before = await standing(stack);
    assertEquals([before.queue, before.archive], [[], [1, 2, 3, 4, 5, 6]]);

    await failOver();
    assertEquals(await stalled.apply(late), "applied");
    const next = await other.batch();
    assertEquals([next.putBack, next.acked, next.prev], [2, 2, late.batch]);
    assertEquals([next.position, next.messages], [late.position + 1, 4]);
    const after = await standing(stack);
    assertEquals([after.epoch, after.batch], [before.epoch, late.batch]);
    assertEquals([after.queue, after.archive], [[3, 4, 5, 6], [1, 2]]);
    assertEquals(
      Object.fromEntries(
        after.batches.filter(({ prev }) => prev !== after.epoch)
          .map(({ batch, state }) => [batch, state]),
      ),
      {
        [late.batch]: "settled",
        [first.batch]: "handed",
        [second.batch]: "handed",
        [next.batch]: "handed",
      },
    );
    assertEquals(await other.apply(next), "applied");
    assertEquals((await other.again()).do, "idle");
  });
  assertEquals(await stack.assertEqual(), 6);
});

Deno.test("claim() covers the first keys of a message that has more, and puts them back in front", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  const keys = (from: number, to: number) =>
    Array.from({ length: to - from + 1 }, (_, i) => [String(from + i)]);
  await stack
    .sql`insert into item select i, 'item ' || i, i from generate_series(1, 10) i`;
  await stack.sql`delete from pgmq.q_replicate_data_libsql`;
  await send(stack, { v: 2, table: "item", keys: keys(1, 10) });
  const [id] = (await standing(stack)).queue;
  const failOver = await saveReplica(stack);
  await stack.withParts(async (parts) => {
    const hand = new Hand(parts);
    const first = await hand.batch({ rows: 4 });
    assertEquals([first.messages, first.drained], [0, false]);
    assertEquals(first.tables.map(({ rows }) => rows.length), [4]);
    // On top of it, and on top of that: each goes on where the one before ends.
    const second = await hand.ahead(first, 4);
    assertEquals(second.tables[0]!.rows.map(([id]) => id), [
      "5",
      "6",
      "7",
      "8",
    ]);
    assertEquals(await hand.apply(first), "applied");
    assertEquals(await hand.apply(second), "applied");
    const third = await hand.batch({ rows: 4 });
    assertEquals([third.acked, third.messages, third.drained], [0, 1, true]);
    assertEquals(await stack.messages(), [
      { v: 2, table: "item", keys: keys(9, 10) },
    ]);
    assertEquals(await hand.apply(third), "applied");
    const idle = await hand.again();
    assertEquals([idle.do, idle.acked], ["idle", 1]);
    assertEquals((await standing(stack)).archive.at(-1), id);

    await failOver();
    const again = await hand.batch();
    assertEquals([again.putBack, again.acked], [3, 0]);
    assertEquals((await standing(stack)).queue, [id]);
    assertEquals(await stack.messages(), [
      { v: 2, table: "item", keys: keys(1, 10) },
    ]);
    assertEquals([again.messages, again.drained], [1, true]);
    assertEquals(await hand.apply(again), "applied");
    assertEquals((await hand.again()).do, "idle");
  });
  assertEquals(await stack.assertEqual(), 10);
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
      const other = await second.batch();
      assertNotEquals(other.batch, batch.batch);
      assertEquals([other.position, other.prev], [batch.position, batch.prev]);
      assertEquals(other.tables, batch.tables);
      const outcomes = await Promise.all([
        first.apply(batch),
        second.apply(other),
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

Deno.test("sync() puts back and applies again what a failover lost", async () => {
  await using stack = await startChain(servers);
  await insertItems(stack, 1, 3);
  await stack.drain();
  const saved: { kept: number; restore: () => Promise<void> }[] = [];
  const save = async () => {
    const kept = (await standing(stack)).archive.length;
    saved.unshift({ kept, restore: await saveReplica(stack) });
  };
  await save();
  await stack.sql`insert into item values (10, 'ten', 1), (11, 'eleven', 2)`;
  await stack.drain();
  await save();
  await stack.sql`update item set id = id + 1000 where id < 3`;
  await stack.sql`insert into part values (1, 'a', 'x'), (1, 'b', null)`;
  await stack.sql`insert into item values (12, 'twelve', 0.5)`;
  await stack.drain();
  const letters = () =>
    stack.sql`select msg_id, message from pgmq.q_replicate_data_libsql_dlq`;
  const parked = [...await letters()];
  assertEquals(parked.map(({ message }) => message.key), [["12"]]);
  await save();
  await stack.sql`truncate part`;
  await stack.sql`update item set id = 13, size = 13 where id = 12`;
  await stack.sql`delete from item where id = 10`;
  await stack.drain();
  assertEquals([...await letters()], []);
  const before = await standing(stack);
  assertEquals(before.queue, []);

  for (const [at, { kept, restore }] of saved.entries()) {
    const head = (await standing(stack)).position;
    await restore();
    const position = Number((await stack.row()).position);
    // A claim alone: the messages are back under their ids, and the letters are
    // as they were.
    await stack.withParts(async (parts) => {
      const hand = new Hand(parts);
      const batch = await hand.batch();
      assertEquals([batch.putBack, batch.position], [
        head - position,
        position + 1,
      ]);
      await hand.source.release(hand.lease);
    });
    const back = await standing(stack);
    assertEquals(back.archive, before.archive.slice(0, kept));
    assertEquals(back.queue, before.archive.slice(kept));
    assertEquals([...await letters()], at === 0 ? parked : []);
    const result = await stack.drain();
    assertEquals(
      [result.processed, result.parked, result.position],
      [back.queue.length, 0, position + 1],
    );
    const after = await standing(stack);
    assertEquals([after.epoch, after.queue], [before.epoch, []]);
    assertEquals(after.archive, before.archive);
    assertEquals([...await letters()], []);
    assertEquals(await stack.assertEqual(), 5);
  }
});

Deno.test("sync() puts back and goes on when commits are lost under a version that was handed out", async () => {
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
  assertEquals(result.processed, 4);
  assertEquals(result.position, Number(position));
  assertEquals(await stack.assertEqual(), 3);
});

Deno.test("sync() starts a new epoch without a wipe when a lost batch cannot be put back", async () => {
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
      // The head stays.
      const { batches, batch, archive } = await standing(stack);
      assertEquals(batches.map((b) => b.batch), [batch]);
      assertEquals(archive, [8]);
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

Deno.test("claim() cuts the message that has too many keys, and no other of its table", async () => {
  await using stack = await startChain(servers);
  await insertItems(stack, 1, 3);
  await stack.drain();
  await stack.withParts(async (parts) => {
    const hand = new Hand(parts);
    await stack.sql`truncate item`;
    await stack
      .sql`insert into item select g, 'new', g from generate_series(2, 41) g`;
    const covered: unknown[] = [];
    for (let round = 0; round < 5; round++) {
      const claim = await (round === 0 ? hand.claim : hand.again).call(hand, {
        rows: 16,
      });
      if (claim.do !== "batch") break;
      covered.push([claim.messages, claim.unusable.length]);
      assertEquals(await hand.apply(claim), "applied");
    }
    // The TRUNCATE, then 16, 16 and 8 keys.
    assertEquals(covered, [[1, 0], [0, 0], [0, 0], [1, 0]]);
  });
  assertEquals((await standing(stack)).queue, []);
});

Deno.test("claim() leaves the messages of a locked table queued, and says nothing of being level", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  await insertItems(stack, 1, 2);
  await stack.sql`insert into part values (1, 'a', 'x')`;
  const locker = await stack.sql.reserve();
  await locker`begin`;
  await locker`lock table item in access exclusive mode`;
  try {
    const body = await stack.sync();
    assertEquals([body.processed, body.queued, body.drained], [1, 2, false]);
    assertEquals((await rowsOf(stack)).length, 1);
    assertEquals((await standing(stack)).queue.length, 2);
    // Also if its messages are all that a claim looks at.
    await stack.sql`insert into part values (2, 'a', 'x')`;
    await stack.withParts(async (parts) => {
      const hand = new Hand(parts);
      const { messages, tables } = await hand.batch({ rows: 2 });
      assertEquals([messages, tables[0]?.table], [1, "part"]);
      await hand.source.release(hand.lease);
    });
  } finally {
    await locker`rollback`;
    locker.release();
  }
  assertEquals((await stack.drain()).processed, 3);
  assertEquals(await stack.assertEqual(), 4);
});

Deno.test("sync() starts a new epoch without a wipe when the queue is another one", async () => {
  for (const how of ["made again", "restored without its rows"] as const) {
    await using stack = await startChain(servers);
    await insertItems(stack, 1, 6);
    const { epoch } = await stack.drain();
    await insertItems(stack, 7, 8);
    await stack.sql`update libsql_sync.chain set refill = true`;
    await stack.run(
      how === "made again"
        ? `select pgmq.drop_queue('replicate_data_libsql'); select pgmq.create('replicate_data_libsql')`
        : `truncate pgmq.q_replicate_data_libsql restart identity`,
    );
    await insertItems(stack, 9, 9);
    const kept = await rowsOf(stack);
    await dieAt(stack, "adopt", { when: "after" });
    assertEquals(await rowsOf(stack), kept, "readers see an emptied replica");
    const row = await stack.row();
    assertEquals([row.from_epoch, row.drained, row.walk_done], [epoch, 0, 0]);
    // Nothing is called equal before the walk came through.
    await stack.walk();
    assertEquals(await stack.assertEqual(), 9, how);
  }
});
