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
import {
  type ColumnType,
  isStoredAsNumber,
  type Schema,
  type Table,
  typeOf,
} from "./schema.ts";

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
  /** The kind of the statement. An "update" makes no row: those it names were there.
   * A "mend" is an upsert of rows most of which are there as they should be. */
  readonly kind: "truncate" | "delete" | "update" | "upsert" | "mend";
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
  /** Each row's key where it is not among the cells; null where all are. */
  readonly keys: readonly StepRow["key"][] | null;
}

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
 * @returns A function of a batch's messages and parked changes.
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
) => Plan<RowStep> {
  const parse = createMessageParser(schema);
  return ({ messages, parked }) => {
    const aside = new Set(parked.map(identityOf));
    const unreadable: Refusal[] = [];
    const batch: Changes[] = [];
    const read = (
      msgId: string,
      message: unknown,
      rowIds?: readonly string[],
    ) => {
      const parsed = parse(msgId, message);
      if (!isRefusal(parsed)) {
        batch.push(rowIds ? { ...parsed, rowIds } : parsed);
      } else if (rowIds) return false;
      else if (!aside.has(identityOf(parsed))) unreadable.push(parsed);
      return true;
    };
    for (const [ids, message] of messages) {
      if (typeof ids === "string") {
        read(ids, message);
        continue;
      }
      for (const [runIds, run] of runsOf(ids, message)) {
        // Where one of several cannot be read, each is read by itself.
        if (read(runIds[0]!, run, runIds)) continue;
        for (const [id, one] of apart(runIds, run)) read(id, one);
      }
    }
    const { steps, refusals } = planFold(fold(batch), parked, "upsert");
    return { steps, refusals: [...unreadable, ...refusals] };
  };
}

/** Messages that came as one: runs of those whose rows have the same columns. */
function runsOf(
  ids: readonly string[],
  message: unknown,
): (readonly [readonly string[], unknown])[] {
  const { kinds, of, rows, ...rest } = message as {
    kinds?: readonly Record<string, unknown>[];
    of: readonly number[];
    rows: readonly unknown[];
  };
  if (kinds === undefined) return [[ids, message]];
  const runs: [readonly string[], unknown][] = [];
  for (let from = 0, to = 0; from < of.length; from = to) {
    while (of[to] === of[from]) to += 1;
    const { columns, field } = kinds[of[from]!]!;
    const run = { ...rest, columns, [field as string]: rows.slice(from, to) };
    runs.push([ids.slice(from, to), run]);
  }
  return runs;
}

/** Messages of one row each that came as one, as they were sent. */
function apart(
  ids: readonly string[],
  message: unknown,
): [string, unknown][] {
  const { rows, updates, ...rest } = message as {
    rows?: unknown[];
    updates?: unknown[];
  };
  return ids.map((id, at) => [
    id,
    rows ? { ...rest, rows: [rows[at]] } : { ...rest, updates: [updates![at]] },
  ]);
}

/**
 * Plans what becomes of each key.
 *
 * @param folded The fold of a batch; its cells are converted in place.
 * @param parked What was set aside before, and is left out.
 * @param write What writes a row: most are new, or most are there already.
 * @returns The steps, and what to set aside.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const planned = planFold({ tables: [], refusals: [] }, [], "upsert");
 * assertEquals(planned, { steps: [], refusals: [] });
 * ```
 */
export function planFold(
  folded: Fold,
  parked: readonly Refusal[],
  write: "upsert" | "mend",
): Plan<RowStep> {
  const aside = new Set(parked.map(identityOf));
  const refusals: Refusal[] = [];
  const refuse = (refusal: Refusal) => {
    if (!aside.has(identityOf(refusal))) refusals.push(refusal);
  };
  folded.refusals.forEach(refuse);
  const steps = folded.tables.flatMap((of) =>
    planTable(of, { aside, refuse, write })
  );
  return { steps, refusals };
}

/** The kinds of statements that write rows. */
type Write = "upsert" | "mend" | "update";

/** Rows that are written by one kind of statement. */
interface Group {
  kind: "delete" | Write;
  columns: readonly string[];
  rows: StepRow[];
  /** Characters of their cells, row by row. */
  lengths: number[];
}

/** The steps of one table: truncate, deletes, then whatever is written. */
function planTable(
  { table, truncate, keys }: TableFate,
  { aside, refuse, write }: {
    aside: ReadonlySet<string>;
    refuse: (refusal: Refusal) => void;
    write: "upsert" | "mend";
  },
): RowStep[] {
  const deletes = emptyGroup("delete", table.key);
  const groups = createGroups();
  const large: RowStep[] = [];
  const convertRow = createRowConverter(table);
  const goes = (name: string, fate: Fate) => {
    const cells = storedKey(table, name);
    deletes.rows.push({ msgId: fate.msgId, key: keyOf(table, fate), cells });
    deletes.lengths.push(name.length);
  };
  // Many rows come by here: nothing is made for one that is not kept.
  keys.forEach((fate, name) => {
    // Nearly always nothing is set aside: no identity is made per row then.
    if (aside.size > 0 && aside.has(identityOf(refusalOf(table, fate, "")))) {
      return;
    }
    if (fate.refused !== null) {
      refuse(refusalOf(table, fate, fate.refused));
      return;
    }
    if (fate.cells === null) {
      goes(name, fate);
      return;
    }
    // Its cells become those of the replica, in place; it keeps its key as it came.
    const row = fate as Converting;
    const length = convertRow(row);
    if (typeof length === "string") {
      refuse(refusalOf(table, fate, length));
      return;
    }
    // Of a row that went and came again, the columns not sent start anew.
    if (fate.gone && fate.columns.length < table.columns.length) {
      goes(name, fate);
    }
    const kind = fate.isUpdate ? "update" : write;
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
        large.push(stepOf(kind, table, row.columns, [row], true));
      }
      return;
    }
    const group = groups.of(kind, row.columns);
    group.rows.push(row);
    group.lengths.push(length);
  });
  const steps: RowStep[] = [];
  if (truncate) steps.push(stepOf("truncate", table, [], []));
  for (const group of [deletes, ...groups.all()]) {
    // New rows are next to each other in their table whatever their order, and
    // should be so in its indexes: SQLite holds few pages of them.
    const isNew = group.kind === "upsert" && table.indexes.length > 0;
    const order = isNew ? byIndexes(table, group) : byKey(table, group);
    steps.push(...chunk(table, group, order));
  }
  return [...steps, ...large];
}

/**
 * A step over some rows. It keeps their text and not the rows, which are many
 * times as large and wanted only where the replica refuses one.
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

function refusalOf(table: Table, fate: Fate, reason: string): Refusal {
  const { msgId } = fate;
  return { msgId, table: table.name, key: keyOf(table, fate), reason };
}

function emptyGroup(kind: Group["kind"], columns: readonly string[]): Group {
  return { kind, columns, rows: [], lengths: [] };
}

/** Groups of rows that are written alike, with the same columns. */
function createGroups() {
  const bySignature = new Map<string, Group>();
  // Rows of one message share their columns: the list itself is known then.
  const byList = {
    upsert: new Map<readonly string[], Group>(),
    mend: new Map<readonly string[], Group>(),
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
        return isStoredAsNumber(type) ? type : null;
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
    for (let n = 0; n < places.length; n++) {
      const one = rows[a]!.cells[places[n]!] ?? "";
      const other = rows[b]!.cells[places[n]!] ?? "";
      if (one !== other) return one < other ? -1 : 1;
    }
    return 0;
  };
}

/** Steps of at most one argument each, sorted. */
function chunk(
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
