/**
 * Ring 0. The messages of a batch become the steps that change the replica.
 *
 * Promise: the same messages and the same parked changes always make the same
 * steps, and each step fits into one statement's argument.
 *
 * @module
 */

import {
  type Cell,
  type Changes,
  createMessageParser,
  isRefusal,
  type Message,
  type Refusal,
} from "./change.ts";
import { convert } from "./convert.ts";
import {
  type Fate,
  type Fold,
  fold,
  storedKey,
  type TableFate,
} from "./fold.ts";
import { type ColumnType, type Schema, type Table, typeOf } from "./schema.ts";

/** One row of a step: what it came from. */
export interface StepRow {
  /** The message that decided it; null for a page's row. */
  readonly msgId: string | null;
  /** The key as the source rendered it; null where it is among the cells. */
  readonly key: readonly Cell[] | null;
  /** The cells as the replica stores them. */
  readonly cells: readonly Cell[];
}

/** What one statement does to rows of one table. */
export interface RowStep {
  /**
   * The kind of the statement. "update" writes some columns of rows whose others
   * stay; the "upsert" after it is for the rest of them. "row" is an upsert of
   * one large row.
   */
  readonly kind: "truncate" | "delete" | "update" | "upsert" | "row";
  /** The table it changes. */
  readonly table: Table;
  /** Names of the cells: the key's columns for a delete. */
  readonly columns: readonly string[];
  /** The rows, sorted by key or by the indexed columns. */
  readonly rows: readonly StepRow[];
  /** The rows' cells as JSON. */
  readonly json: string;
  /** The columns that an "update" writes. */
  readonly sets?: readonly string[];
  /** Whether an "update" of the same rows is the step before. */
  readonly follows?: boolean;
}

/** Looks which rows are there, and which of their indexed columns differ. */
export interface LookStep extends Omit<RowStep, "kind"> {
  readonly kind: "look";
}

/** What the rows of a table were like when they last came by the queue. */
export interface Habit {
  /** Whether most of them were there. */
  readonly areThere: boolean;
  /** Indexed columns in which some of these differed. */
  readonly changes: readonly string[];
  /** Whether an update of these, and of the columns without an index, wrote all. */
  readonly isSure: boolean;
}

/** What is known of the rows of a table; null where it is nothing. */
export type HabitOf = (table: Table) => Habit | null;

/** Where the counts of a walk belong. */
export interface WalkOf {
  readonly walkGen: number;
  readonly table: Table;
}

/** Counts the rows of a step that the replica has otherwise. */
export interface CompareStep extends Omit<RowStep, "kind"> {
  readonly kind: "compare";
  /** What would mend them. */
  readonly of: RowStep["kind"];
  readonly walk: WalkOf;
}

/** Counts rows whose key is stored with a wrong type, and deletes them. */
export interface StraysStep {
  readonly kind: "strays";
  readonly table: Table;
  readonly repair: boolean;
  readonly walk: WalkOf;
}

/** Counts what the step before it changed, and how far the walk is. */
export interface TallyStep {
  readonly kind: "tally";
  readonly walk: WalkOf;
  /** What the step before it found. */
  readonly found: "differing" | "ghosts" | null;
  /** Rows that were looked at. */
  readonly rows: number;
  /** Whether the table is through. */
  readonly ended: boolean;
  /** Why it could not be read at the source, as an SQLSTATE. */
  readonly failed: string | null;
}

/** Drops an index of an empty table, to be built when it is full. */
export interface UnindexStep {
  readonly kind: "unindex";
  readonly table: Table;
  readonly index: readonly string[];
}

/** Puts a table that was rebuilt in the place of the old one. */
export interface SwapStep {
  readonly kind: "drop" | "rename";
  readonly table: Table;
}

/** What one statement does. */
export type Step =
  | RowStep
  | LookStep
  | CompareStep
  | StraysStep
  | TallyStep
  | UnindexStep
  | SwapStep;

/** A batch ready to be applied. */
export interface Plan<S extends Step = Step> {
  /** What to do, in order. */
  readonly steps: readonly S[];
  /** What to set aside that was not set aside before. */
  readonly refusals: readonly Refusal[];
}

/** An argument holds at most 2 MB, or one row. */
const ARGUMENT_BYTES_MAX = 2_000_000;
/** Characters of an argument's cells: three bytes each, and a quote. */
const ARGUMENT_LENGTH_MAX = 600_000;
/** A row over this is bound cell by cell: its JSON might pass 5,000,000 bytes. */
const ROW_JSON_BYTES_MAX = 4_000_000;
/** sqld takes rows of 5,000,000 bytes; the rest is the row's own header. */
const ROW_BYTES_MAX = 4_990_000;

const encoder = new TextEncoder();

/**
 * Makes the planner of a schema's batches.
 *
 * @param schema The tables that are replicated.
 * @returns A function of a batch's messages and parked changes, and of what is
 * known of a table's rows: it makes for fewer or cheaper steps, never for other
 * rows in the end.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { parseSchema } from "./schema.ts";
 *
 * const plan = createPlanner(parseSchema({
 *   tables: { t: { key: "id", columns: { id: "INTEGER", a: "TEXT" }, indexes: [] } },
 * }));
 * const rows = { v: 1, table: "t", columns: ["id", "a"], rows: [["2", "b"], ["1", "a"]] };
 * const { steps } = plan({ messages: [["7", rows]], parked: [] });
 * assertEquals(steps.map((step) => step.json), ['[["1","a"],["2","b"]]']);
 * ```
 */
export function createPlanner(
  schema: Schema,
): (
  batch: { messages: readonly Message[]; parked: readonly Refusal[] },
  habitOf?: HabitOf,
) => Plan<RowStep | LookStep> {
  const parse = createMessageParser(schema);
  return ({ messages, parked }, habitOf = () => null) => {
    const aside = new Set(parked.map(identityOf));
    const unreadable: Refusal[] = [];
    const batch: Changes[] = [];
    const read = (msgId: string, message: unknown, rowIds?: string[]) => {
      const parsed = parse(msgId, message);
      if (!isRefusal(parsed)) {
        batch.push(rowIds ? { ...parsed, rowIds } : parsed);
      } else if (rowIds) return false;
      else if (!aside.has(identityOf(parsed))) unreadable.push(parsed);
      return true;
    };
    for (const [ids, message] of messages) {
      if (typeof ids === "string") read(ids, message);
      // Where one of several cannot be read, each is read by itself.
      else if (!read(ids[0]!, message, [...ids])) {
        for (const [id, one] of apart(ids, message)) read(id, one);
      }
    }
    const { steps, refusals } = planFold(fold(batch), parked, habitOf);
    return { steps, refusals: [...unreadable, ...refusals] };
  };
}

/** Messages of one row each that came as one, as they were sent. */
function apart(
  ids: readonly string[],
  message: unknown,
): [string, unknown][] {
  const { rows, ...rest } = message as { rows: unknown[] };
  return ids.map((id, at) => [id, { ...rest, rows: [rows[at]] }]);
}

/**
 * Plans what becomes of each key.
 *
 * @param folded The fold of a batch; its cells are converted in place.
 * @param parked What was set aside before, and is left out.
 * @param habitOf What is known of a table's rows; the rows of a walk, which tells
 * nothing, are equal or missing.
 * @returns The steps, and what to set aside.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(planFold({ tables: [], refusals: [] }, []), { steps: [], refusals: [] });
 * ```
 */
export function planFold(
  folded: Fold,
  parked: readonly Refusal[],
): Plan<RowStep>;
export function planFold(
  folded: Fold,
  parked: readonly Refusal[],
  habitOf: HabitOf,
): Plan<RowStep | LookStep>;
export function planFold(
  folded: Fold,
  parked: readonly Refusal[],
  habitOf: HabitOf | null = null,
): Plan<RowStep | LookStep> {
  const aside = new Set(parked.map(identityOf));
  const refusals: Refusal[] = [];
  const refuse = (refusal: Refusal) => {
    if (!aside.has(identityOf(refusal))) refusals.push(refusal);
  };
  folded.refusals.forEach(refuse);
  const steps = folded.tables.flatMap((of) =>
    planTable(of, { aside, refuse, habitOf })
  );
  return { steps, refusals };
}

/** Rows that are written by one kind of statement. */
interface Group {
  columns: readonly string[];
  rows: StepRow[];
  /** Characters of their cells, row by row. */
  lengths: number[];
}

/** The steps of one table: truncate, deletes, upserts. */
function planTable(
  { table, truncate, keys }: TableFate,
  { aside, refuse, habitOf }: {
    aside: ReadonlySet<string>;
    refuse: (refusal: Refusal) => void;
    habitOf: HabitOf | null;
  },
): (RowStep | LookStep)[] {
  const deletes: Group = { columns: table.key, rows: [], lengths: [] };
  const upserts = createGroups();
  const large: RowStep[] = [];
  const convertRow = createRowConverter(table);
  for (const [name, fate] of keys) {
    // Nearly always nothing is set aside: no identity is made per row then.
    if (aside.size > 0 && aside.has(identityOf(refusalOf(table, fate, "")))) {
      continue;
    }
    if (fate.refused !== null) {
      refuse(refusalOf(table, fate, fate.refused));
      continue;
    }
    const goes = () => {
      const cells = storedKey(table, name);
      deletes.rows.push({ msgId: fate.msgId, key: keyOf(table, fate), cells });
      deletes.lengths.push(name.length);
    };
    if (fate.cells === null) {
      goes();
      continue;
    }
    const length = convertRow(fate as Converting);
    if (typeof length === "string") {
      refuse(refusalOf(table, fate, length));
      continue;
    }
    // Of a row that went and came again, the columns not sent start anew.
    if (fate.gone && fate.columns.length < table.columns.length) goes();
    const row = fate as Converting;
    if (length > ARGUMENT_LENGTH_MAX && isLarge(row.cells)) {
      const bytes = row.cells.reduce(
        (sum, cell) => sum + bytesOf(cell ?? ""),
        0,
      );
      if (bytes > ROW_BYTES_MAX) {
        const reason =
          `row too large: expected at most ${ROW_BYTES_MAX} bytes, found ${bytes}`;
        refuse(refusalOf(table, fate, reason));
      } else {
        large.push(stepOf("row", table, row.columns, [row]));
      }
      continue;
    }
    const group = upserts.of(fate.columns);
    group.rows.push(row);
    group.lengths.push(length);
  }
  const steps: (RowStep | LookStep)[] = [];
  if (truncate) steps.push(stepOf("truncate", table, [], []));
  steps.push(...chunk("delete", table, deletes, byKey(table, deletes)));
  for (const group of upserts.all()) {
    steps.push(
      ...habitOf === null || table.indexes.length === 0
        ? chunk("upsert", table, group, byKey(table, group))
        : planIndexed(table, group, habitOf(table)),
    );
  }
  return [...steps, ...large];
}

/**
 * The columns of a step's rows whose writing costs an index; a look counts how
 * often each differs, in this order.
 *
 * @param step The table, and the names of the rows' cells.
 * @returns Their names: those with an index that are no part of the key.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const table = { name: "t", key: ["id"], columns: [], indexes: [["a", "id"]] };
 * assertEquals(indexedColumns({ table, columns: ["id", "a", "b"] }), ["a"]);
 * ```
 */
export function indexedColumns(
  { table, columns }: Pick<LookStep, "table" | "columns">,
): string[] {
  const indexed = new Set(table.indexes.flat());
  return columns.filter((name) =>
    indexed.has(name) && !table.key.includes(name)
  );
}

/** The upserts of a table with indexes: what does not change is not written. */
function planIndexed(
  table: Table,
  group: Group,
  habit: Habit | null,
): (RowStep | LookStep)[] {
  const { areThere, changes, isSure } = habit ??
    { areThere: true, changes: [], isSure: false };
  const stays = new Set(
    table.indexes.flat().filter((name) => !changes.includes(name)),
  );
  const sets = group.columns.filter((name) =>
    !table.key.includes(name) && !stays.has(name)
  );
  const isTwofold = areThere && sets.length > 0;
  // New rows are next to each other in their table whatever their order, and
  // should be so in its indexes: SQLite holds few pages of them.
  const order = isTwofold ? byKey(table, group) : byIndexes(table, group);
  const upserts = chunk("upsert", table, group, order);
  const steps: (RowStep | LookStep)[] = isSure
    ? []
    : upserts.slice(0, 1).map((upsert) => ({ ...upsert, kind: "look" }));
  for (const upsert of upserts) {
    if (isTwofold) {
      const update = { ...upsert, kind: "update", sets } as const;
      steps.push(update, { ...upsert, follows: true });
    } else {
      steps.push(upsert);
    }
  }
  return steps;
}

/**
 * A step over some rows.
 *
 * @param kind The kind of its statement.
 * @param table The table.
 * @param columns The names of the rows' cells.
 * @param rows The rows.
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
): RowStep {
  const json = kind === "row"
    ? ""
    : JSON.stringify(rows.map((row) => row.cells));
  return { kind, table, columns, rows, json };
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

function refusalOf(table: Table, fate: Fate, reason: string): Refusal {
  const { msgId } = fate;
  return { msgId, table: table.name, key: keyOf(table, fate), reason };
}

/** Groups of rows with the same columns. */
function createGroups() {
  const bySignature = new Map<string, Group>();
  // Rows of one message share their columns: the list itself is known then.
  const byList = new Map<readonly string[], Group>();
  return {
    all: () => bySignature.values(),
    of(columns: readonly string[]): Group {
      let group = byList.get(columns);
      if (group === undefined) {
        const signature = columns.join("\u0000");
        group = bySignature.get(signature) ??
          { columns, rows: [], lengths: [] };
        bySignature.set(signature, group);
        byList.set(columns, group);
      }
      return group;
    },
  };
}

/** A fate that is a row. */
type Converting = Fate & { cells: Cell[] };

/** Makes a row's cells those of the replica, and returns their length, or why it cannot. */
function createRowConverter(
  table: Table,
): (row: Converting) => number | string {
  const numbersOf = new Map<readonly string[], (ColumnType | null)[]>();
  return (row) => {
    const { columns, cells } = row;
    let numbers = numbersOf.get(columns);
    if (numbers === undefined) {
      // Text goes as it is.
      numbers = columns.map((name) => {
        const type = typeOf(table, name);
        return type === "INTEGER" || type === "BOOLEAN" ? type : null;
      });
      numbersOf.set(columns, numbers);
    }
    let length = 0;
    for (let at = 0; at < numbers.length; at++) {
      const cell = cells[at] ?? null;
      const type = numbers[at]!;
      length += 3 + (cell === null ? 1 : cell.length);
      if (type === null || cell === null) continue;
      try {
        const converted = convert(cell, type);
        if (converted === cell) continue;
        if (table.key.includes(columns[at]!)) row.key ??= keyOf(table, row);
        cells[at] = converted;
      } catch (error) {
        if (!(error instanceof RangeError)) throw error;
        return `column ${columns[at]}: ${error.message}`;
      }
    }
    return length;
  };
}

/** Whether a row's JSON might pass what one argument can hold. */
function isLarge(cells: readonly Cell[]): boolean {
  return bytesOf(JSON.stringify(cells)) > ROW_JSON_BYTES_MAX;
}

/** Compares two rows of a group by their places in it. */
type Order = (a: number, b: number) => number;

/** The key's order: sqld's pages of the table one after another. */
function byKey(table: Table, { columns, rows }: Group): Order {
  const first = columns.indexOf(table.key[0]!);
  const numeric = typeOf(table, table.key[0]!) === "INTEGER";
  const by = rows.map(({ cells }) =>
    numeric ? Number(cells[first]) : cells[first]!
  );
  return (a, b) => by[a]! < by[b]! ? -1 : by[a]! > by[b]! ? 1 : 0;
}

/** The order of the indexed columns: of each index few pages at a time. */
function byIndexes(table: Table, { columns, rows }: Group): Order {
  const places = [...new Set(table.indexes.flat())]
    .map((name) => columns.indexOf(name)).filter((at) => at >= 0);
  return (a, b) => {
    for (const at of places) {
      const [one, other] = [rows[a]!.cells[at] ?? "", rows[b]!.cells[at] ?? ""];
      if (one !== other) return one < other ? -1 : 1;
    }
    return 0;
  };
}

/** Steps of at most one argument each, sorted. */
function chunk(
  kind: "delete" | "upsert",
  table: Table,
  { columns, rows, lengths }: Group,
  compare: Order,
): RowStep[] {
  const order = Uint32Array.from(rows.keys());
  order.sort((a, b) => compare(a, b) || a - b);
  const steps: RowStep[] = [];
  let part: StepRow[] = [];
  let length = 0;
  const end = () => {
    if (part.length > 0) {
      steps.push(...fitted(stepOf(kind, table, columns, part)));
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

/** A step whose argument is not too large: much to escape makes it longer than its cells. */
function fitted(step: RowStep): RowStep[] {
  const { kind, table, columns, rows, json } = step;
  if (
    rows.length === 1 || json.length * 3 <= ARGUMENT_BYTES_MAX ||
    bytesOf(json) <= ARGUMENT_BYTES_MAX
  ) return [step];
  const half = Math.ceil(rows.length / 2);
  return [rows.slice(0, half), rows.slice(half)].flatMap((part) =>
    fitted(stepOf(kind, table, columns, part))
  );
}

/** What makes two refusals the same: the message, table and key. */
function identityOf(
  { msgId, table, key }: Pick<Refusal, "msgId" | "table" | "key">,
): string {
  // A key set aside stays so in its batch, whichever message decides it.
  return JSON.stringify(key === null ? [msgId] : [table, key]);
}

/** Bytes of a text in UTF-8. */
function bytesOf(text: string): number {
  // deno-lint-ignore no-control-regex
  return /^[\x00-\x7f]*$/.test(text)
    ? text.length
    : encoder.encode(text).length;
}
