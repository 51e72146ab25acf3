/**
 * Ring 0. What an SQLSTATE of the source means for a flow.
 *
 * Promise: every carrier reports the same failure by the same code, and
 * passes on no words of PostgreSQL but our own functions'.
 *
 * @module
 */

import { SyncError } from "../errors.ts";

/**
 * Makes the error for what PostgreSQL answered.
 *
 * @param name The function that was called.
 * @param found The SQLSTATE, PostgreSQL's message, and the error it came in.
 * @returns The error.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const error = sourceError("claim", { state: "57014", text: "canceling statement", cause: null });
 * assertEquals(error.code, "source_unreachable");
 * assertEquals(error.message.includes("canceling"), false);
 * ```
 */
export function sourceError(
  name: string,
  { state, text, cause }: { state: string; text: string; cause: unknown },
): SyncError {
  // 08 connection, 53 resources, 55P03 lock timeout, 57 operator or timeout, 40 lost race.
  if (/^(08|53|57|40|55P03)/.test(state)) {
    return new SyncError(
      "source_unreachable",
      `Cannot call libsql_sync.${name}: PostgreSQL answered SQLSTATE ${state}; try again later`,
      { cause },
    );
  }
  if (/^(42883|3F000|42501)$/.test(state)) {
    return new SyncError(
      "source_not_installed",
      `Cannot call libsql_sync.${name}: expected the function and the right to execute it, found SQLSTATE ${state}; apply the migration in supabase/migrations and check the role in PGMQ_URL`,
      { cause },
    );
  }
  if (/^(28|3D)/.test(state)) {
    return new SyncError(
      "config_invalid",
      `Cannot connect to PostgreSQL: SQLSTATE ${state}; check user, password and database in PGMQ_URL`,
      { cause },
    );
  }
  // Only our own functions raise P0001, and their sentences hold no value.
  return new SyncError(
    "source_failed",
    `Cannot call libsql_sync.${name}: PostgreSQL answered SQLSTATE ${state}${
      state === "P0001" ? `: ${text}` : ""
    }`,
    { cause },
  );
}
