/** Not a test of its own: `watchdog_test.ts` runs it, and ends it half way. */

import { Servers, Stack } from "./stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

Deno.test("a test that is ended before its end", async () => {
  await using _stack = await Stack.start(servers);
  console.log("the servers answer");
  await new Promise((resolve) => setTimeout(resolve, 600_000));
});
