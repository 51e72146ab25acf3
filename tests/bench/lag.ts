/**
 * Ring 3. How long a change is on its way in realtime: from its COMMIT until the
 * replica shows it, under steady writes.
 *
 * pg_cron and pg_net are the stand-ins, whose worker looks every 100 ms for
 * requests; the real one is woken by the COMMIT.
 *
 * @module
 */

import type { Client } from "@libsql/client/http";
import { SUPERUSER } from "../../lib/dev/postgres.ts";
import { putSecret } from "../../lib/dev/supabase.ts";
import { startTicker } from "../../lib/dev/ticker.ts";
import { assertEqual } from "./equal.ts";
import type { Part } from "./found.ts";
import type { Pair } from "./lab.ts";
import { SIGNATURE, startWorker } from "./worker.ts";

const WRITES_PER_SECOND = 50;
/** How often the replica is looked at; half of it is in every figure. */
const LOOK_MS = 10;
const ARRIVE_MS = 60_000;

const sleep = (ms: number) =>
  new Promise<void>((resolve) => setTimeout(resolve, ms));

/** Which of these rows the replica shows as written. */
async function arrived(
  client: Client,
  ids: readonly number[],
): Promise<number[]> {
  const { rows } = await client.execute({
    sql:
      "SELECT v.id FROM json_each(?) j JOIN app_versions v ON v.id = j.value WHERE v.checksum = 'lag'",
    args: [JSON.stringify(ids)],
  });
  return rows.map(({ id }) => Number(id));
}

/** Writes one row after another, and looks for each until it is there; milliseconds. */
async function measure(
  { sql, client }: Pair,
  options: { from: number; count: number },
): Promise<number[]> {
  const { from, count } = options;
  const committed = new Map<number, number>();
  const lags: number[] = [];
  const write = async () => {
    const started = performance.now();
    for (let n = 0; n < count; n++) {
      const due = started + n * 1000 / WRITES_PER_SECOND;
      await sleep(Math.max(0, due - performance.now()));
      const id = from + n;
      await sql`update app_versions set checksum = 'lag' where id = ${id}`;
      committed.set(id, performance.now());
    }
  };
  const look = async () => {
    let end = Infinity;
    while (lags.length < count) {
      const ids = await arrived(client, [...committed.keys()]);
      const now = performance.now();
      for (const id of ids) {
        lags.push(now - committed.get(id)!);
        committed.delete(id);
      }
      if (lags.length + committed.size < count) end = now + ARRIVE_MS;
      if (now > end) throw new Error(`${committed.size} did not arrive`);
      await sleep(LOOK_MS);
    }
  };
  await Promise.all([write(), look()]);
  return lags.sort((a, b) => a - b);
}

/** The value that so many of a hundred do not exceed. */
function percentile(sorted: readonly number[], share: number): number {
  return sorted[Math.ceil(sorted.length * share / 100) - 1]!;
}

/** The part of this file. */
export const LAG: Part = {
  name: "lag",
  keys: ["lag_p50_ms", "lag_p99_ms"],
  async run(lab, { sizes, log }) {
    const { rows, lagSeconds } = sizes;
    await using pair = await lab.filled({ capture: "ours", rows });
    const { sql, client, sqld, url } = pair;
    await using worker = await startWorker({
      libsqlUrl: sqld.url,
      pgmqUrl: url,
    });
    await putSecret(sql, {
      name: "libsql_sync_url",
      value: `${worker.url}/sync`,
    });
    await putSecret(sql, {
      name: "libsql_webhook_signature",
      value: SIGNATURE,
    });
    await sql`select libsql_sync.realtime(true)`;
    const ticker = startTicker({
      url: url.replace(/\/\/[^:]+:/, `//${SUPERUSER}:`),
      cronEveryMs: 1_000,
      log,
    });
    try {
      const warm = WRITES_PER_SECOND;
      await measure(pair, { from: 1, count: warm });
      const position = async () => {
        const [row] = await sql`select position from libsql_sync.chain`;
        return Number(row!.position);
      };
      const before = await position();
      const count = Math.ceil(lagSeconds * WRITES_PER_SECOND);
      const lags = await measure(pair, { from: warm + 1, count });
      const batches = await position() - before;
      const [p50, p90, p99, max] = [50, 90, 99, 100].map((share) =>
        percentile(lags, share)
      );
      log(
        `${count} writes in ${batches} batches: lag p50 ${
          Math.round(p50!)
        }, p90 ${Math.round(p90!)}, p99 ${Math.round(p99!)}, max ${
          Math.round(max!)
        } ms`,
      );
      await sql`select libsql_sync.realtime(false)`;
      await assertEqual(sql, client);
      return {
        figures: { lag_p50_ms: p50!, lag_p99_ms: p99! },
        details: { writes: count, batches, p90, max },
      };
    } finally {
      await ticker.stop();
    }
  },
};
