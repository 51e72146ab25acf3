/**
 * Reading the queue of the source in memory: its floor, its head, and the rows
 * of the keys there.
 *
 * @module
 */

import type { Json } from "../../lib/chain/json.ts";
import { type Key, type Said, said } from "./source_messages.ts";
import type { Early, SourceModel } from "./source_model.ts";
import { type Cut, type Fields, isSame, type Version } from "./source_state.ts";
import { isUnreadable, type Rows, UNREADABLE } from "./tables.ts";

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

/** libsql_sync.keep_floor: it rises to what nothing smaller can follow, but
 * past no message that waits. */
export function keepFloor(
  source: SourceModel,
  { lowest, settled }: ReturnType<typeof floorOf>,
  covered: readonly number[],
): void {
  const { state: { chain }, user, faults } = source;
  const isKept = settled === null && lowest === chain.floor &&
    chain.floorNext !== null;
  if (isKept) return;
  const first = Math.min(
    ...faults.floorSkips
      ? covered
      : [...user.queue.keys()].filter((id) => id >= lowest),
    Infinity,
  );
  chain.floor = settled === null
    ? lowest
    : Math.max(lowest, Math.min(settled, first));
  chain.floorNext = user.nextMsgId > 1 ? user.nextMsgId : null;
  chain.floorAwaits = source.writers();
}

/** A message at the head of the queue, without what is covered already. */
interface Waiting extends Said {
  readonly id: number;
}

/** What a version covers, and what it found there. */
export interface Reading {
  readonly msgIds: readonly number[];
  readonly cut: Cut | null;
  readonly drained: boolean;
  /** Whether it covers what keys cannot say. */
  readonly asksWalk: boolean;
  readonly emptied: readonly string[];
  readonly tables: Fields[];
  readonly unusable: Fields[];
}

/** libsql_sync.read_head: which messages the next version covers, and the rows
 * of their keys, all from one snapshot. */
export function readHead(
  source: SourceModel,
  request: Fields,
  { lowest, path, early }: {
    lowest: number;
    /** The versions it stands on that are not settled. */
    path: readonly Version[];
    /** What was seen before the lock, for a bug. */
    early: Early | null;
  },
): Reading {
  const { faults } = source;
  const seen = early !== null &&
      (faults.snapshotBeforeLock || faults.queueEarlier)
    ? early.queue
    : source.user.queue;
  const rows = rowsOf(source, early);
  const { waiting, isWhole } = waitingIn(source, { seen, lowest, path });
  const covered = coveredOf(waiting, {
    keysMax: Number(request.rows_max),
    bytesMax: Number(request.bytes_max),
    rows,
  });
  const { whole, cut, keys } = covered;
  const emptied = truncatedIn(whole).filter((name) =>
    faults.truncateWipes || rows[name]!.size === 0
  );
  return {
    msgIds: whole.map(({ id }) => id),
    cut,
    drained: whole.length === waiting.length &&
      (isWhole || !!faults.leftDrained),
    asksWalk: whole.some(({ walk }) => walk && !faults.walkDropped) ||
      !faults.truncateWipes && !faults.truncateUntold &&
        truncatedIn(whole).some((name) => !emptied.includes(name)),
    emptied,
    tables: tablesOf(source, { keys, emptied, rows }),
    unusable: unusableIn(whole),
  };
}

/** The user's rows as the snapshot has them. */
function rowsOf(source: SourceModel, early: Early | null): Rows {
  const { user, faults } = source;
  const isEarly = early !== null &&
    (faults.snapshotBeforeLock || faults.rowsEarlier);
  const rows: Rows = isEarly ? early.rows : user.rows;
  if (!faults.unlocked) return rows;
  // A snapshot that is older than a truncate finds the table empty.
  return Object.fromEntries(
    Object.entries(rows).map(([name, found]) => [
      name,
      user.isLocked(name) ? new Map() : found,
    ]),
  );
}

/** The messages of tables that could be locked, in order; whether these are all. */
function waitingIn(
  source: SourceModel,
  { seen, lowest, path }: {
    seen: ReadonlyMap<number, Json>;
    lowest: number;
    path: readonly Version[];
  },
): { waiting: Waiting[]; isWhole: boolean } {
  const { user, faults, state } = source;
  const besides = faults.aheadCovers ? [] : path;
  const ids = [...seen.keys()]
    .filter((id) =>
      id >= lowest && !besides.some(({ msgIds }) => msgIds.includes(id))
    )
    .sort((a, b) => a - b);
  const newest = faults.cursor ? Math.max(0, ...state.archive.keys()) : 0;
  const listed = source.tables();
  const all = ids.filter((id) => id > newest).map((id): Waiting => {
    const message = said(listed, seen.get(id)!);
    const cut = besides.reduce(
      (sum, { cut }) => sum + (cut?.msgId === id ? cut.keys : 0),
      0,
    );
    return { ...message, id, keys: message.keys.slice(cut) };
  });
  const waiting = all.filter(({ table }) =>
    faults.unlocked || table === null || !user.isLocked(table)
  );
  const last = Math.max(0, ...path.flatMap(({ msgIds }) => msgIds));
  const left = faults.aheadDrained ? all.filter(({ id }) => id > last) : all;
  return { waiting, isWhole: left.every((one) => waiting.includes(one)) };
}

/** A key of a table. */
interface Named {
  readonly table: string;
  readonly key: Key;
  readonly name: string;
}

function named(table: string, key: Key): Named {
  return { table, key, name: `${table} ${JSON.stringify(key)}` };
}

/** Which messages are covered: as many as the bounds allow, whole; or the first
 * keys of the first one. */
function coveredOf(
  waiting: readonly Waiting[],
  { keysMax, bytesMax, rows }: {
    keysMax: number;
    bytesMax: number;
    rows: Rows;
  },
): { whole: Waiting[]; cut: Cut | null; keys: Named[] } {
  const keys = new Map<string, Named>();
  const whole: Waiting[] = [];
  let count = 0;
  let bytes = 0;
  for (const message of waiting) {
    const weight = Math.max(1, message.keys.length);
    const isFirst = whole.length === 0;
    if (count >= keysMax || !isFirst && count + weight > keysMax) break;
    const read: Named[] = [];
    for (const key of message.keys.slice(0, keysMax - count)) {
      const one = named(message.table!, key);
      if (!keys.has(one.name)) {
        if (bytes > 0 && bytes >= bytesMax) break;
        const row = rows[one.table]!.get(JSON.stringify(key));
        bytes += JSON.stringify(row ?? null).length;
      }
      read.push(one);
    }
    const isWhole = read.length === message.keys.length;
    if (!isWhole && !isFirst) break;
    for (const one of read) keys.set(one.name, one);
    if (!isWhole) {
      const cut = { msgId: message.id, keys: read.length };
      return { whole, cut, keys: [...keys.values()] };
    }
    whole.push(message);
    count += weight;
  }
  return { whole, cut: null, keys: [...keys.values()] };
}

/** What messages have no usable key, once for each table. */
function unusableIn(messages: readonly Said[]): Fields[] {
  const found = messages.filter(({ unusable }) => unusable !== null)
    .map(({ table, unusable }) => ({ table, reason: unusable! }));
  return found.filter((one, at) =>
    found.findIndex((other) => isSame(other, one)) === at
  );
}

/** The tables of truncates, each once. */
function truncatedIn(messages: readonly Said[]): string[] {
  const names = messages.filter(({ truncate }) => truncate)
    .map(({ table }) => table!);
  return [...new Set(names)];
}

/** What is sent of each table, in the order in which they were named first. */
function tablesOf(
  source: SourceModel,
  { keys, emptied, rows }: {
    keys: readonly Named[];
    emptied: readonly string[];
    rows: Rows;
  },
): Fields[] {
  const names = new Set([...emptied, ...keys.map(({ table }) => table)]);
  return [...names].map((name) => {
    const listed = source.tables().find((table) => table.name === name)!;
    const columns = listed.columns.map((column) => column.name);
    const cells: Json[] = [];
    const gone: Json[] = [];
    const broken: Json[] = [];
    for (const { key } of keys.filter(({ table }) => table === name)) {
      const row = rows[name]!.get(JSON.stringify(key));
      if (row === undefined) {
        const isSent = !emptied.includes(name) && !source.faults.absenceUnsent;
        if (isSent) gone.push(key);
      } else if (isUnreadable(row)) {
        if (!source.faults.brokenUnsent) {
          broken.push({ key, reason: UNREADABLE });
        }
      } else {
        cells.push(columns.map((column) => row[column] ?? null));
      }
    }
    const truncate = emptied.includes(name);
    return { table: name, truncate, columns, rows: cells, gone, broken };
  });
}
