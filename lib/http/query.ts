/**
 * Ring 0. The fields that may follow "?", each described once.
 *
 * Promise: a flow receives no field that its path does not take, and no value
 * that its field does not allow.
 *
 * @module
 */

import { SyncError } from "../errors.ts";

/** Checks a field's text and returns its value. */
type Parse<T> = (name: string, text: string) => T;

const flag: Parse<boolean> = (name, text) => {
  if (text === "true" || text === "false") return text === "true";
  throw new SyncError("bad_request", `${name} must be true or false.`);
};

/** PostgreSQL stores no U+0000 in a text. */
const text: Parse<string> = (name, text) => {
  if (!text.includes("\0")) return text;
  throw new SyncError("bad_request", `${name} must not contain U+0000.`);
};

const id: Parse<string> = (name, text) => {
  if (/^[0-9]{1,18}$/.test(text)) return text;
  throw new SyncError(
    "bad_request",
    `${name} must be the number of a dead letter.`,
  );
};

/** Every field, with the check that its text must pass. */
const FIELDS = {
  /** backfill, verify: one table. Default: all tables. */
  table: text,
  /** verify: whether it repairs what it finds. Default: false. */
  repair: flag,
  /** nuke: whether the next syncs fill the replica again. Default: true. */
  refill: flag,
  /** nuke: the epoch to end. Default: the one in force. */
  epoch: text,
  /** status: whether it lists the newest dead letters, with their keys. Default: false. */
  letters: flag,
  /** redrive: the dead letter to try again. Default: all of them. */
  id,
};

/** The name of a field. */
export type FieldName = keyof typeof FIELDS;

/** The fields of one request. */
export type Query = {
  readonly [name in FieldName]?: ReturnType<typeof FIELDS[name]>;
};

/**
 * Reads the fields of a query.
 *
 * @param parameters What follows "?" in the address.
 * @param names The fields that the path takes. If it takes none, the query is
 * ignored.
 * @returns The fields that were given.
 * @throws {SyncError} `bad_request`: the path does not take the field, it is
 * given twice, or its value is not allowed.
 *
 * @example
 * ```ts
 * import { assertEquals, assertThrows } from "@std/assert";
 *
 * const read = (query: string) =>
 *   parseQuery(new URLSearchParams(query), ["table", "repair"]);
 * assertEquals(read("table=apps&repair=true"), { table: "apps", repair: true });
 * assertThrows(() => read("repair=yes"), Error, "repair must be true or false.");
 * ```
 */
export function parseQuery(
  parameters: URLSearchParams,
  names: readonly FieldName[] = [],
): Query {
  const fields: Record<string, string | boolean> = {};
  if (names.length === 0) return fields;
  for (const [key, value] of parameters) {
    const name = names.find((name) => name === key);
    if (name === undefined || name in fields) {
      throw new SyncError(
        "bad_request",
        `The query expects ${names.join(" and ")}, each at most once.`,
      );
    }
    fields[name] = FIELDS[name](name, value);
  }
  return fields;
}
