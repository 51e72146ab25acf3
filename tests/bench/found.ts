/**
 * Ring 0. The figures, their goals, and what the parts of the bench return.
 *
 * @module
 */

import type { Lab } from "./lab.ts";
import type { Sizes } from "./sizes.ts";

/** What one part measured. */
export interface Found {
  /** By JSON key; where two parts measure one, the larger counts. */
  readonly figures: Record<string, number>;
  /** What the figures come from. */
  readonly details: Record<string, unknown>;
  /** What a change costs, by what it is. */
  readonly cost?: Record<string, number>;
}

/** A piece of the bench that can run alone. */
export interface Part {
  readonly name: string;
  /** The figures it measures. */
  readonly keys: readonly string[];
  run(
    lab: Lab,
    options: { sizes: Sizes; log: (line: string) => void },
  ): Promise<Found>;
}

/** What a figure should be. */
interface Goal {
  readonly what: string;
  readonly atLeast?: number;
  readonly atMost?: number;
}

/** Every figure by its JSON key, in the order of the table. */
export const GOALS: Record<string, Goal> = {
  drain_insert_ratio: {
    what: "single-row inserts, messages/s over the plain baseline",
    atLeast: 8,
  },
  drain_insert_ratio_tuned: {
    what: "the same over the tuned baseline",
    atLeast: 2.5,
  },
  drain_update_ratio: {
    what: "updates of two columns without an index, over plain",
    atLeast: 20,
  },
  drain_update_ratio_tuned: {
    what: "the same over the tuned baseline",
    atLeast: 6,
  },
  drain_indexed_ratio: {
    what: "updates of one indexed column, over plain",
    atLeast: 8,
  },
  drain_indexed_ratio_tuned: {
    what: "the same over the tuned baseline",
    atLeast: 2.5,
  },
  drain_bulk_ratio: {
    what: "rows from 1,000-row updates without an index, over plain",
    atLeast: 30,
  },
  backfill_of_limit: {
    what: "backfill, as a share of SQLite's own speed",
    atLeast: 0.25,
  },
  scrub_over_backfill: {
    what: "scrub of equal rows, rows/s over backfill's",
    atLeast: 2,
  },
  cpu_s_per_100k: {
    what: "worker CPU seconds per 100,000 rows: bulk, backfill",
    atMost: 0.35,
  },
  cpu_s_per_100k_single: {
    what: "the same for single-row messages",
    atMost: 0.6,
  },
  capture_bulk_cost: {
    what: "10,000-row UPDATE, time with capture over without",
    atMost: 4,
  },
  capture_single_tps: {
    what: "single-row updates, transactions/s with capture over without",
    atLeast: 0.85,
  },
  wal_ratio: {
    what: "WAL bytes per single-row change, over the baseline's",
    atMost: 0.7,
  },
  noop_messages: {
    what: "messages of an UPDATE of 10,000 rows that changes nothing",
    atMost: 0,
  },
  memory_growth: {
    what: "peak heap draining a long queue over that of 10,000 messages",
    atMost: 1.2,
  },
  memory_mb: { what: "that peak, in MB", atMost: 64 },
  claim_growth: {
    what: "claim time, long queue or many dead rows over 10,000 messages",
    atMost: 1.5,
  },
  calls_per_100k: {
    what: "calls and sub-requests per 100,000 updates without an index",
    atMost: 12,
  },
  calls_per_100k_inserts: { what: "the same for inserts", atMost: 25 },
  round_trips: { what: "round trips per batch", atMost: 2 },
  wan_of_lan: {
    what: "rows/s with both databases 80 ms further away, over without",
    atLeast: 0.5,
  },
  lag_p50_ms: {
    what: "commit to replica in realtime, 50 writes/s, ms: the median",
    atMost: 300,
  },
  lag_p99_ms: { what: "the same, 99 of 100", atMost: 1_500 },
  bundle_kb: { what: "dist.js minified, KB", atMost: 150 },
  start_ms: {
    what: "first answer later than a bare server's, ms",
    atMost: 60,
  },
};

/**
 * Says whether a figure reaches its goal.
 *
 * @param key The figure's key.
 * @param value What was measured.
 * @returns Whether it does.
 */
export function isReached(key: string, value: number): boolean {
  const { atLeast = -Infinity, atMost = Infinity } = GOALS[key]!;
  return value >= atLeast && value <= atMost;
}
