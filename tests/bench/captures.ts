/**
 * Ring 3. Sources that capture in every way there is to compare.
 *
 * @module
 */

import { QUEUE } from "./baseline_capture.ts";
import type { Capture, Lab, Pair } from "./lab.ts";
import { LEAST_QUEUE } from "./least_capture.ts";
import { median } from "./median.ts";

/** The ways, in the order of their turns. */
export const CAPTURES: readonly Capture[] = [
  "none",
  "baseline",
  "least",
  "ours",
];

/** Something for each way. */
export type ForEach<T> = Record<Capture, T>;

const QUEUES: ForEach<string | null> = {
  none: null,
  baseline: `q_${QUEUE}`,
  least: `q_${LEAST_QUEUE}`,
  ours: "q_replicate_data_libsql",
};

/**
 * Makes something for each way of capturing.
 *
 * @param make Makes one.
 * @returns All of them.
 */
export function forEach<T>(make: (capture: Capture) => T): ForEach<T> {
  return Object.fromEntries(
    CAPTURES.map((capture) => [capture, make(capture)]),
  ) as ForEach<T>;
}

/**
 * The medians of what each way gave.
 *
 * @param runs The runs.
 * @returns A number each.
 */
export function mediansOf(runs: ForEach<number[]>): ForEach<number> {
  return forEach((capture) => median(runs[capture]));
}

/**
 * What each way gave over none: the median of turns, as what else the machine
 * does lasts longer than one.
 *
 * @param runs The runs, a number a turn.
 * @returns A ratio each.
 */
export function ratiosOf(runs: ForEach<number[]>): ForEach<number> {
  return forEach((capture) =>
    median(runs[capture].map((value, turn) => value / runs.none[turn]!))
  );
}

/**
 * Says what each way gave, for human eyes.
 *
 * @param numbers A number each.
 * @returns The text.
 */
export function describe(numbers: ForEach<number>): string {
  return CAPTURES.map((capture) => `${capture} ${Math.round(numbers[capture])}`)
    .join(", ");
}

/**
 * Runs something with a source for each way of capturing.
 *
 * @param lab Where they are.
 * @param rows Rows of app_versions.
 * @param run What to run.
 * @returns What it returned.
 */
export async function withPairs<T>(
  lab: Lab,
  rows: number,
  run: (pairs: ForEach<Pair>) => Promise<T>,
): Promise<T> {
  await using stack = new AsyncDisposableStack();
  const pairs = {} as ForEach<Pair>;
  for (const capture of CAPTURES) {
    pairs[capture] = stack.use(await lab.empty({ capture, rows }));
  }
  return await run(pairs);
}

/**
 * Empties the queue, and takes away what earlier statements left behind.
 *
 * @param pair The source.
 * @param capture How it captures.
 */
export async function clean({ sql }: Pair, capture: Capture): Promise<void> {
  const queue = QUEUES[capture];
  if (queue) await sql`truncate ${sql(`pgmq.${queue}`)}`;
  await sql`vacuum public.app_versions`;
}

/**
 * What waits in a queue.
 *
 * @param pair The source.
 * @param capture How it captures; not `none`.
 * @returns How many messages, and the bytes of one as it is stored.
 */
export async function queueOf(
  { sql }: Pair,
  capture: Capture,
): Promise<{ messages: number; messageBytes: number }> {
  const [found] = await sql`
    select count(*)::int as messages, coalesce(avg(pg_column_size(message)), 0)::float8 as bytes
    from ${sql(`pgmq.${QUEUES[capture]}`)}`;
  return { messages: found!.messages, messageBytes: found!.bytes };
}

/**
 * Where a source's write-ahead log ends.
 *
 * @param pair The source.
 * @returns A number of bytes; differences count.
 */
export async function walAt({ sql }: Pick<Pair, "sql">): Promise<number> {
  const [found] = await sql`
    select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8 as at`;
  return found!.at;
}
