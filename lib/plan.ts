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
  type Refusal,
} from "./change.ts";
import { convert } from "./convert.ts";
import { type Fold, fold, type TableFate } from "./fold.ts";
import { type ColumnType, type Schema, type Table, typeOf } from "./schema.ts";

/** One row of a step: what it came from, and its JSON. */
export interface StepRow {
  /** The message that decided it; null for a page's row. */
  readonly msgId: string | null;
  /** The key as the source rendered it. */
  readonly key: readonly Cell[];
  /** The cells as the replica stores them. */
  readonly cells: readonly Cell[];
  /** The cells as a JSON array. */
  readonly json: string;
}

/** What one statement does to rows of one table. */
export interface RowStep {
  /** The kind of the statement; "row" is an upsert of one large row. */
  readonly kind: "truncate" | "delete" | "upsert" | "row";
  /** The table it changes. */
  readonly table: Table;
  /** Names of the cells: the key's columns for a delete. */
  readonly columns: readonly string[];
  /** The rows, sorted by key. */
  readonly rows: readonly StepRow[];
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
 * assertEquals(steps.map((step) => step.rows.map((row) => row.json)), [['["1","a"]', '["2","b"]']]);
 * ```
 */
export function createPlanner(
  schema: Schema,
): (batch: {
  messages: readonly (readonly [string, unknown])[];
  parked: readonly Refusal[];
}) => Plan<RowStep> {
  const parse = createMessageParser(schema);
  return ({ messages, parked }) => {
    const aside = new Set(parked.map(identityOf));
    const unreadable: Refusal[] = [];
    const batch: Changes[] = [];
    for (const [msgId, message] of messages) {
      const parsed = parse(msgId, message);
      if (!isRefusal(parsed)) batch.push(parsed);
      else if (!aside.has(identityOf(parsed))) unreadable.push(parsed);
    }
    const { steps, refusals } = planFold(fold(batch), parked);
    return { steps, refusals: [...unreadable, ...refusals] };
  };
}

/**
 * Plans what becomes of each key.
 *
 * @param folded The fold of a batch.
 * @param parked What was set aside before, and is left out.
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
): Plan<RowStep> {
  const aside = new Set(parked.map(identityOf));
  const refusals: Refusal[] = [];
  const refuse = (refusal: Refusal) => {
    if (!aside.has(identityOf(refusal))) refusals.push(refusal);
  };
  folded.refusals.forEach(refuse);
  const steps = folded.tables.flatMap((of) => planTable(of, aside, refuse));
  return { steps, refusals };
}

/** The steps of one table: truncate, deletes, upserts. */
function planTable(
  { table, truncate, keys }: TableFate,
  aside: ReadonlySet<string>,
  refuse: (refusal: Refusal) => void,
): RowStep[] {
  const types = new Map(table.columns.map(({ name, type }) => [name, type]));
  const deletes: StepRow[] = [];
  const upserts = new Map<
    string,
    { columns: readonly string[]; rows: StepRow[] }
  >();
  const large: RowStep[] = [];
  for (const fate of keys.values()) {
    const { msgId, key, stored, row } = fate;
    const refusal = { msgId, table: table.name, key };
    // Nearly always nothing is set aside: no identity is made per row then.
    if (aside.size > 0 && aside.has(identityOf(refusal))) continue;
    if (fate.refused !== null) {
      refuse({ ...refusal, reason: fate.refused });
      continue;
    }
    const gone = () => ({
      msgId,
      key,
      cells: stored,
      json: JSON.stringify(stored),
    });
    if (row === null) {
      deletes.push(gone());
      continue;
    }
    const cells = convertRow(types, row);
    if (typeof cells === "string") {
      refuse({ ...refusal, reason: cells });
      continue;
    }
    // Of a row that went and came again, the columns not sent start anew.
    if (fate.gone && row.columns.length < table.columns.length) {
      deletes.push(gone());
    }
    const planned = { msgId, key, cells, json: JSON.stringify(cells) };
    if (bytesOf(planned.json) > ROW_JSON_BYTES_MAX) {
      const bytes = cells.reduce((sum, cell) => sum + bytesOf(cell ?? ""), 0);
      if (bytes > ROW_BYTES_MAX) {
        const reason =
          `row too large: expected at most ${ROW_BYTES_MAX} bytes, found ${bytes}`;
        refuse({ ...refusal, reason });
      } else {
        large.push({
          kind: "row",
          table,
          columns: row.columns,
          rows: [planned],
        });
      }
      continue;
    }
    const signature = row.columns.join("\u0000");
    const group = upserts.get(signature) ?? { columns: row.columns, rows: [] };
    group.rows.push(planned);
    upserts.set(signature, group);
  }
  const steps: RowStep[] = [];
  if (truncate) steps.push({ kind: "truncate", table, columns: [], rows: [] });
  steps.push(...chunk("delete", table, table.key, deletes));
  for (const { columns, rows } of upserts.values()) {
    steps.push(...chunk("upsert", table, columns, rows));
  }
  return [...steps, ...large];
}

/** The row's cells as the replica stores them, or why it cannot. */
function convertRow(
  types: ReadonlyMap<string, ColumnType>,
  row: { columns: readonly string[]; cells: readonly Cell[] },
): Cell[] | string {
  const cells: Cell[] = [];
  for (const [at, name] of row.columns.entries()) {
    try {
      cells.push(convert(row.cells[at] ?? null, types.get(name)!));
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      return `column ${name}: ${error.message}`;
    }
  }
  return cells;
}

/** Steps of at most one argument each, sorted by key: sqld's pages in order. */
function chunk(
  kind: "delete" | "upsert",
  table: Table,
  columns: readonly string[],
  rows: StepRow[],
): RowStep[] {
  const numeric = typeOf(table, table.key[0]!) === "INTEGER";
  const first = columns.indexOf(table.key[0]!);
  rows.sort((a, b) => {
    const [left, right] = [a.cells[first]!, b.cells[first]!];
    if (numeric) return Number(left) - Number(right);
    return left < right ? -1 : left > right ? 1 : 0;
  });
  const steps: RowStep[] = [];
  let part: StepRow[] = [];
  let bytes = 0;
  for (const row of rows) {
    const size = bytesOf(row.json) + 1;
    if (part.length > 0 && bytes + size > ARGUMENT_BYTES_MAX) {
      steps.push({ kind, table, columns, rows: part });
      part = [];
      bytes = 0;
    }
    part.push(row);
    bytes += size;
  }
  if (part.length > 0) steps.push({ kind, table, columns, rows: part });
  return steps;
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
