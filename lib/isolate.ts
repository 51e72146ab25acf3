/**
 * Ring 2. Finds the change that makes the replica refuse a batch.
 *
 * Promise: it keeps nothing of what it tries, and the row it names is refused
 * even where everything before it is not.
 *
 * @module
 */

import type { Refusal } from "./change.ts";
import type { Step } from "./plan.ts";
import type { Replica } from "./replica.ts";

/**
 * Finds the first row of a refused step that the replica refuses, by halving.
 *
 * @param replica The replica.
 * @param steps The steps of the batch up to the refused one, which is last.
 * @param code What the replica said, for the reason.
 * @returns The row to set aside; null where the step has no rows, or the
 * replica takes it now.
 * @throws {SyncError} The replica could not be asked.
 */
export async function isolate(
  replica: Pick<Replica, "refuses">,
  steps: readonly Step[],
  code: string,
): Promise<Refusal | null> {
  const before = steps.slice(0, -1);
  const { rows, ...step } = steps.at(-1)!;
  const refuses = (count: number) =>
    replica.refuses([...before, { ...step, rows: rows.slice(0, count) }]);
  if (rows.length === 0) return null;
  // The smallest number of rows that is refused: between taken and refused.
  let taken = 0;
  let refused = rows.length;
  while (refused - taken > 1) {
    const middle = (taken + refused) >> 1;
    if (await refuses(middle)) refused = middle;
    else taken = middle;
  }
  if (!await refuses(refused)) return null;
  const { msgId, key } = rows[refused - 1]!;
  return {
    msgId,
    table: step.table.name,
    key,
    reason: `libSQL refused the row with ${code}`,
  };
}
