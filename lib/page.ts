/**
 * Ring 0. A page of a walk, checked, and planned like any other rows.
 *
 * Promise: a page writes by the same rules as the queue, and counts what it
 * found in the replica's own transaction.
 *
 * @module
 */

import {
  type Cell,
  cellsAt,
  type Changes,
  type Message,
  type Refusal,
} from "./change.ts";
import { SyncError } from "./errors.ts";
import { fold } from "./fold.ts";
import { planFold, type RowStep, type Step } from "./plan.ts";
import type { Schema, Table } from "./schema.ts";
import { type ReplicaRow } from "./replica_row.ts";

/** Why a walk is on. */
export type WalkKind = "backfill" | "verify" | "scrub" | "redrive";

/** Rows of one table in the snapshot of the batch they ride on. */
export interface Page {
  /** The walk it belongs to. */
  readonly walkGen: number;
  readonly kind: WalkKind;
  /** Whether differences are mended, or counted only. */
  readonly repair: boolean;
  readonly table: string;
  /** By the source's keys, by the replica's, or of some keys. */
  readonly half: "forward" | "back" | "keys";
  /** Whether it is the first of its table. */
  readonly starts: boolean;
  /** Whether the source's table is too large to index in one transaction. */
  readonly large: boolean;
  /** Whether it is the last of its half. */
  readonly last: boolean;
  /** Rows or keys that were looked at. */
  readonly rows: number;
  /** Why the table could not be read at the source, as an SQLSTATE. */
  readonly failed: string | null;
  /** The table's key, in the order of the keys below. */
  readonly key: readonly string[];
  readonly columns: readonly string[];
  readonly cells: readonly (readonly Cell[])[];
  /** Keys of the replica that the source does not have. */
  readonly ghosts: readonly (readonly Cell[])[];
  /** Keys of rows no replica can hold. */
  readonly oversize: readonly (readonly Cell[])[];
  /** Keys with an open dead letter; `skip` where the replica refused the row. */
  readonly open: readonly {
    readonly key: readonly Cell[];
    readonly skip: boolean;
  }[];
  /** Where the walk stands after it; null at its end. */
  readonly upto: string | null;
  /** Whether every table was walked and mended when it is applied. */
  readonly closes: boolean;
}

/** What is left of a page when its rows are planned. */
export type PageHead = Omit<Page, "cells">;

/** What a page's rows come to. */
export interface PagePlan {
  readonly head: PageHead;
  /** The steps that mend or compare, for the replica's row before the batch. */
  stepsFor(row: Pick<WalkMove, "fresh" | "rebuilding">): Step[];
  /** What to set aside that was not set aside before. */
  readonly refusals: readonly Refusal[];
}

/** Where a walk stands. */
export interface Place {
  readonly table: string;
  readonly half: "forward" | "back" | "keys";
  /** The last key that was walked, null at the start. */
  readonly after: readonly string[] | null;
  /** Whether the replica's rows were counted, and are not as many as the source's. */
  readonly isCounted: boolean;
  /** The rows a scrub looks at in one sync; null for other walks. */
  readonly scrubRows: number | null;
}

/** What a walk found in one table, so far. */
export interface Walked {
  readonly walkGen: number;
  readonly table: string;
  /** Rows compared. */
  readonly rows: number;
  /** Rows that were missing or different. */
  readonly differing: number;
  /** Rows the source does not have. */
  readonly ghosts: number;
  /** Whether the table is through. */
  readonly ended: boolean;
  /** Why the table could not be read at the source, as an SQLSTATE. */
  readonly failed: string | null;
}

/**
 * Reads the place in a replica's row.
 *
 * @param walkAt The row's `walk_at`.
 * @returns The place; null where no walk is on.
 * @throws {SyntaxError} It is no place.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(parsePlace('{"table": "t", "half": "back"}'), {
 *   table: "t", half: "back", after: null, isCounted: false, scrubRows: null,
 * });
 * assertEquals(parsePlace(null), null);
 * ```
 */
export function parsePlace(walkAt: string | null): Place | null {
  if (walkAt === null) return null;
  const place = JSON.parse(walkAt);
  const {
    table,
    half,
    after = null,
    rows = null,
    unread = 0,
    counted = false,
  } = place;
  const isPlace = typeof table === "string" &&
    ["forward", "back", "keys"].includes(half) &&
    (after === null || isNames(after)) &&
    (rows === null || Number.isSafeInteger(rows)) &&
    Number.isSafeInteger(unread) && typeof counted === "boolean";
  if (!isPlace) {
    throw new SyntaxError("expected a place in a walk, found other JSON");
  }
  return { table, half, after, isCounted: counted, scrubRows: rows };
}

/** What a batch does to the walk in the replica's row. */
export type WalkMove = Pick<
  ReplicaRow,
  | "walk_gen"
  | "walk_at"
  | "walk_done"
  | "fresh"
  | "unindexed"
  | "rebuilding"
>;

/**
 * Where the walk stands after a batch.
 *
 * @param row The replica's row before it.
 * @param batch The page that rides on it, what it sets aside, and whether it
 * reopens the walk, as something at the source may have gone past the queue.
 * @returns The row's fields after it.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const row = { walk_gen: 3, walk_at: null, walk_done: 1, fresh: "[]", unindexed: "[]", rebuilding: "[]" };
 * assertEquals(walkAfter(row, { page: null, reopen: true }), { ...row, walk_done: 0 });
 * ```
 */
export function walkAfter(
  row: WalkMove & { position?: number },
  batch: {
    page: PageHead | null;
    reopen: boolean;
    drained?: boolean;
    touched?: readonly string[];
    parked?: readonly Pick<Refusal, "table">[];
  },
): WalkMove {
  const { walk_gen, walk_at, walk_done, unindexed, rebuilding } = row;
  const { page, reopen, drained, touched = [], parked = [] } = batch;
  // What was set aside may be a delete: a ghost of ours.
  const aside = new Set(parked.map(({ table }) => table));
  let fresh = namesIn(row.fresh).filter((name) => !aside.has(name));
  if (reopen) {
    // What went past the queue may have left ghosts anywhere, but in tables
    // that no message of the epoch has touched yet.
    fresh = row.position === 0 && drained
      ? fresh.filter((name) => !touched.includes(name))
      : [];
    const start = { walk_at: null, walk_done: 0, fresh: JSON.stringify(fresh) };
    return { walk_gen, unindexed, rebuilding, ...start };
  }
  if (page === null) {
    const stays = { walk_gen, walk_at, walk_done, unindexed, rebuilding };
    return { ...stays, fresh: JSON.stringify(fresh) };
  }
  const { walkGen, table, upto, closes } = page;
  const swapped = isSwap(page, namesIn(rebuilding));
  const bare = new Set(namesIn(unindexed));
  if (isFirstFill(page, row) || swapped) bare.add(table);
  const without = (list: readonly string[], isOut: boolean) =>
    JSON.stringify(list.filter((name) => !isOut || name !== table));
  return {
    walk_gen: walkGen,
    walk_at: upto,
    walk_done: closes ? 1 : walk_done,
    fresh: without(fresh, isThrough(page)),
    unindexed: JSON.stringify([...bare]),
    rebuilding: without(namesIn(rebuilding), swapped),
  };
}

/**
 * The tables that messages name.
 *
 * @param messages The messages of a batch.
 * @returns The tables' names, each once.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(touchedBy([["1", { table: "t" }], ["2", { table: "t" }], ["3", null]]), ["t"]);
 * ```
 */
export function touchedBy(messages: readonly Message[]): string[] {
  const names = messages.map(([, message]) =>
    (message as { table?: unknown } | null)?.table
  );
  return [...new Set(names)].filter((name) => typeof name === "string");
}

/**
 * The tables listed in a field of the replica's row.
 *
 * @param list A JSON array of names.
 * @returns The names.
 * @throws {SyntaxError} It is no such list.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(namesIn('["a"]'), ["a"]);
 * ```
 */
export function namesIn(list: string): string[] {
  const names = JSON.parse(list);
  if (!isNames(names)) {
    throw new SyntaxError("expected a list of names, found other JSON");
  }
  return names;
}

function isNames(value: unknown): value is string[] {
  return Array.isArray(value) &&
    value.every((name) => typeof name === "string");
}

/** A batch is only handed out where both sides have one schema. */
function checkColumns({ cells, columns }: Page, table: Table): void {
  const names = new Set(table.columns.map(({ name }) => name));
  const listed = columns.filter((name) => names.delete(name));
  if (
    listed.length < columns.length ||
    cells.length > 0 && !table.key.every((name) => columns.includes(name))
  ) {
    throw new SyncError(
      "source_failed",
      `Cannot read the source's page of table ${table.name}: expected its columns and its key, found others; install the migration that belongs to this worker`,
    );
  }
}

/** An empty table about to get more than a page: its indexes come last. */
function isFirstFill(
  page: PageHead,
  { fresh, rebuilding }: Pick<WalkMove, "fresh" | "rebuilding">,
): boolean {
  return page.starts && !page.last && !page.large && page.repair &&
    namesIn(fresh).includes(page.table) &&
    !namesIn(rebuilding).includes(page.table);
}

/** Whether the walk leaves the page's table. */
function isThrough({ table, upto }: PageHead): boolean {
  return parsePlace(upto)?.table !== table;
}

/** Whether a table that was rebuilt is equal with this page. */
function isSwap(page: PageHead, rebuilding: readonly string[]): boolean {
  return rebuilding.includes(page.table) && isThrough(page) && page.repair &&
    page.half !== "keys" && page.failed === null;
}

/**
 * Makes the planner of a schema's pages.
 *
 * @param schema The tables that are replicated.
 * @returns A function of a page and the changes its batch has set aside, which
 * returns what its rows come to; it throws `source_failed` where the page has
 * columns that the table has not.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { parseSchema } from "./schema.ts";
 *
 * const plan = createPagePlanner(parseSchema({
 *   tables: { t: { key: "id", columns: { id: "INTEGER" }, indexes: [] } },
 * }));
 * const planned = plan({
 *   walkGen: 1, kind: "verify", repair: false, table: "t", half: "forward", starts: true, large: false,
 *   last: true, rows: 1, failed: null, key: ["id"], columns: ["id"], cells: [["5"]],
 *   ghosts: [], oversize: [], open: [], upto: null, closes: false,
 * }, { parked: [] });
 * const steps = planned.stepsFor({ fresh: "[]", rebuilding: "[]" });
 * assertEquals(steps.map((step) => step.kind), ["compare", "tally"]);
 * ```
 */
export function createPagePlanner(
  schema: Schema,
): (
  page: Page,
  options: { parked: readonly Refusal[] },
) => PagePlan {
  const tables = new Map(schema.tables.map((table) => [table.name, table]));
  return (page, { parked }) => {
    const table = tables.get(page.table);
    // The cells are let go: their text is in the steps.
    const { cells, ...head } = page;
    if (table === undefined) return { head, stepsFor: () => [], refusals: [] };
    checkColumns(page, table);
    const order = table.key.map((column) => page.key.indexOf(column));
    const inOrder = (keys: Page["ghosts"]) =>
      keys.map((key) => cellsAt(key, order));
    const changes: Changes = {
      msgId: null,
      table,
      truncate: false,
      deletes: inOrder(page.ghosts),
      upserts: { columns: page.columns, cells },
      updates: { columns: [], cells: [] },
      oversize: inOrder(page.oversize),
    };
    const skipped = page.open.filter(({ skip }) => skip).map(({ key }) => ({
      msgId: null,
      table: table.name,
      key,
      reason: "",
    }));
    const planned = planFold(
      fold([changes]),
      [...parked, ...skipped],
      "mend",
    );
    const { steps } = planned;
    return {
      head,
      stepsFor: (row) => stepsOf(head, { table, steps, row }),
      refusals: page.repair ? planned.refusals : [],
    };
  };
}

/** The steps of a page: those of its rows, and what tells how far the walk is. */
function stepsOf(
  page: PageHead,
  { table, steps: mending, row }: {
    table: Table;
    steps: readonly RowStep[];
    row: Pick<WalkMove, "fresh" | "rebuilding">;
  },
): Step[] {
  const walk = { walkGen: page.walkGen, table };
  const steps: Step[] = isFirstFill(page, row)
    ? table.indexes.map((index) => ({ kind: "unindex", table, index }))
    : [];
  // What is filled has hardly any of these rows yet: it need not be asked for them.
  const isFill = [row.fresh, row.rebuilding].some((listed) =>
    namesIn(listed).includes(table.name)
  );
  for (const step of mending) {
    if (!page.repair) {
      steps.push({ ...step, kind: "compare", of: step.kind, walk });
      continue;
    }
    const { kind } = step;
    const found = kind === "delete" ? "ghosts" : "differing";
    steps.push(isFill && kind === "mend" ? { ...step, kind: "upsert" } : step, {
      kind: "tally",
      walk,
      found,
      rows: 0,
      ended: false,
      failed: null,
    });
  }
  const strays = page.half === "back" && page.last && page.failed === null;
  if (strays) {
    steps.push({ kind: "strays", table, repair: page.repair, walk });
  }
  if (isSwap(page, namesIn(row.rebuilding))) {
    steps.push({ kind: "drop", table }, { kind: "rename", table });
  }
  steps.push({
    kind: "tally",
    walk,
    found: strays && page.repair ? "ghosts" : null,
    rows: page.half === "back" ? 0 : page.rows,
    ended: isThrough(page),
    failed: page.failed,
  });
  return steps;
}
