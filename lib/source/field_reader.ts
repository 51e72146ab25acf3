/**
 * Ring 0. A checked reader of what the source answers.
 *
 * Promise: a field has the type that its reader says, or the read fails.
 *
 * @module
 */

import { type Cell, isCells, isRows } from "../chain/rows.ts";
import { parsePlace } from "../chain/walk_place.ts";
import { SyncError } from "../errors.ts";

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
  /** A list of keys. */
  keys(name: string): Cell[][];
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
 * const answer = readFields({ n: 5, gone: [["1"], ["2"]] });
 * assertEquals(answer.number("n"), 5);
 * assertEquals(answer.keys("gone"), [["1"], ["2"]]);
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
      const value = this.list(name);
      return value.every(isCells) ? value : fail(`a list of keys "${name}"`);
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
