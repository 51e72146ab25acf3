/** Half of the schedules: the other half runs beside it. */

import { runSchedules } from "./schedules.ts";

Deno.test("whatever fails, the replica is right", async () => {
  await runSchedules({ first: 0, of: 2 });
});
