/**
 * Ring 1. Carries calls to the source over the PostgreSQL protocol.
 *
 * Promise: a call is one statement of the simple protocol: one round trip, no
 * session state, no named statement, so that any pooler can stand in between.
 *
 * @module
 */

import type { Sql } from "postgres";
import { SyncError } from "./errors.ts";
import type { Carrier } from "./claim.ts";

/**
 * Carries calls over an open postgres.js client.
 *
 * @param sql The client.
 * @param options How long a call may take, in milliseconds.
 * @returns The carrier.
 */
export function createPostgresCarrier(
  sql: Sql,
  options: { timeoutMs: number },
): Carrier {
  return {
    async call(name, request) {
      // Base64 has no character that SQL gives a meaning: whatever a key or a
      // table's name holds, it stays data, whatever the session's settings.
      const argument = base64(JSON.stringify(request));
      const query =
        `select libsql_sync.${name}(convert_from(decode('${argument}', 'base64'), 'UTF8')::json)::text as answer`;
      try {
        const rows = await within(
          options.timeoutMs,
          () => sql.unsafe<{ answer: string }[]>(query),
        );
        return JSON.parse(rows[0]!.answer);
      } catch (error) {
        throw translate(error, name);
      }
    },
  };
}

/** What the driver threw, as a condition a flow can decide on. */
function translate(error: unknown, name: string): SyncError {
  if (error instanceof SyncError) return error;
  const { code, message, severity } = error as Error & {
    code?: unknown;
    severity?: unknown;
  };
  const state = typeof code === "string" ? code : "";
  // Only the server's own errors have a severity: EPIPE looks like an SQLSTATE,
  // and a bundler renames classes.
  if (severity === undefined) {
    return new SyncError(
      "source_unreachable",
      `Cannot call libsql_sync.${name}: expected an answer of PostgreSQL, found ${
        state || "no connection"
      }; check PGMQ_URL and that the database accepts connections`,
      { cause: error },
    );
  }
  // 08 connection, 53 resources, 55P03 lock timeout, 57 operator or timeout, 40 lost race.
  if (/^(08|53|57|40|55P03)/.test(state)) {
    return new SyncError(
      "source_unreachable",
      `Cannot call libsql_sync.${name}: PostgreSQL answered SQLSTATE ${state}; try again later`,
      { cause: error },
    );
  }
  if (/^(42883|3F000|42501)$/.test(state)) {
    return new SyncError(
      "source_not_installed",
      `Cannot call libsql_sync.${name}: expected the function and the right to execute it, found SQLSTATE ${state}; apply the migration in supabase/migrations and check the role in PGMQ_URL`,
      { cause: error },
    );
  }
  if (/^(28|3D)/.test(state)) {
    return new SyncError(
      "config_invalid",
      `Cannot connect to PostgreSQL: SQLSTATE ${state}; check user, password and database in PGMQ_URL`,
      { cause: error },
    );
  }
  // Only our own functions raise P0001, and their sentences hold no value.
  return new SyncError(
    "source_failed",
    `Cannot call libsql_sync.${name}: PostgreSQL answered SQLSTATE ${state}${
      state === "P0001" ? `: ${message}` : ""
    }`,
    { cause: error },
  );
}

/** Waits for a query, and not longer. */
async function within<T>(
  timeoutMs: number,
  start: () => PromiseLike<T>,
): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() =>
      reject(
        new SyncError(
          "source_unreachable",
          `Cannot call the source: expected an answer within ${timeoutMs} ms, found none`,
        ),
      ), timeoutMs);
  });
  const query = Promise.resolve(start());
  query.catch(() => {});
  try {
    return await Promise.race([query, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** UTF-8 as base64, in pieces a call stack can take. */
function base64(text: string): string {
  const bytes = new TextEncoder().encode(text);
  let binary = "";
  for (let at = 0; at < bytes.length; at += 8192) {
    binary += String.fromCharCode(...bytes.subarray(at, at + 8192));
  }
  return btoa(binary);
}
