/**
 * Ring 3. What capture costs a statement over many rows.
 *
 * @module
 */

import {
  CAPTURES,
  clean,
  describe,
  forEach,
  mediansOf,
  queueOf,
  ratiosOf,
  withPairs,
} from "./captures.ts";
import type { Part } from "./found.ts";
import type { Pair } from "./lab.ts";

/** A table has room where a statement updates a few rows of each page. */
const SHARE = 5;

/** Milliseconds of one statement over rows that lie apart: other ones each turn,
 * whose pages have room from the turn before, as in a table that lives. */
async function update(
  { sql }: Pair,
  options: { rows: number; updated: number; turn: number },
): Promise<number> {
  const { rows, updated, turn } = options;
  const step = rows / updated;
  const first = 1 + turn % step;
  const started = performance.now();
  const { count } = await sql`update public.app_versions
    set checksum = md5(id::text || ${String(turn)}), deleted = not deleted
    where id = any (array(select generate_series(${first}::int, ${rows}::int, ${step}::int)))`;
  const ms = performance.now() - started;
  if (count !== updated) throw new Error(`${count} of ${updated} rows`);
  return ms;
}

/** The part of this file. */
export const CAPTURE_BULK: Part = {
  name: "capture_bulk",
  keys: ["capture_bulk_cost", "noop_messages"],
  run(lab, { sizes, log }) {
    const updated = sizes.statementRows;
    const rows = Math.max(sizes.rows, SHARE * updated);
    return withPairs(lab, rows, async (pairs) => {
      const runs = forEach((): number[] => []);
      for (let turn = 0; turn <= 3 * sizes.rounds; turn++) {
        for (const capture of CAPTURES) {
          await clean(pairs[capture], capture);
          const ms = await update(pairs[capture], { rows, updated, turn });
          // The first turn connects and plans.
          if (turn > 0) runs[capture].push(ms);
        }
      }
      const ms = mediansOf(runs);
      const costs = ratiosOf(runs);
      log(`update of ${updated} rows: ${describe(ms)} ms`);
      const { messages } = await queueOf(pairs.ours, "ours");

      await clean(pairs.ours, "ours");
      await pairs.ours.sql`update public.app_versions
        set checksum = checksum, deleted = deleted where id <= ${updated}`;
      const noop = await queueOf(pairs.ours, "ours");
      return {
        figures: {
          capture_bulk_cost: costs.ours,
          noop_messages: noop.messages,
        },
        details: { ms, costs },
        cost: {
          "source: queue rows written by a 10,000-row statement": messages,
        },
      };
    });
  },
};
