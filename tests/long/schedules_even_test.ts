/** Half of the schedules of the simulation: the other half runs beside it. */

import { runSchedules } from "../sim/schedules.ts";

Deno.test("the replica is right after any faults", async () => {
  await runSchedules({ first: 0, of: 2, many: 20_000 });
});
