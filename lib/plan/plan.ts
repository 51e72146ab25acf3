/**
 * Ring 0. The messages of a batch become the steps that change the replica.
 *
 * Promise: the same messages and the same parked changes always make the same
 * steps, and each step fits into one statement's argument.
 *
 * @module
 */

import type { Cell, Message, Refusal } from "../chain/message.ts";
import { type Changes, createMessageParser, isRefusal } from "./change.ts";
import {
  ARGUMENT_LENGTH_MAX,
  byIndexes,
  byKey,
  bytesOf,
  chunk,
  createGroups,
  emptyGroup,
} from "./chunk.ts";
import { convert } from "./convert.ts";
import {
  type Fate,
  type Fold,
  fold,
  storedKey,
  type TableFate,
} from "./fold.ts";
import { apart, runsOf } from "./merged.ts";
import { keyOf, type Plan, type RowStep, stepOf } from "./step.ts";
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
 * @returns A function of a batch's messages and parked changes.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { parseSchema } from "../schema.ts";
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
    const known = new Set(parked.map(identityOf));
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
      else if (!known.has(identityOf(parsed))) unreadable.push(parsed);
      return true;
    };
    for (const [ids, message] of messages) {
      if (typeof ids === "string") {
        read(ids, message);
        continue;
      }
      for (const [runIds, run] of runsOf(ids, message)) {
        // If one of several cannot be read, each is read by itself.
        if (read(runIds[0]!, run, runIds)) continue;
        for (const [id, one] of apart(runIds, run)) read(id, one);
      }
    }
    const { steps, refusals } = planFold(fold(batch), parked, "upsert");
    return { steps, refusals: [...unreadable, ...refusals] };
  };
}

/**
 * Plans what becomes of each key.
 *
 * @param folded The fold of a batch; its cells are converted in place.
 * @param parked What is parked already, and is left out.
 * @param write The kind of statement that writes a row: "upsert" if most rows are new,
 * "repair" if most are stored already.
 * @returns The steps, and what to park.
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
  write: "upsert" | "repair",
): Plan<RowStep> {
  const known = new Set(parked.map(identityOf));
  const refusals: Refusal[] = [];
  const refuse = (refusal: Refusal) => {
    if (!known.has(identityOf(refusal))) refusals.push(refusal);
  };
  folded.refusals.forEach(refuse);
  const steps = folded.tables.flatMap((of) =>
    planTable(of, { known, refuse, write })
  );
  return { steps, refusals };
}

/** The steps of one table: a truncate, deletes, then the rows. */
function planTable(
  { table, truncate, keys }: TableFate,
  { known, refuse, write }: {
    known: ReadonlySet<string>;
    refuse: (refusal: Refusal) => void;
    write: "upsert" | "repair";
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
  // This runs for each row: it allocates nothing for a row that is not kept.
  keys.forEach((fate, name) => {
    // Nearly always nothing is parked: then no identity is computed per row.
    if (known.size > 0 && known.has(identityOf(refusalOf(table, fate, "")))) {
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
    // The cells are converted in place; the key stays as the source rendered it.
    const row = fate as Converting;
    const length = convertRow(row);
    if (typeof length === "string") {
      refuse(refusalOf(table, fate, length));
      return;
    }
    // A row that was deleted and inserted again: columns that were not sent are reset.
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
    // New rows are next to each other in their table in any order. In its indexes
    // they should be too: SQLite caches few of their pages.
    const isNew = group.kind === "upsert" && table.indexes.length > 0;
    const order = isNew ? byIndexes(table, group) : byKey(table, group);
    steps.push(...chunk(table, group, order));
  }
  return [...steps, ...large];
}

function refusalOf(table: Table, fate: Fate, reason: string): Refusal {
  const { msgId } = fate;
  return { msgId, table: table.name, key: keyOf(table, fate), reason };
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

/** What makes two refusals the same: the message, table and key. */
function identityOf(
  { msgId, table, key }: Pick<Refusal, "msgId" | "table" | "key">,
): string {
  // A parked key stays parked in its batch, whichever message decides it.
  return JSON.stringify(key === null ? [msgId] : [table, key]);
}
