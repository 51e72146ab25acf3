/**
 * Ring 0. How much of its capacity the replica takes.
 *
 * Promise: a replica is warned of before it is full, and stopped before a write
 * could fail for it.
 *
 * @module
 */

import type { ReplicaRow } from "../chain/row.ts";
import { SyncError } from "../errors.ts";

const MB = 1_048_576;
const SHARE_WARN = 0.8;
const SHARE_STOP = 0.95;

/** The part of the row that holds its size. */
export type Sized = Pick<ReplicaRow, "bytes">;

/**
 * The replica's size in MB, rounded up.
 *
 * @param row The replica's row.
 * @returns The size.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(mbOf({ bytes: 1_048_577 }), 2);
 * ```
 */
export function mbOf({ bytes }: Sized): number {
  return Math.ceil(bytes / MB);
}

/**
 * Whether the replica may grow.
 *
 * @param row The replica's row; null where there is none yet.
 * @param mbMax The capacity, in MB.
 * @returns Whether less than 95 % of it are taken.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(hasCapacity({ bytes: 95 * 1_048_576 }, 100), false);
 * ```
 */
export function hasCapacity(row: Sized | null, mbMax = Infinity): boolean {
  return shareOf(row, mbMax) < SHARE_STOP;
}

/**
 * The warnings for a replica that comes near its limit.
 *
 * @param row The replica's row; null where there is none yet.
 * @param mbMax The capacity, in MB.
 * @returns The sentences, none below 80 %.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(capacityWarnings({ bytes: 79 * 1_048_576 }, 100), []);
 * assertEquals(capacityWarnings({ bytes: 80 * 1_048_576 }, 100).length, 1);
 * ```
 */
export function capacityWarnings(
  row: Sized | null,
  mbMax = Infinity,
): string[] {
  return shareOf(row, mbMax) < SHARE_WARN ? [] : [
    `The replica holds ${
      mbOf(row!)
    } MB of the ${mbMax} MB that LIBSQL_MAX_MB allows; nothing is applied from ${
      SHARE_STOP * 100
    } % on`,
  ];
}

/**
 * The error of a replica that is nearly full.
 *
 * @param row The replica's row.
 * @param mbMax The capacity, in MB.
 * @returns The error.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(capacityError({ bytes: 0 }, 100).code, "replica_full");
 * ```
 */
export function capacityError(row: Sized, mbMax = Infinity): SyncError {
  return new SyncError(
    "replica_full",
    `Cannot apply: expected less than ${
      SHARE_STOP * 100
    } % of LIBSQL_MAX_MB (${mbMax} MB) in the replica, found ${
      mbOf(row)
    } MB; raise LIBSQL_MAX_MB if the database may be larger; else replicate less, by schema.json, and POST /nuke: the replica is filled anew. Changes stay queued`,
  );
}

/** 1 is all of it. */
function shareOf(row: Sized | null, mbMax: number): number {
  return row === null ? 0 : row.bytes / MB / mbMax;
}
