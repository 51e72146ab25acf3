/**
 * The calls of workers: each waits until the scheduler runs it, loses it, or
 * keeps it for later.
 *
 * @module
 */

import { SyncError } from "../../lib/errors.ts";
import type { Early, SourceModel } from "./source_model.ts";

/** Where a call goes. */
export type Target = "source" | "replica" | "sleep";

/** A call that a worker waits for, or that nobody waits for any more. */
export interface Call {
  readonly target: Target;
  /** The worker's number. */
  readonly by: number;
  /** The source it goes to; null for the replica. */
  readonly source: SourceModel | null;
  /** What it asks for, in a word. */
  readonly name: string;
  /** Carries it out; what it saw before it had the lock is for a bug alone. */
  readonly run: (early: Early | null) => unknown;
  /** Answers it. */
  readonly answer: (value: unknown) => void;
  /** Fails it. */
  readonly fail: (error: unknown) => void;
  /** What it gave, where it was carried out and holds the chain's lock. */
  held: Outcome | null;
  /** What it would have seen when it came, while it waits for the lock. */
  early: Early | null;
}

/** What came of a call. */
export type Outcome = { value: unknown } | { error: unknown };

/** Carries a call out. */
export function outcomeOf(call: Call): Outcome {
  try {
    return { value: call.run(call.early) };
  } catch (error) {
    return { error };
  }
}

/** Gives a call's outcome to its worker. */
export function deliver(call: Call, outcome: Outcome): void {
  if ("error" in outcome) call.fail(outcome.error);
  else call.answer(outcome.value);
}

/** What a worker sees of a call that failed on the way. */
export function lost(target: Target): unknown {
  // The web client throws a raw TypeError where the network fails.
  return target === "replica"
    ? new TypeError("connection lost")
    : new SyncError("source_unreachable", "Cannot call the source: simulated");
}

/** Turns of the microtask queue in which a worker gets to its next call. */
const TURNS = 30;

/** Lets every worker go on until it waits for a call. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < TURNS; turn++) await null;
}
