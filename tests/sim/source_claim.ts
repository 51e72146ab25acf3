/**
 * The section "The chain" of the migration, in memory: claim, and what it does
 * on the way.
 *
 * @module
 */

import type { Json } from "../../lib/chain/json.ts";
import { parsePlace } from "../../lib/chain/walk_place.ts";
import { adoptAnswer, beginEpoch } from "./source_epochs.ts";
import type { Early, SourceModel } from "./source_model.ts";
import { heldLetters } from "./source_letters.ts";
import { coveredBy, moveHead, settle, trim } from "./source_move.ts";
import { floorOf, keepFloor, readHead, type Reading } from "./source_queue.ts";
import {
  type Fields,
  isSame,
  type Upto,
  type Version,
} from "./source_state.ts";
import { holdPage, nextWalk, noteWalked, page } from "./source_walks.ts";

/** libsql_sync.claim */
export function claim(
  source: SourceModel,
  request: Fields,
  early: Early | null = null,
): Fields {
  const { state, faults } = source;
  const { chain, schemas, epochs } = state;
  if (chain.lease !== request.lease) return answer({ do: "busy" });
  const at = request.row as Fields | null;
  chain.leaseUntil = source.clock() + Number(request.seconds) * 1000;
  chain.seen = at;
  noteWalked(source, request.walked as Fields[], at);

  const newest = schemas.at(-1)!;
  const mine = schemas.find(({ hash }) => hash === request.schema);
  if (mine === undefined) return stop("schema_unknown");
  if (mine !== newest) return stop("schema_outdated");

  // 1. Whose replica is it?
  const epochOf = (name: unknown) => epochs.find(({ epoch }) => epoch === name);
  if (at === null) {
    const wipe = chain.position === 0 && epochOf(chain.epoch)!.wipe;
    return answer({ do: "bootstrap", epoch: chain.epoch, wipe });
  }
  const theirEpoch = at.epoch as string;
  if (theirEpoch !== chain.epoch) {
    if (epochOf(theirEpoch) === undefined) {
      if (request.take_over !== true) return stop("replica_foreign");
      epochs.push({
        generation: state.nextGeneration++,
        epoch: theirEpoch,
        wipe: false,
        reason: "taken over from another source",
      });
      beginEpoch(
        source,
        "the replica of another source was taken over",
        true,
      );
    }
    return answer(adoptAnswer(source, theirEpoch));
  }

  // 2. Does it have the schema?
  if (at.schema_hash !== request.schema) {
    const isKnown = schemas.some(({ hash }) => hash === at.schema_hash);
    if (!isKnown) return stop("schema_outdated");
    return answer({ do: "alter", from: at.schema_hash! });
  }

  // 3. The head moves to where it stands.
  if (faults.snapshotBeforeLock && early !== null) {
    state.batches = state.batches.filter(({ batch }) =>
      early.batches.includes(batch)
    );
  }
  const moved = moveHead(source, at);
  if (moved === "ahead") return stop("replica_ahead");
  if ("lost" in moved) {
    beginEpoch(source, moved.lost, false);
    return answer(adoptAnswer(source, theirEpoch));
  }
  const head = state.batches.find(({ batch }) => batch === chain.batch);
  // We were restored to before something was set aside.
  if (
    head !== undefined && moved.isSettled &&
    Number(at.dead_letters) > head.deadLetters + head.parked.length
  ) chain.walkWanted += 1;
  trim(source);
  return answer(nextOf(source, request, { at, early }), moved);
}

/** What comes after the row: a new version, or nothing. */
function nextOf(
  source: SourceModel,
  request: Fields,
  { at, early }: { at: Fields; early: Early | null },
): Fields {
  const { state: { chain, batches } } = source;
  if (typeof request.ahead === "string") {
    const before = batches.find((version) =>
      version.batch === request.ahead && version.state === "handed" &&
      version.epoch === chain.epoch && version.prev === chain.batch
    );
    return before === undefined || isAsked(source)
      ? { do: "none" }
      : claimNew(source, request, {
        at: { ...at, ...before.upto },
        early,
        before,
      });
  }
  if (request.rows_max === 0) {
    return { do: "settled", ...source.release(request) };
  }
  return claimNew(source, request, { at, early, before: null });
}

/** Whether the walk has to be opened. */
function isAsked({ state: { chain } }: SourceModel): boolean {
  return chain.walkWanted > chain.walkOpened;
}

/** libsql_sync.claim_new: the next version, from one snapshot, recorded before
 * it is answered. */
function claimNew(
  source: SourceModel,
  asked: Fields,
  { at, early, before }: {
    at: Fields;
    early: Early | null;
    /** The version it stands on, where that is being applied. */
    before: Version | null;
  },
): Fields {
  const { state, faults, options } = source;
  const { chain } = state;
  const sourceTime = source.clock();
  const request = boundOf(source, asked, before);
  const mayPage = request.page !== undefined && !isAsked(source) &&
    (before === null || before.upto !== null);
  const walkedAt = faults.progressAtSource ? { ...at, ...source.progress } : at;
  const next = mayPage
    ? nextWalk(source, walkedAt, (request.page as Fields).scrub === true)
    : null;
  const walk = next !== null && holdPage(source, next, walkedAt) ? next : null;
  const floor = floorOf(source);
  const reading = readHead(source, request, {
    lowest: floor.lowest,
    path: before === null ? [] : [before],
    early,
  });
  const { msgIds, cut, drained } = reading;
  const messages = msgIds.length;
  const isEmpty = messages === 0 && cut === null;
  if (reading.asksWalk) {
    if (before !== null) return { do: "none" };
    chain.walkWanted += 1;
  }
  const opens = isAsked(source) ? chain.walkWanted : null;
  const paged = walk !== null && (opens === null || faults.pageOnOpening)
    ? page(source, walk, {
      at: walkedAt,
      request: request.page as Fields,
      isCountable: drained && isEmpty || !!faults.countedEarly,
    })
    : null;
  keepFloor(source, floor, msgIds);
  if (isEmpty && paged === null && opens === null) {
    if (before !== null) return { do: "none" };
    if (at.drained === 1 || !drained) {
      return { do: "idle", ...source.release(request) };
    }
  }
  const version = record(source, {
    reading,
    before,
    opens,
    messages,
    sourceTime,
    page: paged,
    early,
  });
  if (paged !== null) {
    const { walk_gen, upto } = paged;
    source.uptos.set(version.batch, { walk_gen: walk_gen!, walk_at: upto! });
  }
  if (faults.openedEarly && opens !== null) chain.walkOpened = opens;
  const { tables, unusable } = reading;
  options.events.handedOut(version, tables);
  if (version.parked.length > 0) options.events.parked(version);
  if (faults.ackBeforeApply) settle(source, version);
  const isOpening = opens !== null && !(faults.pageOnOpening && paged !== null);
  return {
    do: "batch",
    epoch: version.epoch,
    position: version.position,
    batch: version.batch,
    prev: version.prev,
    drained,
    snapshot: version.snapshot,
    source_time: new Date(sourceTime).toISOString(),
    dead_letters: Math.min(version.deadLetters, 10_000),
    reopen: isOpening,
    messages,
    tables,
    unusable,
    parked: version.parked,
    page: paged,
  };
}

/** libsql_sync.bound_of: half as much for each version of the position that did
 * not land, but for the first one. */
function boundOf(
  { state: { batches, chain } }: SourceModel,
  asked: Fields,
  before: Version | null,
): Fields {
  const position = (before?.position ?? chain.position) + 1;
  const prev = before?.batch ?? chain.batch;
  const siblings = batches.filter((other) =>
    other.epoch === chain.epoch && other.position === position &&
    other.prev === prev
  );
  const share = 2 ** Math.min(Math.max(siblings.length - 1, 0), 16);
  const less = (of: Json | undefined) =>
    Math.max(1, Math.trunc(Number(of) / share));
  const page = asked.page as Fields | undefined;
  return {
    ...asked,
    rows_max: less(asked.rows_max),
    bytes_max: less(asked.bytes_max),
    ...(page === undefined
      ? {}
      : { page: { ...page, rows: less(page.rows), bytes: less(page.bytes) } }),
  };
}

/** Puts a version on record. */
function record(
  source: SourceModel,
  { reading, before, opens, messages, sourceTime, page, early }: {
    reading: Reading;
    before: Version | null;
    opens: number | null;
    messages: number;
    sourceTime: number;
    page: Fields | null;
    early: Early | null;
  },
): Version {
  const { state, options, user, faults } = source;
  const { chain } = state;
  const stands = before ??
    state.batches.find(({ batch }) => batch === chain.batch);
  const { msgIds, cut, drained, emptied, unusable } = reading;
  const isEarly = early !== null &&
    (faults.snapshotBeforeLock || faults.queueEarlier);
  const now = isEarly ? early : { snapshot: user.snapshot(), rows: user.rows };
  const position = (before?.position ?? chain.position) + 1;
  const prev = before?.batch ?? chain.batch;
  const parked = parkedBefore(source, { position, prev, msgIds, cut });
  const version: Version = {
    epoch: chain.epoch,
    position,
    batch: options.uuid(),
    prev,
    msgIds,
    cut,
    cutKeys: [],
    messages,
    drained,
    snapshot: drained ? now.snapshot : stands?.snapshot ?? "3:3:",
    sourceTime,
    deadLetters: before === null
      ? state.letters.length -
        heldLetters(
          source,
          {
            parked: [
              ...parked,
              ...unusable.map((row) => ({ ...row, key: null })),
            ],
            emptied,
          },
          coveredBy(source, reading),
        ).length
      : before.deadLetters + before.parked.length,
    parked,
    emptied,
    opens,
    upto: page === null ? null : uptoOf(page),
    state: "handed",
    handedAt: sourceTime,
    settledAt: null,
    closed: [],
    opened: [],
  };
  state.batches.push(version);
  chain.handed = Math.max(chain.handed, position);
  if (drained) options.events.snapshot(version.snapshot, now.rows);
  return version;
}

/** libsql_sync.parked_before: what the last version of the position parked, but
 * for rows of which a message has come since. */
function parkedBefore(
  source: SourceModel,
  { position, prev, msgIds, cut }: Pick<
    Version,
    "position" | "prev" | "msgIds" | "cut"
  >,
): readonly Fields[] {
  const { batches, chain } = source.state;
  const last = batches.findLast((other) =>
    other.epoch === chain.epoch && other.position === position &&
    other.prev === prev && other.parked.length > 0
  );
  if (last === undefined) return [];
  const since = msgIds.filter((id) => !last.msgIds.includes(id));
  const newer = coveredBy(source, { msgIds: since, cut });
  return last.parked.filter(({ table, key }) =>
    key !== null &&
    !newer.some((one) =>
      one.table === table && isSame(one.key as Fields[string], key)
    )
  );
}

/** Where a version ahead may go on with the walk: in the same table, forward. */
function uptoOf({ kind, half, table, walk_gen, upto }: Fields): Upto | null {
  const place = parsePlace(upto as string | null);
  return kind !== "scrub" && half === "forward" &&
      place?.half === "forward" && place.table === table
    ? { walk_gen: walk_gen as number, walk_at: upto as string }
    : null;
}

/** An answer, with what moving the head came to. */
function answer(
  fields: Fields,
  { acked, putBack } = { acked: 0, putBack: 0 },
): Fields {
  return { ...fields, acked, put_back: putBack };
}

function stop(error: string): Fields {
  return answer({ do: "stop", error });
}
