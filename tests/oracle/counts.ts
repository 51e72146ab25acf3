/**
 * Ring 3. What the sessions of the oracle counted.
 *
 * @module
 */

/** What a session counted. */
export interface Counts {
  sessions: number;
  statements: number;
  statementsFailed: number;
  transactions: number;
  rolledBack: number;
  prepared: number;
  /** Answers of workers by status or code. */
  answers: Record<string, number>;
  faults: Record<string, number>;
  /** States of the replica that were read. */
  states: number;
  /** Those that promised to be equal, and were. */
  equal: number;
  rows: number;
}

/** Counts of nothing. */
export function noCounts(): Counts {
  return {
    sessions: 0,
    statements: 0,
    statementsFailed: 0,
    transactions: 0,
    rolledBack: 0,
    prepared: 0,
    answers: {},
    faults: {},
    states: 0,
    equal: 0,
    rows: 0,
  };
}

/** One line of how far it is. */
export function progressLine(counts: Counts): string {
  const faults = Object.values(counts.faults).reduce((a, b) => a + b, 0);
  return `${counts.sessions} sessions, ${counts.statements} statements, ${faults} faults, ${counts.states} states read, ${counts.equal} promised and equal`;
}
