import { assertEquals } from "@std/assert";
import type { ReplicaRow } from "../../lib/chain/row.ts";
import { newPace } from "../../lib/sync/batch_size.ts";
import { isOver } from "../../lib/sync/claim_next.ts";
import {
  type Following,
  newProgress,
  type Parts,
  type Progress,
} from "../../lib/sync/progress.ts";
import { ROW } from "./filled_row.ts";

/** Whether a sync is over that began at 0. */
function over(
  {
    following = {},
    progress = {},
    row = {},
    ms = 0,
    msLeft = 1,
    callsLeft = 8,
  }: {
    following?: Partial<Following>;
    progress?: Partial<Progress>;
    row?: Partial<ReplicaRow> | null;
    ms?: number;
    msLeft?: number;
    callsLeft?: number;
  },
): boolean {
  const begun = newProgress(
    { pace: newPace(), now: () => 0 },
    { lease: "", batches: true, ...following },
  );
  const parts = {
    now: () => ms,
    budget: { msLeft: () => msLeft, callsLeft: () => callsLeft },
  } as Parts;
  return isOver(parts, {
    ...begun,
    row: row && { ...ROW, ...row },
    ...progress,
  });
}

Deno.test("isOver() goes on while there is time, and calls beyond those kept for the last batch", () => {
  assertEquals(over({}), false);
  assertEquals(over({ ms: 60_000 }), false);
  assertEquals(over({ msLeft: 0 }), true);
  assertEquals(over({ callsLeft: 7 }), true);
  assertEquals(over({ progress: { isSpent: true } }), true);
  assertEquals(over({ following: { batches: false } }), true);
});

Deno.test("isOver() ends a brief sync after a second, unless changes or a walk are waited for", () => {
  const brief = (ms: number, row: Partial<ReplicaRow> | null = {}) =>
    over({ following: { brief: true }, ms, row });
  const at = (place: object) =>
    JSON.stringify({ table: "apps", half: "forward", ...place });
  assertEquals([brief(1_000), brief(1_001)], [false, true]);
  assertEquals(brief(5_000, null), false);
  assertEquals(brief(5_000, { drained: 0 }), false);
  assertEquals(brief(5_000, { walk_at: at({}) }), false);
  // No reader waits for the scrub.
  assertEquals(brief(5_000, { walk_at: at({ rows: 100 }) }), true);
});
