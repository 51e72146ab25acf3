/**
 * Everything of a simulation: sources, a replica, workers that run the real
 * flows, and time.
 *
 * @module
 */

import { SyncError } from "../../lib/errors.ts";
import { createPagePlanner } from "../../lib/plan/page.ts";
import { createPlanner } from "../../lib/plan/plan.ts";
import { createReplica } from "../../lib/replica/replica.ts";
import type { Result, Statement } from "../../lib/replica/sql.ts";
import { createSource } from "../../lib/source/source.ts";
import { newPace } from "../../lib/sync/batch_size.ts";
import { nuke } from "../../lib/sync/nuke.ts";
import type { Parts } from "../../lib/sync/progress.ts";
import { sync } from "../../lib/sync/sync.ts";
import { walk } from "../../lib/sync/walk.ts";
import { HASHES, SCHEMAS } from "../contract/source.ts";
import { Invariants } from "./invariants.ts";
import { databaseOf, MemoryDatabase } from "./libsql.ts";
import type { Call, Target } from "./network.ts";
import { type Early, type SourceFaults, SourceModel } from "./source_model.ts";
import type { Fields, SourceState } from "./source_state.ts";
import type { CaptureFaults } from "./tables.ts";

/** What a worker was started for. */
export type Flow =
  | { readonly kind: "sync" }
  | { readonly kind: "nuke"; readonly refill: boolean }
  | { readonly kind: "backfill" | "verify"; readonly table?: string }
  | { readonly kind: "mend" };

/** A worker: one request. */
export interface Worker {
  readonly id: number;
  readonly flow: Flow;
  readonly source: SourceModel;
  readonly schema: number;
  /** What it waits for. */
  readonly calls: Set<Call>;
  /** How long it thinks it has waited. */
  waitedMs: number;
  /** Calls it may make. */
  readonly callsMax: number;
  callsMade: number;
  readonly startedAt: number;
  state: "running" | "done" | "failed" | "dead";
  result: unknown;
}

/** Deliberate bugs outside the source, for the mutation check. */
export interface Mutation {
  readonly source?: SourceFaults;
  /** Changes what reaches the replica. */
  readonly statements?: (statements: readonly Statement[]) => Statement[];
  /** Changes a worker's parts. */
  readonly parts?: (parts: Parts, world: World) => Parts;
  readonly capture?: CaptureFaults;
}

/** How a simulation is set up. */
export interface Setup {
  /** Keys of a batch, bytes of their rows, rows of a page and keys of a page, at
   * most. */
  readonly batchMax: number;
  readonly bytesMax: number;
  readonly pageMax: number;
  readonly keysMax: number;
  /** Rows of the scrub. */
  readonly scrubRows: number;
  readonly refill: boolean;
  readonly schema: number;
  /** Whether the replica is equal at the start, or not there yet. */
  readonly isFilled: boolean;
  /** The calls that faults strike; any, unless told. */
  readonly faultsAt?: string;
  /** Whether there is a backup of the start. */
  readonly isBackedUp?: boolean;
  /** Commits that a failover loses at most. */
  readonly rewindMax?: number;
}

/** Bounds that nothing in these worlds reaches. */
export const LARGE = {
  batchMax: 100,
  bytesMax: 1_000_000,
  pageMax: 100,
  keysMax: 100,
};

/** Planners, made once. */
const PLANNERS = SCHEMAS.map((schema) => ({
  plan: createPlanner(schema),
  planPage: createPagePlanner(schema),
}));

const WALL_MS = 8_000;
const LEASE_SECONDS = 20;

/** A simulation. */
export class World {
  readonly replica: MemoryDatabase;
  readonly source: SourceModel;
  /** A copy of the source that reaches the same replica. */
  clone: SourceModel | null = null;
  readonly workers: Worker[] = [];
  /** Calls that nobody waits for, and that may still land. */
  readonly limbo: Call[] = [];
  /** The call that holds a source's chain row. */
  holder: Call | null = null;
  /** What was there before it. */
  beforeHolder: Early | null = null;
  readonly backups: SourceState[] = [];
  readonly invariants: Invariants;
  /** How often what happened. */
  readonly counts = new Map<string, number>();
  /** Milliseconds since 1970. */
  now = 1_800_000_000_000;
  /** How far the source's clock is off. */
  skewMs = 0;
  /** The schema in force. */
  schema: number;
  /** Every write of the user's has a number of its own. */
  stamps = 0;
  readonly mutation: Mutation;
  readonly #from: World | undefined;
  #ids = 0;
  #copies = 0;

  /**
   * @param setup How large things may be.
   * @param options Deliberate bugs; a world at rest to go on from, whose replica
   * is used.
   */
  constructor(
    public setup: Setup,
    options: { mutation?: Mutation; from?: World } = {},
  ) {
    const { mutation = {}, from } = options;
    this.mutation = mutation;
    this.#from = from;
    this.schema = setup.schema;
    this.invariants = new Invariants(this);
    this.replica = from?.replica ?? new MemoryDatabase({ measures: false });
    this.source = this.#makeSource();
    if (from !== undefined) {
      this.replica.reset();
      this.source.restore(from.source.backup());
      this.source.user.nextXid = from.source.user.nextXid;
      this.#ids = from.#ids;
      this.stamps = from.stamps;
      this.now = from.now;
      this.invariants.goOnFrom(from.invariants);
    }
    this.source.configure(SCHEMAS[this.schema]!, HASHES[this.schema]!);
    Object.assign(this.source.state.chain, {
      scrubRows: setup.scrubRows,
      refill: setup.refill,
    });
    if (setup.isBackedUp) this.backups.push(this.source.backup());
  }

  /** Notes that something happened. */
  count(name: string): void {
    this.counts.set(name, (this.counts.get(name) ?? 0) + 1);
  }

  /** An id that nothing else has. */
  uuid(): string {
    return `id${++this.#ids}`;
  }

  /** The sources there are. */
  sources(): SourceModel[] {
    return this.clone === null ? [this.source] : [this.source, this.clone];
  }

  /** A second source that goes on from a backup. */
  makeClone(backup: SourceState): void {
    const clone = this.#makeSource();
    this.clone = clone;
    this.restore(clone, backup);
  }

  /** A source goes back to a backup. */
  restore(source: SourceModel, backup: SourceState): void {
    source.restore(backup);
    // No snapshot is ever named as one of another past.
    source.user.nextXid = 1_000_000 * ++this.#copies;
  }

  /** Starts a worker. */
  start(
    flow: Flow,
    options: { schema?: number; source?: SourceModel; callsMax?: number } = {},
  ): Worker {
    const worker: Worker = {
      id: this.workers.length + 1,
      flow,
      source: options.source ?? this.source,
      schema: options.schema ?? this.schema,
      calls: new Set(),
      waitedMs: 0,
      callsMax: options.callsMax ?? 45,
      callsMade: 0,
      startedAt: this.now,
      state: "running",
      result: null,
    };
    this.workers.push(worker);
    const made = this.#parts(worker);
    const parts = this.mutation.parts?.(made, this) ?? made;
    this.#run(flow, parts).then((result) => {
      if (worker.state !== "running") return;
      worker.state = "done";
      worker.result = result;
      this.count(`${flow.kind} done`);
    }, (error) => {
      if (worker.state !== "running") return;
      worker.state = "failed";
      worker.result = error;
      this.count(
        `${flow.kind} ${error instanceof SyncError ? error.code : "error"}`,
      );
      this.invariants.failed(worker, error);
    });
    return worker;
  }

  /** Workers that are neither done nor dead. */
  running(): Worker[] {
    return this.workers.filter(({ state }) => state === "running");
  }

  /** Lets go of what is its own. */
  close(): void {
    for (const worker of this.workers) worker.state = "dead";
    if (this.#from === undefined) this.replica.close();
  }

  async #run(flow: Flow, parts: Parts): Promise<unknown> {
    switch (flow.kind) {
      case "sync":
        return await sync(parts);
      case "nuke":
        return await nuke(parts, { refill: flow.refill });
      case "backfill":
      case "verify":
        return await walk(parts, { kind: flow.kind, table: flow.table });
      case "mend":
        return await walk(parts, { kind: "verify", repair: true });
    }
  }

  #makeSource(): SourceModel {
    const source: SourceModel = new SourceModel({
      now: () => this.now + this.skewMs,
      uuid: () => this.uuid(),
      events: {
        handedOut: (version, tables) =>
          this.invariants.handedOut(source, version, tables),
        snapshot: (text, rows) => this.invariants.snapshot(text, rows),
        acked: (version, messages) => this.invariants.acked(version, messages),
        putBack: (version) => this.invariants.putBack(source, version),
        trimmed: (version) => this.invariants.trimmed(source, version),
        parked: (version) => this.invariants.parked(source, version),
        healed: (letters) => this.invariants.healed(letters),
        epoch: (reason) => this.invariants.epoch(reason),
      },
    });
    source.faults = this.mutation.source ?? {};
    source.user.faults = this.mutation.capture ?? {};
    source.user.onBypass = (table, key) => this.invariants.bypass(table, key);
    source.user.stamp = () => ++this.stamps;
    source.user.onWrote = (table, key, row) =>
      this.invariants.wrote(table, key, row);
    source.user.onGone = (gone) => this.invariants.gone(gone);
    return source;
  }

  /** What a worker works with: the real adapters, whose calls wait. */
  #parts(worker: Worker): Parts {
    const schemaHash = HASHES[worker.schema]!;
    const schema = SCHEMAS[worker.schema]!;
    const { keysMax } = this.setup;
    const replica = createReplica(
      databaseOf((statements) =>
        this.#call(worker, "replica", {
          name: nameOf(statements),
          run: () => this.#batch(statements),
        }) as Promise<Result[]>
      ),
      { schema, schemaHash },
    );
    const now = () => this.now + worker.waitedMs;
    return {
      alert: null,
      pace: newPace(),
      source: createSource(
        {
          call: (name, request) =>
            this.#call(worker, "source", {
              name,
              run: (early) =>
                this.#ask(worker, name, { request: request as Fields, early }),
            }),
        },
        { schemaHash, leaseSeconds: LEASE_SECONDS },
      ),
      replica: {
        ...replica,
        keys: (place, options) =>
          replica.keys(place, {
            ...options,
            keysMax: Math.min(options.keysMax, keysMax),
          }),
      },
      ...PLANNERS[worker.schema]!,
      budget: {
        callsLeft: () => worker.callsMax - worker.callsMade,
        msLeft: () => worker.startedAt + WALL_MS - now(),
      },
      log: (_, event) => this.count(`log ${event}`),
      now,
      sleep: (ms) =>
        this.#call(worker, "sleep", {
          name: "sleep",
          run: () => void (worker.waitedMs += ms),
        }) as Promise<void>,
      uuid: () => this.uuid(),
    };
  }

  /** A call that waits for the scheduler. */
  #call(
    worker: Worker,
    target: Target,
    { name, run }: Pick<Call, "name" | "run">,
  ): Promise<unknown> {
    worker.callsMade += target === "sleep" ? 0 : 1;
    return new Promise((resolve, reject) => {
      const call: Call = {
        target,
        by: worker.id,
        source: target === "source" ? worker.source : null,
        name,
        run,
        answer: (value) => {
          worker.calls.delete(call);
          resolve(value);
        },
        fail: (error) => {
          worker.calls.delete(call);
          reject(error);
        },
        held: null,
        early: null,
      };
      worker.calls.add(call);
    });
  }

  /** A call of the source, with the sizes that this simulation allows. */
  #ask(
    worker: Worker,
    name: string,
    { request: asked, early }: { request: Fields; early: Early | null },
  ): Fields {
    const { batchMax, bytesMax, pageMax } = this.setup;
    const request = name !== "claim" ? asked : {
      ...asked,
      rows_max: Math.min(Number(asked.rows_max), batchMax),
      bytes_max: Math.min(Number(asked.bytes_max), bytesMax),
      ...(asked.page
        ? {
          page: {
            ...asked.page as Fields,
            rows: Math.min(Number((asked.page as Fields).rows), pageMax),
          },
        }
        : {}),
    };
    const { source } = worker;
    const answer = source.call(name, request, {
      early,
      isLocked: this.holder?.source === source,
    });
    this.count(`${name} ${answer.do ?? ""} ${answer.error ?? ""}`);
    if (name === "claim" && asked.ahead && answer.do === "batch") {
      this.count("claimed ahead");
    }
    if (Number(answer.put_back) > 0) this.count("put back");
    this.invariants.asked(source);
    return answer;
  }

  /** A batch of the replica. */
  #batch(asked: readonly Statement[]): Result[] {
    this.count(`call ${nameOf(asked)}`);
    const statements = this.mutation.statements?.(asked) ?? asked;
    const results = this.replica.batch(statements);
    try {
      this.invariants.committed(statements);
    } catch (error) {
      this.invariants.fail(error);
    }
    return results;
  }
}

/** What a batch of statements is for. */
export function nameOf(statements: readonly Statement[]): string {
  const first = statements[0]!.sql;
  if (statements.at(-1)!.sql.includes("VALUES (2, ''")) return "try";
  if (first.startsWith("INSERT INTO _libsql_sync ")) return "apply";
  if (first.startsWith("UPDATE _libsql_sync SET probed_at")) {
    return statements.length > 1 ? "keys" : "probe";
  }
  if (first.startsWith("UPDATE _libsql_sync SET from_epoch")) return "adopt";
  if (first.startsWith("UPDATE _libsql_sync SET schema_hash")) return "alter";
  if (first.startsWith("CREATE TABLE IF NOT EXISTS _libsql_sync (")) {
    return "bootstrap";
  }
  return first.split(/\s/, 2).join(" ").toLowerCase();
}
