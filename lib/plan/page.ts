/**
 * Ring 0. A page of a walk, checked, and planned like any other rows.
 *
 * Promise: a page writes by the same rules as the queue, and counts what it
 * found in the replica's own transaction.
 *
 * @module
 */

import { cellsAt, type Refusal } from "../chain/message.ts";
import type { Page, PageHead } from "../chain/page.ts";
import {
  isFirstFill,
  isSwap,
  isThrough,
  namesIn,
  type WalkMove,
} from "../chain/walk_place.ts";
import { SyncError } from "../errors.ts";
import type { Changes } from "./change.ts";
import { fold } from "./fold.ts";
import { planFold } from "./plan.ts";
import type { RowStep, Step } from "./step.ts";
import type { Schema, Table } from "../schema.ts";

/** What a page's rows come to. */
export interface PagePlan {
  /** The page without its rows. */
  readonly head: PageHead;
  /** The steps that repair or compare, given the replica's row before the batch. */
  stepsFor(row: Pick<WalkMove, "fresh" | "rebuilding">): Step[];
  /** What to park that is not parked yet. */
  readonly refusals: readonly Refusal[];
}

/** A batch is only handed out where both sides have one schema. */
function checkColumns({ cells, columns }: Page, table: Table): void {
  const names = new Set(table.columns.map(({ name }) => name));
  const listed = columns.filter((name) => names.delete(name));
  if (
    listed.length < columns.length ||
    cells.length > 0 && !table.key.every((name) => columns.includes(name))
  ) {
    throw new SyncError(
      "source_failed",
      `Cannot read the source's page of table ${table.name}: expected its columns and its key, found others; install the migration that belongs to this worker`,
    );
  }
}

/**
 * Makes the planner of a schema's pages.
 *
 * @param schema The tables that are replicated.
 * @returns A function of a page and the changes its batch has parked, which
 * returns what its rows come to; it throws `source_failed` if the page has
 * columns that the table lacks.
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
 *   last: true, rows: 1, failed: null, key: ["id"], columns: ["id"], cells: [["5"]],
 *   ghosts: [], oversize: [], open: [], upto: null, closes: false,
 * }, { parked: [] });
 * const steps = planned.stepsFor({ fresh: "[]", rebuilding: "[]" });
 * assertEquals(steps.map((step) => step.kind), ["compare", "tally"]);
 * ```
 */
export function createPagePlanner(
  schema: Schema,
): (
  page: Page,
  options: { parked: readonly Refusal[] },
) => PagePlan {
  const tables = new Map(schema.tables.map((table) => [table.name, table]));
  return (page, { parked }) => {
    const table = tables.get(page.table);
    // The cells are released: the steps hold their text.
    const { cells, ...head } = page;
    if (table === undefined) return { head, stepsFor: () => [], refusals: [] };
    checkColumns(page, table);
    const order = table.key.map((column) => page.key.indexOf(column));
    const inOrder = (keys: Page["ghosts"]) =>
      keys.map((key) => cellsAt(key, order));
    const changes: Changes = {
      msgId: null,
      table,
      truncate: false,
      deletes: inOrder(page.ghosts),
      upserts: { columns: page.columns, cells },
      updates: { columns: [], cells: [] },
      oversize: inOrder(page.oversize),
    };
    const skipped = page.open.filter(({ skip }) => skip).map(({ key }) => ({
      msgId: null,
      table: table.name,
      key,
      reason: "",
    }));
    const planned = planFold(
      fold([changes]),
      [...parked, ...skipped],
      "repair",
    );
    const { steps } = planned;
    return {
      head,
      stepsFor: (row) => stepsOf(head, { table, steps, row }),
      refusals: page.repair ? planned.refusals : [],
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
