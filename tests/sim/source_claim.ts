/**
 * The section "The chain" of the migration, in memory: claim, and what it does
 * on the way.
 *
 * @module
 */

import { ack, provenBy, trim } from "./source_ack.ts";
import { adoptAnswer, beginEpoch } from "./source_epochs.ts";
import { stillAside } from "./source_letters.ts";
import type { Early, SourceModel } from "./source_model.ts";
import {
  floorOf,
  head,
  keepFloor,
  merged,
  recordedOf,
  snapshotAt,
} from "./source_queue.ts";
import type { Fields, Version } from "./source_state.ts";
import { holdPage, nextWalk, noteWalked, page } from "./source_walks.ts";
import type { Message } from "./tables.ts";

/** libsql_sync.claim */
export function claim(
  source: SourceModel,
  request: Fields,
  early: Early | null = null,
): Fields {
  const { state, faults } = source;
  const { chain, schemas, epochs } = state;
  if (chain.lease !== request.lease) return { do: "busy", acked: 0 };
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
    return { do: "bootstrap", acked: 0, epoch: chain.epoch, wipe };
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
    return { ...adoptAnswer(source, theirEpoch), acked: 0 };
  }

  // 2. Does it have the schema?
  if (at.schema_hash !== request.schema) {
    const isKnown = schemas.some(({ hash }) => hash === at.schema_hash);
    if (!isKnown) return stop("schema_outdated");
    return { do: "alter", acked: 0, from: at.schema_hash! };
  }

  // 3. What does it prove?
  const position = at.position as number;
  const seen = faults.snapshotBeforeLock ? early : null;
  const versions = () =>
    (seen ?? state).batches.filter(({ epoch }) => epoch === chain.epoch);
  let acked = 0;
  const known = faults.sourceBeforeProbe
    ? source.seenEarly.get(request.lease as string)!
    : chain.position;
  source.seenEarly.set(request.lease as string, chain.position);
  if (position > known) {
    const proven = provenBy(source, versions(), at);
    if (position > known + 2 || proven === null) return stop("replica_ahead");
    for (const version of proven) acked += ack(source, version);
    const { deadLetters, parked } = proven.at(-1)!;
    // We were restored to before something was set aside.
    if (Number(at.dead_letters) > deadLetters + parked.length) {
      chain.reopen = true;
    }
    trim(source);
  } else {
    const recorded = position === 0
      ? chain.epoch
      : versions().find((other) =>
        other.position === position && other.state !== "pending"
      )?.batch;
    if (recorded !== at.batch) {
      beginEpoch(
        source,
        `the replica at position ${position} holds a batch that is not on record`,
        false,
      );
      return { ...adoptAnswer(source, theirEpoch), acked: 0 };
    }
  }
  return {
    ...nextOf(source, request, { at, seen, versions: versions() }),
    acked,
  };
}

/** What comes after the row: a batch again, or a new one. */
function nextOf(
  source: SourceModel,
  request: Fields,
  { at, seen, versions }: {
    at: Fields;
    seen: Early | null;
    versions: readonly Version[];
  },
): Fields {
  const { state: { chain }, faults, options } = source;
  const position = at.position as number;
  // 4. It lost batches: the same again, from the archive. 5. A batch is pending.
  const isReplay = position < chain.position;
  let version = isReplay
    ? versions.find((other) =>
      other.position === position + 1 &&
      (other.state === "acked" || faults.replayTrimmed)
    )
    : versions
      .filter((other) =>
        other.position === chain.position + 1 &&
        (!other.ahead || other.batch === request.ahead)
      )
      .toSorted((a, b) => b.version - a.version)[0];
  const kind = isReplay ? "replay" : version === undefined ? "new" : "again";
  if (typeof request.ahead === "string") {
    const upto = request.upto as Fields | undefined;
    return kind === "again" && version!.batch === request.ahead &&
        (!version!.drained || upto !== undefined) && !chain.reopen
      ? claimNew(source, request, {
        at: { ...at, ...upto },
        seen,
        ahead: version!,
      })
      : { do: "none" };
  }
  const split = request.split as Fields | undefined;
  if (
    kind === "again" && version!.batch === split?.batch &&
    version!.messages > Number(split.messages)
  ) {
    version = cut(source, version!, Number(split.messages));
  }
  if (request.messages_max === 0) {
    return {
      do: "settled",
      behind: chain.position - position,
      ...source.release(request),
    };
  }
  if (kind === "new") return claimNew(source, request, { at, seen });
  const messages = recordedOf(source, version);
  if (
    version === undefined ||
    messages.length !== version.messages && !faults.replayTrimmed
  ) {
    beginEpoch(
      source,
      `position ${position + 1} cannot be repeated: messages of it are gone`,
      false,
    );
    return adoptAnswer(source, at.epoch as string);
  }
  if (faults.drainedAgain) {
    version.snapshot = source.user.snapshot();
    version.drained = [...source.user.queue.keys()].every((id) =>
      version.msgIds.includes(id)
    );
    options.events.snapshot(version.snapshot, source.user.rows);
  }
  options.events.handedOut(version, messages.map(([id]) => id));
  const again = faults.pageAgain ? pageFor(source, request, at) : null;
  const answer = batchAnswer(version, { kind, messages, page: again });
  const isLost = isReplay && version.position <= chain.lettersClosed;
  return isLost ? { ...answer, reopen: true } : answer;
}

/** The next batch, from one snapshot, recorded before it is answered. */
function claimNew(
  source: SourceModel,
  request: Fields,
  { at, seen, ahead = null }: {
    at: Fields;
    seen: Early | null;
    /** The batch it stands on, where that is being applied. */
    ahead?: Version | null;
  },
): Fields {
  const { state, faults, options, user } = source;
  const { chain } = state;
  const sourceTime = source.clock();
  const mayPage = request.page !== undefined && !chain.reopen;
  const walkedAt = faults.progressAtAck ? { ...at, ...source.progress } : at;
  const next = mayPage
    ? nextWalk(source, walkedAt, (request.page as Fields).scrub === true)
    : null;
  const walk = next !== null && holdPage(source, next, walkedAt) ? next : null;
  const { lowest, settled } = floorOf(source);
  const { messages, drained, isUncaptured } = head(source, request, {
    lowest,
    seen,
    besides: ahead?.msgIds ?? [],
  });
  if (isUncaptured) {
    if (ahead !== null) return { do: "none" };
    chain.reopen = true;
  }
  const paged = (drained || faults.pageUndrained) && walk !== null &&
      !isUncaptured
    ? page(source, walk, {
      at: walkedAt,
      request: request.page as Fields,
      messages: messages.length,
    })
    : null;
  if (
    settled !== null || lowest !== chain.floor || chain.floorNext === null
  ) {
    const first = Math.min(
      ...[...messages.map(([id]) => id), ...ahead?.msgIds ?? [], Infinity],
    );
    keepFloor(
      source,
      settled === null ? lowest : Math.max(lowest, Math.min(settled, first)),
    );
  }
  if (messages.length === 0 && paged === null && ahead !== null) {
    return { do: "none" };
  }
  if (
    messages.length === 0 && at.drained === 1 && paged === null && !chain.reopen
  ) {
    return { do: "idle", behind: 0, ...source.release(request) };
  }
  const position = (ahead?.position ?? chain.position) + 1;
  const parked = stillAside(source, messages.map(([id]) => id));
  // The one before may bring whole what this one would leave aside.
  if (parked.length > 0 && ahead !== null) return { do: "none" };
  const version: Version = {
    epoch: chain.epoch,
    position,
    batch: options.uuid(),
    prev: ahead?.batch ?? chain.batch,
    version: 1 + Math.max(
      0,
      ...state.batches.filter((other) =>
        other.epoch === chain.epoch && other.position === position
      ).map(({ version }) => version),
    ),
    ahead: ahead !== null,
    msgIds: messages.map(([id]) => id),
    messages: messages.length,
    drained,
    snapshot: drained ? user.snapshot() : snapshotAt(source, chain.position),
    sourceTime,
    deadLetters: state.letters.length + (ahead?.parked.length ?? 0) -
      parked.length,
    parked,
    state: "pending",
    ackedAt: 0,
    reopen: chain.reopen,
  };
  state.batches.push(version);
  if (drained || faults.reopenForgotten) chain.reopen = false;
  if (drained) {
    options.events.snapshot(version.snapshot, user.rows);
  }
  options.events.handedOut(version, version.msgIds);
  if (paged !== null) {
    const { walk_gen, upto } = paged;
    source.uptos.set(version.batch, { walk_gen: walk_gen!, walk_at: upto! });
  }
  const answer = batchAnswer(version, {
    kind: "new",
    messages,
    page: paged,
  });
  if (faults.ackBeforeApply) ack(source, version);
  return answer;
}

/** A page for a batch that is issued again, for a bug. */
function pageFor(
  source: SourceModel,
  request: Fields,
  at: Fields,
): Fields | null {
  if (request.page === undefined || source.state.chain.reopen) return null;
  const asked = request.page as Fields;
  const walk = nextWalk(source, at, asked.scrub === true);
  return walk === null
    ? null
    : page(source, walk, { at, request: asked, messages: 0 });
}

/** The first messages of a batch that is too much, under a fresh id. */
function cut(source: SourceModel, of: Version, messages: number): Version {
  const msgIds = of.msgIds.slice(0, messages);
  const version: Version = {
    ...of,
    batch: source.options.uuid(),
    version: of.version + 1,
    msgIds,
    messages,
    drained: false,
    snapshot: snapshotAt(source, source.state.chain.position),
    parked: [
      ...of.parked.filter((parked) =>
        msgIds.includes(Number(parked.msg_id)) && parked.open !== true
      ),
      ...stillAside(source, msgIds),
    ],
  };
  source.state.batches.push(version);
  source.state.chain.reopen ||= of.reopen;
  return version;
}

/** libsql_sync.claim, part 7 */
function batchAnswer(
  version: Version,
  { kind, messages, page }: {
    kind: string;
    messages: readonly [number, Message][];
    page: Fields | null;
  },
): Fields {
  return {
    do: "batch",
    kind,
    epoch: version.epoch,
    position: version.position,
    batch: version.batch,
    prev: version.prev,
    drained: version.drained,
    snapshot: version.snapshot,
    source_time: new Date(version.sourceTime).toISOString(),
    dead_letters: Math.min(version.deadLetters, 10_000),
    parked: version.parked,
    reopen: version.reopen,
    page,
    messages: kind === "new"
      ? merged(messages)
      : messages.map(([id, message]) => [String(id), message]),
  };
}

function stop(error: string): Fields {
  return { do: "stop", acked: 0, error };
}
