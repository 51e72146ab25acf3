/**
 * Ring 0. How much the next batch may hold.
 *
 * Promise: a batch grows towards a second of the replica's time, and shrinks
 * long before the 5 s at which a Bunny Database ends a transaction; a replica
 * far away, where every answer takes long, is not left with tiny ones.
 *
 * @module
 */

import type { BatchSize } from "../chain/claim.ts";

/** What a worker has learned of the replica's speed, from sync to sync. */
export interface Pace {
  /** What to claim next. */
  size: BatchSize;
  /** The same for a page: rows, and bytes of their cells. */
  pageSize: BatchSize;
}

/**
 * A pace that nothing is known of yet: small.
 *
 * @returns The pace.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(newPace().size.messages, 4_000);
 * ```
 */
export function newPace(): Pace {
  return {
    size: { messages: 4_000, bytes: 1_048_576 },
    pageSize: { messages: 2_000, bytes: 524_288 },
  };
}

/** What an apply should take, beside the way there and back. */
const AIM_MS = 1_000;
const SIZE_MAX: BatchSize = { messages: 50_000, bytes: 5_500_000 };
/** Larger pages are hardly faster, and take the worker more of its time. */
export const PAGE_MAX: BatchSize = { ...SIZE_MAX, bytes: 2_800_000 };
/** What is slow and no larger is slow for another reason than its size. */
const SMALL: BatchSize = { messages: 1_000, bytes: 262_144 };
/** What is cut no further where it fails. */
const SIZE_MIN: BatchSize = { messages: 16, bytes: 16_384 };

/**
 * The size after a batch that was applied.
 *
 * @param size The size that batch was claimed with.
 * @param apply How long that took, and how long the replica takes for next to
 * nothing, in milliseconds.
 * @param max What no batch may pass.
 * @returns As much as takes a second at that speed, but at most eight times and
 * at least half as much as before; a small one is not made smaller. Were the
 * latency overrated, the next apply would take two seconds, or twice as long.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const next = (messages: number, ms: number, latencyMs: number) =>
 *   nextSize({ messages, bytes: 1e6 }, { ms, latencyMs }).messages;
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
 * The size after a batch that was too much.
 *
 * @param size The size that batch was claimed with.
 * @returns Half of it.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(halfSize({ messages: 100, bytes: 100_000 }).messages, 50);
 * assertEquals(halfSize({ messages: 20, bytes: 100_000 }).messages, 16);
 * ```
 */
export function halfSize(size: BatchSize): BatchSize {
  return scaled(size, 0.5, { min: SIZE_MIN, max: SIZE_MAX });
}

/** Within the bounds, but what is below the least is not made more. */
function scaled(
  size: BatchSize,
  factor: number,
  { min, max }: { min: BatchSize; max: BatchSize },
): BatchSize {
  const scale = (of: keyof BatchSize) => {
    const least = Math.min(size[of], min[of]);
    return Math.floor(Math.min(max[of], Math.max(least, size[of] * factor)));
  };
  return { messages: scale("messages"), bytes: scale("bytes") };
}
