/**
 * Ring 3. What bounds the drains: how fast sqld takes the worker's own statements
 * while nobody else does anything.
 *
 * @module
 */

import { createPlanner } from "../../lib/plan/plan.ts";
import { stepToStatement } from "../../lib/replica/statements.ts";
import { parseSchema } from "../../lib/schema.ts";
import schemaJson from "../../schema.json" with { type: "json" };
import { withHand } from "./by_hand.ts";
import { assertEqual } from "./equal.ts";
import type { Part } from "./found.ts";
import type { Lab } from "./lab.ts";
import { CHANGES } from "./rows.ts";
import type { Sizes } from "./sizes.ts";

/** Rows of a batch at most: about what the worker's batches come to. */
const BATCH = { insert: 15_000, update: 50_000, indexed: 50_000 };

/** Rows a second. */
async function aloneOf(
  lab: Lab,
  sizes: Sizes,
  kind: keyof typeof BATCH,
): Promise<number> {
  const { rows, messages: count } = sizes;
  await using pair = await lab.changed({ capture: "ours", rows, kind, count });
  const { sql, client } = pair;
  const plan = createPlanner(parseSchema(schemaJson));
  let [seconds, written] = [0, 0];
  await withHand(pair, async (hand) => {
    while (written < count) {
      const claim = await hand.again({ rows: Math.min(BATCH[kind], count) });
      if (claim.do !== "batch") throw new Error(`found ${claim.do}`);
      const { steps } = plan(claim.tables, claim.unusable);
      const statements = steps.map((step) => stepToStatement(step));
      const started = performance.now();
      await client.batch(statements, "write");
      seconds += (performance.now() - started) / 1000;
      written += claim.messages;
      // The same rows once more, with the chain's own move.
      const applied = await hand.apply(claim);
      if (applied !== "applied") throw new Error(applied);
    }
  });
  await assertEqual(sql, client);
  return written / seconds;
}

/** The part of this file. */
export const ALONE: Part = {
  name: "alone",
  keys: [],
  async run(lab, { sizes, log }) {
    const found: Record<string, number> = {};
    for (const [kind, name] of Object.entries(CHANGES)) {
      const perSecond = await aloneOf(lab, sizes, kind as keyof typeof BATCH);
      log(`sqld alone, ${kind}: ${Math.round(perSecond)}/s`);
      found[`bound: ${name} a second that sqld takes alone`] = perSecond;
    }
    return { figures: {}, details: found, cost: found };
  },
};
