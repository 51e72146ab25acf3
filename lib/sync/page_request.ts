/**
 * Ring 2. What the next page of a walk may hold, and which of the replica's
 * keys the source needs for it.
 *
 * Promise: the replica is asked for keys only if the page will be handed out,
 * and for a count of them first if that can be enough.
 *
 * @module
 */

import type { PageRequest } from "../chain/claim.ts";
import type { PageHead } from "../chain/page.ts";
import { namesIn, parsePlace } from "../chain/walk_place.ts";
import { SyncError } from "../errors.ts";
import type { Parts, Progress } from "./progress.ts";

/**
 * Whether a page may be claimed ahead of another one's apply: where the walk goes on in
 * the source's order, it needs no keys of the replica.
 *
 * @param page The page that is applied.
 * @returns Whether the walk goes on so, and in this sync.
 */
export function goesOn({ kind, table, half, upto }: PageHead): boolean {
  const place = parsePlace(upto);
  // The scrub has one page a sync.
  return kind !== "scrub" && half === "forward" && place?.half === "forward" &&
    place.table === table;
}

/**
 * Prepares the request for the next page, with the replica's keys if the source
 * needs them.
 *
 * @param parts What to work with.
 * @param progress Where the sync is.
 * @returns The request.
 * @throws {SyncError} `replica_schema`: the walk's fields in the replica's row
 * are damaged. Else what the replica throws.
 */
export async function requestPage(
  { replica, pace }: Pick<Parts, "replica" | "pace">,
  { row, isScrubbed }: Pick<Progress, "row" | "isScrubbed">,
): Promise<PageRequest> {
  // A replica of another schema gets no page; its tables may be unknown here.
  const isOurs = row !== null && replica.hasSchema(row);
  if (isOurs && row.damaged) {
    throw new SyncError(
      "replica_schema",
      "Cannot walk the replica: expected its row as the worker left it, found the fields of the walk changed; the walk starts over",
    );
  }
  const place = isOurs ? parsePlace(row.walk_at) : null;
  // The scrub has one page a sync: after it, keys would be read for nothing.
  const wantsKeys = place?.half === "back" &&
    (place.scrubRows === null || !isScrubbed);
  const bound = { ...pace.pageSize, scrub: !isScrubbed };
  if (!wantsKeys) return { ...bound, keys: null };
  const { walk_at, walk_gen: walkGen, rebuilding } = row!;
  const at = walk_at!;
  const rebuilt = namesIn(rebuilding);
  // The walk has put every row of the source here: if the replica has as many,
  // it has no others.
  const mayCount = place.after === null && !place.isCounted &&
    !rebuilt.includes(place.table);
  const count = mayCount ? await replica.count(place.table, walkGen) : null;
  if (count !== null) return { ...bound, keys: { at, count } };
  const keys = await replica.keys(place, {
    keysMax: place.scrubRows ?? pace.pageSize.rows,
    rebuilding: rebuilt,
    walkGen,
  });
  return { ...bound, keys: { at, ...keys } };
}
