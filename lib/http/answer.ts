/**
 * Ring 3. From an outcome to a response.
 *
 * Promise: every error code has its status, no response is cached, and none
 * holds words that are not our own.
 *
 * @module
 */

import { type ErrorCode, SyncError } from "../errors.ts";

const RETRY_AFTER_S = "5";

/** The list is closed: a new code does not compile until it has a status. */
const STATUS: Record<ErrorCode, number> = {
  bad_request: 400,
  body_too_large: 413,
  config_invalid: 500,
  schema_invalid: 500,
  unauthorized: 401,
  not_found: 404,
  method_not_allowed: 405,
  source_unreachable: 503,
  source_failed: 502,
  source_not_installed: 500,
  replica_unreachable: 503,
  replica_unauthorized: 500,
  replica_full: 507,
  replica_moved: 503,
  replica_schema: 503,
  replica_refused: 502,
  replica_ahead: 409,
  replica_foreign: 409,
  schema_outdated: 409,
  schema_unknown: 409,
  version_mismatch: 409,
  nuke_pending: 503,
  epoch_moved: 409,
  internal: 500,
};

/** What may be said of an error. */
export interface Explained {
  /** Its code. */
  readonly code: ErrorCode;
  /** The status of that code. */
  readonly status: number;
  /** A sentence for the caller and the log. */
  readonly message: string;
  /** The error's class, for the log; set if nothing else is known of it. */
  readonly class: string | undefined;
}

/**
 * Finds what may be said of an error: only the words of a SyncError are known
 * to hold no data.
 *
 * @param error What was thrown.
 * @returns Its code, status, message and class.
 */
export function explain(error: unknown): Explained {
  const { code, message } = error instanceof SyncError ? error : {
    code: "internal" as const,
    message: "Unexpected error; the log names its class.",
  };
  return {
    code,
    status: STATUS[code],
    message,
    class: code === "internal" ? className(error) : undefined,
  };
}

function className(error: unknown): string {
  const name = error instanceof Error ? error.name : "";
  return /^[A-Za-z]\w{0,63}$/.test(name) ? name : "unknown";
}

/**
 * Makes the response to a request that failed.
 *
 * @param code The error's code.
 * @param message A sentence for the caller.
 * @param headers More headers.
 * @returns The response.
 */
export function respondError(
  code: ErrorCode,
  message: string,
  headers: Record<string, string> = {},
): Response {
  const status = STATUS[code];
  return respondJson(status, { success: false, error: code, message }, {
    ...headers,
    ...(status === 503 ? { "Retry-After": RETRY_AFTER_S } : {}),
  });
}

/**
 * Makes a response of JSON.
 *
 * @param status The HTTP status.
 * @param body The JSON's value.
 * @param headers More headers.
 * @returns The response.
 */
export function respondJson(
  status: number,
  body: Record<string, unknown>,
  headers: Record<string, string> = {},
): Response {
  return respond(JSON.stringify(body), "application/json", { status, headers });
}

/**
 * Makes a response.
 *
 * @param body The text.
 * @param type Its media type.
 * @param options The HTTP status and more headers.
 * @returns The response.
 */
export function respond(
  body: string,
  type: string,
  options: { status?: number; headers?: Record<string, string> } = {},
): Response {
  const { status = 200, headers } = options;
  // Bunny puts a cache in front of the worker.
  return new Response(body, {
    status,
    headers: { "Content-Type": type, "Cache-Control": "no-store", ...headers },
  });
}
