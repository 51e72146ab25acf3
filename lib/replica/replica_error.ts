/**
 * Ring 0. What libSQL's client throws, as a condition that a flow can decide on.
 *
 * Promise: an error's sentence holds no word of the database: it may quote a value.
 *
 * @module
 */

import { SyncError } from "../errors.ts";
import { GUARD } from "./guard.ts";

/**
 * The error of a replica that stands elsewhere than was expected.
 *
 * @param cause What the move failed with.
 * @returns The error.
 */
export function moved(cause: SyncError): SyncError {
  return new SyncError(
    "replica_moved",
    "Cannot move the replica: it does not stand where it was expected",
    { cause },
  );
}

/**
 * Which statement of a batch failed.
 *
 * @param error The error of {@linkcode translate}.
 * @returns The statement's index, 0 for the move, and SQLite's code; null if no single
 * statement did.
 */
export function failureOf(
  error: SyncError,
): { statement: number; code: string } | null {
  const { statementIndex, code } = error.cause as {
    statementIndex?: unknown;
    code?: unknown;
  };
  return typeof statementIndex === "number" && typeof code === "string"
    ? { statement: statementIndex, code }
    : null;
}

/** SQLite codes that say the content is at fault. */
const CONTENT = /^SQLITE_(CONSTRAINT|MISMATCH|TOOBIG|RANGE)/;

/**
 * Translates what the client threw.
 *
 * @param error What it threw.
 * @returns The condition, with the error as its cause.
 */
export function translate(error: unknown): SyncError {
  const { code, message, cause } = error as {
    code?: unknown;
    message?: string;
    cause?: { status?: unknown };
  };
  const text = message ?? "";
  const state = typeof code === "string" ? code : "";
  const status = cause?.status;
  const make = (
    errorCode: ConstructorParameters<typeof SyncError>[0],
    sentence: string,
  ) => new SyncError(errorCode, sentence, { cause: error });
  if (text.includes(GUARD)) {
    return make(
      "replica_moved",
      "Cannot apply: the replica's guard refused the move, as it is not the next one",
    );
  }
  // "no such table", "no such column", "ON CONFLICT clause does not match ...".
  if (/^SQLITE_(UNKNOWN|ERROR)/.test(state)) {
    return make(
      "replica_schema",
      `Cannot apply: expected the tables, columns and keys of schema.json in the replica, found others (${state})`,
    );
  }
  if (status === 401 || status === 403) {
    return make(
      "replica_unauthorized",
      `Cannot use libSQL: it answered HTTP ${status}; check LIBSQL_AUTH_TOKEN, which needs full access`,
    );
  }
  if (/^SQLITE_FULL/.test(state)) {
    return make("replica_full", "Cannot apply: libSQL has no room left");
  }
  if (CONTENT.test(state)) {
    return make(
      "replica_refused",
      `Cannot apply: libSQL refused the content of a statement with ${state}`,
    );
  }
  return make(
    "replica_unreachable",
    `Cannot reach libSQL: expected an answer, found ${
      typeof status === "number" ? `HTTP ${status}` : state || "no connection"
    }; check LIBSQL_URL, or try again later`,
  );
}
