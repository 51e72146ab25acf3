/**
 * Ring 0. Cells, queue messages and parked changes: what both sides of the chain speak of.
 *
 * @module
 */

/** One cell as the source renders it. */
export type Cell = string | null;

/**
 * A queue message: its id and its JSON value. Messages of one row each may come
 * as one, with an id for each of its rows. If their columns differ, `kinds` lists
 * each set once, `{columns, field}`, and `of` says which one a row has; `field` is
 * the field of the message that held the row, `rows` or `updates`.
 */
export type Message = readonly [string | readonly string[], unknown];

/** A parked change. */
export interface Refusal {
  /** The message it came in; null for a page. */
  readonly msgId: string | null;
  /** Its table; null where the message names none that is listed. */
  readonly table: string | null;
  /** Its key as the source rendered it; null for a whole message. */
  readonly key: readonly Cell[] | null;
  /** Why, without a value. */
  readonly reason: string;
}

/**
 * The cells at some places.
 *
 * @param cells The cells.
 * @param places The index of each; -1 stands for a cell that is missing.
 * @returns The cells in the order of the places, null for a missing one.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(cellsAt(["a", "b"], [1, 0, -1]), ["b", "a", null]);
 * ```
 */
export function cellsAt(
  cells: readonly Cell[],
  places: readonly number[],
): Cell[] {
  return places.map((at) => cells[at] ?? null);
}

/**
 * Whether a value is a row of cells.
 *
 * @param value The value.
 * @returns Whether it is a list of texts and nulls.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals([isCells(["a", null]), isCells([5])], [true, false]);
 * ```
 */
export function isCells(value: unknown): value is Cell[] {
  if (!Array.isArray(value)) return false;
  for (let at = 0; at < value.length; at++) {
    if (value[at] !== null && typeof value[at] !== "string") return false;
  }
  return true;
}

/**
 * Whether a value is rows of cells.
 *
 * @param value The value.
 * @param length How many cells a row has.
 * @returns Whether it is a list of such rows.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals([isRows([["a"]], 1), isRows([["a"]], 2)], [true, false]);
 * ```
 */
export function isRows(value: unknown, length: number): value is Cell[][] {
  if (!Array.isArray(value)) return false;
  for (let at = 0; at < value.length; at++) {
    const row = value[at];
    if (!isCells(row) || row.length !== length) return false;
  }
  return true;
}
