/** A few schedules of the simulation; `tests/long/` runs many. */

import { runSchedules } from "./schedules.ts";

Deno.test("the replica is right after any faults, in a few schedules", async () => {
  await runSchedules({ first: 0, of: 1, many: 1_000 });
});
