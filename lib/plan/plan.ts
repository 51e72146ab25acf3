/**
 * Ring 0. The rows of a batch become the steps that change the replica.
 *
 * Promise: the same rows always make the same steps, and each step fits into one
 * statement's argument; a row that cannot be stored exactly makes none.
 *
 * @module
 */

import type { Cell, Refusal, TableRows, Unusable } from "../chain/rows.ts";
import { SyncError } from "../errors.ts";
import { ARGUMENT_LENGTH_MAX, bytesOf, chunk, type Group } from "./chunk.ts";
import { convert } from "./convert.ts";
import {
  keyOf,
  type Plan,
  type RowStep,
  stepOf,
  type StepRow,
} from "./step.ts";
import {
  type ColumnType,
  isStoredAsNumber,
  type Schema,
  type Table,
  typeOf,
} from "../schema.ts";

/** A row over this is bound cell by cell: its JSON might pass 5,000,000 bytes. */
const ROW_JSON_BYTES_MAX = 4_000_000;

/** sqld takes rows of 5,000,000 bytes; the rest is the row's own header. */
const ROW_BYTES_MAX = 4_990_000;

/**
 * Makes the planner of a schema's batches.
 *
 * @param schema The tables that are replicated.
 * @returns A function of a batch's tables and unusable messages; it throws
 * `source_failed` if a table is not the schema's.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { parseSchema } from "../schema.ts";
 *
 * const plan = createPlanner(parseSchema({
 *   tables: { t: { key: "id", columns: { id: "INTEGER", a: "TEXT" }, indexes: [] } },
 * }));
 * const rows = [["2", "b"], ["1", "a"]];
 * const t = { table: "t", truncate: false, columns: ["id", "a"], rows, gone: [], broken: [] };
 * const { steps } = plan([t], []);
 * assertEquals(steps.map((step) => step.json), ['[["1","a"],["2","b"]]']);
 * ```
 */
export function createPlanner(
  schema: Schema,
): (
  tables: readonly TableRows[],
  unusable: readonly Unusable[],
) => Plan<RowStep> {
  const tableOf = createTableFinder(schema);
  return (tables, unusable) => {
    const plans = tables.map((rows) => {
      const table = tableOf(rows);
      const writes = writesOf(table, rows.columns);
      return planTable(table, rows, { writes });
    });
    return {
      steps: plans.flatMap(({ steps }) => steps),
      refusals: [
        ...unusable.map((messages) => ({ ...messages, key: null })),
        ...plans.flatMap(({ refusals }) => refusals),
      ],
    };
  };
}

/**
 * Makes the function that finds the table some rows are of.
 *
 * @param schema The tables that are replicated.
 * @returns A function of the rows; it throws `source_failed` if the schema has no such
 * table, or another key or columns: a batch is handed out only where both sides have
 * one schema.
 *
 * @example
 * ```ts
 * import { assertThrows } from "@std/assert";
 *
 * const find = createTableFinder({ tables: [] });
 * const rows = { columns: [], rows: [], gone: [], broken: [] };
 * assertThrows(() => find({ table: "t", ...rows }), Error, "table t");
 * ```
 */
export function createTableFinder(
  schema: Schema,
): (rows: Omit<TableRows, "truncate">) => Table {
  const tables = new Map(schema.tables.map((table) => [table.name, table]));
  return ({ table: name, columns, rows, gone, broken }) => {
    const table = tables.get(name);
    const listed = new Set(table?.columns.map((column) => column.name));
    const length = table?.key.length;
    const keys = [...gone, ...broken.map(({ key }) => key)];
    if (
      table === undefined ||
      !columns.every((column) => listed.delete(column)) ||
      rows.length > 0 &&
        !table.key.every((column) => columns.includes(column)) ||
      !keys.every((key) => key.length === length)
    ) {
      throw new SyncError(
        "source_failed",
        `Cannot read the source's rows of table ${name}: expected the columns and the key of schema.json, found others; install the migration that belongs to this worker`,
      );
    }
    return table;
  };
}

/** How changed rows are written: SQLite maintains every index whose column is set, changed or not. */
function writesOf(
  table: Table,
  columns: readonly string[],
): readonly RowStep["kind"][] {
  return indexedOf(table, columns).length > 0
    ? ["update", "write"]
    : ["upsert"];
}

/**
 * The columns beside the key that have an index in the replica.
 *
 * @param table The table.
 * @param columns The columns to choose from.
 * @returns Those of them, in their order.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const table = { key: ["id"], indexes: [["id", "a"]] };
 * assertEquals(indexedOf(table, ["id", "a", "b"]), ["a"]);
 * ```
 */
export function indexedOf(
  { key, indexes }: Pick<Table, "key" | "indexes">,
  columns: readonly string[],
): string[] {
  const indexed = new Set(indexes.flat());
  return columns.filter((name) => indexed.has(name) && !key.includes(name));
}

/**
 * Plans the rows of one table: a truncate, deletes, then the rows.
 *
 * @param table The table.
 * @param rows Its rows; their cells are converted in place.
 * @param options The kinds of statements that write a row, one after another, and the
 * identities of rows that are left out.
 * @returns The steps, and what to park.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const table = { name: "t", key: ["id"], columns: [{ name: "id", type: "INTEGER" as const }], indexes: [] };
 * const rows = { truncate: false, columns: ["id"], rows: [["5"]], gone: [["7.0"]], broken: [] };
 * const { steps } = planTable(table, rows, { writes: ["upsert"] });
 * assertEquals(steps.map(({ kind, json }) => [kind, json]), [["delete", '[["7"]]'], ["upsert", '[["5"]]']]);
 * ```
 */
export function planTable(
  table: Table,
  { truncate, columns, rows, gone, broken }: Omit<TableRows, "table">,
  { writes, skipped = [] }: {
    writes: readonly RowStep["kind"][];
    skipped?: readonly (readonly Cell[])[];
  },
): Plan<RowStep> {
  const refusals: Refusal[] = [];
  const left = new Set(skipped.map((key) => JSON.stringify(key)));
  const isLeft = (key: readonly Cell[]) => left.has(JSON.stringify(key));
  const refuse = (key: readonly Cell[], reason: string) => {
    if (!isLeft(key)) refusals.push({ table: table.name, key, reason });
  };
  for (const { key, reason } of broken) refuse(key, reason);
  const group: Group = { kind: writes[0]!, columns, rows: [], lengths: [] };
  const large: RowStep[] = [];
  const convertRow = createRowConverter(table, columns);
  for (const cells of rows) {
    const row = convertRow(cells as Cell[]);
    if (left.size > 0 && isLeft(keyOf(table, { columns, ...row }))) continue;
    const isLarge = row.length > ARGUMENT_LENGTH_MAX &&
      bytesOf(JSON.stringify(row.cells)) > ROW_JSON_BYTES_MAX;
    const reason = row.reason ?? (isLarge ? tooLarge(row.cells) : null);
    if (reason !== null) refuse(keyOf(table, { columns, ...row }), reason);
    else if (isLarge) {
      // One statement says all of one row, and sends it once.
      const kind = writes.length === 1 ? writes[0]! : "upsert";
      large.push(stepOf(kind, table, columns, [row], true));
    } else {
      group.rows.push(row);
      group.lengths.push(row.length);
    }
  }
  const steps: RowStep[] = [];
  if (truncate) steps.push(stepOf("truncate", table, [], []));
  steps.push(...chunk(table, goneOf(table, gone)));
  for (const step of chunk(table, group)) {
    for (const kind of writes) steps.push({ ...step, kind });
  }
  return { steps: [...steps, ...large], refusals };
}

/** The keys that are deleted: one that no replica can hold is in none. */
function goneOf(table: Table, gone: TableRows["gone"]): Group {
  const convertKey = createRowConverter(table, table.key);
  const rows = gone.map((key) => convertKey(key as Cell[]))
    .filter(({ reason }) => reason === null);
  const lengths = rows.map(({ length }) => length);
  return { kind: "delete", columns: table.key, rows, lengths };
}

/** Why libSQL cannot hold a row; null if it can. */
function tooLarge(cells: readonly Cell[]): string | null {
  const bytes = cells.reduce((sum, cell) => sum + bytesOf(cell ?? ""), 0);
  return bytes > ROW_BYTES_MAX
    ? `row too large: expected at most ${ROW_BYTES_MAX} bytes, found ${bytes}`
    : null;
}

/** A row whose cells are those of the replica. */
interface Converted extends StepRow {
  /** How long they are, in characters of JSON, without what is escaped. */
  readonly length: number;
  /** Why they cannot be; null if they are. */
  readonly reason: string | null;
}

/** Makes a row's cells those of the replica, in place. */
function createRowConverter(
  table: Table,
  columns: readonly string[],
): (cells: Cell[]) => Converted {
  // Text goes as it is.
  const numbers = columns.map((name): ColumnType | null => {
    const type = typeOf(table, name);
    return isStoredAsNumber(type) ? type : null;
  });
  const isKey = columns.map((name) => table.key.includes(name));
  // This runs for each cell: it allocates nothing for one that is stored as it is.
  return (cells) => {
    let key: readonly Cell[] | null = null;
    let length = 0;
    for (let at = 0; at < numbers.length; at++) {
      const cell = cells[at] ?? null;
      const type = numbers[at]!;
      length += 3 + (cell === null ? 1 : cell.length);
      if (type === null && cell !== null) continue;
      try {
        if (cell === null) {
          if (!isKey[at]) continue;
          throw new RangeError("expected a key, found NULL");
        }
        const converted = convert(cell, type!);
        if (converted === cell) continue;
        if (isKey[at]) key ??= keyOf(table, { key, columns, cells });
        cells[at] = converted;
      } catch (error) {
        if (!(error instanceof RangeError)) throw error;
        const reason = `column ${columns[at]}: ${error.message}`;
        return { key, cells, length, reason };
      }
    }
    return { key, cells, length, reason: null };
  };
}
