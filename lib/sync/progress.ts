/**
 * Ring 2. What the flows work with, and where a sync is.
 *
 * Promise: what a sync has learned is here alone, so that each step can be read
 * by itself.
 *
 * @module
 */

import type { BatchSize } from "../chain/claim.ts";
import type { Walked } from "../chain/page.ts";
import type { ReplicaRow } from "../chain/row.ts";
import type { Log } from "../log.ts";
import type { Replica } from "../replica/replica.ts";
import type { Source } from "../source/source.ts";
import type { Pace } from "./batch_size.ts";
import type { ClaimedBatch, Planners } from "./plan_claim.ts";

/** What one request may spend. */
export interface Budget {
  /** Calls to either database that remain. */
  callsLeft(): number;
  /** Milliseconds that remain. */
  msLeft(): number;
}

/** What the flows work with. */
export interface Parts extends Planners {
  /** The source. */
  readonly source: Source;
  /** The replica. */
  readonly replica: Replica;
  /** What the request may spend. */
  readonly budget: Budget;
  /** How much a batch may hold; it outlives the sync. */
  readonly pace: Pace;
  /** The log. */
  readonly log: Log;
  /** How large the replica may be, in MB. Default: without a limit. */
  readonly replicaMbMax?: number;
  /** Posts a JSON text to the alert webhook and returns the HTTP status; null if none is set. */
  readonly alert: ((body: string) => Promise<number>) | null;
  /** Milliseconds of a clock that does not go back. */
  now(): number;
  /** Waits. */
  sleep(ms: number): Promise<void>;
  /** Makes a random id. */
  uuid(): string;
}

/** Calls kept for the last batch: claim, apply, apply again, park, probe, settle, release. */
export const CALLS_RESERVED = 7;

/**
 * Whether enough remains for one more batch.
 *
 * @param budget What the request may spend.
 * @returns Whether it does.
 */
export function hasBudget(budget: Budget): boolean {
  return budget.msLeft() > 0 && budget.callsLeft() > CALLS_RESERVED;
}

/** How far the chain is followed, and under which lease. */
export interface Following {
  /** The lease held. */
  readonly lease: string;
  /** Whether batches are applied, or only the moves to the epoch in force. */
  readonly batches: boolean;
  /** Whether a page of the scrub may ride on a batch. Default: true. */
  readonly scrub?: boolean;
  /** Whether the next sync follows at once if there is more. Default: false. */
  readonly brief?: boolean;
  /** Whether a replica of another source is taken over. Default: false. */
  readonly takeOver?: boolean;
}

/** Where a sync is. */
export interface Progress {
  /** The lease, and how far the chain is followed. */
  readonly following: Following;
  /** When it began, by the parts' clock. */
  readonly startedAt: number;
  /** The replica's row as it was last seen; null if it has none. */
  row: ReplicaRow | null;
  /** Whether the replica must be probed before anything else. */
  isUnsure: boolean;
  /** The schema hash of a replica whose tables are not what that schema says. */
  brokenSchema: string | null;
  /** The batch that was claimed and planned while the one before was applied. */
  ahead: ClaimedBatch | null;
  /** What the current batch was claimed with. */
  claimedSize: BatchSize;
  /** How long the replica took to answer the probe, in milliseconds. */
  latencyMs: number;
  /** Whether the scrub had its page, or may have none. */
  isScrubbed: boolean;
  /** What walks found, by table; the next claim reports it. */
  walked: Map<string, Walked>;
  /** Tables whose indexes cannot be built now. */
  tooLarge: Set<string>;
  /** Messages that were settled. */
  processed: number;
  /** Rows that were parked. */
  parked: number;
  /** Batches that were applied. */
  batches: number;
  /** Batches that the replica had lost: their messages were put back. */
  replays: number;
  /** Rows that changes wrote or removed, by table. */
  applied: Map<string, number>;
  /** Failures since the last step that succeeded. */
  failures: number;
  /** What an operator should see to. */
  warnings: string[];
  /** Whether too little of the budget remains for what comes next. */
  isSpent: boolean;
}

/**
 * The progress of a sync that has not begun.
 *
 * @param parts The pace and the clock.
 * @param following The lease, and how far the chain is followed.
 * @returns The progress.
 */
export function newProgress(
  { pace, now }: Pick<Parts, "pace" | "now">,
  following: Following,
): Progress {
  return {
    following,
    startedAt: now(),
    row: null,
    isUnsure: true,
    brokenSchema: null,
    ahead: null,
    claimedSize: pace.size,
    latencyMs: 0,
    isScrubbed: following.scrub === false,
    walked: new Map(),
    tooLarge: new Set(),
    processed: 0,
    parked: 0,
    batches: 0,
    replays: 0,
    applied: new Map(),
    failures: 0,
    warnings: [],
    isSpent: false,
  };
}
