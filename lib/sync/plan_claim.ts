/**
 * Ring 2. From what the source handed out to what the replica is asked for.
 *
 * Promise: a planned batch holds no messages and no rows of a page, which take
 * many times the memory of their plan.
 *
 * @module
 */

import type { Batch, BatchHead, Claim } from "../chain/claim.ts";
import { touchedBy } from "../chain/walk_place.ts";
import type { createPagePlanner, PagePlan } from "../plan/page.ts";
import type { createPlanner } from "../plan/plan.ts";
import type { Plan, RowStep } from "../plan/step.ts";

/** The planners of a schema. */
export interface Planners {
  /** Plans the messages of a batch. */
  readonly plan: ReturnType<typeof createPlanner>;
  /** Plans the page of a batch. */
  readonly planPage: ReturnType<typeof createPagePlanner>;
}

/** A batch whose messages and page are planned. */
export interface PlannedBatch extends BatchHead {
  /** The steps of its messages, and the changes that cannot be applied. */
  readonly queued: Plan<RowStep>;
  /** The tables that its messages name. */
  readonly touched: readonly string[];
  /** The same of its page. */
  readonly paged: PagePlan | null;
}

/** A batch that was handed out and planned. */
export type ClaimedBatch = PlannedBatch & Pick<Claim, "acked">;

/** A move of the chain, which changes no row of a table; or a stop. */
export type ChainMove = Extract<
  Claim,
  { readonly do: "bootstrap" | "adopt" | "alter" | "stop" }
>;

/** What to do next. */
export type PlannedClaim = Exclude<Claim, Batch> | ClaimedBatch;

/**
 * Plans the messages and the page of a claim.
 *
 * @param parts The planners.
 * @param claim What the source handed out.
 * @returns The claim, with plans in place of messages and page.
 * @throws {SyncError} The page is not what the schema says.
 */
export function planClaim(
  { plan, planPage }: Planners,
  claim: Claim,
): PlannedClaim {
  if (claim.do !== "batch") return claim;
  const { messages, page, ...batch } = claim;
  const queued = plan({ ...batch, messages });
  const touched = touchedBy(messages);
  const parked = [...batch.parked, ...queued.refusals];
  const paged = page && planPage(page, { parked });
  return { ...batch, page: paged && paged.head, queued, touched, paged };
}
