/**
 * Ring 0. A page of a walk, planned like any other rows.
 *
 * Promise: a page writes by the same rules as changes, and counts what it
 * found in the replica's own transaction.
 *
 * @module
 */

import type { Refusal } from "../chain/rows.ts";
import type { Page, PageHead } from "../chain/page.ts";
import {
  isFirstFill,
  isSwap,
  isThrough,
  namesIn,
  type WalkMove,
} from "../chain/walk_place.ts";
import { createTableFinder, planTable } from "./plan.ts";
import type { RowStep, Step } from "./step.ts";
import type { Schema, Table } from "../schema.ts";

/** What a page's rows come to. */
export interface PagePlan {
  /** The page without its rows. */
  readonly head: PageHead;
  /** The steps that repair or compare, given the replica's row before the batch. */
  stepsFor(row: Pick<WalkMove, "fresh" | "rebuilding">): Step[];
  /** What to park. */
  readonly refusals: readonly Refusal[];
}

/**
 * Makes the planner of a schema's pages.
 *
 * @param schema The tables that are replicated.
 * @returns A function of a page, which returns what its rows come to: nothing if its
 * table is not the schema's; it throws `source_failed` if its columns or keys are not.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { parseSchema } from "../schema.ts";
 *
 * const plan = createPagePlanner(parseSchema({
 *   tables: { t: { key: "id", columns: { id: "INTEGER" }, indexes: [] } },
 * }));
 * const planned = plan({
 *   walkGen: 1, kind: "verify", repair: false, table: "t", half: "forward", starts: true, large: false,
 *   last: true, rows: 1, failed: null, columns: ["id"], cells: [["5"]], ghosts: [], broken: [], open: [],
 *   upto: null, closes: false,
 * });
 * const steps = planned.stepsFor({ fresh: "[]", rebuilding: "[]" });
 * assertEquals(steps.map((step) => step.kind), ["compare", "tally"]);
 * ```
 */
export function createPagePlanner(schema: Schema): (page: Page) => PagePlan {
  const tableOf = createTableFinder(schema);
  const listed = new Set(schema.tables.map(({ name }) => name));
  return (page) => {
    // The cells are released: the steps hold their text.
    const { cells: rows, ...head } = page;
    // A walk goes past a table that was taken out of schema.json since it was asked for.
    if (!listed.has(head.table)) {
      return { head, stepsFor: () => [], refusals: [] };
    }
    const { columns, broken, ghosts: gone, open, repair } = head;
    const table = tableOf({ table: head.table, columns, rows, gone, broken });
    const skipped = open.filter(({ skip }) => skip).map(({ key }) => key);
    const { steps, refusals } = planTable(
      table,
      { truncate: false, columns, rows, gone, broken },
      { writes: ["repair"], skipped },
    );
    return {
      head,
      stepsFor: (row) => stepsOf(head, { table, steps, row }),
      refusals: repair ? refusals : [],
    };
  };
}

/** The steps of a page: those of its rows, and the one that records how far the walk is. */
function stepsOf(
  page: PageHead,
  { table, steps: repairs, row }: {
    table: Table;
    steps: readonly RowStep[];
    row: Pick<WalkMove, "fresh" | "rebuilding">;
  },
): Step[] {
  const walk = { walkGen: page.walkGen, table };
  const steps: Step[] = isFirstFill(page, row)
    ? table.indexes.map((index) => ({ kind: "unindex", table, index }))
    : [];
  // A table that is being filled has hardly any of these rows: none is looked up.
  const isFill = [row.fresh, row.rebuilding].some((listed) =>
    namesIn(listed).includes(table.name)
  );
  for (const step of repairs) {
    if (!page.repair) {
      steps.push({ ...step, kind: "compare", of: step.kind, walk });
      continue;
    }
    const { kind } = step;
    const found = kind === "delete" ? "ghosts" : "differing";
    steps.push(
      isFill && kind === "repair" ? { ...step, kind: "upsert" } : step,
      {
        kind: "tally",
        walk,
        found,
        rows: 0,
        ended: false,
        failed: null,
      },
    );
  }
  const strays = page.half === "back" && page.last && page.failed === null;
  if (strays) {
    steps.push({ kind: "strays", table, repair: page.repair, walk });
  }
  if (isSwap(page, namesIn(row.rebuilding))) {
    steps.push({ kind: "drop", table }, { kind: "rename", table });
  }
  steps.push({
    kind: "tally",
    walk,
    found: strays && page.repair ? "ghosts" : null,
    rows: page.half === "back" ? 0 : page.rows,
    ended: isThrough(page),
    failed: page.failed,
  });
  return steps;
}
