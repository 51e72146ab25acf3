/**
 * Ring 0. The one error class a flow decides on, with its closed list of codes.
 *
 * Promise: an error says whether trying again can help, and its message never
 * holds a row value, a secret or a connection string.
 *
 * @module
 */

/** What can go wrong, and whether the same request may succeed later. */
export const CODES = {
  /** Settings are missing or malformed. */
  config_invalid: false,
  /** schema.json is malformed. */
  schema_invalid: false,
  /** The request's query is malformed. */
  bad_request: false,
  /** The body is longer than a signature may speak of. */
  body_too_large: false,
  /** The signature is missing or wrong. */
  unauthorized: false,
  /** No such path. */
  not_found: false,
  /** The path exists, the method does not. */
  method_not_allowed: false,
  /** PostgreSQL did not answer, or not in time. */
  source_unreachable: true,
  /** PostgreSQL answered with an error of its own. */
  source_failed: false,
  /** The libsql_sync functions are not there, or may not be called. */
  source_not_installed: false,
  /** libSQL did not answer, or not in time, or asked to come back later. */
  replica_unreachable: true,
  /** libSQL refused the token. */
  replica_unauthorized: false,
  /** libSQL has no room left. */
  replica_full: false,
  /** The replica's chain refused a move: it does not stand where we thought. */
  replica_moved: true,
  /** A table or column is missing in the replica. */
  replica_schema: true,
  /** The replica refused the content of a statement. */
  replica_refused: false,
  /** The replica has applied a batch this source never recorded. */
  replica_ahead: false,
  /** The replica belongs to another source. */
  replica_foreign: false,
  /** This worker's schema.json is older than the installed one. */
  schema_outdated: false,
  /** This worker's schema.json is not installed at the source. */
  schema_unknown: false,
  /** Worker and source functions do not belong together. */
  version_mismatch: false,
  /** /nuke recorded its new epoch; a later /sync carries it out. */
  nuke_pending: true,
  /** /nuke named an epoch that is no longer in force. */
  epoch_moved: false,
  /** Anything else: a bug. */
  internal: false,
} as const;

/** A code from the closed list. */
export type ErrorCode = keyof typeof CODES;

/**
 * A condition a flow decides on.
 *
 * @example A transient failure may be tried again
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const error = new SyncError("replica_unreachable", "Cannot reach libSQL");
 * assertEquals(error.code, "replica_unreachable");
 * assertEquals(error.retry, true);
 * ```
 */
export class SyncError extends Error {
  /** The class, as logs name it. */
  override readonly name = "SyncError";
  /** The code, from the closed list. */
  readonly code: ErrorCode;
  /** Whether trying again can help. */
  readonly retry: boolean;

  /**
   * Makes an error.
   *
   * @param code A code from the closed list.
   * @param message The action, what was expected, what was found, what to do.
   * @param options The cause, kept for debugging; it is never shown or logged.
   */
  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.retry = CODES[code];
  }
}
