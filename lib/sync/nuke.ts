/**
 * Ring 2. The verb nuke: every row goes and the schema is created again.
 *
 * Promise: the source begins the new epoch first, so that a sync that is running
 * can only follow it: no batch of the old epoch lands afterwards.
 *
 * @module
 */

import type { Lease } from "../chain/claim.ts";
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
  const lease = parts.uuid();
  const answer = await parts.source.lease(lease);
  const epoch = await beginEpoch(parts, answer.epoch, { ...options, lease });
  parts.log("warn", "nuke", { epoch });
  const held = await waitForLease(parts, { lease, answer, epoch });
  if (held === "followed") return DONE;
  const { busy } = await followChain(parts, {
    lease,
    batches: false,
    takeOver: true,
  });
  if (busy) {
    throw new SyncError(
      "nuke_pending",
      "Cannot nuke yet: another sync took over; the new epoch is recorded and the next /sync empties the replica",
    );
  }
  return DONE;
}

/** Begins a new epoch at the source and returns it. */
async function beginEpoch(
  { source }: Parts,
  epoch: string,
  { lease, epoch: expected, refill = true }: NukeOptions & { lease: string },
): Promise<string> {
  const refuseOther = async () => {
    if (expected === undefined || expected === epoch) return;
    await source.release(lease);
    throw new SyncError(
      "epoch_moved",
      `Cannot nuke: expected the epoch in force, ${epoch}, found another; nothing was done`,
    );
  };
  await refuseOther();
  for (let tries = 1;; tries++) {
    const reset = await source.reset({
      expected: epoch,
      wipe: true,
      refill,
      reason: "nuke",
    });
    epoch = reset.epoch;
    if (reset.do === "begun") return epoch;
    await refuseOther();
    if (tries === RESETS_MAX) {
      throw new SyncError(
        "nuke_pending",
        "Cannot nuke: another worker keeps beginning new epochs; try again",
      );
    }
  }
}

/** Waits until the lease is held, or the sync that holds it has followed the new epoch. */
async function waitForLease(
  { source, budget, sleep }: Parts,
  { lease, answer, epoch }: { lease: string; answer: Lease; epoch: string },
): Promise<"held" | "followed"> {
  while (answer.do === "busy") {
    if (answer.epoch === epoch && answer.followed) return "followed";
    if (budget.msLeft() <= 0 || budget.callsLeft() <= CALLS_MIN) {
      throw new SyncError(
        "nuke_pending",
        "Cannot nuke yet: another sync holds the lease; the new epoch is recorded and the next /sync empties the replica",
      );
    }
    await sleep(WAIT_MS);
    answer = await source.lease(lease);
  }
  return "held";
}
