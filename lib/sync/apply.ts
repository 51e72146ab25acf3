/**
 * Ring 2. Applies a batch: parks what cannot be applied, and writes the rest.
 *
 * Promise: a batch is written whole or not at all, and one that the replica
 * refuses comes again without the rows it was refused for.
 *
 * @module
 */

import type { Refusal } from "../chain/message.ts";
import type { Walked } from "../chain/page.ts";
import { namesIn, walkAfter } from "../chain/walk_place.ts";
import { SyncError } from "../errors.ts";
import type { Step } from "../plan/step.ts";
import { halfSize, nextSize, PAGE_MAX } from "./batch_size.ts";
import { findRefused } from "./find_refused.ts";
import { park, withoutLetter } from "./park.ts";
import type { PlannedBatch } from "./plan_claim.ts";
import { CALLS_RESERVED, type Parts, type Progress } from "./progress.ts";

/** An apply that fails after this long was too large. A sooner one had bad luck. */
const SLOW_MS = 2_000;
/** Tries that find one row of a batch. */
const TRIES_MIN = 4;

/** A batch that is about to be written. */
interface Attempt {
  readonly batch: PlannedBatch;
  readonly steps: readonly Step[];
  /** What of it cannot be applied. */
  readonly changes: readonly Refusal[];
}

/**
 * Parks what of a batch cannot be applied, and applies the rest.
 *
 * @param parts What to work with.
 * @param progress Where the sync is; it moves on.
 * @param batch What the source handed out.
 * @throws {SyncError} The replica or the source failed.
 */
export async function applyBatch(
  parts: Parts,
  progress: Progress,
  batch: PlannedBatch,
): Promise<void> {
  const { queued, paged } = batch;
  const steps = [...queued.steps, ...paged?.stepsFor(progress.row!) ?? []];
  const changes = [...queued.refusals, ...paged?.refusals ?? []];
  // Before the apply: another worker that finds the batch applied must know
  // what it lacks.
  const attempt = { batch, steps, changes };
  if (changes.length > 0 && !await park(parts, progress, attempt)) return;
  const startedAt = parts.now();
  try {
    await write(parts, progress, attempt);
  } catch (error) {
    if (!(error instanceof SyncError)) throw error;
    const ms = parts.now() - startedAt;
    if (error.code === "replica_refused") {
      return await parkRefused(parts, progress, { ...attempt, error, ms });
    }
    if (error.code === "replica_unreachable" && ms > SLOW_MS) {
      halve(parts, progress, batch);
    }
    throw error;
  }
  count(progress, batch);
  learnPace(parts, progress, { batch, ms: parts.now() - startedAt });
}

/** Writes a batch: its step of the chain, its rows, and where it leaves the walk. */
async function write(
  parts: Parts,
  progress: Progress,
  { batch, steps, changes }: Attempt,
): Promise<void> {
  const parked = [...batch.parked, ...changes];
  const before = progress.row!;
  const { row, walked } = await parts.replica.apply(batch, steps, {
    parked: withoutLetter(batch, parked).length,
    walk: { before, after: walkAfter(before, { ...batch, parked }) },
  });
  progress.row = row;
  if (walked !== null) noteWalked(parts, progress, { batch, walked });
}

/** Keeps what a walk found, for the source and the log. */
function noteWalked(
  { log }: Parts,
  progress: Progress,
  { batch, walked }: { batch: PlannedBatch; walked: Walked },
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

/** Counts a batch that was applied. */
function count(progress: Progress, { kind, queued }: PlannedBatch): void {
  const { applied } = progress;
  progress.split = null;
  progress.batches += 1;
  if (kind === "replay") progress.replays += 1;
  for (const { table, count } of queued.steps) {
    applied.set(table.name, (applied.get(table.name) ?? 0) + count);
  }
}

/** Learns from how long an apply took how much the next batch and page may hold. */
function learnPace(
  { pace }: Parts,
  { claimedSize, latencyMs }: Progress,
  { batch, ms }: { batch: PlannedBatch; ms: number },
): void {
  const took = { ms, latencyMs };
  if (batch.messageCount > 0) {
    const next = nextSize(claimedSize, took);
    // A batch that took all there was proves nothing about a larger one.
    const mayGrow = batch.kind === "new" && !batch.drained;
    if (mayGrow || next.messages < pace.size.messages) pace.size = next;
  }
  if (batch.page !== null) {
    pace.pageSize = nextSize(pace.pageSize, took, PAGE_MAX);
  }
}

/** Finds the rows the replica refused and parks them: the batch comes again without them. */
async function parkRefused(
  parts: Parts,
  progress: Progress,
  { batch, steps, error, ms }: Attempt & { error: SyncError; ms: number },
): Promise<void> {
  const { replica, budget } = parts;
  const at = replica.refusedStep(error);
  if (at === null) throw error;
  const isOne = batch.messageCount === 1;
  const triesMax = Math.min(
    budget.callsLeft() - CALLS_RESERVED,
    Math.max(
      Math.floor(budget.msLeft() / Math.max(ms, 1)),
      isOne ? TRIES_MIN : 0,
    ),
  );
  if (triesMax < TRIES_MIN) {
    // The next sync has a budget of its own.
    halve(parts, progress, batch);
    progress.isSpent = true;
    return;
  }
  const changes = await findRefused(replica, steps.slice(0, at.step + 1), {
    code: at.code,
    triesMax,
    rebuilding: namesIn(progress.row!.rebuilding),
  });
  if (changes.length === 0) throw error;
  await park(parts, progress, { batch, changes });
}

/** Has the next claim hand out half of a batch that is too large. */
function halve(
  { pace }: Parts,
  progress: Progress,
  { batch, messageCount }: PlannedBatch,
): void {
  pace.pageSize = halfSize(pace.pageSize);
  if (messageCount === 1) return;
  progress.split = { batch, messages: Math.ceil(messageCount / 2) };
  pace.size = halfSize(pace.size);
}
