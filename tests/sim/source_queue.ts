/**
 * Reading the queue of the source in memory: its head, its floor, and what was
 * recorded before.
 *
 * @module
 */

import type { Json } from "../../lib/chain/json.ts";
import type { Early, SourceModel } from "./source_model.ts";
import { type Fields, isSame, type Version } from "./source_state.ts";
import type { Message } from "./tables.ts";

/** libsql_sync.snapshot_at */
export function snapshotAt({ state }: SourceModel, position: number): string {
  return state.batches
    .filter((version) =>
      version.epoch === state.chain.epoch && version.position <= position &&
      version.drained
    )
    .toSorted((a, b) => b.position - a.position)[0]?.snapshot ?? "3:3:";
}

/** libsql_sync.floor */
export function floorOf(source: SourceModel): {
  lowest: number;
  settled: number | null;
} {
  const { state: { chain }, user } = source;
  const isOurs = user.nextMsgId > 1 && user.nextMsgId >= chain.floor;
  if (!isOurs) return { lowest: 0, settled: null };
  const writers = source.writers();
  const isAwaited = chain.floorAwaits.some((writer) =>
    writers.includes(writer)
  );
  return {
    lowest: chain.floor,
    settled: isAwaited ? null : chain.floorNext,
  };
}

/** libsql_sync.keep_floor */
export function keepFloor(source: SourceModel, lowest: number): void {
  const { state: { chain }, user } = source;
  chain.floor = lowest;
  chain.floorNext = user.nextMsgId > 1 ? user.nextMsgId : null;
  chain.floorAwaits = source.writers();
}

/** libsql_sync.queue_head */
export function head(
  { user, faults, state }: SourceModel,
  request: Fields,
  { lowest, seen, besides }: {
    lowest: number;
    seen: Early | null;
    besides: readonly number[];
  },
): {
  messages: [number, Message][];
  drained: boolean;
  isUncaptured: boolean;
} {
  const queue = seen?.queue ?? user.queue;
  let ids = [...queue.keys()]
    .filter((id) => id >= lowest && !besides.includes(id))
    .sort((a, b) => a - b);
  if (faults.cursor) {
    const newest = Math.max(0, ...state.archive.keys());
    ids = ids.filter((id) => id > newest);
  }
  const taken = ids.slice(0, Number(request.messages_max));
  return {
    messages: taken.map((id) => [id, queue.get(id)!]),
    drained: taken.length === ids.length,
    isUncaptured: !faults.uncapturedForgotten &&
      taken.some((id) =>
        (queue.get(id) as Fields | null)?.failed !== undefined
      ),
  };
}

/** libsql_sync.recorded */
export function recordedOf(
  { user, state }: SourceModel,
  version: Version | undefined,
): [number, Message][] {
  if (version === undefined) return [];
  const kept = version.state === "pending" ? user.queue : state.archive;
  return version.msgIds
    .filter((id) => kept.has(id))
    .map((id) => [id, kept.get(id)!]);
}

/** Where all that a table has are messages of one row each, they come as one. */
export function merged(messages: readonly [number, Message][]): Json[] {
  const tables = new Map<Json, [number, Message][]>();
  for (const one of messages) {
    const table = (one[1] as Fields).table ?? null;
    tables.set(table, [...tables.get(table) ?? [], one]);
  }
  const parts: { first: number; part: Json }[] = [];
  for (const [table, of] of tables) {
    const isOne = table !== null &&
      of.every(([, message]) => fieldOf(message as Fields) !== null);
    if (isOne) {
      parts.push({
        first: of[0]![0],
        part: [of.map(([id]) => String(id)), mergedOf(of, table)],
      });
    } else {
      for (const [id, message] of of) {
        parts.push({ first: id, part: [String(id), message] });
      }
    }
  }
  return parts.sort((a, b) => a.first - b.first).map(({ part }) => part);
}

/** One message of several of one row each. */
function mergedOf(of: readonly [number, Message][], table: Json): Json {
  const all = of.map(([, message]) => {
    const { columns = null, ...fields } = message as Fields;
    const field = fieldOf(message as Fields)!;
    return { kind: { columns, field }, row: (fields[field] as Json[])[0]! };
  });
  const kinds = all.map(({ kind }) => kind)
    .filter((kind, at, list) =>
      list.findIndex((one) => isSame(one, kind)) === at
    );
  const rows = all.map(({ row }) => row);
  if (kinds.length > 1) {
    const places = all.map(({ kind }) =>
      kinds.findIndex((one) => isSame(one, kind))
    );
    return { v: 1, table, kinds, of: places, rows };
  }
  const { columns, field } = kinds[0]!;
  return { v: 1, table, columns, [field]: rows };
}

/** Where the one row of a message lies; null where it has another number of rows. */
function fieldOf(message: Fields): "rows" | "updates" | null {
  const { rows, updates } = message;
  if (rows !== undefined && updates !== undefined) return null;
  return isOneRow(message, rows)
    ? "rows"
    : isOneRow(message, updates)
    ? "updates"
    : null;
}

function isOneRow({ v, columns, ...rest }: Fields, rows?: Json): boolean {
  return v === 1 && Array.isArray(columns) && Array.isArray(rows) &&
    rows.length === 1 && Array.isArray(rows[0]) &&
    !["deletes", "oversize", "truncate", "failed"].some((name) => name in rest);
}
