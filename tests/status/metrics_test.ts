import { assert, assertEquals } from "@std/assert";
import type { SourceReport } from "../../lib/source/report.ts";
import board from "../../lib/status/board.json" with { type: "json" };
import { formatMetrics } from "../../lib/status/metrics.ts";
import { describeWorker } from "../../lib/status/status.ts";

const TIME = "2026-11-22T12:00:00Z";
const REPORT: SourceReport = {
  epoch: "e",
  position: 17,
  paused: false,
  refill: true,
  queued: 3,
  queued_exact: true,
  oldest_change: "2026-11-22T11:59:58.500Z",
  dead_letters: 1,
  last_sync: TIME,
  heartbeat: { ticked_at: TIME, stale: false, silent: null },
  syncing: false,
  schema: "hash",
  catalog: [],
  replica: {
    epoch: "e",
    position: 16,
    drained: 0,
    walk_done: 1,
    walk_at: null,
    source_time: TIME,
    schema_hash: "hash",
  },
  walk: null,
  waiting_walks: [],
  last_full_pass: null,
  last_epoch: { reason: "installed", begun_at: TIME, wipe: false },
  now: TIME,
  totals: {
    syncs: 5,
    failed: 1,
    processed: 40,
    parked: 1,
    batches: 6,
    replays: 2,
    ms: 1500,
  },
  tables: [
    { name: "apps", rows: 9, applied: 4, drift: 2, verified_at: TIME },
    { name: 'o"dd\n\\', rows: 0, applied: 0, drift: 0, verified_at: null },
  ],
  syncs: [{
    n: 5,
    ended_at: TIME,
    ms: 20,
    processed: 3,
    parked: 0,
    batches: 1,
    queued: 3,
    lag_ms: 1500,
    error: "replica_unreachable",
  }],
  minutes: [],
  letters: null,
};

const metricsOf = (report: SourceReport) =>
  formatMetrics(
    describeWorker(report, { here: "hash", version: "0.1.0+0123" }),
  );

/** The names of samples. */
function namesOf(text: string): Set<string> {
  return new Set(
    text.split("\n").filter((line) => /^[a-z]/.test(line))
      .map((line) => /^\w+/.exec(line)![0]),
  );
}

Deno.test("formatMetrics() writes families with type and help, and ends", () => {
  const text = metricsOf(REPORT);
  for (
    const line of [
      'libsql_sync_build_info{version="0.1.0+0123"} 1',
      "libsql_sync_lag_seconds 1.5",
      "libsql_sync_queued_messages 3",
      "libsql_sync_drained 0",
      "libsql_sync_walk_done 1",
      "libsql_sync_last_sync_success 0",
      "libsql_sync_last_sync_timestamp_seconds 1795348800",
      'libsql_sync_syncs_total{outcome="success"} 4',
      'libsql_sync_syncs_total{outcome="failure"} 1',
      "libsql_sync_sync_duration_seconds_total 1.5",
      "libsql_sync_batches_replayed_total 2",
      'libsql_sync_table_rows_applied_total{table="apps"} 4',
      'libsql_sync_table_rows{table="o\\"dd\\n\\\\"} 0',
      "libsql_sync_attention_needed 1",
      "libsql_sync_heartbeat_stale 0",
      "libsql_sync_last_cron_timestamp_seconds 1795348800",
    ]
  ) assert(text.split("\n").includes(line), `${line}\nin\n${text}`);
  assert(text.endsWith("\n# EOF\n"));
  // Each family once, its type and help first; a counter's samples say so.
  const families = [...text.matchAll(/^# TYPE (\w+) (\w+)\n# HELP \1 .+\.$/gm)];
  assertEquals(
    families.length,
    new Set(families.map(([, name]) => name)).size,
  );
  assertEquals(families.length, text.match(/^# TYPE/gm)!.length);
  for (const name of namesOf(text)) {
    assert(
      families.some(([, family, type]) =>
        name ===
          family + { gauge: "", counter: "_total", info: "_info" }[type!]!
      ),
      name,
    );
  }
});

Deno.test("formatMetrics() leaves out what is not known yet", () => {
  const names = namesOf(metricsOf({
    ...REPORT,
    replica: null,
    last_sync: null,
    syncs: [],
  }));
  for (const name of ["last_sync_success", "replica_position"]) {
    assert(!names.has(`libsql_sync_${name}`), name);
  }
});

Deno.test("the board and the alert rules load only names that /metrics gives", async () => {
  const names = namesOf(metricsOf(REPORT));
  const rules = await import("../../lib/status/alerts.yml", {
    with: { type: "text" },
  }).then(({ default: text }) => text as string);
  const expressions = [
    ...rules.matchAll(/^ +expr: (.+)$/gm),
  ].map(([, expression]) => expression!);
  assertEquals(expressions.length, rules.match(/- alert: /g)!.length);
  const queries = board.panels.flatMap(({ targets }) =>
    targets.map(({ expr }) => expr)
  );
  assert(queries.length >= board.panels.length);
  for (const expression of [...expressions, ...queries]) {
    const used = expression.match(/\blibsql_sync_\w+/g) ??
      expression.match(/\bup\b/g) ?? [];
    assert(used.length > 0, expression);
    for (const name of used) {
      assert(name === "up" || names.has(name), `${name} in ${expression}`);
    }
  }
});
