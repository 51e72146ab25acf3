/**
 * Ring 2. The verb sync: drain the queue into the replica.
 *
 * Promise: after whatever failed, nothing is concluded; the replica is probed
 * and the source decides, so that the chain moves on or stays.
 *
 * @module
 */

import { FIRST_PAGE_SIZE, FIRST_SIZE, nextSize } from "./batch_size.ts";
import type { Refusal } from "./change.ts";
import type {
  Batch,
  BatchSize,
  Claim,
  PageRequest,
  Queued,
  StopCode,
} from "./claim.ts";
import { SyncError } from "./errors.ts";
import { isolate } from "./isolate.ts";
import type { Log } from "./log.ts";
import {
  type createPagePlanner,
  namesIn,
  parsePlace,
  walkAfter,
  type Walked,
} from "./page.ts";
import type { createPlanner, Step } from "./plan.ts";
import type { Replica } from "./replica.ts";
import type { Source } from "./source.ts";
import type { ReplicaRow } from "./sql.ts";

/** What one request may spend. */
export interface Budget {
  /** Calls to either database that are left. */
  callsLeft(): number;
  /** Milliseconds that are left. */
  msLeft(): number;
}

/** What the flows work with. */
export interface Parts {
  readonly source: Source;
  readonly replica: Replica;
  readonly plan: ReturnType<typeof createPlanner>;
  readonly planPage: ReturnType<typeof createPagePlanner>;
  readonly budget: Budget;
  readonly log: Log;
  /** How large the replica may be, in MB; without it, as large as it gets. */
  readonly replicaMbMax?: number;
  /** Milliseconds of a clock that does not go back. */
  now(): number;
  sleep(ms: number): Promise<void>;
  uuid(): string;
}

/** What a sync did. */
export interface SyncResult {
  /** Queue messages dealt with. */
  readonly processed: number;
  /** Messages left, at most 10,000. */
  readonly queued: number;
  /** Whether `queued` is exact, or a lower bound. */
  readonly queued_exact: boolean;
  /** Changes set aside by this sync. */
  readonly parked: number;
  /** Batches applied by this sync. */
  readonly batches: number;
  /** Whether the replica has every message that the last batch could see. */
  readonly drained?: boolean;
  /** Whether every table was walked: with drained, the replica is equal. */
  readonly walk_done?: boolean;
  /** The chain the replica follows. */
  readonly epoch?: string;
  /** How many batches of it are applied. */
  readonly position?: number;
  /** How much the replica holds, in MB. */
  readonly replica_mb?: number;
  /** What an operator should see to. */
  readonly warnings?: readonly string[];
  /** Set where another sync is at it. */
  readonly busy?: true;
  /** Set where an operator holds the worker off. */
  readonly paused?: true;
}

/** Calls kept back for the last batch: apply, park, probe, settle, release. */
const CALLS_RESERVED = 6;
const FAILURES_MAX = 3;
/** Building an index over more rows may pass the 5 s of a transaction. */
const INDEX_ROWS_MAX = 1_000_000;
const MB = 1_048_576;
/** The shares of its room at which the replica's size is warned of, and at
 * which nothing more is applied. */
const ROOM_WARN = 0.8;
const ROOM_STOP = 0.95;
/** An apply that failed after so long was too large, not unlucky. */
const SLOW_MS = 2_000;
/** Tries that find one row of a batch. */
const TRIES_MIN = 4;

/**
 * Drains the queue until it is empty or the budget is spent.
 *
 * @param parts What to work with.
 * @returns What was done.
 * @throws {SyncError} The replica or the source failed for longer than retries
 * help, or does not belong to the other.
 */
export async function sync(parts: Parts): Promise<SyncResult> {
  const lease = parts.uuid();
  const answer = await parts.source.lease(lease);
  if (answer.do === "busy") {
    const { paused } = answer;
    return {
      ...report(newProgress(), answer),
      busy: true,
      ...(paused ? { paused } as const : {}),
    };
  }
  return await follow(parts, lease, { batches: true });
}

/**
 * Follows the chain under a lease, which is given back at the end.
 *
 * @param parts What to work with.
 * @param lease The lease held.
 * @param options Whether batches are applied, or only the moves that make the
 * replica follow the epoch in force; whether a replica of another source is
 * taken over.
 * @returns What was done.
 * @throws {SyncError} See {@linkcode sync}.
 */
export async function follow(
  parts: Parts,
  lease: string,
  options: { batches: boolean; takeOver?: boolean },
): Promise<SyncResult> {
  const { source, budget, log } = parts;
  const progress = newProgress();
  try {
    for (;;) {
      const done = !options.batches || progress.isSpent ||
        budget.msLeft() <= 0 || budget.callsLeft() <= CALLS_RESERVED;
      try {
        if (progress.isUnsure) await ask(parts, progress);
        if (!done) await buildIndexes(parts, progress);
        const claim = await source.claim({
          lease,
          row: progress.row,
          size: done ? NOTHING : progress.size,
          ...(progress.split ? { split: progress.split } : {}),
          ...(options.takeOver ? { takeOver: true } : {}),
          ...(done ? {} : { page: await pageRequest(parts, progress) }),
          walked: [...progress.walked.values()],
        });
        progress.walked.clear();
        progress.processed += claim.acked;
        gauge(parts, progress);
        switch (claim.do) {
          case "idle":
          case "settled":
            warn(parts, progress);
            return report(progress, claim);
          case "busy":
            return {
              ...report(progress, await source.release(lease)),
              busy: true,
            };
          default:
            await obey(parts, progress, claim);
        }
        progress.failures = 0;
      } catch (error) {
        await recover(parts, progress, error);
      }
    }
  } catch (error) {
    const code = error instanceof SyncError ? error.code : "internal";
    log("error", "sync", { ...summaryOf(progress), code });
    const { row, split } = progress;
    // What was too large is cut now: the next sync would fail as late as this one.
    if (split) {
      await source.claim({ lease, row, size: NOTHING, split }).catch(() => {});
    }
    await source.release(lease).catch(() => {});
    throw error;
  }
}

const NOTHING: BatchSize = { messages: 0, bytes: 0 };

/** Where a sync is. */
interface Progress {
  row: ReplicaRow | null;
  /** Whether the replica must be asked before anything else. */
  isUnsure: boolean;
  /** The schema's hash of a replica whose tables are not what it says. */
  mend: string | null;
  size: BatchSize;
  /** The same for a page: rows and bytes. */
  pageSize: BatchSize;
  /** Whether the scrub had its page. */
  isScrubbed: boolean;
  /** What walks found, to be told at the next claim, by table. */
  walked: Map<string, Walked>;
  /** Tables whose indexes cannot be built now. */
  tooLarge: Set<string>;
  split: { batch: string; messages: number } | null;
  processed: number;
  parked: number;
  batches: number;
  failures: number;
  /** What an operator should see to. */
  warnings: string[];
  /** Whether what is left of the budget is too little for what comes next. */
  isSpent: boolean;
}

function newProgress(): Progress {
  return {
    row: null,
    isUnsure: true,
    mend: null,
    size: FIRST_SIZE,
    pageSize: FIRST_PAGE_SIZE,
    isScrubbed: false,
    walked: new Map(),
    tooLarge: new Set(),
    split: null,
    processed: 0,
    parked: 0,
    batches: 0,
    failures: 0,
    warnings: [],
    isSpent: false,
  };
}

/** Makes the move or applies the batch that the source handed out. */
async function obey(
  parts: Parts,
  progress: Progress,
  claim: Exclude<Claim, { do: "idle" | "settled" | "busy" }>,
): Promise<void> {
  const { replica, log } = parts;
  switch (claim.do) {
    case "stop":
      throw stopError(claim.error);
    case "bootstrap":
      log("info", "bootstrap", { epoch: claim.epoch });
      progress.row = await replica.bootstrap(claim);
      return;
    case "adopt":
      log("warn", "adopt", {
        epoch: claim.epoch,
        from: claim.from,
        wipe: claim.wipe,
        reason: claim.reason,
      });
      progress.row = await replica.adopt(claim);
      return;
    case "alter":
      log("info", "alter", { from: claim.from });
      progress.row = await replica.alter(claim);
      return;
    case "batch":
      assertRoom(parts, progress);
      await applyBatch(parts, progress, claim);
  }
}

/** Notes where the replica comes near the room it has. */
function gauge({ replicaMbMax }: Parts, progress: Progress): void {
  const share = shareOf(progress.row, replicaMbMax);
  progress.warnings = share < ROOM_WARN ? [] : [
    `The replica holds ${
      mbOf(progress.row!)
    } MB of the ${replicaMbMax} MB that LIBSQL_MAX_MB allows; nothing is applied from ${
      ROOM_STOP * 100
    } % on`,
  ];
}

/** Tells what an operator should see to. */
function warn({ log, replicaMbMax }: Parts, progress: Progress): void {
  for (const message of progress.warnings) {
    log("warn", "replica_size", {
      replica_mb: mbOf(progress.row!),
      max_mb: replicaMbMax,
      message,
    });
  }
}

/** Nothing is applied to a replica that is nearly full; moves of the chain are,
 * as they are the way out. */
function assertRoom({ replicaMbMax }: Parts, { row }: Progress): void {
  if (shareOf(row, replicaMbMax) < ROOM_STOP) return;
  throw new SyncError(
    "replica_full",
    `Cannot apply: expected less than ${
      ROOM_STOP * 100
    } % of LIBSQL_MAX_MB (${replicaMbMax} MB) in the replica, found ${
      mbOf(row!)
    } MB; raise LIBSQL_MAX_MB if the database may be larger; else delete rows in PostgreSQL, or take tables, columns or indexes out of schema.json, and POST /nuke: the replica is filled anew. Changes stay queued meanwhile`,
  );
}

/** How much of its room the replica takes, 1 being all. */
function shareOf(row: ReplicaRow | null, mbMax = Infinity): number {
  return row === null ? 0 : row.bytes / MB / mbMax;
}

function mbOf({ bytes }: ReplicaRow): number {
  return Math.ceil(bytes / MB);
}

/** Plans a batch, sets aside what cannot be applied, and applies the rest. */
async function applyBatch(
  parts: Parts,
  progress: Progress,
  batch: Batch,
): Promise<void> {
  const { plan, planPage, replica, now } = parts;
  const before = progress.row!;
  const queued = plan(batch);
  const paged = batch.page === null ? { steps: [], refusals: [] } : planPage(
    batch.page,
    {
      parked: [...batch.parked, ...queued.refusals],
      row: before,
    },
  );
  const steps = [...queued.steps, ...paged.steps];
  const refusals = [...queued.refusals, ...paged.refusals];
  // Recorded at the source before the apply: another worker that finds the
  // batch applied must know what is not in it.
  if (refusals.length > 0 && !await park(parts, progress, batch, refusals)) {
    return;
  }
  const started = now();
  try {
    const parked = unopened(batch, [...batch.parked, ...refusals]).length;
    const walk = { before, after: walkAfter(before, batch) };
    const { row, walked } = await replica.apply(batch, steps, { parked, walk });
    progress.row = row;
    if (walked !== null) noteWalked(parts, progress, { batch, walked });
  } catch (error) {
    if (!(error instanceof SyncError)) throw error;
    const elapsedMs = now() - started;
    if (error.code === "replica_refused") {
      await setAside(parts, progress, { batch, steps, error, elapsedMs });
      return;
    }
    if (error.code === "replica_unreachable" && elapsedMs > SLOW_MS) {
      halve(progress, batch);
    }
    throw error;
  }
  progress.split = null;
  progress.batches += 1;
  const applyMs = now() - started;
  if (batch.messages.length > 0) {
    progress.size = nextSize(progress.size, applyMs);
  }
  if (batch.page !== null) {
    progress.pageSize = nextSize(progress.pageSize, applyMs);
  }
}

/** Keeps what a walk found, for the source and the log. */
function noteWalked(
  { log }: Parts,
  progress: Progress,
  { batch, walked }: { batch: Batch; walked: Walked },
): void {
  const { kind, failed } = batch.page!;
  if (kind === "scrub") progress.isScrubbed = true;
  progress.walked.set(walked.table, walked);
  if (failed !== null) {
    log("warn", "walk", { kind, table: walked.table, code: failed });
  } else if (walked.ended) {
    const { table, rows, differing, ghosts } = walked;
    log("info", "walk", { kind, table, rows, differing, ghosts });
  }
}

/** What the next page may hold, with the replica's keys where it needs them. */
async function pageRequest(
  { replica }: Parts,
  { row, pageSize, isScrubbed }: Progress,
): Promise<PageRequest> {
  const place = parsePlace(row?.walk_at ?? null);
  // The scrub has one page a sync: its keys are not asked for in vain.
  const wantsKeys = place?.half === "back" &&
    (place.scrubRows === null || !isScrubbed);
  const keysMax = place?.scrubRows ?? pageSize.messages;
  return {
    rows: pageSize.messages,
    bytes: pageSize.bytes,
    scrub: !isScrubbed,
    keys: wantsKeys
      ? {
        at: row!.walk_at!,
        ...await replica.keys(place, {
          keysMax,
          rebuilding: namesIn(row!.rebuilding),
        }),
      }
      : null,
  };
}

/** Builds indexes that were left for when the table is full. */
async function buildIndexes(parts: Parts, progress: Progress): Promise<void> {
  const { replica, log, replicaMbMax } = parts;
  if (progress.row === null) return;
  if (shareOf(progress.row, replicaMbMax) >= ROOM_STOP) return;
  const { walk_at, unindexed } = progress.row;
  const filling = parsePlace(walk_at)?.table;
  for (const table of namesIn(unindexed)) {
    if (table === filling || progress.tooLarge.has(table)) continue;
    const row = await replica.buildIndexes(table, INDEX_ROWS_MAX);
    if (row === null) {
      progress.tooLarge.add(table);
      log("warn", "index", {
        table,
        message:
          `not built: more than ${INDEX_ROWS_MAX} rows, too long for a Bunny Database's transaction; run its CREATE INDEX statements by hand`,
      });
    } else {
      progress.row = row;
      log("info", "index", { table });
    }
  }
}

/** Finds what the replica refused and sets it aside: the batch comes again without it. */
async function setAside(
  parts: Parts,
  progress: Progress,
  refused: {
    batch: Batch;
    steps: readonly Step[];
    error: SyncError;
    elapsedMs: number;
  },
): Promise<void> {
  const { replica, budget } = parts;
  const { batch, steps, error, elapsedMs } = refused;
  const at = replica.refusedStep(error);
  if (at === null) throw error;
  const isOne = batch.messages.length === 1;
  const triesMax = Math.min(
    budget.callsLeft() - CALLS_RESERVED,
    Math.max(
      Math.floor(budget.msLeft() / Math.max(elapsedMs, 1)),
      isOne ? TRIES_MIN : 0,
    ),
  );
  if (triesMax < TRIES_MIN) {
    // Left to the next sync, which has a budget of its own.
    halve(progress, batch);
    progress.isSpent = true;
    return;
  }
  const upTo = steps.slice(0, at.step + 1);
  const rebuilding = namesIn(progress.row!.rebuilding);
  const options = { code: at.code, triesMax, rebuilding };
  const guilty = await isolate(replica, upTo, options);
  if (guilty.length === 0) throw error;
  await park(parts, progress, batch, guilty);
}

/** Asks for half of a batch that is too much. */
function halve(progress: Progress, { batch, messages }: Batch): void {
  progress.pageSize = nextSize(progress.pageSize, Infinity);
  if (messages.length === 1) return;
  progress.split = { batch, messages: Math.ceil(messages.length / 2) };
  progress.size = nextSize(progress.size, Infinity);
}

/** Sets changes aside; where the batch is gone, the replica is asked again. */
async function park(
  parts: Parts,
  progress: Progress,
  batch: Batch,
  changes: readonly Refusal[],
): Promise<boolean> {
  if (!await parts.source.park(batch, changes)) {
    progress.isUnsure = true;
    return false;
  }
  const opened = unopened(batch, changes);
  progress.parked += opened.length;
  for (const { msgId, table, reason } of opened) {
    parts.log("warn", "parked", { msg_id: msgId, table, reason });
  }
  return true;
}

/** Changes that open a dead letter: what a walk finds again has one. */
function unopened({ page }: Batch, changes: readonly Refusal[]): Refusal[] {
  const open = new Set(page?.open.map(({ key }) => JSON.stringify(key)));
  return changes.filter(({ msgId, table, key }) =>
    msgId !== null || table !== page?.table || !open.has(JSON.stringify(key))
  );
}

/** Asks the replica where it stands. */
async function ask({ replica }: Parts, progress: Progress): Promise<void> {
  const { mend } = progress;
  progress.row = await replica.probe();
  progress.mend = null;
  // Where the hash has moved, a newer worker was here: the source decides.
  if (mend !== null && progress.row?.schema_hash === mend) {
    progress.row = await replica.alter({ from: mend });
  }
  progress.isUnsure = false;
}

/** After a failure: waits a little; what comes next begins by asking the replica. */
async function recover(
  { budget, log, sleep }: Parts,
  progress: Progress,
  error: unknown,
): Promise<void> {
  if (!(error instanceof SyncError) || !error.retry) throw error;
  progress.failures += 1;
  if (
    progress.failures > FAILURES_MAX || budget.msLeft() <= 0 ||
    budget.callsLeft() <= 3
  ) throw error;
  log("warn", "retry", { code: error.code, failures: progress.failures });
  await sleep(50 * 4 ** (progress.failures - 1));
  progress.isUnsure = true;
  if (error.code === "replica_schema" && progress.row !== null) {
    progress.mend = progress.row.schema_hash;
  }
}

/** What a stop means for the operator. */
function stopError(code: StopCode): SyncError {
  switch (code) {
    case "replica_foreign":
      return new SyncError(
        code,
        "Cannot sync: expected a replica of this source, found one of another; check LIBSQL_URL, or POST /nuke to take it over and lose what it holds",
      );
    case "replica_ahead":
      return new SyncError(
        code,
        "Cannot sync: expected a replica at or behind this source's position, found one ahead: the source was restored or cloned; check PGMQ_URL and LIBSQL_URL, or POST /nuke to start the replica over",
      );
    case "schema_outdated":
      return new SyncError(
        code,
        "Cannot sync: expected the schema.json that is in force, found an older one in this worker; deploy the newest worker",
      );
    case "schema_unknown":
      return new SyncError(
        code,
        "Cannot sync: expected this worker's schema.json at the source, found none such; run the migration written by deno task schema, then deploy the worker",
      );
  }
}

function report(
  progress: Progress,
  queued: Queued & { behind?: number },
): SyncResult {
  const { row } = progress;
  return {
    ...summaryOf(progress),
    // A batch that is replayed says so of its own time.
    ...(row === null
      ? {}
      : { drained: row.drained === 1 && queued.behind === 0 }),
    queued: queued.queued,
    queued_exact: queued.queuedExact,
    ...(progress.warnings.length > 0 ? { warnings: progress.warnings } : {}),
  };
}

function summaryOf(progress: Progress) {
  const { processed, parked, batches, row } = progress;
  return {
    processed,
    parked,
    batches,
    ...(row === null ? {} : {
      walk_done: row.walk_done === 1,
      epoch: row.epoch,
      position: row.position,
      replica_mb: mbOf(row),
    }),
  };
}
