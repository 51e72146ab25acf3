/**
 * Looks for a deliberate bug, schedule by schedule.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { type Mutant, mutantSchedule } from "./mutations.ts";
import { type Outcome, run, type Schedule } from "./simulate.ts";

/**
 * Runs schedules until one finds the bug.
 *
 * @param mutant The bug.
 * @param schedulesMax Schedules in which it must have been found.
 * @returns The first schedule that finds it, or null.
 */
export async function find(
  mutant: Mutant,
  schedulesMax: number,
): Promise<{ schedule: Schedule; outcome: Outcome } | null> {
  for (let seed = 1; seed <= schedulesMax; seed++) {
    const schedule = mutantSchedule(seed, mutant);
    const outcome = await run(schedule, { mutation: mutant.mutation });
    if (outcome.violation !== null) return { schedule, outcome };
  }
  return null;
}

/**
 * Registers the test of a bug: it is found, and without it the schedule is fine.
 *
 * @param mutant The bug.
 * @param schedulesMax Schedules in which it must have been found.
 */
export function testMutant(mutant: Mutant, schedulesMax: number): void {
  Deno.test(`a bug is found: ${mutant.name}`, async () => {
    const found = await find(mutant, schedulesMax);
    assert(found !== null, `not found in ${schedulesMax} schedules`);
    // It is the bug that was found, not the schedule.
    assertEquals((await run(found.schedule)).violation, null);
  });
}
