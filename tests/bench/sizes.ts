/**
 * Ring 0. How much each form of the bench moves.
 *
 * @module
 */

/** How much is moved, and how often. */
export interface Sizes {
  /** Runs of each contender, side by side; figures come from their medians. */
  readonly rounds: number;
  /** Rows of app_versions before anything is measured. */
  readonly rows: number;
  /** Single-row messages that we drain, and rows that reach us from larger statements. */
  readonly messages: number;
  /** Messages the baselines drain. They are slower the more are queued, and
   * take minutes for all of them: so it is a sample from the middle. */
  readonly baselineMessages: number;
  /** Rows of a backfill. */
  readonly fillRows: number;
  /** Messages of a short queue. */
  readonly queueShort: number;
  /** Messages of a long one: a multiple of `messages` and of `queueShort`. */
  readonly queueLong: number;
  /** Rows of the queue that are deleted, and that an old snapshot may see. */
  readonly deadRows: number;
  /** Rows of a large statement. */
  readonly statementRows: number;
  /** How often clients update single rows, and how long each time. */
  readonly tpsTurns: number;
  readonly tpsSeconds: number;
  /** Single-row changes whose WAL is measured. */
  readonly walChanges: number;
  /** How long writes go on whose lag is measured. */
  readonly lagSeconds: number;
}

/** The command's own form. */
export const FULL: Sizes = {
  rounds: 3,
  rows: 200_000,
  messages: 200_000,
  baselineMessages: 20_000,
  fillRows: 500_000,
  queueShort: 10_000,
  queueLong: 1_000_000,
  deadRows: 5_000_000,
  statementRows: 10_000,
  tpsTurns: 40,
  tpsSeconds: 0.4,
  walChanges: 20_000,
  lagSeconds: 20,
};

/** Under a minute on an idle machine. */
export const QUICK: Sizes = {
  rounds: 1,
  rows: 20_000,
  messages: 15_000,
  baselineMessages: 3_000,
  fillRows: 30_000,
  queueShort: 10_000,
  queueLong: 60_000,
  deadRows: 300_000,
  statementRows: 10_000,
  tpsTurns: 10,
  tpsSeconds: 0.1,
  walChanges: 2_000,
  lagSeconds: 5,
};

/** Seconds, for a test that the bench still runs: its figures mean nothing. */
export const TOY: Sizes = {
  rounds: 1,
  rows: 5_000,
  messages: 5_000,
  baselineMessages: 1_000,
  fillRows: 2_000,
  queueShort: 1_000,
  queueLong: 5_000,
  deadRows: 1_000,
  statementRows: 1_000,
  tpsTurns: 1,
  tpsSeconds: 0.05,
  walChanges: 100,
  lagSeconds: 0.5,
};

/**
 * How many messages wait where a baseline begins: a sample from there to its
 * end has as many before it, on average, as draining all of them has.
 *
 * @param sizes The form of the bench.
 * @returns The messages.
 */
export function baselineQueued(sizes: Sizes): number {
  return (sizes.messages + sizes.baselineMessages) / 2;
}
