/**
 * Ring 2. The verb nuke: every row goes and the schema is created again.
 *
 * Promise: the source begins the new epoch first, so a sync that is running
 * can only follow it; no batch of before lands after.
 *
 * @module
 */

import { SyncError } from "../errors.ts";
import type { Parts } from "./progress.ts";
import { follow } from "./sync.ts";

const RESETS_MAX = 3;
const WAIT_MS = 200;
const DONE = { message: "Data nuked and schema reinitialized" };

/**
 * Empties the replica, whichever source it followed.
 *
 * @param parts What to work with.
 * @param options Whether the next syncs fill it again by themselves; the epoch
 * to end, which makes a request that is sent again harmless.
 * @returns The message for the caller.
 * @throws {SyncError} `epoch_moved` where another epoch is in force than the one
 * to end, and `nuke_pending` where the new epoch is recorded but
 * another worker keeps the replica busy: the next sync carries it out.
 */
export async function nuke(
  parts: Parts,
  options: { refill?: boolean; epoch?: string },
): Promise<{ message: string }> {
  const { source, budget, log, sleep } = parts;
  const lease = parts.uuid();
  let answer = await source.lease(lease);
  let { epoch } = answer;
  const refuseOther = async () => {
    if (options.epoch === undefined || options.epoch === epoch) return;
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
      refill: options.refill ?? true,
      reason: "nuke",
    });
    epoch = reset.epoch;
    if (reset.do === "begun") break;
    await refuseOther();
    if (tries === RESETS_MAX) {
      throw new SyncError(
        "nuke_pending",
        "Cannot nuke: somebody else begins new epochs; try again",
      );
    }
  }
  log("warn", "nuke", { epoch });
  while (answer.do === "busy") {
    // The sync that is running follows the new epoch as well.
    if (answer.epoch === epoch && answer.followed) return DONE;
    if (budget.msLeft() <= 0 || budget.callsLeft() <= 10) {
      throw new SyncError(
        "nuke_pending",
        "Cannot nuke yet: another sync keeps the replica busy; the new epoch is recorded and the next /sync empties it",
      );
    }
    await sleep(WAIT_MS);
    answer = await source.lease(lease);
  }
  const { busy } = await follow(parts, lease, {
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
