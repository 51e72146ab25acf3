/**
 * Ring 2. What the next page of a walk may hold, and the replica keys it needs.
 *
 * @module
 */

import type { PageRequest } from "../chain/claim.ts";
import type { PageHead } from "../chain/page.ts";
import type { ReplicaRow } from "../chain/row.ts";
import { namesIn, parsePlace } from "../chain/walk_place.ts";
import { SyncError } from "../errors.ts";
import type { Pace } from "./batch_size.ts";
import type { Parts, Progress } from "./progress.ts";

/** Where a page leaves a walk that goes on in the source's order. */
export function pageAfter(
  { kind, walkGen, table, half, upto }: PageHead,
): Pick<ReplicaRow, "walk_gen" | "walk_at"> | undefined {
  const place = parsePlace(upto);
  // The scrub has one page a sync.
  return kind !== "scrub" && half === "forward" && place?.half === "forward" &&
      place.table === table
    ? { walk_gen: walkGen, walk_at: upto }
    : undefined;
}

/** How much a page may hold. */
export function pageBound(
  { pageSize }: Pace,
): Pick<PageRequest, "rows" | "bytes"> {
  return { rows: pageSize.messages, bytes: pageSize.bytes };
}

/** What the next page may hold, with the replica's keys where it needs them. */
export async function pageRequest(
  { replica, pace }: Parts,
  { row, isScrubbed }: Progress,
): Promise<PageRequest> {
  // A replica of another schema gets no page; its tables may be unknown here.
  const isOurs = row !== null && replica.hasSchema(row);
  if (isOurs && row.damaged) {
    throw new SyncError(
      "replica_schema",
      "Cannot walk the replica: expected its row as it was left, found fields of the walk that somebody else wrote; the walk starts over",
    );
  }
  const place = isOurs ? parsePlace(row.walk_at) : null;
  // The scrub has one page a sync: its keys are not asked for in vain.
  const wantsKeys = place?.half === "back" &&
    (place.scrubRows === null || !isScrubbed);
  const bound = { ...pageBound(pace), scrub: !isScrubbed };
  if (!wantsKeys) return { ...bound, keys: null };
  const { walk_at, walk_gen: walkGen, rebuilding } = row!;
  const at = walk_at!;
  const rebuilt = namesIn(rebuilding);
  // As many rows as the source has are the same ones.
  const mayCount = place.after === null && !place.isCounted &&
    !rebuilt.includes(place.table);
  const count = mayCount ? await replica.count(place.table, walkGen) : null;
  if (count !== null) return { ...bound, keys: { at, count } };
  const keysMax = place.scrubRows ?? pace.pageSize.messages;
  const keys = await replica.keys(place, {
    keysMax,
    rebuilding: rebuilt,
    walkGen,
  });
  return { ...bound, keys: { at, ...keys } };
}
