import { assert, assertEquals } from "@std/assert";
import { describeRefusal } from "../../lib/cli/call_worker.ts";

Deno.test("describeRefusal() repeats the worker's own words, or says that it was another server", () => {
  const headers = new Headers();
  assertEquals(
    describeRefusal({
      status: 409,
      headers,
      body: { error: "replica_foreign", message: "Cannot sync: ..." },
    }),
    "The worker answered 409 replica_foreign: Cannot sync: ...",
  );
  assert(
    describeRefusal({ status: 400, headers, body: {} }).endsWith(
      "found HTTP 400 with another body; check WORKER_URL",
    ),
  );
});
