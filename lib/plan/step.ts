/**
 * Ring 0. The words of a plan: steps, each of which becomes one statement.
 *
 * @module
 */

import type { Cell, Refusal } from "../chain/message.ts";
import type { Table } from "../schema.ts";

/** One row of a step: what it came from. */
export interface StepRow {
  /** The message that decided it; null for a page's row. */
  readonly msgId: string | null;
  /** The key as the source rendered it; null if it is among the cells. */
  readonly key: readonly Cell[] | null;
  /** The cells as the replica stores them. */
  readonly cells: readonly Cell[];
}

/** What one statement does to rows of one table. */
export interface RowStep {
  /** The kind of the statement. An "update" creates no row: the rows it names exist.
   * A "repair" is an upsert of rows most of which are already as they should be. */
  readonly kind: "truncate" | "delete" | "update" | "upsert" | "repair";
  /** The table it changes. */
  readonly table: Table;
  /** Names of the cells: the key's columns for a delete. */
  readonly columns: readonly string[];
  /** How many rows; see {@linkcode rowsOf}. */
  readonly count: number;
  /** The rows' cells as JSON, sorted by key or by the indexed columns. */
  readonly json: string;
  /** In its place, the cells of one large row, which are bound one by one. */
  readonly large: readonly Cell[] | null;
  /** The message that decided each row; null for a page. */
  readonly msgIds: readonly string[] | null;
  /** Each row's key where it is not among the cells; null if all are. */
  readonly keys: readonly StepRow["key"][] | null;
}

/** Where the counts of a walk belong. */
export interface WalkOf {
  /** The number of the walk. */
  readonly walkGen: number;
  /** The table that is walked. */
  readonly table: Table;
}

/** Counts the rows of a step that the replica has otherwise. */
export interface CompareStep extends Omit<RowStep, "kind"> {
  /** The kind of the step. */
  readonly kind: "compare";
  /** The kind that would repair them. */
  readonly of: RowStep["kind"];
  /** Where its count belongs. */
  readonly walk: WalkOf;
}

/** Counts rows whose key is stored with a wrong type, and deletes them. */
export interface StraysStep {
  /** The kind of the step. */
  readonly kind: "strays";
  /** The table. */
  readonly table: Table;
  /** Whether the rows are deleted, or counted only. */
  readonly repair: boolean;
  /** Where its count belongs. */
  readonly walk: WalkOf;
}

/** Counts what the step before it changed, and how far the walk is. */
export interface TallyStep {
  /** The kind of the step. */
  readonly kind: "tally";
  /** Where its counts belong. */
  readonly walk: WalkOf;
  /** What the step before it found. */
  readonly found: "differing" | "ghosts" | null;
  /** Rows that were looked at. */
  readonly rows: number;
  /** Whether the whole table was walked. */
  readonly ended: boolean;
  /** Why it could not be read at the source, as an SQLSTATE. */
  readonly failed: string | null;
}

/** Drops an index of an empty table; it is built once the table is filled. */
export interface UnindexStep {
  /** The kind of the step. */
  readonly kind: "unindex";
  /** The table. */
  readonly table: Table;
  /** The columns of the index. */
  readonly index: readonly string[];
}

/** Puts a table that was rebuilt in the place of the old one. */
export interface SwapStep {
  /** Which half of it: the old table goes, the new one takes its name. */
  readonly kind: "drop" | "rename";
  /** The table. */
  readonly table: Table;
}

/** What one statement does. */
export type Step =
  | RowStep
  | CompareStep
  | StraysStep
  | TallyStep
  | UnindexStep
  | SwapStep;

/** A batch ready to be applied. */
export interface Plan<S extends Step = Step> {
  /** What to do, in order. */
  readonly steps: readonly S[];
  /** What to park that is not parked yet. */
  readonly refusals: readonly Refusal[];
}

/**
 * A step over some rows. It keeps their text and not the rows: these are many
 * times as large, and needed only if the replica refuses one.
 *
 * @param kind The kind of its statement.
 * @param table The table.
 * @param columns The names of the rows' cells.
 * @param rows The rows.
 * @param isLarge Whether it is one row that is bound cell by cell.
 * @returns The step.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const table = { name: "t", key: ["id"], columns: [], indexes: [] };
 * const rows = [{ msgId: null, key: null, cells: ["1"] }];
 * assertEquals(stepOf("delete", table, ["id"], rows).json, '[["1"]]');
 * ```
 */
export function stepOf(
  kind: RowStep["kind"],
  table: Table,
  columns: readonly string[],
  rows: readonly StepRow[],
  isLarge = false,
): RowStep {
  return {
    kind,
    table,
    columns,
    count: rows.length,
    json: isLarge ? "" : JSON.stringify(rows.map((row) => row.cells)),
    large: isLarge ? rows[0]!.cells : null,
    msgIds: rows.some(({ msgId }) => msgId !== null)
      ? rows.map(({ msgId }) => msgId!)
      : null,
    keys: rows.some(({ key }) => key !== null)
      ? rows.map(({ key }) => key)
      : null,
  };
}

/**
 * The rows of a step.
 *
 * @param step The step.
 * @returns Its rows, in order.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const table = { name: "t", key: ["id"], columns: [], indexes: [] };
 * const rows = [{ msgId: "7", key: null, cells: ["1"] }];
 * assertEquals(rowsOf(stepOf("delete", table, ["id"], rows)), rows);
 * ```
 */
export function rowsOf(
  { json, large, msgIds, keys }: Pick<
    RowStep,
    "json" | "large" | "msgIds" | "keys"
  >,
): StepRow[] {
  const rows: (readonly Cell[])[] = large === null ? JSON.parse(json) : [large];
  return rows.map((cells, at) => ({
    msgId: msgIds?.[at] ?? null,
    key: keys?.[at] ?? null,
    cells,
  }));
}

/**
 * The key of a row as the source rendered it.
 *
 * @param table The table.
 * @param row The row, and the names of its cells.
 * @returns The key.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(keyOf({ key: ["b"] }, { columns: ["a", "b"], cells: ["1", "2"], key: null }), ["2"]);
 * ```
 */
export function keyOf(
  table: Pick<Table, "key">,
  { key, columns, cells }: {
    key: readonly Cell[] | null;
    columns: readonly string[];
    cells: readonly Cell[] | null;
  },
): readonly Cell[] {
  return key ??
    table.key.map((name) => cells![columns.indexOf(name)] ?? null);
}
