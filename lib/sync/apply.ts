/**
 * Ring 2. Applies a batch: plan, set aside what cannot be applied, write the rest.
 *
 * Promise: what is set aside is on record at the source before the rest is
 * written, so that whoever finds the batch applied knows what is not in it.
 *
 * @module
 */

import type { Batch, BatchHead, Claim } from "../chain/claim.ts";
import type { Refusal } from "../chain/message.ts";
import type { Walked } from "../chain/page.ts";
import { namesIn, touchedBy, walkAfter } from "../chain/walk_place.ts";
import { SyncError } from "../errors.ts";
import type { PagePlan } from "../plan/page.ts";
import type { Plan, RowStep, Step } from "../plan/step.ts";
import { halfSize, nextSize, PAGE_MAX } from "./batch_size.ts";
import { isolate } from "./find_refused.ts";
import { CALLS_RESERVED, type Parts, type Progress } from "./progress.ts";

/** An apply that failed after so long was too large, not unlucky. */
const SLOW_MS = 2_000;
/** Tries that find one row of a batch. */
const TRIES_MIN = 4;

/** A batch whose messages and page are planned, and let go: they are many times as large. */
export interface Planned extends BatchHead {
  /** What its messages come to. */
  readonly queued: Plan<RowStep>;
  /** The tables they name. */
  readonly touched: readonly string[];
  /** What its page comes to. */
  readonly paged: PagePlan | null;
}

/** What to do next, planned where it is a batch. */
export type Next =
  | Exclude<Claim, Batch>
  | Planned & Pick<Claim, "acked">;

/**
 * Plans the messages and the page of what the source handed out.
 *
 * @param parts What to work with.
 * @param claim What the source handed out.
 * @returns The same, with plans in their place.
 * @throws {SyncError} The page is not what the schema says.
 */
export function planned(
  { plan, planPage }: Pick<Parts, "plan" | "planPage">,
  claim: Claim,
): Next {
  if (claim.do !== "batch") return claim;
  const { messages, page, ...batch } = claim;
  const queued = plan({ ...batch, messages });
  const touched = touchedBy(messages);
  const parked = [...batch.parked, ...queued.refusals];
  const paged = page && planPage(page, { parked });
  return { ...batch, page: paged && paged.head, queued, touched, paged };
}

/**
 * Sets aside what of a batch cannot be applied, and applies the rest.
 *
 * @param parts What to work with.
 * @param progress Where the sync is; it moves on.
 * @param batch What the source handed out.
 * @throws {SyncError} The replica or the source failed.
 */
export async function applyBatch(
  parts: Parts,
  progress: Progress,
  batch: Planned,
): Promise<void> {
  const { replica, pace, now } = parts;
  const before = progress.row!;
  const { queued, paged } = batch;
  const steps = [...queued.steps, ...paged?.stepsFor(before) ?? []];
  const refusals = [...queued.refusals, ...paged?.refusals ?? []];
  // Recorded at the source before the apply: another worker that finds the
  // batch applied must know what is not in it.
  if (refusals.length > 0 && !await park(parts, progress, batch, refusals)) {
    return;
  }
  const started = now();
  try {
    const parked = unopened(batch, [...batch.parked, ...refusals]).length;
    const aside = { ...batch, parked: [...batch.parked, ...refusals] };
    const walk = { before, after: walkAfter(before, aside) };
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
      halve(parts, progress, batch);
    }
    throw error;
  }
  progress.split = null;
  progress.batches += 1;
  if (batch.kind === "replay") progress.replays += 1;
  for (const { table, count } of queued.steps) {
    const before = progress.applied.get(table.name) ?? 0;
    progress.applied.set(table.name, before + count);
  }
  const took = { ms: now() - started, latencyMs: progress.latencyMs };
  if (batch.messageCount > 0) {
    const next = nextSize(progress.claimedSize, took);
    // One that took all there was says nothing of a larger one.
    const mayGrow = batch.kind === "new" && !batch.drained;
    if (mayGrow || next.messages < pace.size.messages) pace.size = next;
  }
  if (batch.page !== null) {
    pace.pageSize = nextSize(pace.pageSize, took, PAGE_MAX);
  }
}

/** Keeps what a walk found, for the source and the log. */
function noteWalked(
  { log }: Parts,
  progress: Progress,
  { batch, walked }: { batch: Planned; walked: Walked },
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

/** Finds what the replica refused and sets it aside: the batch comes again without it. */
async function setAside(
  parts: Parts,
  progress: Progress,
  refused: {
    batch: Planned;
    steps: readonly Step[];
    error: SyncError;
    elapsedMs: number;
  },
): Promise<void> {
  const { replica, budget } = parts;
  const { batch, steps, error, elapsedMs } = refused;
  const at = replica.refusedStep(error);
  if (at === null) throw error;
  const isOne = batch.messageCount === 1;
  const triesMax = Math.min(
    budget.callsLeft() - CALLS_RESERVED,
    Math.max(
      Math.floor(budget.msLeft() / Math.max(elapsedMs, 1)),
      isOne ? TRIES_MIN : 0,
    ),
  );
  if (triesMax < TRIES_MIN) {
    // Left to the next sync, which has a budget of its own.
    halve(parts, progress, batch);
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
function halve(
  { pace }: Parts,
  progress: Progress,
  { batch, messageCount }: Planned,
): void {
  pace.pageSize = halfSize(pace.pageSize);
  if (messageCount === 1) return;
  progress.split = { batch, messages: Math.ceil(messageCount / 2) };
  pace.size = halfSize(pace.size);
}

/** Sets changes aside; where the batch is gone, the replica is asked again. */
async function park(
  parts: Parts,
  progress: Progress,
  batch: Planned,
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
function unopened({ page }: Planned, changes: readonly Refusal[]): Refusal[] {
  const open = new Set(page?.open.map(({ key }) => JSON.stringify(key)));
  return changes.filter(({ msgId, table, key }) =>
    msgId !== null || table !== page?.table || !open.has(JSON.stringify(key))
  );
}
