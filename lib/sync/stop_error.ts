/**
 * Ring 0. Explains to the operator why the source hands out nothing.
 *
 * Promise: every explanation names the command that repairs it.
 *
 * @module
 */

import type { StopCode } from "../chain/claim.ts";
import { SyncError } from "../errors.ts";

/**
 * Makes the error for a stop.
 *
 * @param code The code that the source answered.
 * @returns The error.
 *
 * @example
 * ```ts
 * import { assertStringIncludes } from "@std/assert";
 *
 * assertStringIncludes(stopError("replica_foreign").message, "POST /nuke");
 * ```
 */
export function stopError(code: StopCode): SyncError {
  switch (code) {
    case "replica_foreign":
      return new SyncError(
        code,
        "Cannot sync: expected a replica of this source, found another source's; check LIBSQL_URL, or POST /nuke to take it over and lose what it holds",
      );
    case "replica_ahead":
      return new SyncError(
        code,
        "Cannot sync: expected a replica at or behind this source's position, found one ahead: the source was restored or copied; check PGMQ_URL and LIBSQL_URL, or POST /nuke to start the replica over",
      );
    case "schema_outdated":
      return new SyncError(
        code,
        "Cannot sync: expected the schema.json that is in force, found an older one in this worker; deploy the newest worker",
      );
    case "schema_unknown":
      return new SyncError(
        code,
        "Cannot sync: expected this worker's schema.json at the source, found another; run the migration written by deno task schema, then deploy the worker",
      );
  }
}
