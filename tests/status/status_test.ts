import { assertEquals } from "@std/assert";
import type { SourceReport } from "../../lib/source/report.ts";
import { describeWorker, reportStatus } from "../../lib/status/status.ts";
import { FINE, HASH, minutesAgo, NOW, PASS, REPLICA } from "./fine_status.ts";

const OPTIONS = { now: NOW, here: HASH };

Deno.test("reportStatus() reports a fine status with every age by the source's clock", () => {
  assertEquals(reportStatus(FINE, OPTIONS), {
    fine: true,
    epoch: "0a1b2c3d-0000",
    position: 17,
    replica_position: 17,
    drained: true,
    walk_done: true,
    source_time: minutesAgo(5),
    lag_ms: 0,
    queued: 0,
    queued_exact: true,
    dead_letters: 0,
    last_sync: minutesAgo(5),
    last_sync_ms_ago: 5 * 60_000,
    heartbeat: { ticked_at: minutesAgo(1), stale: false, silent: null },
    syncing: false,
    paused: false,
    walk: null,
    waiting_walks: 0,
    last_full_pass: {
      walk: 3,
      kind: "scrub",
      repair: true,
      ended_at: minutesAgo(120),
      ended_ms_ago: 120 * 60_000,
      rows: 1000,
      differences: 0,
      tables: { apps: { rows: 1000, differing: 0, ghosts: 0 } },
    },
    schema: { here: HASH, source: HASH, replica: HASH },
    last_epoch: {
      reason: "installed",
      begun_at: minutesAgo(3000),
      begun_ms_ago: 3000 * 60_000,
    },
    warnings: [],
  });
});

Deno.test("reportStatus() reports nothing of the replica before its first sync", () => {
  const report = reportStatus(
    { ...FINE, replica: null, last_sync: null, last_full_pass: null },
    OPTIONS,
  );
  assertEquals(
    [report.replica_position, report.drained, report.walk_done],
    [null, false, false],
  );
  assertEquals(
    [report.source_time, report.last_sync_ms_ago, report.schema.replica],
    [null, null, null],
  );
  assertEquals(report.last_full_pass, null);
});

Deno.test("reportStatus() measures the lag from the oldest change, and none below zero", () => {
  const lagOf = (oldest_change: string | null) =>
    reportStatus({ ...FINE, oldest_change }, OPTIONS).lag_ms;
  assertEquals(
    [minutesAgo(2), minutesAgo(0), minutesAgo(-1), null].map(lagOf),
    [120_000, 0, 0, 0],
  );
});

Deno.test("reportStatus() adds up what a walk found, and says where it is", () => {
  const { walk, waiting_walks } = reportStatus({
    ...FINE,
    replica: { ...REPLICA, walk_at: '{"table": "orgs", "half": "back"}' },
    waiting_walks: [PASS, PASS],
    walk: {
      ...PASS,
      kind: "verify",
      repair: false,
      ended_at: null,
      found: {
        apps: { rows: 10, differing: 2, ghosts: 1 },
        orgs: { rows: 5, differing: 0, ghosts: 4 },
      },
    },
  }, OPTIONS);
  const { table, half, rows, differences, ended_ms_ago } = walk!;
  assertEquals([table, half, rows, differences, ended_ms_ago, waiting_walks], [
    "orgs",
    "back",
    15,
    7,
    null,
    2,
  ]);
});

Deno.test("reportStatus() has a dash for the place of a walk that the replica has not begun", () => {
  const { walk } = reportStatus({ ...FINE, walk: PASS }, OPTIONS);
  assertEquals([walk!.table, walk!.half], ["-", "-"]);
});

Deno.test("describeWorker() adds the build and the syncs to the status, by the source's time", () => {
  const totals = {
    syncs: 1,
    failed: 0,
    processed: 2,
    parked: 0,
    batches: 1,
    replays: 0,
    ms: 9,
  };
  const source: SourceReport = {
    ...FINE,
    now: new Date(NOW).toISOString(),
    oldest_change: new Date(NOW - 1_500).toISOString(),
    totals,
    tables: [],
    syncs: [],
    minutes: [],
    letters: null,
  };
  const options = { here: "other", version: null };
  const { lag_ms, lag_seconds, version, ...status } = describeWorker(
    source,
    options,
  );
  assertEquals([lag_ms, lag_seconds, version], [1_500, 1.5, null]);
  assertEquals([status.totals, status.fine, status.schema.here], [
    totals,
    false,
    "other",
  ]);
});
