/**
 * Ring 2. The verb sync: drain the queue into the replica.
 *
 * Promise: after any failure nothing is concluded; the replica is probed and
 * the source decides, so that the chain moves on or stays.
 *
 * @module
 */

import { SyncError } from "../errors.ts";
import {
  capacityError,
  capacityWarnings,
  hasCapacity,
} from "../replica/capacity.ts";
import { applyBatch } from "./apply.ts";
import { buildIndexes } from "./build_indexes.ts";
import { claimAhead, claimNext, isOver } from "./claim_next.ts";
import type { ChainMove, PlannedBatch } from "./plan_claim.ts";
import {
  type Following,
  newProgress,
  type Parts,
  type Progress,
} from "./progress.ts";
import { outcomeOf, resultOf, summaryOf, type SyncResult } from "./result.ts";
import { sendAlerts } from "./send_alerts.ts";
import { stopError } from "./stop_error.ts";

const FAILURES_MAX = 3;
/** Calls that a retry needs: probe, settle, release. */
const RETRY_CALLS = 3;

/**
 * Drains the queue until it is empty or the budget is spent.
 *
 * @param parts What to work with.
 * @returns What was done.
 * @throws {SyncError} Retries did not help against a failure of the replica or
 * the source, or the two do not belong together.
 */
export async function sync(parts: Parts): Promise<SyncResult> {
  const following = { lease: parts.uuid(), batches: true };
  const answer = await parts.source.lease(following.lease);
  if (answer.do === "busy") {
    const { paused } = answer;
    return {
      ...resultOf(newProgress(parts, following), answer),
      busy: true,
      ...(paused ? { paused } as const : {}),
    };
  }
  const { scrub, brief } = answer;
  return await followChain(parts, { ...following, scrub, brief });
}

/**
 * Follows the chain under a lease, step by step, and gives the lease back.
 *
 * @param parts What to work with.
 * @param following The lease held, and how far to follow.
 * @returns What was done.
 * @throws {SyncError} See {@linkcode sync}.
 */
export async function followChain(
  parts: Parts,
  following: Following,
): Promise<SyncResult> {
  const progress = newProgress(parts, following);
  try {
    for (;;) {
      try {
        const result = await takeStep(parts, progress);
        if (result !== null) return result;
        progress.failures = 0;
      } catch (error) {
        await waitForRetry(parts, progress, error);
      }
    }
  } catch (error) {
    await giveUp(parts, progress, error);
    throw error;
  }
}

/** Takes one step of the chain; returns the result after the last one. */
async function takeStep(
  parts: Parts,
  progress: Progress,
): Promise<SyncResult | null> {
  const { source, log, replicaMbMax } = parts;
  // The replica comes first: the source then judges what it proves.
  if (progress.isUnsure) await probe(parts, progress);
  if (!isOver(parts, progress)) await buildIndexes(parts, progress);
  const claim = await claimNext(parts, progress);
  progress.warnings = capacityWarnings(progress.row, replicaMbMax);
  switch (claim.do) {
    case "batch":
      await applyAndClaimAhead(parts, progress, claim);
      return null;
    case "idle":
    case "settled":
      for (const message of progress.warnings) {
        log("warn", "replica_size", { message });
      }
      await sendAlerts(parts, claim.due);
      return resultOf(progress, claim);
    case "busy":
      return {
        ...resultOf(progress, await source.release(progress.following.lease)),
        busy: true,
      };
    case "none":
      throw new SyncError(
        "source_failed",
        "Cannot read the source's answer: expected a batch or its end, found neither",
      );
    default:
      await makeMove(parts, progress, claim);
      return null;
  }
}

/** Asks the replica where it stands; alters it if its tables are not what its schema says. */
async function probe(
  { replica, now }: Parts,
  progress: Progress,
): Promise<void> {
  const { brokenSchema } = progress;
  const startedAt = now();
  progress.row = await replica.probe();
  progress.latencyMs = now() - startedAt;
  progress.brokenSchema = null;
  // With another hash, a newer worker has altered it: the source decides.
  if (brokenSchema !== null && progress.row?.schema_hash === brokenSchema) {
    progress.row = await replica.alter({ from: brokenSchema });
  }
  progress.isUnsure = false;
}

/** Applies a batch; the source reads the next one meanwhile. */
async function applyAndClaimAhead(
  parts: Parts,
  progress: Progress,
  batch: PlannedBatch,
): Promise<void> {
  const next = claimAhead(parts, progress, batch);
  try {
    // Moves of the chain can free room; a batch cannot.
    if (!hasCapacity(progress.row, parts.replicaMbMax)) {
      throw capacityError(progress.row!, parts.replicaMbMax);
    }
    await applyBatch(parts, progress, batch);
  } finally {
    progress.ahead = await next();
  }
}

/** Makes the move of the chain that the source asks for. */
async function makeMove(
  { replica, log }: Parts,
  progress: Progress,
  move: ChainMove,
): Promise<void> {
  switch (move.do) {
    case "stop":
      throw stopError(move.error);
    case "bootstrap":
      log("info", "bootstrap", { epoch: move.epoch });
      progress.row = await replica.bootstrap(move);
      return;
    case "adopt": {
      const { epoch, from, wipe, reason } = move;
      log("warn", "adopt", { epoch, from, wipe, reason });
      progress.row = await replica.adopt(move);
      return;
    }
    case "alter":
      log("info", "alter", { from: move.from });
      progress.row = await replica.alter(move);
  }
}

/** Waits after a failure that a retry can help; the retry begins with a probe. */
async function waitForRetry(
  { budget, log, sleep }: Parts,
  progress: Progress,
  error: unknown,
): Promise<void> {
  if (!(error instanceof SyncError) || !error.retry) throw error;
  progress.failures += 1;
  if (
    progress.failures > FAILURES_MAX || budget.msLeft() <= 0 ||
    budget.callsLeft() <= RETRY_CALLS
  ) throw error;
  log("warn", "retry", { code: error.code, failures: progress.failures });
  await sleep(50 * 4 ** (progress.failures - 1));
  progress.isUnsure = true;
  if (error.code === "replica_schema" && progress.row !== null) {
    progress.brokenSchema = progress.row.schema_hash;
  }
}

/** Reports a failure to the log and the source, and gives the lease back. */
async function giveUp(
  parts: Parts,
  progress: Progress,
  error: unknown,
): Promise<void> {
  const { source, log } = parts;
  const { lease } = progress.following;
  const code = error instanceof SyncError ? error.code : "internal";
  log("error", "sync", { ...summaryOf(progress), code });
  await source.release(lease, { sync: outcomeOf(parts, progress, code) })
    .then(({ due }) => sendAlerts(parts, due)).catch(() => {});
}
