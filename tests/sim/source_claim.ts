/**
 * The section "The chain" of the migration, in memory: claim, and what it does
 * on the way.
 *
 * @module
 */

import type { Json } from "../../lib/json.ts";
import { fileLetters, heal } from "./source_letters.ts";
import type { Early, SourceModel } from "./source_model.ts";
import { type Fields, isSame, type Version } from "./source_state.ts";
import { holdPage, nextWalk, noteWalked, page } from "./source_walks.ts";
import type { Message } from "./tables.ts";

/** libsql_sync.begin_epoch */
export function beginEpoch(
  source: SourceModel,
  reason: string,
  wipe: boolean,
): string {
  const { state, options } = source;
  const genesis = options.uuid();
  state.epochs.push({
    generation: state.nextGeneration++,
    epoch: genesis,
    wipe,
    reason,
  });
  Object.assign(state.chain, {
    epoch: genesis,
    position: 0,
    batch: genesis,
    reopen: state.chain.reopen ||
      !source.faults.reopenForgotten &&
        state.batches.some(({ state, reopen }) =>
          state === "pending" && reopen
        ),
  });
  state.batches = state.batches.filter((version) =>
    version.state !== "pending"
  );
  state.walks = [];
  options.events.epoch(reason, wipe);
  return genesis;
}

/** libsql_sync.adopt_answer */
function adoptAnswer(source: SourceModel, from: string): Fields {
  const { chain, epochs } = source.state;
  const since = epochs.find(({ epoch }) => epoch === from)?.generation;
  return {
    do: "adopt",
    epoch: chain.epoch,
    from,
    reason: epochs.find(({ epoch }) => epoch === chain.epoch)!.reason,
    wipe: since !== undefined &&
      epochs.some(({ generation, wipe }) => generation > since && wipe),
  };
}

/** libsql_sync.ack; how many messages left the queue. */
function ack(source: SourceModel, version: Version): number {
  const { state, user } = source;
  heal(source, version);
  fileLetters(source, version, version.parked);
  const settled = version.msgIds.filter((id) => user.queue.has(id));
  for (const id of settled) {
    state.archive.set(id, user.queue.get(id)!);
    user.queue.delete(id);
  }
  // What was handed out on top of another version can never be applied.
  state.batches = state.batches.filter((other) =>
    other.epoch !== version.epoch || other.batch === version.batch ||
    other.position !== version.position &&
      (other.position !== version.position + 1 || other.prev === version.batch)
  );
  version.state = "acked";
  version.ackedAt = source.clock();
  state.chain.position = version.position;
  state.chain.batch = version.batch;
  source.options.events.acked(version, settled);
  if (source.faults.progressAtAck) {
    source.progress = source.uptos.get(version.batch) ?? source.progress;
  }
  return settled.length;
}

/** libsql_sync.trim */
function trim(source: SourceModel): void {
  const { state } = source;
  const since = source.clock() - state.chain.replayWindowMs;
  const old = state.batches
    .filter((version) => version.state === "acked" && version.ackedAt < since)
    .toSorted((a, b) => a.ackedAt - b.ackedAt)
    .slice(0, 4);
  for (const version of old) {
    for (const id of version.msgIds) state.archive.delete(id);
    version.state = "trimmed";
    version.msgIds = [];
    version.parked = [];
  }
}

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
  noteWalked(source, request.walked as Fields[]);

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
    return kind === "again" && version!.batch === request.ahead &&
        !version!.drained && !chain.reopen
      ? claimNew(source, request, { at, seen, ahead: version! })
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
  return batchAnswer(version, { kind, messages, page: again });
}

/** libsql_sync.snapshot_at */
function snapshotAt({ state }: SourceModel, position: number): string {
  return state.batches
    .filter((version) =>
      version.epoch === state.chain.epoch && version.position <= position &&
      version.drained
    )
    .toSorted((a, b) => b.position - a.position)[0]?.snapshot ?? "3:3:";
}

/** libsql_sync.floor */
function floorOf(source: SourceModel): {
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
function keepFloor(source: SourceModel, lowest: number): void {
  const { state: { chain }, user } = source;
  chain.floor = lowest;
  chain.floorNext = user.nextMsgId > 1 ? user.nextMsgId : null;
  chain.floorAwaits = source.writers();
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
  const { messages, drained } = head(source, request, {
    lowest,
    seen,
    besides: ahead?.msgIds ?? [],
  });
  const paged = (drained || faults.pageUndrained) && walk !== null
    ? page(source, walk, {
      at: walkedAt,
      request: request.page as Fields,
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
  if (messages.length === 0 && ahead !== null) return { do: "none" };
  if (
    messages.length === 0 && at.drained === 1 && paged === null && !chain.reopen
  ) {
    return { do: "idle", behind: 0, ...source.release(request) };
  }
  const position = (ahead?.position ?? chain.position) + 1;
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
    deadLetters: state.letters.length + (ahead?.parked.length ?? 0),
    parked: [],
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
  return walk === null ? null : page(source, walk, { at, request: asked });
}

/** The versions that the replica's row proves applied, in order; null where it
 * proves none. */
function provenBy(
  { faults, state: { chain } }: SourceModel,
  versions: readonly Version[],
  at: Fields,
): Version[] | null {
  const newest = versions
    .filter(({ position }) => position === at.position)
    .toSorted((a, b) => b.version - a.version)[0];
  const proven = versions.find(({ position, batch }) =>
    position === at.position && batch === at.batch
  );
  if (at.position === chain.position + 1) {
    const found = faults.ackByPosition ? newest : proven;
    if (found === undefined) return null;
    if (!faults.ackOtherContent) return [found];
    const { msgIds, messages, parked } = newest!;
    return [Object.assign(found, { msgIds, messages, parked })];
  }
  // It was handed out ahead: what it stands on was applied before it.
  const before = versions.find(({ position, batch, prev }) =>
    position === chain.position + 1 && batch === proven?.prev &&
    prev === chain.batch
  );
  if (before === undefined) return null;
  return faults.aheadAlone ? [proven!] : [before, proven!];
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
    parked: of.parked.filter((parked) =>
      msgIds.includes(Number(parked.msg_id))
    ),
  };
  source.state.batches.push(version);
  source.state.chain.reopen ||= of.reopen;
  return version;
}

/** libsql_sync.head */
function head(
  { user, faults, state }: SourceModel,
  request: Fields,
  { lowest, seen, besides }: {
    lowest: number;
    seen: Early | null;
    besides: readonly number[];
  },
): { messages: [number, Message][]; drained: boolean } {
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
  };
}

/** libsql_sync.recorded */
function recordedOf(
  { user, state }: SourceModel,
  version: Version | undefined,
): [number, Message][] {
  if (version === undefined) return [];
  const kept = version.state === "pending" ? user.queue : state.archive;
  return version.msgIds
    .filter((id) => kept.has(id))
    .map((id) => [id, kept.get(id)!]);
}

/** libsql_sync.batch_answer */
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

/** Where all that a table has are messages of one row each with the same
 * columns, they come as one. */
function merged(messages: readonly [number, Message][]): Json[] {
  const tables = new Map<Json, [number, Message][]>();
  for (const one of messages) {
    const table = (one[1] as Fields).table ?? null;
    tables.set(table, [...tables.get(table) ?? [], one]);
  }
  const parts: { first: number; part: Json }[] = [];
  for (const [table, of] of tables) {
    const [first] = of as [[number, Fields]];
    const isOne = table !== null &&
      of.every(([, message]) =>
        isOneRow(message as Fields) &&
        isSame((message as Fields).columns, first[1].columns)
      );
    if (isOne) {
      const rows = of.flatMap(([, message]) =>
        (message as Fields).rows as Json[]
      );
      const ids = of.map(([id]) => String(id));
      parts.push({ first: first[0], part: [ids, { ...first[1], rows }] });
    } else {
      for (const [id, message] of of) {
        parts.push({ first: id, part: [String(id), message] });
      }
    }
  }
  return parts.sort((a, b) => a.first - b.first).map(({ part }) => part);
}

function isOneRow({ v, columns, rows, ...rest }: Fields): boolean {
  return v === 1 && Array.isArray(columns) && Array.isArray(rows) &&
    rows.length === 1 && Array.isArray(rows[0]) &&
    !["deletes", "oversize", "truncate", "failed"].some((name) => name in rest);
}

function stop(error: string): Fields {
  return { do: "stop", acked: 0, error };
}
