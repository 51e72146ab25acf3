/**
 * Ring 2. What a sync answers, logs and reports to the source.
 *
 * @module
 */

import type { Outcome, Queued } from "../chain/claim.ts";
import { mbOf } from "../replica/capacity.ts";
import type { Progress } from "./progress.ts";

/** What a sync did. */
export interface SyncResult {
  /** Queue messages dealt with. */
  readonly processed: number;
  /** Messages left, at most 10,000. */
  readonly queued: number;
  /** Whether `queued` is exact, or a lower bound. */
  readonly queued_exact: boolean;
  /** Changes set aside by this sync. */
  readonly parked: number;
  /** Batches applied by this sync. */
  readonly batches: number;
  /** Whether the replica has every message that the last batch could see. */
  readonly drained?: boolean;
  /** Whether every table was walked: with drained, the replica is equal. */
  readonly walk_done?: boolean;
  /** The chain the replica follows. */
  readonly epoch?: string;
  /** How many batches of it are applied. */
  readonly position?: number;
  /** How much the replica holds, in MB. */
  readonly replica_mb?: number;
  /** What an operator should see to. */
  readonly warnings?: readonly string[];
  /** Set where another sync is at it. */
  readonly busy?: true;
  /** Set where an operator holds the worker off. */
  readonly paused?: true;
}

export function report(
  progress: Progress,
  queued: Queued & { behind?: number },
): SyncResult {
  const { row } = progress;
  return {
    ...summaryOf(progress),
    // A batch that is replayed says so of its own time.
    ...(row === null
      ? {}
      : { drained: row.drained === 1 && queued.behind === 0 }),
    queued: queued.queued,
    queued_exact: queued.queuedExact,
    ...(progress.warnings.length > 0 ? { warnings: progress.warnings } : {}),
  };
}

export function outcomeOf(
  progress: Progress,
  { ms, error }: { ms: number; error?: string },
): Outcome {
  const { processed, parked, batches, replays, applied } = progress;
  return {
    processed,
    parked,
    batches,
    replays,
    ms: Math.round(ms),
    ...(error ? { error } : {}),
    tables: Object.fromEntries(applied),
  };
}

export function summaryOf(progress: Progress) {
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
