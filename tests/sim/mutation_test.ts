/** The deliberate bugs that are found soon; without one, the same schedules are fine. */

import { assert, assertEquals } from "@std/assert";
import { find, testMutant } from "./find.ts";
import { MUTANTS } from "./mutations.ts";
import { shrink } from "./shrink.ts";
import { run } from "./simulate.ts";

/** A bug that takes more is rare, and is looked for in `tests/long/`. */
const SCHEDULES_MAX = 300;

for (const mutant of MUTANTS.filter(({ isRare }) => !isRare)) {
  testMutant(mutant, SCHEDULES_MAX);
}

Deno.test("shrink() leaves what breaks the rule, and nothing else", async () => {
  const mutant = MUTANTS.find(({ name }) => name.includes("worker forgets"))!;
  const { mutation } = mutant;
  const { schedule, outcome } = (await find(mutant, SCHEDULES_MAX))!;
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
