/**
 * Ring 3. Whether the worker's memory stays flat however long the queue is.
 *
 * @module
 */

import { assertEqual } from "./equal.ts";
import type { Part } from "./found.ts";
import type { Lab } from "./lab.ts";
import { drainOurs, startWorker } from "./worker.ts";

/** Where the worker is deployed it has no more. */
const LIMIT_MB = 128;

/** The heap in MB. */
interface Heap {
  /** At its largest, with the garbage of a moment. */
  peakMb: number;
  /** The most that outlived a collection. */
  liveMb: number;
}

/** Takes note of a line of V8: before a collection the heap is at its largest. */
function note(heap: Heap, line: string): void {
  // "... ms: Mark-Compact 16.1 (18.5) -> 5.2 (9.0) MB, ..."
  const found =
    /ms: ([A-Z][\w-]+)[^\d]* ([\d.]+) \([\d.]+\) -> ([\d.]+) \([\d.]+\) MB/
      .exec(line);
  if (!found) return;
  heap.peakMb = Math.max(heap.peakMb, Number(found[2]));
  if (found[1] === "Mark-Compact") {
    heap.liveMb = Math.max(heap.liveMb, Number(found[3]));
  }
}

/** Drains a queue, so many times as long, and collects garbage at once or as V8 likes. */
async function heapOf(
  lab: Lab,
  queue: {
    rows: number;
    messages: number;
    copies: number;
    isLazy?: boolean;
  },
): Promise<Heap> {
  const { rows, messages: count, copies, isLazy = false } = queue;
  const messages = count * copies;
  const change = { capture: "ours", rows, kind: "update", count } as const;
  await using pair = await lab.changed(change);
  const { sql, client, sqld, url } = pair;
  await sql`insert into pgmq.q_replicate_data_libsql (vt, message)
    select vt, message from pgmq.q_replicate_data_libsql, generate_series(2, ${copies}) n
    order by n, msg_id`;
  const heap: Heap = { peakMb: 0, liveMb: 0 };
  await using worker = await startWorker({
    libsqlUrl: sqld.url,
    pgmqUrl: url,
    v8Flags: [
      "--trace-gc",
      `--max-heap-size=${LIMIT_MB}`,
      ...(isLazy ? [] : ["--expose-gc"]),
    ],
    log: (line) => note(heap, line),
  });
  const drained = await drainOurs(worker);
  if (drained !== messages) {
    throw new Error(`${drained} of ${messages} drained`);
  }
  await assertEqual(sql, client);
  await worker.stop();
  if (heap.peakMb === 0) throw new Error("V8 told of no garbage collection");
  return heap;
}

/** The part of this file. */
export const MEMORY: Part = {
  name: "memory",
  keys: ["memory_growth", "memory_mb"],
  async run(lab, { sizes, log }) {
    const { rows, messages, queueShort, queueLong } = sizes;
    const short = await heapOf(lab, { rows, messages: queueShort, copies: 1 });
    const queue = { rows, messages, copies: queueLong / messages };
    const long = await heapOf(lab, queue);
    const lazy = await heapOf(lab, { ...queue, isLazy: true });
    log(
      `heap: ${short.peakMb} MB at ${queueShort} messages, ${long.peakMb} MB at ${queueLong}, ${lazy.peakMb} MB with what V8 is slow to collect`,
    );
    return {
      figures: {
        memory_growth: long.peakMb / short.peakMb,
        memory_mb: long.peakMb,
      },
      details: { short, long, lazy },
    };
  },
};
