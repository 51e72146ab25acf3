/**
 * Ring 0. Cells, rows and parked rows: what both sides of the chain speak of.
 *
 * @module
 */

/** One cell as the source renders it. */
export type Cell = string | null;

/** A row of the source that could not be read. */
export interface Broken {
  /** Its key. */
  readonly key: readonly Cell[];
  /** Why, without a value. */
  readonly reason: string;
}

/** What a batch brings of one table: the rows of some keys, as its snapshot has them. */
export interface TableRows {
  /** The table. */
  readonly table: string;
  /** Whether every row goes first: the table is empty in the snapshot. */
  readonly truncate: boolean;
  /** The names of the cells. */
  readonly columns: readonly string[];
  /** The rows, whole. */
  readonly rows: readonly (readonly Cell[])[];
  /** Keys of which there is no row, in the order of the table's key, as all keys are. */
  readonly gone: readonly (readonly Cell[])[];
  /** Rows that could not be read. */
  readonly broken: readonly Broken[];
}

/** Messages that say no key. */
export interface Unusable {
  /** Their table; null where they name none that is listed. */
  readonly table: string | null;
  /** Why, without a value. */
  readonly reason: string;
}

/** A row that is parked, or messages that say no key. */
export interface Refusal {
  /** Its table; null where messages name none that is listed. */
  readonly table: string | null;
  /** Its key as the source rendered it; null for messages. */
  readonly key: readonly Cell[] | null;
  /** Why, without a value. */
  readonly reason: string;
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
