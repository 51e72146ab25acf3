import { assertEquals, assertStringIncludes } from "@std/assert";
import type { StopCode } from "../../lib/chain/claim.ts";
import { stopError } from "../../lib/sync/stop_error.ts";

/** What repairs each stop. */
const REPAIRS: Record<StopCode, readonly string[]> = {
  replica_foreign: ["LIBSQL_URL", "POST /nuke"],
  replica_ahead: ["PGMQ_URL", "LIBSQL_URL", "POST /nuke"],
  schema_outdated: ["deploy the newest worker"],
  schema_unknown: ["deno task schema", "deploy the worker"],
};

for (
  const [code, repairs] of Object.entries(REPAIRS) as [
    StopCode,
    readonly string[],
  ][]
) {
  Deno.test(`stopError() says what was expected, found and repairs ${code}, which no retry helps`, () => {
    const error = stopError(code);
    assertEquals([error.code, error.retry], [code, false]);
    for (const words of ["Cannot sync: expected ", ", found ", ...repairs]) {
      assertStringIncludes(error.message, words);
    }
  });
}
