import { assertEquals, assertRejects } from "@std/assert";
import type { Refusal } from "../../lib/chain/rows.ts";
import { SyncError } from "../../lib/errors.ts";
import { createPagePlanner } from "../../lib/plan/page.ts";
import { createPlanner } from "../../lib/plan/plan.ts";
import { rowsOf, type Step } from "../../lib/plan/step.ts";
import type { Replica } from "../../lib/replica/replica.ts";
import type { Source } from "../../lib/source/source.ts";
import { applyBatch } from "../../lib/sync/apply.ts";
import { newPace } from "../../lib/sync/batch_size.ts";
import { type ClaimedBatch, planClaim } from "../../lib/sync/plan_claim.ts";
import { newProgress, type Parts } from "../../lib/sync/progress.ts";
import { SCHEMA } from "../plan/tables.ts";
import { ROW } from "./filled_row.ts";

const PLANNERS = {
  plan: createPlanner(SCHEMA),
  planPage: createPagePlanner(SCHEMA),
};

/** The batch after {@linkcode ROW}, with items of these ids. */
const batchOf = (ids: readonly string[]) =>
  planClaim(PLANNERS, {
    do: "batch",
    acked: 0,
    putBack: 0,
    epoch: ROW.epoch,
    position: ROW.position + 1,
    batch: "batch-8",
    prev: ROW.batch,
    drained: true,
    snapshot: "11:11:",
    sourceTime: "2026-11-22T12:00:01Z",
    deadLetters: 0,
    reopen: false,
    messages: 1,
    tables: [{
      table: "item",
      truncate: false,
      columns: ["id", "name", "on_sale"],
      rows: ids.map((id) => [id, "a", null]),
      gone: [],
      broken: [],
    }],
    unusable: [{ table: "item", reason: "no key" }],
    parked: [],
    page: null,
  }) as ClaimedBatch;

const idsIn = (steps: readonly Step[]) =>
  steps.map((step) =>
    "json" in step ? rowsOf(step).map(({ cells }) => cells[0]) : null
  );

/** Applies a batch to a replica that refuses some ids; returns what happened, in order. */
async function apply(
  ids: readonly string[],
  { refused = [] as string[], isGone = false, callsLeft = 45, ms = 10 } = {},
) {
  const events: unknown[] = [];
  let clock = 0;
  const refusedIn = (steps: readonly Step[]) => {
    const at = idsIn(steps).findIndex((row) =>
      row?.some((id) => refused.includes(String(id)))
    );
    return at === -1 ? null : at;
  };
  const replica: Pick<Replica, "apply" | "refusedStep" | "refusedOf"> = {
    apply(batch, steps, { parked }) {
      clock += ms;
      const at = refusedIn(steps);
      events.push(["apply", batch.batch, idsIn(steps), parked]);
      if (at !== null) {
        const error = new SyncError("replica_refused", "", { cause: at });
        return Promise.reject(error);
      }
      const row = { ...ROW, position: batch.position, batch: batch.batch };
      return Promise.resolve({ row, walked: null });
    },
    refusedStep: ({ cause }) => ({ step: cause as number, code: "CODE" }),
    refusedOf: (steps) => Promise.resolve(refusedIn(steps)),
  };
  const source: Pick<Source, "park"> = {
    park: ({ batch }, rows: readonly Refusal[]) => {
      events.push(["park", batch, rows.map(({ key }) => key?.[0] ?? null)]);
      return Promise.resolve(!isGone);
    },
  };
  const parts = {
    ...PLANNERS,
    source,
    replica,
    pace: newPace(),
    budget: { callsLeft: () => callsLeft, msLeft: () => 8_000 },
    log: () => {},
    now: () => clock,
  } as unknown as Parts;
  const progress = {
    ...newProgress(parts, { lease: "", batches: true }),
    row: ROW,
    isUnsure: false,
  };
  await applyBatch(parts, progress, batchOf(ids));
  return { events, progress, pace: parts.pace };
}

Deno.test("applyBatch() parks before it applies, and applies the same batch without the rows that the replica refuses", async () => {
  const { events, progress } = await apply(["1", "2", "3"], {
    refused: ["2", "3"],
  });
  assertEquals(events, [
    ["park", "batch-8", [null]],
    ["apply", "batch-8", [["1", "2", "3"], ["1", "2", "3"]], 1],
    ["park", "batch-8", ["2", "3"]],
    ["apply", "batch-8", [["1"], ["1"]], 3],
  ]);
  assertEquals(
    [progress.batches, progress.parked, progress.applied.get("item")],
    [1, 3, 1],
  );
});

Deno.test("applyBatch() applies nothing when what it parks is not on record, and is unsure", async () => {
  const { events, progress } = await apply(["1"], { isGone: true });
  assertEquals(events, [["park", "batch-8", [null]]]);
  assertEquals([progress.isUnsure, progress.parked], [true, 0]);
});

Deno.test("applyBatch() leaves a refused batch to the next sync, halved, when too little remains to find its rows", async () => {
  const ids = Array.from({ length: 40 }, (_, at) => String(at));
  const { events, progress, pace } = await apply(ids, {
    refused: ["7"],
    ms: 5_000,
  });
  assertEquals([events.length, progress.isSpent], [2, true]);
  assertEquals([pace.size.rows, progress.batches], [20, 0]);
  // A small one is searched, however slow.
  const small = await apply(["7", "8"], { refused: ["7"], ms: 5_000 });
  assertEquals([small.progress.batches, small.progress.isSpent], [1, false]);
});

Deno.test("applyBatch() fails when the replica refuses a batch and no row of it", async () => {
  const error = new SyncError("replica_refused", "");
  const parts = {
    source: { park: () => Promise.resolve(true) },
    replica: {
      apply: () => Promise.reject(error),
      refusedStep: () => null,
    },
    pace: newPace(),
    budget: { callsLeft: () => 45, msLeft: () => 8_000 },
    log: () => {},
    now: () => 0,
  } as unknown as Parts;
  const progress = {
    ...newProgress(parts, { lease: "", batches: true }),
    row: ROW,
  };
  await assertRejects(
    () => applyBatch(parts, progress, batchOf([])),
    SyncError,
  );
});
