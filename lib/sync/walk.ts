/**
 * Ring 2. The verbs backfill and verify: a walk over every cell.
 *
 * Promise: a walk compares at exact positions of the chain, so that what it
 * reports as different is different, however busy the source is.
 *
 * @module
 */

import type { Walked } from "../chain/page.ts";
import { SyncError } from "../errors.ts";
import type { Parts } from "./progress.ts";
import type { SyncResult } from "./result.ts";
import { sync } from "./sync.ts";

/** What a walk found so far. */
export interface WalkResult extends SyncResult {
  /** The walk's number. */
  readonly walk: number;
  /** Whether every table was walked; if not, the next /sync goes on. */
  readonly done: boolean;
  /** Rows missing, different or ghosts; for a backfill, rows it wrote. */
  readonly differences: number;
  /** The same by table. */
  readonly tables: Record<string, Omit<Walked, "table" | "walkGen">>;
}

/** What to walk. */
export interface WalkRequest {
  /** Whether it writes what differs, or compares. */
  readonly kind: "backfill" | "verify";
  /** One table. Default: all tables. */
  readonly table?: string;
  /** Whether a verify repairs what it finds. Default: false. */
  readonly repair?: boolean;
}

/**
 * Requests a walk, and goes on with it as far as the budget allows.
 *
 * @param parts What to work with.
 * @param request The kind, the table, and whether to repair.
 * @returns What was found so far.
 * @throws {SyncError} `bad_request`: schema.json does not list the table. Else
 * what a sync throws.
 */
export async function walk(
  parts: Parts,
  request: WalkRequest,
): Promise<WalkResult> {
  const { kind, table = null, repair = false } = request;
  const requested = await parts.source.requestWalk({ kind, table, repair });
  if (requested === null) {
    throw new SyncError(
      "bad_request",
      `Cannot ${kind}: expected a table of schema.json, found another`,
    );
  }
  const result = await sync(parts);
  const found = result.busy
    ? []
    : await parts.replica.walked(requested.walkGen);
  const tables: Record<string, Omit<Walked, "table" | "walkGen">> = {};
  for (const { table, walkGen: _, ...counts } of found) tables[table] = counts;
  return {
    ...result,
    walk: requested.walkGen,
    done: requested.tables.every((name) => tables[name]?.ended),
    differences: found.reduce(
      (sum, { differing, ghosts }) => sum + differing + ghosts,
      0,
    ),
    tables,
  };
}
