/**
 * Ring 0. Read your writes: whether a replica contains a transaction.
 *
 * Promise: what is said to be contained is in the rows that are read in the same
 * batch. This file stands alone: import it, or copy it to where you read.
 *
 * A bookmark is what `select libsql_sync.bookmark()` returned in PostgreSQL, in
 * the transaction that wrote or after it: `xid:seconds:epoch`.
 *
 * @module
 */

/**
 * Asks, with a bookmark as its one argument, whether the replica contains that
 * transaction: one row, `contained` is 1 or 0. Put it into the batch that reads.
 *
 * The row's snapshot is `xmin:xmax:xip,xip`, and all that it saw is here. A chain
 * begun anew, and one not walked yet, contain nothing.
 *
 * @example
 * ```ts
 * import { assert } from "@std/assert";
 *
 * assert(CONTAINED.includes("FROM _libsql_sync"));
 * ```
 */
export const CONTAINED = `SELECT coalesce(walk_done = 1
  AND substr(?1, -length(epoch) - 1) = ':' || epoch
  AND unixepoch(source_time) >= CAST(substr(?1, instr(?1, ':') + 1) AS INTEGER)
  AND CAST(?1 AS INTEGER) < CAST(substr(snapshot, instr(snapshot, ':') + 1) AS INTEGER)
  AND instr(',' || replace(substr(snapshot, instr(snapshot, ':') + 1), ':', ',') || ',',
    ',' || CAST(?1 AS INTEGER) || ',') = 0, 0) AS contained
FROM _libsql_sync WHERE id = 1`;

/**
 * Decides the same from the row itself, for a reader that has read `_libsql_sync`.
 *
 * @param row The columns `epoch`, `walk_done`, `snapshot` and `source_time` of
 * `_libsql_sync`, read in one batch with what is to be trusted.
 * @param bookmark What `libsql_sync.bookmark()` returned.
 * @returns Whether the replica contains the transaction; false if either
 * cannot be read.
 *
 * @example
 * ```ts
 * import { assert } from "@std/assert";
 *
 * const row = {
 *   epoch: "e",
 *   walk_done: 1,
 *   snapshot: "10:14:10,12",
 *   source_time: "2026-11-22T11:46:15.133587+00:00",
 * };
 * assert(contains(row, "11:1700000000:e"));
 * assert(!contains(row, "12:1700000000:e"), "it was open");
 * assert(!contains(row, "14:1700000000:e"), "it began later");
 * assert(!contains(row, "11:1700000000:f"), "of another chain");
 * ```
 */
export function contains(
  row: Readonly<Record<string, unknown>>,
  bookmark: string,
): boolean {
  const [, xid, seconds, epoch] = /^(\d+):(\d+):(.+)$/.exec(bookmark) ?? [];
  const [, xmax, xip] = /^\d+:(\d+):([\d,]*)$/.exec(String(row.snapshot)) ?? [];
  if (xid === undefined || xmax === undefined) return false;
  return Number(row.walk_done) === 1 && row.epoch === epoch &&
    Math.floor(Date.parse(String(row.source_time)) / 1000) >= Number(seconds) &&
    BigInt(xid) < BigInt(xmax) && !xip!.split(",").includes(xid);
}
