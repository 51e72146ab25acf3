/**
 * Ring 0. A checked reader of what the source answers.
 *
 * Promise: a field has the type that its reader says, or the read fails.
 *
 * @module
 */

import { type Cell, isCells, isRows, type Message } from "../chain/message.ts";
import { parsePlace } from "../chain/walk_place.ts";
import { SyncError } from "../errors.ts";

/** Whether a message can be so many that came as one: see {@linkcode Message}. */
function isMerged(message: unknown, count: number): boolean {
  const { kinds, of, rows, updates } = (message ?? {}) as Record<
    string,
    unknown
  >;
  const isList = (list: unknown) =>
    Array.isArray(list) && list.length === count;
  if (kinds === undefined) return isList(rows) !== isList(updates);
  return Array.isArray(kinds) && isList(rows) && isList(of) &&
    (of as unknown[]).every((kind) =>
      /^(rows|updates)$/.test(String(kinds[kind as number]?.field))
    );
}

/** A checked reader of an answer's fields; each function takes a field's name. */
export interface Fields {
  /** A field as it is. */
  value(name: string): unknown;
  /** A text. */
  text(name: string): string;
  /** A whole number that a double holds exactly. */
  number(name: string): number;
  /** True or false. */
  flag(name: string): boolean;
  /** A text; null if it is null or missing. */
  textOrNull(name: string): string | null;
  /** A list of anything. */
  list(name: string): unknown[];
  /** A list of texts. */
  texts(name: string): string[];
  /** A list of texts and nulls. */
  cells(name: string): Cell[];
  /** A list of rows with so many cells each. */
  rows(name: string, length: number): Cell[][];
  /** The keys of a list; entries that are not keys are left out. */
  keys(name: string): Cell[][];
  /** Messages with their ids. */
  messages(name: string): Message[];
  /** A place in a walk, as its text; null if none is open. */
  place(name: string): string | null;
  /** One of some words. */
  oneOf<const T extends string>(name: string, words: readonly T[]): T;
}

/**
 * Reads an answer, field by field.
 *
 * @param answer The answer, or a part of it.
 * @returns A function for each kind of field, which takes its name.
 * @throws {SyncError} `source_failed`, as do the functions, where something
 * else is found than is expected.
 *
 * @example
 * ```ts
 * import { assertEquals, assertThrows } from "@std/assert";
 *
 * const answer = readFields({ n: 5, key: [["1"], "odd"] });
 * assertEquals(answer.number("n"), 5);
 * assertEquals(answer.keys("key"), [["1"]]);
 * assertThrows(() => answer.text("n"), Error, 'expected a text "n"');
 * ```
 */
export function readFields(answer: unknown): Fields {
  const fail = (expected: string): never => {
    throw new SyncError(
      "source_failed",
      `Cannot read the source's answer: expected ${expected}; install the migration that belongs to this worker`,
    );
  };
  if (typeof answer !== "object" || answer === null) fail("an object");
  const fields = answer as Record<string, unknown>;
  return {
    value: (name: string): unknown => fields[name],
    text(name: string): string {
      const value = fields[name];
      return typeof value === "string" ? value : fail(`a text "${name}"`);
    },
    number(name: string): number {
      const value = fields[name];
      return Number.isSafeInteger(value)
        ? value as number
        : fail(`a whole number "${name}"`);
    },
    flag(name: string): boolean {
      const value = fields[name];
      return typeof value === "boolean"
        ? value
        : fail(`true or false in "${name}"`);
    },
    textOrNull(name: string): string | null {
      const value = fields[name] ?? null;
      return value === null || typeof value === "string"
        ? value
        : fail(`a text or null "${name}"`);
    },
    list(name: string): unknown[] {
      const value = fields[name];
      return Array.isArray(value) ? value : fail(`a list "${name}"`);
    },
    texts(name: string): string[] {
      const value = fields[name];
      return isCells(value) && !value.includes(null)
        ? value as string[]
        : fail(`a list of texts "${name}"`);
    },
    cells(name: string): Cell[] {
      const value = fields[name];
      return isCells(value) ? value : fail(`a list of cells "${name}"`);
    },
    rows(name: string, length: number): Cell[][] {
      const value = fields[name];
      return isRows(value, length)
        ? value
        : fail(`rows of ${length} cells "${name}"`);
    },
    keys(name: string): Cell[][] {
      return this.list(name).filter(isCells);
    },
    messages(name: string): Message[] {
      const value = fields[name];
      const isId = (id: unknown) => typeof id === "string";
      const isMessage = (of: unknown) =>
        Array.isArray(of) && of.length === 2 &&
        (isId(of[0]) ||
          Array.isArray(of[0]) && of[0].length > 0 && of[0].every(isId) &&
            isMerged(of[1], of[0].length));
      return Array.isArray(value) && value.every(isMessage)
        ? value
        : fail(`messages with their ids "${name}"`);
    },
    place(name: string): string | null {
      const value = this.textOrNull(name);
      try {
        parsePlace(value);
      } catch {
        fail(`a place in a walk "${name}"`);
      }
      return value;
    },
    oneOf<const T extends string>(name: string, words: readonly T[]): T {
      const value = fields[name];
      return words.includes(value as T)
        ? value as T
        : fail(`one of ${words.join(", ")} in "${name}"`);
    },
  };
}
