/**
 * Ring 0. How much the next batch may hold.
 *
 * Promise: a batch grows towards a second of the replica's time, and shrinks
 * long before the 5 s after which a Bunny Database ends a transaction. A distant
 * replica, which answers everything late, does not get tiny batches.
 *
 * @module
 */

import type { BatchSize } from "../chain/claim.ts";

/** What a worker learns of the replica's speed, from sync to sync. */
export interface Pace {
  /** The size of the next claim. */
  size: BatchSize;
  /** The same for a page. */
  pageSize: BatchSize;
}

/**
 * The pace before anything was learned: small.
 *
 * @returns The pace.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(newPace().size.rows, 4_000);
 * ```
 */
export function newPace(): Pace {
  return {
    size: { rows: 4_000, bytes: 1_048_576 },
    pageSize: { rows: 2_000, bytes: 524_288 },
  };
}

/** How long an apply should take, without the latency. */
const AIM_MS = 1_000;
const SIZE_MAX: BatchSize = { rows: 50_000, bytes: 5_500_000 };
/** Larger pages are hardly faster, and cost the worker more CPU time. */
export const PAGE_MAX: BatchSize = { ...SIZE_MAX, bytes: 2_800_000 };
/** A batch of this size that is slow is not slow for its size. */
const SMALL: BatchSize = { rows: 1_000, bytes: 262_144 };
/** A batch of this size is not halved, even if it fails: one sync can find a row in each of so many tables. */
export const SIZE_MIN: BatchSize = { rows: 6, bytes: 16_384 };

/**
 * The size after a batch that was applied.
 *
 * If the latency was measured too high, the next apply still takes at most two
 * seconds, or twice as long as this one.
 *
 * @param size The size that the batch was claimed with.
 * @param apply How long the apply took, and the latency of a call that does next
 * to nothing, in milliseconds.
 * @param max The size of the largest batch.
 * @returns As much as takes a second at that speed, but at most eight times and
 * at least half as much as before. A small size does not shrink.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const next = (rows: number, ms: number, latencyMs: number) =>
 *   nextSize({ rows, bytes: 1e6 }, { ms, latencyMs }).rows;
 * assertEquals(next(100, 100, 10), 800);
 * assertEquals(next(4_000, 800, 0), 5_000);
 * assertEquals(next(4_000, 3_000, 0), 2_000);
 * assertEquals(next(4_000, 3_000, 2_900), 8_000);
 * assertEquals(next(100, 3_000, 0), 100);
 * ```
 */
export function nextSize(
  size: BatchSize,
  apply: { ms: number; latencyMs: number },
  max: BatchSize = SIZE_MAX,
): BatchSize {
  const ms = Math.max(apply.ms, 1);
  const wanted = AIM_MS / Math.max(ms - apply.latencyMs, 1);
  const growth = Math.min(8, 2 * Math.max(1, AIM_MS / ms));
  const factor = Math.min(growth, Math.max(0.5, wanted));
  return scaled(size, factor, { min: SMALL, max });
}

/**
 * The size after a batch that was too large.
 *
 * @param size The size that the batch was claimed with.
 * @returns Half of it.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(halfSize({ rows: 100, bytes: 100_000 }).rows, 50);
 * assertEquals(halfSize({ rows: 10, bytes: 100_000 }).rows, 6);
 * ```
 */
export function halfSize(size: BatchSize): BatchSize {
  return scaled(size, 0.5, { min: SIZE_MIN, max: SIZE_MAX });
}

/** Scales a size within bounds. A size below the lower one does not grow to it. */
function scaled(
  size: BatchSize,
  factor: number,
  { min, max }: { min: BatchSize; max: BatchSize },
): BatchSize {
  const scale = (of: keyof BatchSize) => {
    const least = Math.min(size[of], min[of]);
    return Math.floor(Math.min(max[of], Math.max(least, size[of] * factor)));
  };
  return { rows: scale("rows"), bytes: scale("bytes") };
}
