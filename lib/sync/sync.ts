/**
 * Ring 2. The verb sync: drain the queue into the replica.
 *
 * Promise: after whatever failed, nothing is concluded; the replica is probed
 * and the source decides, so that the chain moves on or stays.
 *
 * @module
 */

import type { BatchSize } from "../chain/claim.ts";
import type { ReplicaRow } from "../chain/row.ts";
import { parsePlace } from "../chain/walk_place.ts";
import { SyncError } from "../errors.ts";
import { hasRoom, noRoom, roomWarnings } from "../replica/capacity.ts";
import { applyBatch, type Next, type Planned, planned } from "./apply.ts";
import { buildIndexes } from "./build_indexes.ts";
import { pageAfter, pageBound, pageRequest } from "./page_request.ts";
import {
  hasBudget,
  newProgress,
  type Parts,
  type Progress,
} from "./progress.ts";
import { outcomeOf, report, summaryOf, type SyncResult } from "./result.ts";
import { tell } from "./send_alerts.ts";
import { stopError } from "./stop_error.ts";

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
      ...report(newProgress(parts), answer),
      busy: true,
      ...(paused ? { paused } as const : {}),
    };
  }
  const { scrub, brief } = answer;
  return await follow(parts, lease, { batches: true, scrub, brief });
}

/**
 * Follows the chain under a lease, which is given back at the end.
 *
 * @param parts What to work with.
 * @param lease The lease held.
 * @param options Whether batches are applied, or only the moves that make the
 * replica follow the epoch in force; whether a page of the scrub may ride, as it
 * may unless told; whether the next call comes at once when there is more;
 * whether a replica of another source is taken over.
 * @returns What was done.
 * @throws {SyncError} See {@linkcode sync}.
 */
export async function follow(
  parts: Parts,
  lease: string,
  options: {
    batches: boolean;
    scrub?: boolean;
    brief?: boolean;
    takeOver?: boolean;
  },
): Promise<SyncResult> {
  const { source, budget, log } = parts;
  const progress = newProgress(parts);
  progress.isScrubbed = options.scrub === false;
  const started = parts.now();
  // Writes that never pause would keep it for as long as it may take, and with it
  // whatever else pg_net has to deliver.
  const isLate = () =>
    options.brief === true && parts.now() - started > BRIEF_MS &&
    progress.row?.drained === 1 && !isWalking(progress.row);
  const outcome = (error?: string) =>
    outcomeOf(progress, { ms: parts.now() - started, error });
  const isDone = () =>
    !options.batches || progress.isSpent || !hasBudget(budget) || isLate();
  const claimNext = async (): Promise<Next> => {
    const done = isDone();
    const claim = await source.claim({
      lease,
      row: progress.row,
      size: done ? NOTHING : parts.pace.size,
      ...(progress.split ? { split: progress.split } : {}),
      ...(options.takeOver ? { takeOver: true } : {}),
      ...(done ? {} : { page: await pageRequest(parts, progress) }),
      walked: [...progress.walked.values()],
      sync: outcome(),
    });
    progress.walked.clear();
    progress.processed += claim.acked;
    progress.claimedSize = parts.pace.size;
    return planned(parts, claim);
  };
  let ahead: PlannedClaim | null = null;
  try {
    for (;;) {
      try {
        if (progress.isUnsure) await ask(parts, progress);
        if (!isDone()) await buildIndexes(parts, progress);
        const claim: Next = ahead !== null && !isDone()
          ? ahead
          : await claimNext();
        ahead = null;
        progress.warnings = roomWarnings(progress.row, parts.replicaMbMax);
        switch (claim.do) {
          case "idle":
          case "settled":
            for (const message of progress.warnings) {
              log("warn", "replica_size", { message });
            }
            await tell(parts, claim.due);
            return report(progress, claim);
          case "busy":
            return {
              ...report(progress, await source.release(lease)),
              busy: true,
            };
          case "none":
            throw new SyncError(
              "source_failed",
              "Cannot read the source's answer: expected a batch or that there is none to come, found neither",
            );
          case "batch": {
            const { size } = parts.pace;
            const next = claimAhead(parts, progress, { lease, batch: claim });
            try {
              await obey(parts, progress, claim);
            } finally {
              ahead = await next();
              if (ahead !== null) progress.claimedSize = size;
            }
            break;
          }
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
    await source.release(lease, { sync: outcome(code) })
      .then(({ due }) => tell(parts, due)).catch(() => {});
    throw error;
  }
}

/** A batch that was handed out. */
type PlannedClaim = Next & Planned;

/**
 * Claims and plans the batch after one that is about to be applied, meanwhile. It
 * is not asked for where that one is the last, where it was handed out before, and
 * where there is little time left for another. A page goes on from the one before
 * it, where that does not wait for the replica's keys.
 *
 * @returns Waits for it, and returns it where it may be applied: the one before
 * it was, and whole.
 */
function claimAhead(
  parts: Parts,
  progress: Progress,
  { lease, batch }: { lease: string; batch: Planned },
): () => Promise<PlannedClaim | null> {
  const { source, budget, pace } = parts;
  const { drained, kind, reopen, page } = batch;
  const upto = page === null ? undefined : pageAfter(page);
  const { size } = pace;
  const { parked, row } = progress;
  if (
    drained && !upto || reopen || kind !== "new" || progress.split !== null ||
    budget.msLeft() < AHEAD_MS_MIN || !hasBudget(budget)
  ) return () => Promise.resolve(null);
  const claim = source.claim({
    lease,
    row,
    size,
    ahead: batch.batch,
    ...(upto
      ? { upto, page: { ...pageBound(pace), scrub: false, keys: null } }
      : {}),
  });
  // Whatever it is, the next claim meets it again.
  const claimed = claim.then((next) => planned(parts, next)).catch(() => null);
  return async () => {
    const next = await claimed;
    progress.processed += next?.acked ?? 0;
    return next?.do === "batch" && next.prev === progress.row?.batch &&
        next.prev === batch.batch && progress.parked === parked &&
        batch.parked.length === 0
      ? next
      : null;
  };
}

/** Less is no time for one more batch. */
const AHEAD_MS_MIN = 1_500;

const FAILURES_MAX = 3;

const BRIEF_MS = 1_000;

const NOTHING: BatchSize = { messages: 0, bytes: 0 };

/** Whether a walk is under way that somebody waits for. */
function isWalking(row: ReplicaRow): boolean {
  const place = parsePlace(row.walk_at);
  return place !== null && place.scrubRows === null;
}

/** Makes the move or applies the batch that the source handed out. */
async function obey(
  parts: Parts,
  progress: Progress,
  claim: Exclude<Next, { do: "idle" | "settled" | "busy" | "none" }>,
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
      // Moves of the chain are the way out: a batch is not.
      if (!hasRoom(progress.row, parts.replicaMbMax)) {
        throw noRoom(progress.row!, parts.replicaMbMax);
      }
      await applyBatch(parts, progress, claim);
  }
}

/** Asks the replica where it stands. */
async function ask(
  { replica, now }: Parts,
  progress: Progress,
): Promise<void> {
  const { mend } = progress;
  const started = now();
  progress.row = await replica.probe();
  progress.latencyMs = now() - started;
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
