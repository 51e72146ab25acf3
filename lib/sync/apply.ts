/**
 * Ring 2. Applies a batch: parks what cannot be applied, and writes the rest.
 *
 * Promise: a batch is written whole or not at all, and one that the replica
 * refuses is written without the rows it was refused for.
 *
 * @module
 */

import type { Refusal } from "../chain/rows.ts";
import type { Walked } from "../chain/page.ts";
import { namesIn, walkAfter } from "../chain/walk_place.ts";
import { SyncError } from "../errors.ts";
import { identityOf, type Step, without } from "../plan/step.ts";
import { halfSize, nextSize, PAGE_MAX, SIZE_MIN } from "./batch_size.ts";
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
  /** The steps of its rows, then those of its page. */
  readonly steps: readonly Step[];
  /** The rows that are parked, and in no step. */
  readonly parked: readonly Refusal[];
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
  const planned = [...queued.steps, ...paged?.stepsFor(progress.row!) ?? []];
  const steps = without(planned, batch.parked);
  const known = new Set(batch.parked.map(identityOf));
  const found = distinct([...queued.refusals, ...paged?.refusals ?? []])
    .filter((refusal) => !known.has(identityOf(refusal)));
  // Before the apply: another worker that finds the batch applied must know
  // what it lacks.
  const parks = (refusals: readonly Refusal[]) =>
    park(parts, progress, { batch, refusals });
  if (found.length > 0 && !await parks(found)) return;
  let parked = [...batch.parked, ...found];
  for (let attempt: Attempt = { batch, steps, parked };;) {
    const refused = await tryWrite(parts, progress, attempt);
    if (refused.length === 0 || !await parks(refused)) return;
    parked = [...parked, ...refused];
    attempt = { batch, steps: without(attempt.steps, refused), parked };
  }
}

/** Each row once: a page may bring one that changed as well. */
function distinct(refusals: readonly Refusal[]): Refusal[] {
  const rows = new Map<string, Refusal>();
  for (const refusal of refusals) {
    const { table, key, reason } = refusal;
    rows.set(JSON.stringify([table, key ?? reason]), refusal);
  }
  return [...rows.values()];
}

/** Writes a batch; returns the rows for which the replica refused it, none if it is written. */
async function tryWrite(
  parts: Parts,
  progress: Progress,
  attempt: Attempt,
): Promise<Refusal[]> {
  const startedAt = parts.now();
  try {
    await write(parts, progress, attempt);
  } catch (error) {
    if (!(error instanceof SyncError)) throw error;
    const ms = parts.now() - startedAt;
    if (error.code === "replica_refused") {
      return await refusedBy(parts, progress, { ...attempt, error, ms });
    }
    if (error.code === "replica_unreachable" && ms > SLOW_MS) {
      halve(parts, attempt.batch);
    }
    throw error;
  }
  count(progress, attempt);
  learnPace(parts, progress, {
    batch: attempt.batch,
    ms: parts.now() - startedAt,
  });
  return [];
}

/** Writes a batch: its step of the chain, its rows, and where it leaves the walk. */
async function write(
  parts: Parts,
  progress: Progress,
  { batch, steps, parked }: Attempt,
): Promise<void> {
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
function count(progress: Progress, { batch, steps }: Attempt): void {
  const { applied } = progress;
  progress.batches += 1;
  // The rest is the page's: what that repairs is no change.
  for (const step of steps.slice(0, batch.queued.steps.length)) {
    // The rows of an "update" are those of the "write" after it.
    if (!("count" in step) || step.kind === "update") continue;
    const { table: { name }, count } = step;
    applied.set(name, (applied.get(name) ?? 0) + count);
  }
}

/** Learns from how long an apply took how much the next batch and page may hold. */
function learnPace(
  { pace }: Parts,
  { claimedSize, latencyMs }: Progress,
  { batch, ms }: { batch: PlannedBatch; ms: number },
): void {
  const took = { ms, latencyMs };
  if (batch.keys > 0) {
    const next = nextSize(claimedSize, took);
    // A batch that took all there was proves nothing about a larger one.
    if (!batch.drained || next.rows < pace.size.rows) pace.size = next;
  }
  if (batch.page !== null) {
    pace.pageSize = nextSize(pace.pageSize, took, PAGE_MAX);
  }
}

/** Finds the rows for which the replica refused a batch; none if too little time remains. */
async function refusedBy(
  { replica, budget, pace }: Parts,
  progress: Progress,
  { batch, steps, error, ms }: Attempt & { error: SyncError; ms: number },
): Promise<Refusal[]> {
  const at = replica.refusedStep(error);
  if (at === null) throw error;
  const isSmall = batch.keys + (batch.page?.rows ?? 0) <= SIZE_MIN.rows;
  const triesMax = Math.min(
    budget.callsLeft() - CALLS_RESERVED,
    Math.max(
      Math.floor(budget.msLeft() / Math.max(ms, 1)),
      isSmall ? TRIES_MIN : 0,
    ),
  );
  if (triesMax < TRIES_MIN) {
    // The next sync has a budget of its own.
    halve({ pace }, batch);
    progress.isSpent = true;
    return [];
  }
  const refused = await findRefused(replica, steps.slice(0, at.step + 1), {
    code: at.code,
    triesMax,
    rebuilding: namesIn(progress.row!.rebuilding),
  });
  if (refused.length === 0) throw error;
  return refused;
}

/** Has the next claim hand out half of a batch that is too large. */
function halve({ pace }: Pick<Parts, "pace">, { keys }: PlannedBatch): void {
  pace.pageSize = halfSize(pace.pageSize);
  // It may be far smaller than was asked for.
  const rows = keys > 0 ? Math.min(keys, pace.size.rows) : pace.size.rows;
  pace.size = halfSize({ ...pace.size, rows });
}
