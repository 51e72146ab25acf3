/**
 * Ring 0. The words of a plan: steps, each of which becomes one statement.
 *
 * @module
 */

import type { Cell, Refusal } from "../chain/rows.ts";
import type { Table } from "../schema.ts";

/** One row of a step. */
export interface StepRow {
  /** The key as the source rendered it; null if it is among the cells. */
  readonly key: readonly Cell[] | null;
  /** The cells as the replica stores them. */
  readonly cells: readonly Cell[];
}

/** What one statement does to rows of one table. */
export interface RowStep {
  /**
   * The kind of the statement. An "update" writes rows that are there and have other
   * values in indexed columns, and a "write" after it makes the missing ones, and needs
   * to set no indexed column. An "upsert" does both at once. A "repair" is an upsert of
   * rows most of which are already as they should be.
   */
  readonly kind:
    | "truncate"
    | "delete"
    | "update"
    | "write"
    | "upsert"
    | "repair";
  /** The table it changes. */
  readonly table: Table;
  /** Names of the cells: the key's columns for a delete. */
  readonly columns: readonly string[];
  /** How many rows; see {@linkcode rowsOf}. */
  readonly count: number;
  /** The rows' cells as JSON, sorted. */
  readonly json: string;
  /** In its place, the cells of one large row, which are bound one by one. */
  readonly large: readonly Cell[] | null;
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
  /** What to park. */
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
 * const rows = [{ key: null, cells: ["1"] }];
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
  return { kind, table, columns, ...contentOf(rows, isLarge) };
}

/** Rows as a step keeps them. */
function contentOf(
  rows: readonly StepRow[],
  isLarge: boolean,
): Pick<RowStep, "count" | "json" | "large" | "keys"> {
  return {
    count: rows.length,
    json: isLarge ? "" : JSON.stringify(rows.map((row) => row.cells)),
    large: isLarge ? rows[0]!.cells : null,
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
 * const rows = [{ key: null, cells: ["1"] }];
 * assertEquals(rowsOf(stepOf("delete", table, ["id"], rows)), rows);
 * ```
 */
export function rowsOf(
  { json, large, keys }: Pick<RowStep, "json" | "large" | "keys">,
): StepRow[] {
  const rows: (readonly Cell[])[] = large === null ? JSON.parse(json) : [large];
  return rows.map((cells, at) => ({ key: keys?.[at] ?? null, cells }));
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
  { key, columns, cells }: StepRow & { columns: readonly string[] },
): readonly Cell[] {
  return key ?? table.key.map((name) => cells[columns.indexOf(name)] ?? null);
}

/**
 * Steps without rows that are parked.
 *
 * @param steps The steps.
 * @param refusals The rows to leave out.
 * @returns As many steps: one of which no row is left stays, as what follows it counts
 * what it changed.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const table = { name: "t", key: ["id"], columns: [], indexes: [] };
 * const rows = ["1", "2"].map((id) => ({ key: null, cells: [id] }));
 * const steps = [stepOf("upsert", table, ["id"], rows)];
 * const left = without(steps, [{ table: "t", key: ["1"], reason: "refused" }]);
 * assertEquals(left, [stepOf("upsert", table, ["id"], rows.slice(1))]);
 * ```
 */
export function without(
  steps: readonly Step[],
  refusals: readonly Refusal[],
): Step[] {
  const parked = new Set(refusals.map(identityOf));
  const tables = new Set(refusals.map(({ table }) => table));
  return steps.map((step) => {
    if (!("json" in step) || !tables.has(step.table.name)) return step;
    const { table, columns } = step;
    const rows = rowsOf(step).filter((row) =>
      !parked.has(
        identityOf({
          table: table.name,
          key: keyOf(table, { columns, ...row }),
        }),
      )
    );
    return rows.length === step.count
      ? step
      : { ...step, ...contentOf(rows, false) };
  });
}

/**
 * What two refusals of one row have in common.
 *
 * @param refusal The table and the key.
 * @returns A text.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(identityOf({ table: "t", key: ["1"] }), '["t",["1"]]');
 * ```
 */
export function identityOf(
  { table, key }: Pick<Refusal, "table" | "key">,
): string {
  return JSON.stringify([table, key]);
}
