/** Every deliberate bug, also those that take many schedules to find. */

import { testMutant } from "../sim/find.ts";
import { MUTANTS } from "../sim/mutations.ts";

/** Schedules until a bug must have been found. */
const SCHEDULES_MAX = 2_000;

for (const mutant of MUTANTS) {
  testMutant(mutant, SCHEDULES_MAX);
}
