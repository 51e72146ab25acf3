/**
 * Ring 0. How much the next batch may hold.
 *
 * Promise: a batch grows towards a second of apply time and shrinks long
 * before the 5 s at which a Bunny Database ends a transaction.
 *
 * @module
 */

import type { BatchSize } from "./claim.ts";

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

/** What an apply should take. */
const AIM_MS = 1_000;
const SIZE_MAX: BatchSize = { messages: 50_000, bytes: 5_500_000 };
/** Larger pages are hardly faster, and take the worker more of its time. */
export const PAGE_MAX: BatchSize = { ...SIZE_MAX, bytes: 2_800_000 };
const SIZE_MIN: BatchSize = { messages: 16, bytes: 16_384 };

/**
 * The size after a batch that took `applyMs`.
 *
 * @param size The size that batch was claimed with.
 * @param applyMs How long the replica took, in milliseconds.
 * @param max What no batch may pass.
 * @returns As much as takes a second at that speed, but at most eight times and
 * at least half as much as before.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(nextSize({ messages: 100, bytes: 100_000 }, 100).messages, 800);
 * assertEquals(nextSize({ messages: 100, bytes: 100_000 }, 800).messages, 125);
 * assertEquals(nextSize({ messages: 100, bytes: 100_000 }, 5_000).messages, 50);
 * ```
 */
export function nextSize(
  size: BatchSize,
  applyMs: number,
  max: BatchSize = SIZE_MAX,
): BatchSize {
  const factor = Math.min(8, Math.max(0.5, AIM_MS / Math.max(applyMs, 1)));
  return {
    messages: scale(
      size.messages,
      factor,
      SIZE_MIN.messages,
      max.messages,
    ),
    bytes: scale(size.bytes, factor, SIZE_MIN.bytes, max.bytes),
  };
}

function scale(
  value: number,
  factor: number,
  min: number,
  max: number,
): number {
  return Math.floor(Math.min(max, Math.max(min, value * factor)));
}
