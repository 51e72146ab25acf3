/**
 * The source in memory: the functions of schema libsql_sync as their migration
 * has them, json in and json out, each of them atomic.
 *
 * tests/contract holds what it and the real functions must both do.
 *
 * @module
 */

import { CONTRACT } from "../../lib/chain/claim.ts";
import type { Json } from "../../lib/chain/json.ts";
import { type Schema, schemaText, type Table } from "../../lib/schema.ts";
import { claim } from "./source_claim.ts";
import { beginEpoch } from "./source_epochs.ts";
import type { Fields, SourceState, Version } from "./source_state.ts";
import { requestWalk } from "./source_walks.ts";
import { type Message, type Rows, UserTables } from "./tables.ts";

/** Deliberate bugs, for the mutation check. */
export interface SourceFaults {
  absenceUnsent?: boolean;
  ackBeforeApply?: boolean;
  aheadAlone?: boolean;
  aheadCovers?: boolean;
  aheadDrained?: boolean;
  archiveUnchecked?: boolean;
  brokenUnsent?: boolean;
  closingForgotten?: boolean;
  countAside?: boolean;
  countedEarly?: boolean;
  cursor?: boolean;
  cutKeysLost?: boolean;
  floorKept?: boolean;
  floorSkips?: boolean;
  leftDrained?: boolean;
  letterKept?: boolean;
  letterLost?: boolean;
  newNumbers?: boolean;
  openedEarly?: boolean;
  opensForgotten?: boolean;
  pageOnOpening?: boolean;
  parkLate?: boolean;
  progressAtSource?: boolean;
  queueEarlier?: boolean;
  remainderDropped?: boolean;
  rowsEarlier?: boolean;
  settleByPosition?: boolean;
  settleSibling?: boolean;
  snapshotBeforeLock?: boolean;
  trimReachable?: boolean;
  truncateUntold?: boolean;
  truncateWipes?: boolean;
  unlocked?: boolean;
  walkDropped?: boolean;
}

/** What the outside sees of the source, for the invariants. */
export interface SourceEvents {
  /** A version was handed out, with what is sent of each table. */
  handedOut(version: Version, tables: readonly Fields[]): void;
  /** A snapshot was taken for a version that is drained. */
  snapshot(text: string, rows: Rows): void;
  /** A version was settled: messages left the queue for the archive. */
  acked(version: Version, messages: readonly number[]): void;
  /** A version was put back, and with it its messages. */
  putBack(version: Version): void;
  /** A version is off the record. */
  trimmed(version: Version): void;
  /** Rows were recorded as set aside. */
  parked(version: Version): void;
  /** A walk closed dead letters. */
  healed(letters: readonly number[]): void;
  /** A new epoch began. */
  epoch(reason: string, wipe: boolean): void;
}

/** What a claim sees whose snapshot is older than the chain's lock. */
export interface Early {
  readonly queue: ReadonlyMap<number, Message>;
  readonly batches: readonly string[];
  readonly rows: Rows;
  readonly snapshot: string;
}

/** A source. */
export class SourceModel {
  readonly user = new UserTables();
  state: SourceState;
  faults: SourceFaults = {};
  /** Where a walk stands, for the bug that keeps it here. */
  progress: { walk_gen: Json; walk_at: Json } | null = null;
  /** Pages by batch, for the same. */
  readonly uptos = new Map<string, { walk_gen: Json; walk_at: Json }>();
  #tick = 0;

  constructor(
    readonly options: {
      /** Milliseconds since 1970. */
      now: () => number;
      uuid: () => string;
      events: SourceEvents;
    },
  ) {
    const genesis = options.uuid();
    this.state = {
      schemas: [],
      epochs: [{
        generation: 1,
        epoch: genesis,
        wipe: false,
        reason: "installed",
      }],
      chain: {
        epoch: genesis,
        position: 0,
        batch: genesis,
        handed: 0,
        lease: null,
        leaseUntil: 0,
        replayWindowMs: 3_600_000,
        seen: null,
        scrubRows: 1000,
        refill: true,
        walkWanted: 0,
        walkOpened: 0,
        paused: false,
        realtime: false,
        scrubbedAt: null,
        lettersClosed: 0,
        floor: 0,
        floorNext: null,
        floorAwaits: [],
      },
      batches: [],
      walks: [],
      archive: new Map(),
      letters: [],
      nextGeneration: 2,
      nextWalkGen: 1,
      nextLetter: 1,
      rows: this.user.rows,
      queue: this.user.queue,
      nextMsgId: 1,
      detached: [],
    };
  }

  /** clock_timestamp(): each look is later than the one before. */
  clock(): number {
    return this.options.now() + ++this.#tick / 1000;
  }

  /** The tables of the schema in force. */
  tables(): readonly Table[] {
    return this.state.schemas.at(-1)?.schema.tables ?? [];
  }

  /** Their names, in order. */
  tableNames(): string[] {
    return this.tables().map(({ name }) => name).sort();
  }

  /** Puts a schema in force, as configure() does; false where an open
   * transaction writes to a table whose capture changes. */
  configure(schema: Schema, hash: string): boolean {
    const { state, user } = this;
    const { tables }: Schema = JSON.parse(schemaText(schema));
    const listed = Object.fromEntries(
      tables.map(({ name, columns }) => [name, columns.map((one) => one.name)]),
    );
    // What a writer sent by the old text lacks a column that is listed now.
    const changed = Object.keys(listed).filter((name) =>
      listed[name]!.join() !== user.listed[name]?.join()
    );
    if (changed.some((name) => user.isTouched(name))) return false;
    if (changed.length > 0) state.chain.walkWanted += 1;
    const { schemas } = state;
    if (schemas.at(-1)?.hash !== hash) {
      const generation = (schemas.at(-1)?.generation ?? 0) + 1;
      state.schemas = [
        ...schemas.filter((other) => other.hash !== hash),
        { generation, hash, schema: { tables } },
      ];
    }
    user.listed = listed;
    return true;
  }

  /** What a backup holds: what is committed. */
  backup(): SourceState {
    const { rows, queue, nextMsgId, detached } = this.user;
    return copyOf({
      ...this.state,
      rows,
      queue,
      nextMsgId,
      detached: [...detached],
    });
  }

  /** Goes back to a backup; what was open is gone. */
  restore(backup: SourceState): void {
    const { user } = this;
    this.state = copyOf(backup);
    user.open.clear();
    user.rows = backup.rows;
    user.queue = this.state.queue;
    user.nextMsgId = backup.nextMsgId;
    user.detached.clear();
    for (const table of backup.detached) user.detached.add(table);
    user.listed = {};
    for (const { name, columns } of this.tables()) {
      user.listed[name] = columns.map((column) => column.name);
    }
  }

  /**
   * Calls one of the functions.
   *
   * @param name The function.
   * @param request Its argument.
   * @param early What a claim saw before it had the lock, for a bug.
   * @param isLocked Whether somebody else holds the chain's row.
   */
  call(
    name: string,
    request: Fields,
    { early = null, isLocked = false }: {
      early?: Early | null;
      isLocked?: boolean;
    } = {},
  ): Fields {
    switch (name) {
      case "lease":
        return this.#lease(request, isLocked);
      case "release":
        return this.release(request);
      case "claim":
        return claim(this, request, early);
      case "park":
        return this.#park(request);
      case "reset":
        return this.#reset(request);
      case "request_walk":
        return requestWalk(this, request);
    }
    throw new Error(`no function libsql_sync.${name}`);
  }

  /** libsql_sync.queue_writers */
  writers(): string[] {
    return [...this.user.open.values()]
      .filter(({ isWriter }) => isWriter)
      .map(({ xid }) => String(xid));
  }

  /** libsql_sync.queued */
  queued(): Fields {
    const n = this.user.queue.size;
    return { queued: Math.min(n, 10_000), queued_exact: n <= 10_000 };
  }

  /** What a transaction that begins now would see. */
  look(): Early {
    return {
      queue: new Map(this.user.queue),
      batches: this.state.batches.map(({ batch }) => batch),
      rows: this.user.rows,
      snapshot: this.user.snapshot(),
    };
  }

  #lease(request: Fields, isLocked: boolean): Fields {
    if (request.version !== CONTRACT) {
      return { do: "other_version", version: CONTRACT };
    }
    const { chain } = this.state;
    const isTaken = chain.lease !== null && chain.lease !== request.lease &&
      chain.leaseUntil > this.clock();
    if (isLocked || chain.paused || isTaken) {
      return {
        ...this.queued(),
        do: "busy",
        epoch: chain.epoch,
        paused: chain.paused,
        followed: chain.seen?.epoch === chain.epoch,
      };
    }
    const scrub = !chain.realtime || chain.scrubbedAt === null ||
      chain.scrubbedAt < this.clock() - 60_000;
    if (scrub) chain.scrubbedAt = this.clock();
    chain.lease = request.lease as string;
    chain.leaseUntil = this.clock() + Number(request.seconds) * 1000;
    return {
      do: "granted",
      epoch: chain.epoch,
      scrub,
      brief: chain.realtime,
    };
  }

  /** libsql_sync.release */
  release(request: Fields): Fields {
    const { chain } = this.state;
    if (chain.lease === request.lease) {
      chain.lease = null;
      chain.leaseUntil = 0;
    }
    return this.queued();
  }

  #park(request: Fields): Fields {
    const { state: { chain, batches }, faults } = this;
    const handed = batches.filter(({ state, epoch }) =>
      epoch === chain.epoch && (state === "handed" || faults.parkLate)
    );
    const version = handed.find((other) =>
      other.epoch === request.epoch && other.position === request.position &&
      other.batch === request.batch
    );
    const isNext = (other: Version | undefined) => other?.prev === chain.batch;
    const standsOnHead = isNext(version) ||
      isNext(handed.find(({ batch }) => batch === version?.prev)) ||
      faults.parkLate;
    if (version === undefined || !standsOnHead) return { do: "gone" };
    // A row once, for whatever reason.
    const idOf = ({ table, key, reason }: Fields) =>
      JSON.stringify([table, key ?? reason]);
    const known = new Set(version.parked.map(idOf));
    const fresh = (request.rows as Fields[]).filter((row) => {
      const isNew = !known.has(idOf(row));
      known.add(idOf(row));
      return isNew;
    });
    version.parked = [...version.parked, ...fresh];
    this.options.events.parked(version);
    return { do: "parked" };
  }

  #reset(request: Fields): Fields {
    const { chain } = this.state;
    if (chain.epoch !== request.expected) {
      return { do: "moved", epoch: chain.epoch };
    }
    if (typeof request.refill === "boolean") chain.refill = request.refill;
    const { reason, wipe } = request;
    return {
      do: "begun",
      epoch: beginEpoch(this, reason as string, wipe as boolean),
    };
  }

  /** Where the queue has outgrown its cap: what it holds is dropped. */
  capQueue(): boolean {
    if ([...this.user.open.values()].some(({ queued }) => queued.length > 0)) {
      return false;
    }
    beginEpoch(this, "the queue was over its cap", false);
    this.user.queue.clear();
    this.state.chain.refill = true;
    return true;
  }
}

/** A copy that what follows does not reach. */
function copyOf(state: SourceState): SourceState {
  return {
    ...state,
    schemas: [...state.schemas],
    epochs: [...state.epochs],
    chain: { ...state.chain },
    batches: state.batches.map((version) => ({ ...version })),
    walks: state.walks.map((walk) => ({ ...walk })),
    archive: new Map(state.archive),
    letters: [...state.letters],
    queue: new Map(state.queue),
  };
}
