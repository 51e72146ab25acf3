/**
 * Ring 0. Sorts rows that are written alike, and cuts them into steps.
 *
 * Promise: each step fits into one statement's argument.
 *
 * @module
 */

import { type RowStep, stepOf, type StepRow } from "./step.ts";
import { type Table, typeOf } from "../schema.ts";

/** An argument holds at most 2 MB, or one row. */
const ARGUMENT_BYTES_MAX = 2_000_000;

/** Characters of an argument's cells: three bytes each, and a quote. */
export const ARGUMENT_LENGTH_MAX = 600_000;

const encoder = new TextEncoder();

/** Rows of a table that one kind of statement writes. */
export interface Group {
  /** The kind of the statement. */
  readonly kind: RowStep["kind"];
  /** The names of the rows' cells. */
  readonly columns: readonly string[];
  /** The rows. */
  readonly rows: StepRow[];
  /** Characters of their cells, row by row. */
  readonly lengths: number[];
}

/** Compares two rows of a group by their places in it. */
type Order = (a: number, b: number) => number;

/** The key's order: sqld's pages of the table one after another. */
function byKey(table: Table, { columns, rows }: Group): Order {
  const first = columns.indexOf(table.key[0]!);
  const isNumber = typeOf(table, table.key[0]!) === "INTEGER";
  const by = rows.map(({ cells }) =>
    isNumber ? Number(cells[first]) : cells[first]!
  );
  return (a, b) => by[a]! < by[b]! ? -1 : by[a]! > by[b]! ? 1 : a - b;
}

/** The order of the indexed columns: of each index few pages at a time. */
function byIndexes(table: Table, { columns, rows }: Group): Order {
  const places = [...new Set(table.indexes.flat())]
    .map((name) => columns.indexOf(name)).filter((at) => at >= 0);
  return (a, b) => {
    for (let n = 0; n < places.length; n++) {
      const one = rows[a]!.cells[places[n]!] ?? "";
      const other = rows[b]!.cells[places[n]!] ?? "";
      if (one !== other) return one < other ? -1 : 1;
    }
    return a - b;
  };
}

/** Steps of at most one argument each, sorted. Rows that an "update" and a "write" bring
 * may be new: such a row goes into every index. */
export function chunk(table: Table, group: Group): RowStep[] {
  const { kind, columns, rows, lengths } = group;
  const order = new Uint32Array(rows.length);
  for (let at = 0; at < order.length; at++) order[at] = at;
  order.sort(
    kind === "update" ? byIndexes(table, group) : byKey(table, group),
  );
  const steps: RowStep[] = [];
  let part: StepRow[] = [];
  let length = 0;
  const end = () => {
    if (part.length > 0) {
      steps.push(...fitted(kind, table, columns, part));
    }
    part = [];
    length = 0;
  };
  for (const at of order) {
    if (length + lengths[at]! > ARGUMENT_LENGTH_MAX) end();
    part.push(rows[at]!);
    length += lengths[at]!;
  }
  end();
  return steps;
}

/** Steps whose argument is not too large: much to escape makes it longer than its cells. */
function fitted(
  kind: RowStep["kind"],
  table: Table,
  columns: readonly string[],
  rows: readonly StepRow[],
): RowStep[] {
  const step = stepOf(kind, table, columns, rows);
  const { json } = step;
  if (
    rows.length === 1 || json.length * 3 <= ARGUMENT_BYTES_MAX ||
    bytesOf(json) <= ARGUMENT_BYTES_MAX
  ) return [step];
  const half = Math.ceil(rows.length / 2);
  return [rows.slice(0, half), rows.slice(half)].flatMap((part) =>
    fitted(kind, table, columns, part)
  );
}

/** Bytes of a text in UTF-8. */
export function bytesOf(text: string): number {
  // deno-lint-ignore no-control-regex
  return /^[\x00-\x7f]*$/.test(text)
    ? text.length
    : encoder.encode(text).length;
}
