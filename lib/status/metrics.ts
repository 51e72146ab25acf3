/**
 * Ring 0. The status as OpenMetrics.
 *
 * Promise: names and labels follow Prometheus' conventions and do not change; of
 * a schema, only the tables' names are shown.
 *
 * @module
 */

import type { TableCounts } from "../source/report.ts";
import type { WorkerStatus } from "./status.ts";

/** The media type of what {@linkcode formatMetrics} returns. */
export const METRICS_TYPE =
  "application/openmetrics-text; version=1.0.0; charset=utf-8";

/** A sample's labels and its value; it is left out if the value is null. */
type Sample = readonly [
  labels: Readonly<Record<string, string>>,
  value: number | boolean | null,
];

/** A family's name, type, help and samples. */
type Family = readonly [
  name: string,
  type: "gauge" | "counter" | "info",
  help: string,
  samples: readonly Sample[],
];

/**
 * Writes a status as OpenMetrics.
 *
 * @param status The status.
 * @returns The text, with its end.
 */
export function formatMetrics(status: WorkerStatus): string {
  const lines: string[] = [];
  const families = [standing, done, byTable].flatMap((of) => of(status));
  for (const [name, type, help, samples] of families) {
    const full = `libsql_sync_${name}`;
    lines.push(`# TYPE ${full} ${type}`, `# HELP ${full} ${help}`);
    const suffix = { gauge: "", counter: "_total", info: "_info" }[type];
    for (const [labels, value] of samples) {
      if (value === null) continue;
      const inside = Object.entries(labels)
        .map(([label, text]) => `${label}="${escape(text)}"`).join(",");
      lines.push(
        `${full}${suffix}${inside && `{${inside}}`} ${Number(value)}`,
      );
    }
  }
  return [...lines, "# EOF", ""].join("\n");
}

/** A family of one sample. */
function single(
  type: "gauge" | "counter",
  name: string,
  help: string,
  value: number | boolean | null,
): Family {
  return [name, type, help, [[{}, value]]];
}

function secondsOf(time: string | null): number | null {
  return time === null ? null : Date.parse(time) / 1000;
}

/** How the worker, the source and the replica stand. */
function standing(status: WorkerStatus): Family[] {
  const { schema, heartbeat, last_epoch, warnings } = status;
  const gauge = single.bind(null, "gauge");
  return [
    ["build", "info", "The worker's build.", [
      [{ version: status.version ?? "unknown" }, 1],
    ]],
    gauge(
      "lag_seconds",
      "Age of the oldest change that is not in the replica; 0 when drained.",
      status.lag_seconds,
    ),
    gauge(
      "queued_messages",
      "Messages that wait; 10000 means as many or more.",
      status.queued,
    ),
    gauge(
      "dead_letters",
      "Parked changes; 10001 means as many or more.",
      status.dead_letters,
    ),
    gauge(
      "drained",
      "Whether the last batch took every change there was.",
      status.drained,
    ),
    gauge(
      "walk_done",
      "Whether every table was walked: with drained, the replica is equal.",
      status.walk_done,
    ),
    gauge(
      "source_position",
      "Batches of this epoch that are settled at the source.",
      status.position,
    ),
    gauge(
      "replica_position",
      "Batches of this epoch that the replica has.",
      status.replica_position,
    ),
    gauge(
      "epoch_start_timestamp_seconds",
      "When this epoch began.",
      secondsOf(last_epoch.begun_at),
    ),
    gauge(
      "last_sync_timestamp_seconds",
      "When the source last saw the replica's row.",
      secondsOf(status.last_sync),
    ),
    gauge(
      "last_cron_timestamp_seconds",
      "When the cron's job last ran.",
      secondsOf(heartbeat.ticked_at),
    ),
    gauge(
      "heartbeat_stale",
      "Whether no call came from the cron through to the replica for 25 minutes.",
      heartbeat.stale,
    ),
    gauge(
      "walk_rows",
      "Rows that the current walk has compared.",
      status.walk?.rows ?? 0,
    ),
    gauge(
      "paused",
      "Whether an operator has paused the worker.",
      status.paused,
    ),
    gauge(
      "schema_agrees",
      "Whether worker, source and replica have the same schema.",
      schema.here === schema.source &&
        (schema.replica === null || schema.replica === schema.source),
    ),
    gauge(
      "attention_needed",
      "Warnings that an operator has to act on; /status lists them.",
      warnings.filter(({ level }) => level === "attention").length,
    ),
  ];
}

/** What syncs did. */
function done({ totals, syncs: [last] }: WorkerStatus): Family[] {
  const counter = single.bind(null, "counter");
  return [
    single(
      "gauge",
      "last_sync_success",
      "Whether the last sync that ended succeeded.",
      last === undefined ? null : last.error === null,
    ),
    single(
      "gauge",
      "last_sync_duration_seconds",
      "How long the last sync that ended took.",
      last === undefined ? null : last.ms / 1000,
    ),
    ["syncs", "counter", "Syncs by how they ended.", [
      [{ outcome: "success" }, totals.syncs - totals.failed],
      [{ outcome: "failure" }, totals.failed],
    ]],
    counter(
      "sync_duration_seconds",
      "Seconds that syncs took.",
      totals.ms / 1000,
    ),
    counter(
      "messages_processed",
      "Messages that left the queue.",
      totals.processed,
    ),
    counter("changes_parked", "Changes that were parked.", totals.parked),
    counter(
      "batches_applied",
      "Batches that were applied.",
      totals.batches,
    ),
    counter(
      "batches_replayed",
      "Batches that were put back, as the replica had lost them.",
      totals.replays,
    ),
  ];
}

/** What was done to each table. */
function byTable({ tables }: WorkerStatus): Family[] {
  const each = (value: (table: TableCounts) => number | null): Sample[] =>
    tables.map((table) => [{ table: table.name }, value(table)]);
  return [
    [
      "table_rows",
      "gauge",
      "Rows at the source, as its planner estimates them.",
      each(({ rows }) => rows),
    ],
    [
      "table_rows_applied",
      "counter",
      "Rows that changes wrote or removed.",
      each(({ applied }) => applied),
    ],
    [
      "table_drift_rows",
      "counter",
      "Rows that verifies and scrubs found different.",
      each(({ drift }) => drift),
    ],
    [
      "table_verified_timestamp_seconds",
      "gauge",
      "When a walk last finished the table.",
      each(({ verified_at }) => secondsOf(verified_at)),
    ],
  ];
}

function escape(text: string): string {
  return text.replace(/[\\"]/g, "\\$&").replaceAll("\n", "\\n");
}
