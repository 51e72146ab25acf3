/**
 * Ring 2. What the flows work with, and where a sync is.
 *
 * @module
 */

import type { BatchSize } from "../chain/claim.ts";
import type { Walked } from "../chain/page.ts";
import type { ReplicaRow } from "../chain/row.ts";
import type { Log } from "../log.ts";
import type { createPagePlanner } from "../plan/page.ts";
import type { createPlanner } from "../plan/plan.ts";
import type { Replica } from "../replica/replica.ts";
import type { Source } from "../source/source.ts";
import type { Pace } from "./batch_size.ts";

/** What one request may spend. */
export interface Budget {
  /** Calls to either database that are left. */
  callsLeft(): number;
  /** Milliseconds that are left. */
  msLeft(): number;
}

/** What the flows work with. */
export interface Parts {
  readonly source: Source;
  readonly replica: Replica;
  readonly plan: ReturnType<typeof createPlanner>;
  readonly planPage: ReturnType<typeof createPagePlanner>;
  readonly budget: Budget;
  /** How much a batch may hold; it outlives the sync. */
  readonly pace: Pace;
  readonly log: Log;
  /** How large the replica may be, in MB; without it, as large as it gets. */
  readonly replicaMbMax?: number;
  /** Posts a JSON text to the alert webhook, where there is one: the status. */
  readonly alert: ((body: string) => Promise<number>) | null;
  /** Milliseconds of a clock that does not go back. */
  now(): number;
  sleep(ms: number): Promise<void>;
  uuid(): string;
}

/** Calls kept back for the last batch: claim, apply, apply again, park, probe, settle, release. */
export const CALLS_RESERVED = 7;

/** Whether there is enough left for one more batch. */
export function hasBudget(budget: Budget): boolean {
  return budget.msLeft() > 0 && budget.callsLeft() > CALLS_RESERVED;
}

/** Where a sync is. */
export interface Progress {
  row: ReplicaRow | null;
  /** Whether the replica must be asked before anything else. */
  isUnsure: boolean;
  /** The schema's hash of a replica whose tables are not what it says. */
  mend: string | null;
  /** What the batch in hand was claimed with. */
  claimedSize: BatchSize;
  /** How long the replica took to say where it stands, in milliseconds. */
  latencyMs: number;
  /** Whether the scrub had its page, or may have none. */
  isScrubbed: boolean;
  /** What walks found, to be told at the next claim, by table. */
  walked: Map<string, Walked>;
  /** Tables whose indexes cannot be built now. */
  tooLarge: Set<string>;
  split: { batch: string; messages: number } | null;
  processed: number;
  parked: number;
  batches: number;
  /** Those of them that the replica had lost. */
  replays: number;
  /** Rows that changes wrote or removed, by table. */
  applied: Map<string, number>;
  failures: number;
  /** What an operator should see to. */
  warnings: string[];
  /** Whether what is left of the budget is too little for what comes next. */
  isSpent: boolean;
}

/** A sync that has not begun. */
export function newProgress({ pace }: Pick<Parts, "pace">): Progress {
  return {
    row: null,
    isUnsure: true,
    mend: null,
    claimedSize: pace.size,
    latencyMs: 0,
    isScrubbed: false,
    walked: new Map(),
    tooLarge: new Set(),
    split: null,
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
