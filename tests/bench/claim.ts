/**
 * Ring 3. Whether a claim takes as long however long the queue is, or was.
 *
 * @module
 */

import postgres from "postgres";
import { parseConfig } from "../../lib/config.ts";
import { withParts } from "../../lib/connect.ts";
import { parseSchema } from "../../lib/schema.ts";
import schemaJson from "../../schema.json" with { type: "json" };
import { Hand } from "../db/chain.ts";
import type { Part } from "./found.ts";
import type { Pair } from "./lab.ts";
import { median } from "./median.ts";

/** The first claims find their way: the floor, and plans. */
const WARM = 2;
const CLAIMS = 7;
/** So that the short queue has as many claims. */
const SHARE = 10;

/** Milliseconds of a claim that acks the batch before: the median, and the first. */
async function claimMs(
  pair: Pair,
  messages: number,
): Promise<{ ms: number; firstMs: number }> {
  const settings: Record<string, string> = {
    LIBSQL_URL: pair.sqld.url,
    LIBSQL_AUTH_TOKEN: "bench",
    PGMQ_URL: pair.url,
    WEBHOOK_SIGNATURE: "bench-webhook-signature",
  };
  const config = parseConfig((name) => settings[name]);
  const schema = parseSchema(schemaJson);
  return await withParts({ config, schema, log: () => {} }, async (parts) => {
    const times: number[] = [];
    const { source } = parts;
    const hand = new Hand({
      ...parts,
      source: {
        ...source,
        async claim(request) {
          const started = performance.now();
          const claim = await source.claim(request);
          times.push(performance.now() - started);
          return claim;
        },
      },
    }, schemaJson);
    let claim = await hand.claim({ messages });
    for (let at = 1; at < WARM + CLAIMS; at++) {
      if (claim.do !== "batch" || claim.messageCount !== messages) {
        throw new Error(`expected ${messages} messages, found ${claim.do}`);
      }
      if (await hand.apply(claim) !== "applied") throw new Error("not applied");
      claim = await hand.again({ messages });
    }
    await source.release(hand.lease);
    return { ms: median(times.slice(WARM)), firstMs: times[0]! };
  });
}

/** Puts copies of what is queued behind it. */
async function multiply({ sql }: Pair, times: number): Promise<void> {
  await sql`insert into pgmq.q_replicate_data_libsql (vt, message)
    select vt, message from pgmq.q_replicate_data_libsql, generate_series(2, ${times}) n
    order by n, msg_id`;
  await sql`analyze pgmq.q_replicate_data_libsql`;
}

/** Puts dead rows before what is queued, while somebody's old snapshot may still see them. */
async function holdDead(pair: Pair, rows: number): Promise<AsyncDisposable> {
  const holder = postgres(pair.url, { max: 1, fetch_types: false });
  await holder.unsafe(
    "begin isolation level repeatable read; select count(*) from public.app_versions",
  ).simple();
  const { sql } = pair;
  await sql.unsafe(`
    insert into pgmq.q_replicate_data_libsql (vt, message)
    select now(), '{}' from generate_series(1, ${rows})`).simple();
  await sql.unsafe(
    `delete from pgmq.q_replicate_data_libsql where message = '{}'`,
  )
    .simple();
  // What is queued comes behind them.
  await sql.unsafe(`
    with moved as (delete from pgmq.q_replicate_data_libsql returning msg_id, vt, message)
    insert into pgmq.q_replicate_data_libsql (vt, message)
    select vt, message from moved order by msg_id`).simple();
  return { [Symbol.asyncDispose]: () => holder.end({ timeout: 0 }) };
}

/** The part of this file. */
export const CLAIM: Part = {
  name: "claim",
  keys: ["claim_growth"],
  async run(lab, { sizes, log }) {
    const messages = sizes.queueShort / SHARE;
    const changed = () =>
      lab.changed({
        capture: "ours",
        rows: sizes.rows,
        kind: "update",
        count: sizes.queueShort,
      });
    const times = {
      short: [] as number[],
      long: [] as number[],
      dead: [] as number[],
    };
    let firstMs = 0;
    for (let round = 0; round < sizes.rounds; round++) {
      {
        await using pair = await changed();
        times.short.push((await claimMs(pair, messages)).ms);
      }
      {
        await using pair = await changed();
        await multiply(pair, sizes.queueLong / sizes.queueShort);
        times.long.push((await claimMs(pair, messages)).ms);
      }
      {
        await using pair = await changed();
        await using _holder = await holdDead(pair, sizes.deadRows);
        const { ms, firstMs: first } = await claimMs(pair, messages);
        times.dead.push(ms);
        firstMs = first;
      }
      log(
        `claim: ${
          Object.entries(times).map(([name, list]) =>
            `${name} ${list.at(-1)!.toFixed(1)} ms`
          ).join(", ")
        }`,
      );
    }
    const [short, long, dead] = [
      median(times.short),
      median(times.long),
      median(times.dead),
    ];
    return {
      figures: { claim_growth: Math.max(long, dead) / short },
      details: {
        shortMs: short,
        longMs: long,
        deadMs: dead,
        firstMsBehindDead: firstMs,
        queue: long / short,
        dead: dead / short,
      },
    };
  },
};
