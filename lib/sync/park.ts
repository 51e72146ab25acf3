/**
 * Ring 2. Parks changes that cannot be applied.
 *
 * Promise: what is parked is on record at the source before the rest of its
 * batch is applied, so that a worker that finds the batch applied knows what it
 * lacks.
 *
 * @module
 */

import type { Refusal } from "../chain/message.ts";
import type { PlannedBatch } from "./plan_claim.ts";
import type { Parts, Progress } from "./progress.ts";

/**
 * Parks changes of a batch.
 *
 * @param parts What to work with.
 * @param progress Where the sync is; it counts what was parked.
 * @param options The batch, and its changes that cannot be applied.
 * @returns Whether they are on record. If not, the batch is not in force any
 * more, and the replica must be probed.
 * @throws {SyncError} The source failed.
 */
export async function park(
  { source, log }: Parts,
  progress: Progress,
  { batch, changes }: { batch: PlannedBatch; changes: readonly Refusal[] },
): Promise<boolean> {
  if (!await source.park(batch, changes)) {
    progress.isUnsure = true;
    return false;
  }
  const opened = withoutLetter(batch, changes);
  progress.parked += opened.length;
  for (const { msgId, table, reason } of opened) {
    log("warn", "parked", { msg_id: msgId, table, reason });
  }
  return true;
}

/**
 * The changes that open a dead letter: a row that a walk finds again has one.
 *
 * @param batch The batch.
 * @param changes Changes of it.
 * @returns Those that have no dead letter yet.
 */
export function withoutLetter(
  { page }: Pick<PlannedBatch, "page">,
  changes: readonly Refusal[],
): Refusal[] {
  const open = new Set(page?.open.map(({ key }) => JSON.stringify(key)));
  return changes.filter(({ msgId, table, key }) =>
    msgId !== null || table !== page?.table || !open.has(JSON.stringify(key))
  );
}
