/** The loads of `deno task load`, as large as a CI run has time for. */

import { assertEquals } from "@std/assert";
import { Servers } from "../db/support/stack.ts";
import { type Load, REDUCED, runLoads } from "../load/loads.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

Deno.test("a worker keeps its bounds under every load: calls, arguments, memory, one writer", async () => {
  const loads: Load[] = [];
  await runLoads(servers, REDUCED, (load) => loads.push(load));
  assertEquals(loads.length, 6);
});
