/**
 * The shortest schedule that breaks the same rule, to be read.
 *
 * @module
 */

import type { Action } from "./actions.ts";
import { type Outcome, run, type Schedule } from "./simulate.ts";
import type { Mutation } from "./world.ts";

/** Runs that shrinking may take. */
const RUNS_MAX = 3_000;

/**
 * Leaves out what a schedule does not need to break the same rule.
 *
 * @param schedule One that breaks a rule.
 * @param options The rule, and the deliberate bug there is.
 * @returns A schedule of which no decision can be left out.
 */
export async function shrink(
  schedule: Schedule,
  options: { rule: string; mutation?: Mutation },
): Promise<Schedule> {
  const { rule, mutation } = options;
  let runs = 0;
  const breaks = async (actions: readonly Action[]) => {
    runs += 1;
    const { violation } = await run({ ...schedule, actions }, { mutation });
    return violation?.rule === rule;
  };
  let { actions } = schedule;
  let size = actions.length;
  while (size > 0 && runs < RUNS_MAX) {
    let isShorter = false;
    for (let at = 0; at < actions.length && runs < RUNS_MAX;) {
      const fewer = actions.toSpliced(at, size);
      if (await breaks(fewer)) {
        actions = fewer;
        isShorter = true;
      } else {
        at += size;
      }
    }
    // What was needed before may not be needed now.
    if (!isShorter || size > 1) size = Math.floor(size / 2);
  }
  return { ...schedule, actions };
}

/**
 * Tells a broken schedule as a list of steps.
 *
 * @param schedule The schedule.
 * @param outcome What came of it.
 * @returns Text of several lines.
 */
export function describe(schedule: Schedule, outcome: Outcome): string {
  return [
    `SEED=${schedule.seed} SCHEDULES=1: ${outcome.violation?.message}`,
    JSON.stringify(schedule.setup),
    ...outcome.lines.map((line, at) => `${at + 1}. ${line}`),
  ].join("\n");
}
