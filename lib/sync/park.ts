/**
 * Ring 2. Parks rows that cannot be applied.
 *
 * Promise: what is parked is on record at the source before the rest of its
 * batch is applied, so that a worker that finds the batch applied knows what it
 * lacks.
 *
 * @module
 */

import type { Refusal } from "../chain/rows.ts";
import { identityOf } from "../plan/step.ts";
import type { PlannedBatch } from "./plan_claim.ts";
import type { Parts, Progress } from "./progress.ts";

/**
 * Parks rows of a batch.
 *
 * @param parts What to work with.
 * @param progress Where the sync is; it counts what was parked.
 * @param options The batch, and its rows that cannot be applied.
 * @returns Whether they are on record. If not, the batch is not in force any
 * more, and the replica must be probed.
 * @throws {SyncError} The source failed.
 */
export async function park(
  { source, log }: Parts,
  progress: Progress,
  { batch, refusals }: { batch: PlannedBatch; refusals: readonly Refusal[] },
): Promise<boolean> {
  if (!await source.park(batch, refusals)) {
    progress.isUnsure = true;
    return false;
  }
  const opened = withoutLetter(batch, refusals);
  progress.parked += opened.length;
  for (const { table, reason } of opened) {
    log("warn", "parked", { table, reason });
  }
  return true;
}

/**
 * The rows that open a dead letter: one that a walk finds again has it.
 *
 * @param batch The batch.
 * @param refusals Rows of it.
 * @returns Those that have no dead letter yet, as far as its page knows.
 */
export function withoutLetter(
  { page }: Pick<PlannedBatch, "page">,
  refusals: readonly Refusal[],
): Refusal[] {
  if (page === null) return [...refusals];
  const { table } = page;
  const open = new Set(page.open.map(({ key }) => identityOf({ table, key })));
  return refusals.filter((refusal) => !open.has(identityOf(refusal)));
}
