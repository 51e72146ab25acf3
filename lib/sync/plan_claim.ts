/**
 * Ring 2. From what the source handed out to what the replica is asked for.
 *
 * Promise: a planned batch holds no rows, which take many times the memory of
 * their plan.
 *
 * @module
 */

import type { Batch, BatchHead, Claim, Settled } from "../chain/claim.ts";
import type { createPagePlanner, PagePlan } from "../plan/page.ts";
import type { createPlanner } from "../plan/plan.ts";
import type { Plan, RowStep } from "../plan/step.ts";

/** The planners of a schema. */
export interface Planners {
  /** Plans the rows of a batch. */
  readonly plan: ReturnType<typeof createPlanner>;
  /** Plans the page of a batch. */
  readonly planPage: ReturnType<typeof createPagePlanner>;
}

/** A batch whose rows and page are planned. */
export interface PlannedBatch extends BatchHead {
  /** The steps of its rows, and those that cannot be applied. */
  readonly queued: Plan<RowStep>;
  /** How many keys it brings, with a row or without. */
  readonly keys: number;
  /** The tables they are of. */
  readonly touched: readonly string[];
  /** What its page comes to. */
  readonly paged: PagePlan | null;
}

/** A batch that was handed out and planned. */
export type ClaimedBatch = PlannedBatch & Settled;

/** A move of the chain, which changes no row of a table; or a stop. */
export type ChainMove = Extract<
  Claim,
  { readonly do: "bootstrap" | "adopt" | "alter" | "stop" }
>;

/** What to do next. */
export type PlannedClaim = Exclude<Claim, Batch> | ClaimedBatch;

/**
 * Plans the rows and the page of a claim.
 *
 * @param parts The planners.
 * @param claim What the source handed out.
 * @returns The claim, with plans in place of rows and page.
 * @throws {SyncError} `source_failed`: its tables are not those of the schema.
 */
export function planClaim(
  { plan, planPage }: Planners,
  claim: Claim,
): PlannedClaim {
  if (claim.do !== "batch") return claim;
  const { tables, unusable, page, ...batch } = claim;
  const paged = page && planPage(page);
  return {
    ...batch,
    page: paged && paged.head,
    keys: tables.reduce(
      (sum, { rows, gone, broken }) =>
        sum + rows.length + gone.length + broken.length,
      0,
    ),
    touched: tables.map(({ table }) => table),
    queued: plan(tables, unusable),
    paged,
  };
}
