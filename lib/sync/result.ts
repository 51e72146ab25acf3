/**
 * Ring 2. What a sync answers, logs and reports to the source.
 *
 * Promise: it says no more than what the last claim and the replica's row
 * prove.
 *
 * @module
 */

import type { Outcome, Queued } from "../chain/claim.ts";
import { mbOf } from "../replica/capacity.ts";
import type { Parts, Progress } from "./progress.ts";

/** What a sync did so far, as far as one log line holds it. */
export interface Summary {
  /** Queue messages that were settled. */
  readonly processed: number;
  /** Rows that were parked. */
  readonly parked: number;
  /** Batches that were applied. */
  readonly batches: number;
  /** Whether every table was walked: with `drained`, the replica is equal. */
  readonly walk_done?: boolean;
  /** The chain the replica follows. */
  readonly epoch?: string;
  /** How many batches of it are applied. */
  readonly position?: number;
  /** How much the replica holds, in MB. */
  readonly replica_mb?: number;
}

/** What a sync did. */
export interface SyncResult extends Summary {
  /** Messages that remain, at most 10,000. */
  readonly queued: number;
  /** Whether `queued` is exact, or a lower bound. */
  readonly queued_exact: boolean;
  /** Whether the replica has every message that the last batch could see. */
  readonly drained?: boolean;
  /** What an operator should see to. */
  readonly warnings?: readonly string[];
  /** Set if another sync holds the lease. */
  readonly busy?: true;
  /** Set if an operator has paused the worker. */
  readonly paused?: true;
}

/**
 * The result of a sync.
 *
 * @param progress Where the sync is.
 * @param queued What remains.
 * @returns The result.
 */
export function resultOf(
  progress: Progress,
  { queued, queuedExact }: Queued,
): SyncResult {
  const { row, warnings } = progress;
  return {
    ...summaryOf(progress),
    ...(row === null ? {} : { drained: row.drained === 1 }),
    queued,
    queued_exact: queuedExact,
    ...(warnings.length > 0 ? { warnings } : {}),
  };
}

/**
 * What the source keeps of a sync.
 *
 * @param parts The clock.
 * @param progress Where the sync is.
 * @param error The code of what ended it.
 * @returns The outcome.
 */
export function outcomeOf(
  { now }: Pick<Parts, "now">,
  progress: Progress,
  error?: string,
): Outcome {
  const { processed, parked, batches, replays, applied, startedAt } = progress;
  return {
    processed,
    parked,
    batches,
    replays,
    ms: Math.round(now() - startedAt),
    ...(error ? { error } : {}),
    tables: Object.fromEntries(applied),
  };
}

/**
 * What a sync did so far.
 *
 * @param progress Where the sync is.
 * @returns The summary.
 */
export function summaryOf(progress: Progress): Summary {
  const { processed, parked, batches, row } = progress;
  return {
    processed,
    parked,
    batches,
    ...(row === null ? {} : {
      walk_done: row.walk_done === 1,
      epoch: row.epoch,
      position: row.position,
      replica_mb: mbOf(row),
    }),
  };
}
