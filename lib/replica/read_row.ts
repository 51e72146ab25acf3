/**
 * Ring 0. Reads the replica's row, which another writer may have changed.
 *
 * Promise: no field of it is believed to be what it should be.
 *
 * @module
 */

import type { ReplicaRow } from "../chain/row.ts";
import { namesIn, parsePlace } from "../chain/walk_place.ts";
import { SyncError } from "../errors.ts";
import type { Schema } from "../schema.ts";

/**
 * Reads the row as it came back.
 *
 * Anybody with the token can write to it, and some of its fields are unguarded.
 * What says how far the walk is must be readable; else the row is damaged, and
 * `alter` makes it whole: the walk starts over, and nothing is lost.
 *
 * @param row What came back.
 * @param options The worker's schema and its hash.
 * @returns The row.
 * @throws {SyncError} `replica_moved`, where it does not say where it stands.
 *
 * @example
 * ```ts
 * import { assertEquals, assertThrows } from "@std/assert";
 *
 * const options = { schema: { tables: [] }, schemaHash: "h" };
 * const row = { epoch: "e", position: 1, batch: "b", schema_hash: "h", walk_at: "x" };
 * assertEquals(readRow(row, options).damaged, true);
 * assertEquals(readRow(row, options).walk_at, null);
 * assertThrows(() => readRow({}, options), Error, "where it stands");
 * ```
 */
export function readRow(
  row: unknown,
  options: { schema: Schema; schemaHash: string },
): ReplicaRow {
  const found = (row ?? {}) as Record<string, unknown>;
  const { epoch, position, batch, schema_hash } = found;
  if (
    typeof epoch !== "string" || typeof batch !== "string" ||
    !Number.isSafeInteger(position) || typeof schema_hash !== "string"
  ) {
    throw new SyncError(
      "replica_moved",
      "Cannot read the replica's row: expected one row that says where it stands, found another",
    );
  }
  const { schema, schemaHash } = options;
  const isOurs = schema_hash === schemaHash;
  let isDamaged = false;
  const damaged = <T>(value: T): T => {
    isDamaged = true;
    return value;
  };
  const whole = (value: unknown) =>
    Number.isSafeInteger(value) ? value as number : null;
  const text = (value: unknown) => typeof value === "string" ? value : null;
  const list = (value: unknown) => {
    const names = attempt(() => namesIn(value as string));
    const isListed = names?.every((name) =>
      !isOurs || schema.tables.some((table) => table.name === name)
    );
    return isListed ? value as string : damaged("[]");
  };
  const placeIn = (value: unknown) => {
    if (value === null) return null;
    const place = attempt(() => parsePlace(text(value) ?? ""));
    if (place === undefined || place === null) return damaged(null);
    // The keys of another table, or of none, cannot be asked for.
    const { half, after } = place;
    const key = schema.tables.find(({ name }) => name === place.table)?.key;
    const isFit = !isOurs || half !== "back" ||
      key !== undefined && (after ?? key).length === key.length;
    return isFit ? value as string : damaged(null);
  };
  const read = {
    epoch,
    position: position as number,
    batch,
    prev: text(found.prev),
    from_epoch: text(found.from_epoch),
    walk_gen: whole(found.walk_gen) ?? damaged(0),
    walk_at: placeIn(found.walk_at),
    walk_done: whole(found.walk_done) ?? damaged(0),
    fresh: list(found.fresh),
    unindexed: list(found.unindexed),
    rebuilding: list(found.rebuilding),
    // The next step overwrites these fields.
    drained: found.drained === 1 ? 1 : 0,
    snapshot: text(found.snapshot),
    source_time: text(found.source_time),
    schema_hash,
    dead_letters: whole(found.dead_letters) ?? 0,
    bytes: whole(found.bytes) ?? 0,
  };
  return isDamaged ? { ...read, damaged: true } : read;
}

/** What a function returns; undefined where it throws. */
function attempt<T>(run: () => T): T | undefined {
  try {
    return run();
  } catch {
    return undefined;
  }
}
