/** Every deliberate bug is found; without it, the same schedules are fine. */

import { assert, assertEquals } from "@std/assert";
import { MUTANTS, mutantSchedule } from "./mutations.ts";
import { shrink } from "./shrink.ts";
import { type Outcome, run, type Schedule } from "./simulate.ts";
import type { Mutant } from "./mutations.ts";

/** Schedules until a bug must have been found. */
const SCHEDULES_MAX = 2_000;

async function find(
  mutant: Mutant,
): Promise<{ schedule: Schedule; outcome: Outcome } | null> {
  for (let seed = 1; seed <= SCHEDULES_MAX; seed++) {
    const schedule = mutantSchedule(seed, mutant);
    const outcome = await run(schedule, { mutation: mutant.mutation });
    if (outcome.violation !== null) return { schedule, outcome };
  }
  return null;
}

for (const mutant of MUTANTS) {
  Deno.test(`a bug is found: ${mutant.name}`, async () => {
    const found = await find(mutant);
    assert(found !== null, `not found in ${SCHEDULES_MAX} schedules`);
    // It is the bug that was found, not the schedule.
    assertEquals((await run(found.schedule)).violation, null);
  });
}

Deno.test("shrink() leaves what breaks the rule, and nothing else", async () => {
  const mutant = MUTANTS.find(({ name }) => name.startsWith("fold"))!;
  const { mutation } = mutant;
  const { schedule, outcome } = (await find(mutant))!;
  const { rule } = outcome.violation!;
  const shortest = await shrink(schedule, { rule, mutation });
  assert(shortest.actions.length < schedule.actions.length);
  const again = await run(shortest, { mutation, tells: true });
  assertEquals(again.violation?.rule, rule);
  assert(again.lines.some((line) => line.includes("truncate")));
  for (const at of shortest.actions.keys()) {
    const actions = shortest.actions.toSpliced(at, 1);
    const { violation } = await run({ ...shortest, actions }, { mutation });
    assert(violation?.rule !== rule, `decision ${at} can be left out`);
  }
});
