/**
 * Ring 0. Many changes of a key become its last one.
 *
 * Promise: applying the fold leaves the same tables as applying every change
 * in order; a change that cannot be applied takes its key out, whole.
 *
 * @module
 */

import { type Cell, cellsAt, type Refusal } from "../chain/message.ts";
import type { Changes } from "./change.ts";
import { convert } from "./convert.ts";
import { type Table, typeOf } from "../schema.ts";

/** What becomes of one key. */
export interface Fate {
  /** The message that decided it; null for a page. */
  readonly msgId: string | null;
  /** The key as the source rendered it; null where it is among the cells. */
  key: readonly Cell[] | null;
  /** Whether the row goes, before what may follow. */
  readonly gone: boolean;
  /** The names of the cells. */
  columns: readonly string[];
  /** The row as it is now, or what changed in it, or null when it is gone. */
  cells: Cell[] | null;
  /** Whether the row was there before, and its other cells stay. */
  readonly isUpdate: boolean;
  /** Why it cannot be applied. */
  readonly refused: string | null;
}

/** What becomes of one table. */
export interface TableFate {
  /** The table. */
  readonly table: Table;
  /** Whether everything that was in it goes first. */
  truncate: boolean;
  /** What becomes of each key, by its stored form: see {@linkcode storedKey}. */
  readonly keys: Map<string, Fate>;
}

/** The fold of a batch. */
export interface Fold {
  /** What becomes of each table that is touched. */
  readonly tables: readonly TableFate[];
  /** Changes whose key no replica can hold. */
  readonly refusals: readonly Refusal[];
}

/**
 * Folds changes in the order of their messages.
 *
 * @param batch The changes of a batch, in order.
 * @returns What becomes of each key, and the changes whose key was refused.
 *
 * @example The last change of a key wins
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const table = { name: "t", key: ["id"], columns: [{ name: "id", type: "INTEGER" as const }], indexes: [] };
 * const none = { columns: ["id"], cells: [] };
 * const change = { table, truncate: false, deletes: [], oversize: [], upserts: none, updates: none };
 * const { tables } = fold([
 *   { ...change, msgId: "1", upserts: { columns: ["id"], cells: [["5"]] } },
 *   { ...change, msgId: "2", deletes: [["5.00"]] },
 * ]);
 * assertEquals([...tables[0]!.keys.values()].map((fate) => fate.cells), [null]);
 * ```
 */
export function fold(batch: readonly Changes[]): Fold {
  const tables = new Map<string, TableFate>();
  const refusals: Refusal[] = [];
  for (const changes of batch) {
    const { table, msgId } = changes;
    let of = tables.get(table.name);
    if (of === undefined) {
      of = { table, truncate: false, keys: new Map() };
      tables.set(table.name, of);
    }
    if (changes.truncate) {
      of.truncate = true;
      of.keys.clear();
    }
    const inOrder = [...table.key.keys()];
    const nameOf = createKeyNamer(table, (key, reason) => {
      refusals.push({ msgId, table: table.name, key, reason });
    });
    const end = { msgId, columns: table.key, cells: null, isUpdate: false };
    for (const key of changes.deletes) {
      const name = nameOf(key, inOrder);
      if (name === null) continue;
      of.keys.set(name, { ...end, key, gone: true, refused: null });
    }
    const refuse = (
      key: readonly Cell[],
      id: string | null,
      reason: string,
    ) => {
      refusals.push({ msgId: id, table: table.name, key, reason });
    };
    foldRows(of, changes, "upserts", refuse);
    foldRows(of, changes, "updates", refuse);
    for (const key of changes.oversize) {
      const name = nameOf(key, inOrder);
      if (name === null) continue;
      const refused =
        "row too large: expected at most 5,000,000 bytes, libSQL's limit of a row";
      of.keys.set(name, { ...end, key, gone: false, refused });
    }
  }
  return { tables: [...tables.values()], refusals };
}

/**
 * The key that a name in {@linkcode TableFate} stands for.
 *
 * @param table The table.
 * @param name The name.
 * @returns The key as the replica stores it.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(storedKey({ key: ["a", "b"] }, "1\u00002"), ["1", "2"]);
 * ```
 */
export function storedKey(table: Pick<Table, "key">, name: string): string[] {
  // One name per stored key: no text of PostgreSQL holds U+0000.
  return table.key.length === 1 ? [name] : name.split("\u0000");
}

/** Folds the rows of one message, or of several that came as one. */
function foldRows(
  of: TableFate,
  { table, msgId, rowIds, ...changes }: Changes,
  kind: "upserts" | "updates",
  refuse: (key: readonly Cell[], id: string | null, reason: string) => void,
): void {
  const rows = changes[kind];
  const { columns } = rows;
  const order = table.key.map((column) => columns.indexOf(column));
  let id = msgId;
  const nameOf = createKeyNamer(table, (key, reason) => {
    refuse(key, id, reason);
  });
  const isUpdates = kind === "updates";
  for (let at = 0; at < rows.cells.length; at++) {
    const cells = rows.cells[at]! as Cell[];
    id = rowIds?.[at] ?? msgId;
    const name = nameOf(cells, order);
    if (name === null) continue;
    const before = of.keys.get(name);
    // There is no row that it could change.
    if (isUpdates && before?.cells === null) continue;
    const fate: Fate = {
      msgId: id,
      key: null,
      gone: before !== undefined && before.gone,
      columns,
      cells,
      isUpdate: isUpdates && (before === undefined || before.isUpdate),
      refused: null,
    };
    // A column missing here stays as the message before set it.
    if (before?.cells && !sameColumns(before.columns, columns)) {
      Object.assign(fate, overlay(before, { columns, cells }));
    }
    of.keys.set(name, fate);
  }
}

/**
 * Names keys by what the replica stores, and reports those it cannot hold. A key is
 * given as cells, and the places among them where its columns lie.
 */
function createKeyNamer(
  table: Table,
  report: (key: readonly Cell[], reason: string) => void,
) {
  const types = table.key.map((name) => typeOf(table, name));
  return (cells: readonly Cell[], order: readonly number[]): string | null => {
    let name = "";
    let at = 0;
    try {
      for (; at < order.length; at++) {
        const stored = convert(cells[order[at]!] ?? null, types[at]!);
        if (stored === null) throw new RangeError("expected a key, found NULL");
        name = at === 0 ? stored : `${name}\u0000${stored}`;
      }
      return name;
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      const reason = `column ${table.key[at]}: ${error.message}`;
      report(cellsAt(cells, order), reason);
      return null;
    }
  };
}

function sameColumns(a: readonly string[], b: readonly string[]): boolean {
  return a === b ||
    a.length === b.length && a.every((name, at) => name === b[at]);
}

/** The later row over the earlier one. */
function overlay(
  ...rows: Pick<Fate, "columns" | "cells">[]
): { columns: string[]; cells: Cell[] } {
  const merged = new Map<string, Cell>();
  for (const { columns, cells } of rows) {
    columns.forEach((name, at) => merged.set(name, cells![at] ?? null));
  }
  // One order, whichever came first: rows with the same columns are written as one.
  const names = [...merged.keys()].sort();
  return { columns: names, cells: names.map((name) => merged.get(name)!) };
}
