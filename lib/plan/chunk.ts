/**
 * Ring 0. Groups rows that are written alike, sorts them, and cuts them into steps.
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

/** The kinds of statements that write rows. */
export type Write = "upsert" | "repair" | "update";

/** Rows that are written by one kind of statement. */
export interface Group {
  /** The kind of the statement. */
  kind: "delete" | Write;
  /** The names of the rows' cells. */
  columns: readonly string[];
  /** The rows. */
  rows: StepRow[];
  /** Characters of their cells, row by row. */
  lengths: number[];
}

/** Makes a group without rows. */
export function emptyGroup(
  kind: Group["kind"],
  columns: readonly string[],
): Group {
  return { kind, columns, rows: [], lengths: [] };
}

/** Groups by kind and columns. */
export interface Groups {
  /** Every group, in the order in which they were made. */
  all(): Iterable<Group>;
  /** The group of a kind and some columns, made when first asked for. */
  of(kind: Write, columns: readonly string[]): Group;
}

/** Makes groups of rows that one kind of statement writes, with the same columns. */
export function createGroups(): Groups {
  const bySignature = new Map<string, Group>();
  // Rows of one message share the very list of their columns: look it up first.
  const byList = {
    upsert: new Map<readonly string[], Group>(),
    repair: new Map<readonly string[], Group>(),
    update: new Map<readonly string[], Group>(),
  };
  return {
    all: () => bySignature.values(),
    of(kind: Write, columns: readonly string[]): Group {
      let group = byList[kind].get(columns);
      if (group === undefined) {
        const signature = [kind, ...columns].join("\u0000");
        group = bySignature.get(signature) ?? emptyGroup(kind, columns);
        bySignature.set(signature, group);
        byList[kind].set(columns, group);
      }
      return group;
    },
  };
}

/** Compares two rows of a group by their places in it. */
export type Order = (a: number, b: number) => number;

/** The key's order: sqld's pages of the table one after another. */
export function byKey(table: Table, { columns, rows }: Group): Order {
  const first = columns.indexOf(table.key[0]!);
  const numeric = typeOf(table, table.key[0]!) === "INTEGER";
  const by = rows.map(({ cells }) =>
    numeric ? Number(cells[first]) : cells[first]!
  );
  return (a, b) => by[a]! < by[b]! ? -1 : by[a]! > by[b]! ? 1 : 0;
}

/** The order of the indexed columns: of each index few pages at a time. */
export function byIndexes(table: Table, { columns, rows }: Group): Order {
  const places = [...new Set(table.indexes.flat())]
    .map((name) => columns.indexOf(name)).filter((at) => at >= 0);
  return (a, b) => {
    for (let n = 0; n < places.length; n++) {
      const one = rows[a]!.cells[places[n]!] ?? "";
      const other = rows[b]!.cells[places[n]!] ?? "";
      if (one !== other) return one < other ? -1 : 1;
    }
    return 0;
  };
}

/** Steps of at most one argument each, sorted. */
export function chunk(
  table: Table,
  { kind, columns, rows, lengths }: Group,
  compare: Order,
): RowStep[] {
  const order = new Uint32Array(rows.length);
  for (let at = 0; at < order.length; at++) order[at] = at;
  order.sort((a, b) => compare(a, b) || a - b);
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
