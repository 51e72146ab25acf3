/**
 * The head moves to where the replica stands: what it has is settled, what it
 * lost is put back, in the source in memory.
 *
 * @module
 */

import type { Json } from "../../lib/chain/json.ts";
import { type Key, said } from "./source_messages.ts";
import { settleLetters, unsettleLetters } from "./source_letters.ts";
import type { SourceModel } from "./source_model.ts";
import type { Cut, Fields, Version } from "./source_state.ts";
import type { Message } from "./tables.ts";

/** What moving the head came to; or why it stays where it is. */
export type Moved =
  | { acked: number; putBack: number; isSettled: boolean }
  /** It stands where nothing was handed out yet. */
  | "ahead"
  /** Why a new epoch has to begin. */
  | { lost: string };

/** libsql_sync.move_head */
export function moveHead(source: SourceModel, at: Fields): Moved {
  const { state: { chain, batches }, faults } = source;
  const versions = batches.filter(({ epoch }) => epoch === chain.epoch);
  const find = (batch: Json) => versions.find((other) => other.batch === batch);
  let from = { position: chain.position, batch: chain.batch };
  let to = { position: at.position as number, batch: at.batch as string };
  if (faults.settleByPosition) {
    const newest = versions.findLast(({ position }) =>
      position === to.position
    );
    to = newest ?? to;
  }
  const isOnRecord = to.batch === chain.epoch && to.position === 0 ||
    find(to.batch)?.position === to.position;
  const unknown = {
    lost:
      `the replica at position ${at.position} holds a batch that is not on record, or whose past is not`,
  };
  if (!isOnRecord) return to.position > chain.handed ? "ahead" : unknown;
  const back: Version[] = [];
  const forth: Version[] = [];
  while (from.batch !== to.batch) {
    const [down, up] = [from.position, to.position];
    if (down >= up) {
      const version = find(from.batch);
      if (version === undefined) return unknown;
      back.push(version);
      from = before(version);
    }
    if (up >= down) {
      const version = find(to.batch);
      if (version === undefined) return unknown;
      forth.unshift(version);
      to = before(version);
    }
  }
  const gone = back.find((version) => !isKept(source, version));
  if (gone !== undefined && !faults.archiveUnchecked) {
    return {
      lost:
        `messages of position ${gone.position}, which the replica lost, are gone`,
    };
  }
  for (const version of back) putBack(source, version);
  let acked = 0;
  for (const version of faults.aheadAlone ? forth.slice(-1) : forth) {
    acked += settle(source, version);
  }
  return { acked, putBack: back.length, isSettled: forth.length > 0 };
}

function before({ position, prev }: Version) {
  return { position: position - 1, batch: prev };
}

/** Whether every message of a settled version is still there. */
function isKept({ state, user }: SourceModel, version: Version): boolean {
  const { msgIds, cut } = version;
  return msgIds.every((id) => state.archive.has(id)) &&
    (cut === null || user.queue.has(cut.msgId) || state.archive.has(cut.msgId));
}

/** libsql_sync.settle; how many messages left the queue. */
export function settle(source: SourceModel, version: Version): number {
  const { state, user, faults, options } = source;
  const { chain } = state;
  if (faults.settleSibling) {
    const sibling = state.batches.findLast(({ prev }) => prev === version.prev);
    const { msgIds, cut, messages, parked } = sibling!;
    Object.assign(version, { msgIds, cut, messages, parked });
  }
  settleLetters(source, version, coveredBy(source, version));
  const settled = version.msgIds.filter((id) => user.queue.has(id));
  for (const id of settled) {
    state.archive.set(id, user.queue.get(id)!);
    user.queue.delete(id);
  }
  const { cut } = version;
  if (cut !== null && user.queue.has(cut.msgId)) {
    takeFirst(source, version, cut);
  }
  version.state = "settled";
  version.settledAt = source.clock();
  chain.position = version.position;
  chain.batch = version.batch;
  if (version.opens !== null) {
    chain.walkOpened = Math.max(chain.walkOpened, version.opens);
  }
  options.events.acked(version, settled);
  if (faults.progressAtSource) {
    source.progress = source.uptos.get(version.batch) ?? source.progress;
  }
  return settled.length;
}

/** The keys that a version covers, by table. */
export function coveredBy(
  source: SourceModel,
  { msgIds, cut }: Pick<Version, "msgIds" | "cut">,
): { table: string; key: Key }[] {
  const keysOf = (id: number, many = Infinity) => {
    const message = source.user.queue.get(id);
    if (message === undefined) return [];
    const { table, keys } = said(source.tables(), message);
    return keys.slice(0, many).map((key) => ({ table: table!, key }));
  };
  return [
    ...msgIds.flatMap((id) => keysOf(id)),
    ...cut === null ? [] : keysOf(cut.msgId, cut.keys),
  ];
}

/** Takes the first keys out of a message that stays in the queue. */
function takeFirst(source: SourceModel, version: Version, cut: Cut): void {
  const { user, state, faults } = source;
  const message = user.queue.get(cut.msgId)!;
  const { table, keys } = said(source.tables(), message);
  version.cutKeys = keys.slice(0, cut.keys);
  if (faults.remainderDropped) {
    state.archive.set(cut.msgId, message);
    user.queue.delete(cut.msgId);
    return;
  }
  user.queue.set(cut.msgId, keysMessage(table!, keys.slice(cut.keys)));
}

function keysMessage(table: string, keys: readonly Key[]): Message {
  return { v: 2, table, keys: keys.map((key) => [...key]) };
}

/** libsql_sync.put_back */
function putBack(source: SourceModel, version: Version): void {
  const { state, user, faults, options } = source;
  const { chain } = state;
  const { cut, msgIds, opens } = version;
  if (cut !== null && user.queue.has(cut.msgId) && !faults.cutKeysLost) {
    const { table, keys } = said(
      source.tables(),
      user.queue.get(cut.msgId)!,
    );
    const whole = [...version.cutKeys, ...keys];
    user.queue.set(cut.msgId, keysMessage(table!, whole));
  }
  version.cutKeys = [];
  const returned = msgIds.filter((id) => state.archive.has(id));
  for (const id of returned) {
    const under = faults.newNumbers ? user.nextMsgId++ : id;
    user.queue.set(under, state.archive.get(id)!);
    state.archive.delete(id);
  }
  if (!faults.floorKept) chain.floor = Math.min(chain.floor, ...returned);
  unsettleLetters(source, version);
  version.state = "handed";
  version.settledAt = null;
  chain.position = version.position - 1;
  chain.batch = version.prev;
  if (opens !== null && !faults.opensForgotten) {
    chain.walkOpened = Math.min(chain.walkOpened, opens - 1);
  }
  // A walk closed letters there: it has to come through again.
  if (version.position <= chain.lettersClosed && !faults.closingForgotten) {
    chain.walkWanted += 1;
  }
  options.events.putBack(version);
}

/** libsql_sync.trim: never what stands above the head. */
export function trim(source: SourceModel): void {
  const { state, faults, options } = source;
  const { chain, epochs } = state;
  const since = source.clock() - chain.replayWindowMs;
  const generationOf = (name: string) =>
    epochs.findIndex(({ epoch }) => epoch === name);
  const old = state.batches
    .filter(({ epoch, position, batch, settledAt, handedAt }) =>
      (settledAt ?? handedAt) < since &&
      (faults.trimReachable || epoch !== chain.epoch ||
        position <= chain.position && batch !== chain.batch)
    )
    .toSorted((a, b) =>
      generationOf(a.epoch) - generationOf(b.epoch) || a.position - b.position
    )
    .slice(0, 8);
  for (const version of old) {
    options.events.trimmed(version);
    if (version.state !== "settled") continue;
    for (const id of version.msgIds) state.archive.delete(id);
  }
  state.batches = state.batches.filter((version) => !old.includes(version));
}
