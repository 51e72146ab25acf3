/**
 * Ring 3. Whether a claim takes as long however long the queue is, or was.
 *
 * @module
 */

import postgres from "postgres";
import { withHand } from "./by_hand.ts";
import type { Part } from "./found.ts";
import type { Lab, Pair } from "./lab.ts";
import { median } from "./median.ts";
import type { Sizes } from "./sizes.ts";

/** The first claims find their way: the floor, and plans. */
const WARM = 2;
const CLAIMS = 7;
/** So that the short queue has as many claims. */
const SHARE = 10;

const QUEUES = ["short", "long", "dead"] as const;
type ForEach<T> = Record<typeof QUEUES[number], T>;

/** Claims a batch, which acks the one before, and applies it; milliseconds of the claim. */
type Claim = () => Promise<number>;

/** Runs something with claims of so many messages, each of one row. */
async function withClaim<T>(
  pair: Pair,
  messages: number,
  run: (claim: Claim) => Promise<T>,
): Promise<T> {
  return await withHand(pair, (hand, claimMs) =>
    run(async () => {
      const claim = await hand.again({ rows: messages });
      const ms = claimMs();
      if (claim.do !== "batch" || claim.messages !== messages) {
        throw new Error(`expected ${messages} messages, found ${claim.do}`);
      }
      const applied = await hand.apply(claim);
      if (applied !== "applied") throw new Error(applied);
      return ms;
    }));
}

/** Puts copies of what is queued behind it. */
async function multiply({ sql }: Pair, times: number): Promise<void> {
  await sql`insert into pgmq.q_replicate_data_libsql (vt, message)
    select vt, message from pgmq.q_replicate_data_libsql, generate_series(2, ${times}) n
    order by n, msg_id`;
  // As the short one was: who reads new rows first settles what is known of them.
  await sql`vacuum analyze pgmq.q_replicate_data_libsql`;
}

/** Puts dead rows before what is queued, while somebody's old snapshot may still see them. */
async function holdDead(pair: Pair, rows: number): Promise<AsyncDisposable> {
  const holder = postgres(pair.url, { max: 1, fetch_types: false });
  await holder.unsafe(
    "begin isolation level repeatable read; select count(*) from public.app_versions",
  ).simple();
  // Each a transaction of its own.
  for (
    const statement of [
      `insert into pgmq.q_replicate_data_libsql (vt, message)
       select now(), '{}' from generate_series(1, ${rows})`,
      "delete from pgmq.q_replicate_data_libsql where message = '{}'",
      // What is queued comes behind them.
      `with moved as (delete from pgmq.q_replicate_data_libsql returning msg_id, vt, message)
       insert into pgmq.q_replicate_data_libsql (vt, message)
       select vt, message from moved order by msg_id`,
    ]
  ) await pair.sql.unsafe(statement).simple();
  return { [Symbol.asyncDispose]: () => holder.end({ timeout: 0 }) };
}

/** Claims from all queues in turn; milliseconds of each claim, the first ones too. */
async function claimInTurns(
  lab: Lab,
  sizes: Sizes,
): Promise<ForEach<number[]>> {
  const { rows, queueShort: count } = sizes;
  const changed = () =>
    lab.changed({ capture: "ours", rows, kind: "update", count });
  await using short = await changed();
  await using long = await changed();
  await multiply(long, sizes.queueLong / count);
  await using dead = await changed();
  await using _holder = await holdDead(dead, sizes.deadRows);
  const messages = count / SHARE;
  const times: ForEach<number[]> = { short: [], long: [], dead: [] };
  await withClaim(
    short,
    messages,
    (short) =>
      withClaim(
        long,
        messages,
        (long) =>
          withClaim(dead, messages, async (dead) => {
            const claims = { short, long, dead };
            for (let turn = 0; turn < WARM + CLAIMS; turn++) {
              for (const name of QUEUES) times[name].push(await claims[name]());
            }
          }),
      ),
  );
  return times;
}

/** The part of this file. */
export const CLAIM: Part = {
  name: "claim",
  keys: ["claim_growth"],
  async run(lab, { sizes, log }) {
    const times: ForEach<number[]> = { short: [], long: [], dead: [] };
    const firstMs: ForEach<number> = { short: 0, long: 0, dead: 0 };
    for (let round = 0; round < sizes.rounds; round++) {
      const found = await claimInTurns(lab, sizes);
      for (const name of QUEUES) {
        times[name].push(...found[name].slice(WARM));
        firstMs[name] = found[name][0]!;
      }
    }
    const ms = {
      short: median(times.short),
      long: median(times.long),
      dead: median(times.dead),
    };
    log(
      `claim: ${
        QUEUES.map((name) =>
          `${name} ${ms[name].toFixed(1)} ms, first ${
            firstMs[name].toFixed(1)
          } ms`
        ).join("; ")
      }`,
    );
    return {
      figures: { claim_growth: Math.max(ms.long, ms.dead) / ms.short },
      details: { ms, firstMs, times },
    };
  },
};
