/**
 * Ring 0. Where a walk stands, and where a batch leaves it.
 *
 * Promise: the same row and the same page always lead to the same place.
 *
 * @module
 */

import type { Refusal } from "./rows.ts";
import type { PageHead } from "./page.ts";
import type { ReplicaRow } from "./row.ts";

/** Where a walk stands. */
export interface Place {
  /** The table that is walked. */
  readonly table: string;
  /** Which half of its walk. */
  readonly half: "forward" | "back" | "keys";
  /** The last key that was walked, null at the start. */
  readonly after: readonly string[] | null;
  /** Whether the replica's rows were counted, and are not as many as the source's. */
  readonly isCounted: boolean;
  /** The rows a scrub looks at in one sync; null for other walks. */
  readonly scrubRows: number | null;
}

/**
 * Reads the place in a replica's row.
 *
 * @param walkAt The row's `walk_at`.
 * @returns The place; null if no walk is open.
 * @throws {SyntaxError} The text is not a place.
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
 * @param batch Its page, the tables it touches, what it parks, and whether it opens
 * the walk again, as something at the source may have bypassed the queue.
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
  // The replica may refuse a delete: the row stays in it as a ghost.
  const withParked = new Set(parked.map(({ table }) => table));
  let fresh = namesIn(row.fresh).filter((name) => !withParked.has(name));
  if (reopen) {
    // What bypassed the queue may have left ghosts in any table, except in those
    // that no batch of the epoch has touched yet.
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
 * The tables listed in a field of the replica's row.
 *
 * @param list A JSON array of names.
 * @returns The names.
 * @throws {SyntaxError} The text is not such a list.
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

/** Whether an empty table is about to be filled by several pages: its indexes are built last. */
export function isFirstFill(
  page: PageHead,
  { fresh, rebuilding }: Pick<WalkMove, "fresh" | "rebuilding">,
): boolean {
  return page.starts && !page.last && !page.large && page.repair &&
    namesIn(fresh).includes(page.table) &&
    !namesIn(rebuilding).includes(page.table);
}

/** Whether the walk is done with the page's table. */
export function isThrough({ table, upto }: PageHead): boolean {
  return parsePlace(upto)?.table !== table;
}

/** Whether this page completes a table that is rebuilt beside the old one. */
export function isSwap(page: PageHead, rebuilding: readonly string[]): boolean {
  return rebuilding.includes(page.table) && isThrough(page) && page.repair &&
    page.half !== "keys" && page.failed === null;
}
