/**
 * Ring 2. The verb nuke: delete every row and create the schema again.
 *
 * Promise: the source begins the new epoch first, so that a sync that is running
 * can only follow it: no batch of the old epoch lands afterwards.
 *
 * @module
 */

import { SyncError } from "../errors.ts";
import type { Parts } from "./progress.ts";
import { followChain } from "./sync.ts";

const RESETS_MAX = 3;
const WAIT_MS = 200;
/** Calls that following the new epoch needs. */
const CALLS_MIN = 10;
const DONE = { message: "Data nuked and schema reinitialized" };

/** What to nuke. */
export interface NukeOptions {
  /** Whether the next syncs fill the replica again by themselves. Default: true. */
  readonly refill?: boolean;
  /** The epoch to end: a request that is sent twice then nukes once. Default: any. */
  readonly epoch?: string;
}

/**
 * Empties the replica, whichever source it followed.
 *
 * @param parts What to work with.
 * @param options Whether it is filled again, and which epoch ends.
 * @returns The message for the caller.
 * @throws {SyncError} `epoch_moved`: the epoch to end is not in force.
 * `nuke_pending`: the new epoch is recorded, but another worker holds the
 * lease; the next sync carries it out. Else what a sync throws.
 */
export async function nuke(
  parts: Parts,
  options: NukeOptions,
): Promise<{ message: string }> {
  const { source, log } = parts;
  const lease = parts.uuid();
  const answer = await source.lease(lease);
  const epoch = await beginEpoch(parts, answer.epoch, { ...options, lease });
  log("warn", "nuke", { epoch });
  if (answer.do === "busy" && await isFollowed(parts, { lease, epoch })) {
    return DONE;
  }
  const { busy } = await followChain(parts, {
    lease,
    batches: false,
    takeOver: true,
  });
  if (busy) throw pending("another sync took over");
  return DONE;
}

/** Begins a new epoch at the source and returns it. */
async function beginEpoch(
  { source }: Parts,
  epoch: string,
  { lease, epoch: expected, refill = true }: NukeOptions & { lease: string },
): Promise<string> {
  for (let tries = 0; tries < RESETS_MAX; tries++) {
    if (expected !== undefined && expected !== epoch) {
      await source.release(lease);
      throw new SyncError(
        "epoch_moved",
        `Cannot nuke: expected the epoch in force, ${epoch}, found another; nothing was done`,
      );
    }
    const reset = await source.reset({
      expected: epoch,
      wipe: true,
      refill,
      reason: "nuke",
    });
    epoch = reset.epoch;
    if (reset.do === "begun") return epoch;
  }
  throw new SyncError(
    "nuke_pending",
    "Cannot nuke: another worker begins epochs too; try again",
  );
}

/** Waits for the lease; returns whether the sync that holds it has followed the new epoch. */
async function isFollowed(
  { source, budget, sleep }: Parts,
  { lease, epoch }: { lease: string; epoch: string },
): Promise<boolean> {
  for (;;) {
    if (budget.msLeft() <= 0 || budget.callsLeft() <= CALLS_MIN) {
      throw pending("another sync holds the lease");
    }
    await sleep(WAIT_MS);
    const answer = await source.lease(lease);
    if (answer.do !== "busy") return false;
    if (answer.epoch === epoch && answer.followed) return true;
  }
}

function pending(found: string): SyncError {
  return new SyncError(
    "nuke_pending",
    `Cannot nuke yet: ${found}; the new epoch is recorded and the next /sync empties the replica`,
  );
}
