/**
 * Ring 2. Builds the indexes that were postponed until their table is full.
 *
 * Promise: each is built in its own transaction, and only if it fits in one.
 *
 * @module
 */

import { namesIn, parsePlace } from "../chain/walk_place.ts";
import { hasCapacity } from "../replica/capacity.ts";
import { hasBudget, type Parts, type Progress } from "./progress.ts";

/** Building an index over more rows may pass the 5 s of a transaction. */
const INDEX_ROWS_MAX = 1_000_000;

/**
 * Builds the postponed indexes of tables that are not being filled.
 *
 * @param parts What to work with.
 * @param progress Where the sync is; its row moves on.
 * @throws {SyncError} The replica failed.
 */
export async function buildIndexes(
  parts: Parts,
  progress: Progress,
): Promise<void> {
  const { replica, budget, log, replicaMbMax } = parts;
  if (progress.row === null || !replica.hasSchema(progress.row)) return;
  if (!hasCapacity(progress.row, replicaMbMax)) return;
  const { walk_at, unindexed } = progress.row;
  const filling = parsePlace(walk_at)?.table;
  for (const table of namesIn(unindexed)) {
    if (table === filling || progress.tooLarge.has(table)) continue;
    if (!hasBudget(budget)) return;
    // The queue goes on even if this fails: the next sync tries again.
    progress.tooLarge.add(table);
    const row = await replica.buildIndexes(
      table,
      INDEX_ROWS_MAX,
      () => hasBudget(budget),
    ).catch((error) => {
      for (const other of namesIn(unindexed)) progress.tooLarge.add(other);
      throw error;
    });
    if (row === null) {
      if (!hasBudget(budget)) return;
      log("warn", "index", {
        table,
        message:
          `not built: more than ${INDEX_ROWS_MAX} rows are too many for one transaction; run the CREATE INDEX statements by hand`,
      });
    } else {
      progress.row = row;
      log("info", "index", { table });
    }
  }
}
