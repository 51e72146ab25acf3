/**
 * Ring 2. Asks the source what comes next.
 *
 * Promise: once a sync is over, its claims only settle; and what was claimed
 * ahead is used only if the batch before it was applied whole.
 *
 * @module
 */

import type { BatchSize, Settled } from "../chain/claim.ts";
import type { ReplicaRow } from "../chain/row.ts";
import { parsePlace } from "../chain/walk_place.ts";
import { goesOn, requestPage } from "./page_request.ts";
import {
  type ClaimedBatch,
  planClaim,
  type PlannedBatch,
  type PlannedClaim,
} from "./plan_claim.ts";
import { hasBudget, type Parts, type Progress } from "./progress.ts";
import { outcomeOf } from "./result.ts";

/** A claim of this size settles and hands out nothing. */
const NOTHING: BatchSize = { rows: 0, bytes: 0 };

/** Less time is not enough for one more batch. */
const AHEAD_MS_MIN = 1_500;
const BRIEF_MS = 1_000;

/**
 * Whether nothing more is applied in this sync.
 *
 * @param parts What to work with.
 * @param progress Where the sync is.
 * @returns Whether it is over.
 */
export function isOver(
  { budget, now }: Parts,
  { isSpent, row, startedAt, following }: Progress,
): boolean {
  const { batches, brief = false } = following;
  if (!batches || isSpent || !hasBudget(budget)) return true;
  // Writes that never pause would keep a sync for its whole budget. pg_net
  // would deliver no other webhook meanwhile.
  return brief && now() - startedAt > BRIEF_MS && row?.drained === 1 &&
    !isWalking(row);
}

/** Whether a walk is on that an operator or a reader waits for: not the scrub. */
function isWalking(row: ReplicaRow): boolean {
  const place = parsePlace(row.walk_at);
  return place !== null && place.scrubRows === null;
}

/**
 * Takes the batch that was claimed ahead, or claims: the source settles what
 * the replica's row proves, and hands out what comes next.
 *
 * @param parts What to work with.
 * @param progress Where the sync is; what was settled is added.
 * @returns What to do next.
 * @throws {SyncError} The source failed, or the replica when it was asked for
 * the keys of a page.
 */
export async function claimNext(
  parts: Parts,
  progress: Progress,
): Promise<PlannedClaim> {
  const { source, pace } = parts;
  const { ahead, following: { lease, takeOver } } = progress;
  progress.ahead = null;
  const over = isOver(parts, progress);
  if (ahead !== null && !over) return ahead;
  const claim = await source.claim({
    lease,
    row: progress.row,
    size: over ? NOTHING : pace.size,
    ...(takeOver ? { takeOver } : {}),
    ...(over ? {} : { page: await requestPage(parts, progress) }),
    walked: [...progress.walked.values()],
    sync: outcomeOf(parts, progress),
  });
  progress.walked.clear();
  noteSettled(progress, claim);
  progress.claimedSize = pace.size;
  return planClaim(parts, claim);
}

/** Counts what the source did on the way to its answer. */
function noteSettled(progress: Progress, { acked, putBack }: Settled): void {
  progress.processed += acked;
  progress.replays += putBack;
}

/**
 * Claims and plans the batch after one that is about to be applied. It does not
 * if that one is the last, or if little time remains. A page rides on it if the
 * walk goes on without the replica's keys.
 *
 * @param parts What to work with.
 * @param progress Where the sync is.
 * @param batch The batch about to be applied.
 * @returns Waits for the answer, after the batch. It returns the next batch if
 * that may be applied now, else null.
 */
export function claimAhead(
  parts: Parts,
  progress: Progress,
  batch: PlannedBatch,
): () => Promise<ClaimedBatch | null> {
  const { source, budget, pace: { size, pageSize } } = parts;
  const { drained, reopen, page } = batch;
  const { parked, row, following: { lease } } = progress;
  const isLast = drained && (page === null || !goesOn(page));
  if (
    isLast || reopen || budget.msLeft() < AHEAD_MS_MIN || !hasBudget(budget)
  ) return () => Promise.resolve(null);
  const claim = source.claim({
    lease,
    row,
    size,
    ahead: batch.batch,
    page: { ...pageSize, scrub: false, keys: null },
  });
  // A failure is not lost: the next claim meets it again.
  const claimed = claim.then((next) => planClaim(parts, next))
    .catch(() => null);
  return async () => {
    const next = await claimed;
    if (next !== null) noteSettled(progress, next);
    // It does not count the dead letters of a batch that parked something.
    const isNext = next?.do === "batch" && next.prev === progress.row?.batch &&
      next.prev === batch.batch && progress.parked === parked;
    if (!isNext) return null;
    progress.claimedSize = size;
    return next;
  };
}
