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
  /** Messages the baselines drain: fewer, as they take a while; a short queue
   * flatters them, who count theirs after every batch. */
  readonly baselineMessages: number;
  /** Rows of a backfill. */
  readonly fillRows: number;
}

/** The command's own form. */
export const FULL: Sizes = {
  rounds: 3,
  rows: 200_000,
  messages: 200_000,
  baselineMessages: 30_000,
  fillRows: 500_000,
};

/** Under a minute on an idle machine. */
export const QUICK: Sizes = {
  rounds: 1,
  rows: 20_000,
  messages: 20_000,
  baselineMessages: 4_000,
  fillRows: 50_000,
};
