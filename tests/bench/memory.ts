/**
 * Ring 3. Whether the worker's memory stays flat however long the queue is.
 *
 * @module
 */

import { assertEqual } from "./equal.ts";
import type { Part } from "./found.ts";
import type { Lab } from "./lab.ts";
import { drainOurs, startWorker } from "./worker.ts";

/** Where the worker is deployed it has no more: V8 collects accordingly. */
const LIMIT_MB = 128;

/** The heap before a garbage collection, in MB: it is never larger. */
function heapBefore(line: string): number {
  // "... ms: Scavenge 6.1 (8.5) -> 5.2 (9.0) MB, ..."
  const found = /ms: [^\d]*([\d.]+) \([\d.]+\) -> [\d.]+ \([\d.]+\) MB/.exec(
    line,
  );
  return found ? Number(found[1]) : 0;
}

/** Drains a queue, so many times as long; the peak of the worker's heap in MB. */
async function peakMb(
  lab: Lab,
  queue: { rows: number; messages: number; copies: number },
): Promise<number> {
  const { rows, messages: count, copies } = queue;
  const messages = count * copies;
  const change = { capture: "ours", rows, kind: "update", count } as const;
  await using pair = await lab.changed(change);
  const { sql, client, sqld, url } = pair;
  await sql`insert into pgmq.q_replicate_data_libsql (vt, message)
    select vt, message from pgmq.q_replicate_data_libsql, generate_series(2, ${copies}) n
    order by n, msg_id`;
  let peak = 0;
  await using worker = await startWorker({
    libsqlUrl: sqld.url,
    pgmqUrl: url,
    v8Flags: ["--trace-gc", `--max-old-space-size=${LIMIT_MB}`],
    log: (line) => peak = Math.max(peak, heapBefore(line)),
  });
  const drained = await drainOurs(worker);
  if (drained !== messages) {
    throw new Error(`${drained} of ${messages} drained`);
  }
  await assertEqual(sql, client);
  await worker.stop();
  if (peak === 0) throw new Error("V8 told of no garbage collection");
  return peak;
}

/** The part of this file. */
export const MEMORY: Part = {
  name: "memory",
  keys: ["memory_growth", "memory_mb"],
  async run(lab, { sizes, log }) {
    const { rows, messages, queueShort, queueLong } = sizes;
    const short = await peakMb(lab, { rows, messages: queueShort, copies: 1 });
    const copies = queueLong / messages;
    const long = await peakMb(lab, { rows, messages, copies });
    log(
      `heap: ${short} MB at ${queueShort} messages, ${long} MB at ${sizes.queueLong}`,
    );
    return {
      figures: { memory_growth: long / short, memory_mb: long },
      details: { shortMb: short, longMb: long },
    };
  },
};
