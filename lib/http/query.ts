/**
 * Ring 0. The fields that may follow "?", each described once.
 *
 * Promise: a flow receives no field that its path does not take, and no value
 * that its field does not allow.
 *
 * @module
 */

import { SyncError } from "../errors.ts";

/** What a field's text must be, and what value it stands for. */
export interface FieldKind<T> {
  /** Matches the texts that are allowed. */
  readonly pattern: RegExp;
  /** Says which those are. */
  readonly must: string;
  /** Returns the value of such a text. */
  readonly parse: (text: string) => T;
}

const FLAG: FieldKind<boolean> = {
  pattern: /^(true|false)$/,
  must: "be true or false",
  parse: (text) => text === "true",
};

/** PostgreSQL stores no U+0000 in a text. */
const TEXT: FieldKind<string> = {
  pattern: /^[^\0]*$/,
  must: "not contain U+0000",
  parse: String,
};

const NUMBER: FieldKind<string> = {
  pattern: /^[0-9]{1,18}$/,
  must: "be the number of a dead letter",
  parse: String,
};

/** Every field: whose it is, its default, and its kind. */
export const FIELDS = {
  /** backfill, verify: one table. Default: all tables. */
  table: TEXT,
  /** verify: whether it repairs what it finds. Default: false. */
  repair: FLAG,
  /** nuke: whether the next syncs fill the replica again. Default: true. */
  refill: FLAG,
  /** nuke: the epoch to end. Default: the one in force. */
  epoch: TEXT,
  /** status: whether it lists the newest dead letters, with their keys. Default: false. */
  letters: FLAG,
  /** redrive: the dead letter to try again. Default: all of them. */
  id: NUMBER,
};

/** The name of a field. */
export type FieldName = keyof typeof FIELDS;

/** The fields of one request. */
export type Query = {
  readonly [name in FieldName]?: ReturnType<typeof FIELDS[name]["parse"]>;
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
    const { pattern, must, parse } = FIELDS[name];
    if (!pattern.test(value)) {
      throw new SyncError("bad_request", `${name} must ${must}.`);
    }
    fields[name] = parse(value);
  }
  return fields;
}
