/** The cases of capture's tests, drained after each statement. */

import { testCases } from "../db/support/capture_cases.ts";
import { Servers } from "../db/support/stack.ts";

const servers = new Servers({ settings: { deadlock_timeout: "50ms" } });

const endCases = testCases({ servers, drains: "after each statement" });
Deno.test.afterAll(async () => {
  await endCases();
  await servers.stop();
});
