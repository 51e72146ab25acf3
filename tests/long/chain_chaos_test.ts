/** Random statements and random faults on real databases; the seed is in the message. */

import { assertEquals } from "@std/assert";
import { SyncError } from "../../lib/errors.ts";
import type { Replica } from "../../lib/replica/replica.ts";
import { nuke } from "../../lib/sync/nuke.ts";
import type { Parts } from "../../lib/sync/progress.ts";
import { sync } from "../../lib/sync/sync.ts";
import {
  expireLease,
  saveReplica,
  standing,
  startChain,
} from "../db/support/chain.ts";
import { Servers, Stack } from "../db/support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

const ROUNDS = 12;
const STEPS = 10;

/** Random whole numbers from 0 up to `below`, the same for a seed (mulberry32). */
function randomOf(seed: number): (below: number) => number {
  return (below) => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

/** One statement of a user. */
function statement(random: (below: number) => number): string {
  const id = () => 1 + random(30);
  switch (random(9)) {
    case 0:
      return `insert into item select i, 'r${
        random(1e6)
      }', i from generate_series(${id()}, ${
        id() + 5
      }) i on conflict do nothing`;
    case 1:
      return `update item set name = 'u${random(1e6)}' where id = ${id()}`;
    case 2:
      return `update item set size = ${random(1e6)} where id % 3 = ${
        random(3)
      }`;
    case 3:
      return `update item set id = id + 100 where id = ${id()} and not exists (select from item o where o.id = item.id + 100)`;
    case 4:
      return `delete from item where id in (${id()}, ${id()}, ${100 + id()})`;
    case 5:
      return `insert into part values (${id()}, 'c${random(3)}', 'n${
        random(1e6)
      }') on conflict (item, code) do update set note = excluded.note`;
    case 6:
      return `delete from part where item = ${id()}`;
    case 7:
      return random(6) === 0
        ? "truncate part"
        : `update part set code = code || 'x' where item = ${id()} and length(code) < 5`;
    default:
      return `do $$ begin insert into item values (${
        200 + id()
      }, 'gone', 1); raise exception 'rolled back'; exception when others then null; end $$`;
  }
}

/** A worker to which everything happens. */
function chaotic(
  parts: Parts,
  random: (below: number) => number,
  late: { replica: Replica; stalled: (() => Promise<unknown>)[] },
): Parts {
  const { source, replica } = parts;
  let isDead = false;
  let slowMs = 0;
  const failed = () => new SyncError("replica_unreachable", "chaos");
  return {
    ...parts,
    now: () => parts.now() + slowMs,
    sleep: () => Promise.resolve(),
    source: {
      ...source,
      async claim(request) {
        if (random(25) === 0) {
          throw new SyncError("source_unreachable", "chaos");
        }
        const claim = await source.claim({
          ...request,
          size: request.size.rows === 0
            ? request.size
            : { rows: 1 + random(6), bytes: 1e6 },
        });
        // The answer is lost.
        if (random(25) === 0) {
          throw new SyncError("source_unreachable", "chaos");
        }
        return claim;
      },
      async release(lease) {
        if (isDead) throw new Error("dead");
        return await source.release(lease);
      },
    },
    replica: {
      ...replica,
      apply: (...args) =>
        suffer(
          () => replica.apply(...args),
          () => late.replica.apply(...args),
        ),
      adopt: (...args) =>
        suffer(
          () => replica.adopt(...args),
          () => late.replica.adopt(...args),
        ),
    },
  };

  /** Sends a request that may be lost, repeated, late, or the worker's last. */
  async function suffer<T>(
    send: () => Promise<T>,
    sendLate: () => Promise<T>,
  ): Promise<T> {
    if (random(3) === 0) late.stalled.push(sendLate);
    switch (random(12)) {
      case 0:
        throw failed();
      case 1:
        await send();
        throw failed();
      case 2:
        isDead = true;
        throw new Error("dead");
      case 3:
        await send();
        isDead = true;
        throw new Error("dead");
      case 4:
        // Too slow, and still on its way.
        slowMs += 3_000;
        late.stalled.push(sendLate);
        throw failed();
      case 5:
        await send();
        return await send();
      default:
        return await send();
    }
  }
}

async function runSeed(
  { stack, replica, seed, nukes }: {
    stack: Stack;
    replica: Replica;
    seed: number;
    nukes: boolean;
  },
): Promise<void> {
  const random = randomOf(seed);
  const stalled: (() => Promise<unknown>)[] = [];
  const late = { replica, stalled };
  const { epoch } = await standing(stack);
  let failOver = await saveReplica(stack);
  const work = () =>
    stack.withParts<unknown>((parts) => {
      const wounded = chaotic(parts, random, late);
      return nukes && random(4) === 0
        ? nuke(wounded, { refill: false })
        : sync(wounded);
    }).then(
      () => {},
      (error) => {
        const isChaos = error.message === "dead" ||
          error instanceof SyncError && error.retry;
        if (!isChaos) throw error;
      },
    );
  for (let round = 0; round < ROUNDS; round++) {
    for (let step = 0; step < STEPS; step++) {
      switch (random(8)) {
        case 0:
          await expireLease(stack);
          break;
        case 1:
          await Promise.all([work(), expireLease(stack).then(work)]);
          break;
        case 2:
          await work();
          break;
        case 3: {
          const send = stalled.splice(random(stalled.length), 1)[0];
          await send?.().catch((error) => {
            if (!(error instanceof SyncError)) throw error;
          });
          break;
        }
        default:
          await stack.sql.unsafe(statement(random)).simple();
      }
    }
    const luck = random(9);
    if (luck < 3) await failOver();
    else if (luck < 5) failOver = await saveReplica(stack);
    if (random(2) === 0) {
      await expireLease(stack);
      await stack.drain();
      // Only a walk could bring back what a nuke took. One opens where a truncated
      // table had rows again; what is promised before it has to be so.
      if (!nukes) {
        if ((await stack.row()).walk_done === 1) await stack.assertEqual();
        await stack.walk();
        await stack.assertEqual();
      }
      const row = await stack.row();
      const { position, batch, queue, dlq } = await standing(stack);
      assertEquals([row.position, row.batch], [position, batch]);
      assertEquals([queue, dlq], [[], []]);
    }
  }
  await failOver();
  await expireLease(stack);
  if (nukes) {
    await stack.post("/nuke");
    await stack.sql`update item set name = name || '!'`;
    await stack.sql`update part set note = note || '!'`;
  }
  await stack.drain();
  // Everything that is still on its way comes at last.
  for (const send of stalled) {
    await send().then(
      () => Promise.reject(new Error("a stalled request was applied")),
      (error) => assertEquals(error.code, "replica_moved", error),
    );
  }
  await stack.sql`update libsql_sync.chain set refill = true`;
  await stack.drain();
  await stack.walk();
  await stack.assertEqual();
  const after = await standing(stack);
  if (!nukes) {
    assertEquals(after.epoch, epoch, "a false alarm began a new epoch");
  }
  // One version of each position is settled, each on top of the one before.
  const settled = after.batches.filter(({ epoch, state }) =>
    epoch === after.epoch && state === "settled"
  );
  assertEquals(
    settled.map(({ position }) => position),
    settled.map((_, at) => at + 1),
  );
  assertEquals(
    [after.epoch, ...settled.map(({ batch }) => batch)],
    [...settled.map(({ prev }) => prev), after.batch],
  );
}

for (const nukes of [false, true]) {
  const what = `random statements, faults, late requests${
    nukes ? ", failovers and nukes" : " and failovers"
  }`;
  Deno.test(`sync() ends equal ${nukes ? "" : "in one epoch "}after ${what}`, async () => {
    await using stack = await startChain(servers);
    await stack.sql`update libsql_sync.chain set refill = ${!nukes}`;
    await stack.drain();
    const first = Number(Deno.env.get("SEED") ?? 20251122);
    const count = Number(Deno.env.get("SEEDS") ?? 3);
    for (let seed = first; seed < first + count; seed++) {
      try {
        await stack.withParts(({ replica }) =>
          runSeed({ stack, replica, seed, nukes })
        );
      } catch (error) {
        throw new Error(`SEED=${seed} (run from ${first})`, { cause: error });
      }
    }
  });
}
