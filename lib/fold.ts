/**
 * Ring 0. Many changes of a key become its last one.
 *
 * Promise: applying the fold leaves the same tables as applying every change
 * in order; a change that cannot be applied takes its key out, whole.
 *
 * @module
 */

import type { Cell, Changes, Refusal } from "./change.ts";
import { convert } from "./convert.ts";
import { type Table, typeOf } from "./schema.ts";

/** What becomes of one key. */
interface Fate {
  /** The message that decided it; null for a page. */
  msgId: string | null;
  /** The key as the source rendered it. */
  key: readonly Cell[];
  /** The key as the replica stores it. */
  stored: string[];
  /** Whether the row goes, before what may follow. */
  gone: boolean;
  /** The row as it is now, or null when it is gone. */
  row: { columns: readonly string[]; cells: readonly Cell[] } | null;
  /** Why it cannot be applied. */
  refused: string | null;
}

/** What becomes of one table. */
export interface TableFate {
  /** The table. */
  readonly table: Table;
  /** Whether everything that was in it goes first. */
  truncate: boolean;
  /** What becomes of each key, by its stored form. */
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
 * const change = { table, truncate: false, deletes: [], oversize: [], upserts: { columns: ["id"], cells: [] } };
 * const { tables } = fold([
 *   { ...change, msgId: "1", upserts: { columns: ["id"], cells: [["5"]] } },
 *   { ...change, msgId: "2", deletes: [["5.00"]] },
 * ]);
 * assertEquals([...tables[0]!.keys.values()].map((fate) => fate.row), [null]);
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
    const store = createKeyStore(table, (key, reason) => {
      refusals.push({ msgId, table: table.name, key, reason });
    });
    for (const key of changes.deletes) {
      const stored = store(key);
      if (stored === null) continue;
      const fate = { msgId, key, stored, gone: true, row: null, refused: null };
      of.keys.set(nameOf(stored), fate);
    }
    foldRows(of, changes, store);
    for (const key of changes.oversize) {
      const stored = store(key);
      if (stored === null) continue;
      const refused =
        "row too large: expected at most 5,000,000 bytes, libSQL's limit of a row";
      const fate = { msgId, key, stored, gone: false, row: null, refused };
      of.keys.set(nameOf(stored), fate);
    }
  }
  return { tables: [...tables.values()], refusals };
}

/** Folds the rows of one message. */
function foldRows(
  of: TableFate,
  { table, msgId, upserts }: Changes,
  store: (key: readonly Cell[]) => string[] | null,
): void {
  const { columns } = upserts;
  const order = table.key.map((column) => columns.indexOf(column));
  for (const cells of upserts.cells) {
    const key = order.map((at) => cells[at] ?? null);
    const stored = store(key);
    if (stored === null) continue;
    const name = nameOf(stored);
    const before = of.keys.get(name);
    const fate: Fate = {
      msgId,
      key,
      stored,
      gone: before?.gone ?? false,
      row: { columns, cells },
      refused: null,
    };
    // A column missing here stays as the message before set it.
    if (before?.row && !sameColumns(before.row.columns, columns)) {
      fate.row = overlay(before.row, { columns, cells });
    }
    of.keys.set(name, fate);
  }
}

/** A function that converts keys, and reports those no replica can hold. */
function createKeyStore(
  table: Table,
  report: (key: readonly Cell[], reason: string) => void,
): (key: readonly Cell[]) => string[] | null {
  const types = table.key.map((name) => typeOf(table, name));
  return (key) => {
    const stored: string[] = [];
    for (const [at, cell] of key.entries()) {
      const name = table.key[at];
      if (cell === null) {
        report(key, `column ${name}: expected a key, found NULL`);
        return null;
      }
      try {
        stored.push(convert(cell, types[at]!)!);
      } catch (error) {
        if (!(error instanceof RangeError)) throw error;
        report(key, `column ${name}: ${error.message}`);
        return null;
      }
    }
    return stored;
  };
}

/** One name per stored key: no text of PostgreSQL holds U+0000. */
function nameOf(stored: readonly string[]): string {
  return stored.length === 1 ? stored[0]! : stored.join("\u0000");
}

function sameColumns(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((name, at) => name === b[at]);
}

/** The later row over the earlier one. */
function overlay(
  earlier: NonNullable<Fate["row"]>,
  later: NonNullable<Fate["row"]>,
): NonNullable<Fate["row"]> {
  const merged = new Map<string, Cell>();
  for (const { columns, cells } of [earlier, later]) {
    columns.forEach((name, at) => merged.set(name, cells[at] ?? null));
  }
  return { columns: [...merged.keys()], cells: [...merged.values()] };
}
