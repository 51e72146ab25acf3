import { assertEquals } from "@std/assert";
import { newPace } from "../../lib/sync/batch_size.ts";
import { newProgress, type Progress } from "../../lib/sync/progress.ts";
import { outcomeOf, resultOf, summaryOf } from "../../lib/sync/result.ts";
import { ROW } from "./filled_row.ts";

/** A sync that began at 1,000. */
function progressOf(change: Partial<Progress> = {}): Progress {
  const progress = newProgress(
    { pace: newPace(), now: () => 1_000 },
    { lease: "", batches: true },
  );
  return { ...progress, row: ROW, ...change };
}

const QUEUED = { queued: 0, queuedExact: true };

Deno.test("resultOf() reports counts, the chain and the replica's size", () => {
  const progress = progressOf({ processed: 9, parked: 1, batches: 2 });
  assertEquals(resultOf(progress, QUEUED), {
    processed: 9,
    parked: 1,
    batches: 2,
    walk_done: true,
    epoch: "epoch-1",
    position: 7,
    replica_mb: 2,
    drained: true,
    queued: 0,
    queued_exact: true,
  });
});

Deno.test("resultOf() says drained as the row does", () => {
  for (const drained of [1, 0]) {
    const progress = progressOf({ row: { ...ROW, drained } });
    assertEquals(resultOf(progress, QUEUED).drained, drained === 1);
  }
});

Deno.test("resultOf() says nothing of a replica that was not seen", () => {
  assertEquals(
    resultOf(progressOf({ row: null }), { queued: 10_000, queuedExact: false }),
    {
      processed: 0,
      parked: 0,
      batches: 0,
      queued: 10_000,
      queued_exact: false,
    },
  );
});

Deno.test("resultOf() has warnings only if there are some", () => {
  const warnings = ["The replica is nearly full"];
  assertEquals(resultOf(progressOf({ warnings }), QUEUED).warnings, warnings);
  assertEquals("warnings" in resultOf(progressOf(), QUEUED), false);
});

Deno.test("outcomeOf() counts what the source keeps, in whole milliseconds since the start", () => {
  const progress = progressOf({
    processed: 9,
    parked: 1,
    batches: 3,
    replays: 2,
    applied: new Map([["apps", 4]]),
  });
  const outcome = {
    processed: 9,
    parked: 1,
    batches: 3,
    replays: 2,
    ms: 235,
    tables: { apps: 4 },
  };
  const parts = { now: () => 1_234.6 };
  assertEquals(outcomeOf(parts, progress), outcome);
  assertEquals(outcomeOf(parts, progress, "replica_full"), {
    ...outcome,
    error: "replica_full",
  });
});

Deno.test("summaryOf() says walk_done as the row does", () => {
  const row = { ...ROW, walk_done: 0 };
  assertEquals(summaryOf(progressOf({ row })).walk_done, false);
});
