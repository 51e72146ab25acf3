/**
 * Ring 0. The status as OpenMetrics.
 *
 * Promise: names and labels follow Prometheus' conventions and do not change; of
 * a schema, only the tables' names are shown.
 *
 * @module
 */

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
  for (const [name, type, help, samples] of familiesOf(status)) {
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

function* familiesOf(status: WorkerStatus): Generator<Family> {
  const one = (value: number | boolean | null): Sample[] => [[{}, value]];
  const { totals, schema, tables, walk } = status;
  const [last] = status.syncs;
  yield ["build", "info", "The worker's build.", [
    [{ version: status.version ?? "unknown" }, 1],
  ]];
  yield [
    "lag_seconds",
    "gauge",
    "Age of the oldest change that is not in the replica; 0 when drained.",
    one(status.lag_seconds),
  ];
  yield [
    "queued_messages",
    "gauge",
    "Messages that wait; 10000 means as many or more.",
    one(status.queued),
  ];
  yield [
    "dead_letters",
    "gauge",
    "Parked changes; 10001 means as many or more.",
    one(status.dead_letters),
  ];
  yield [
    "drained",
    "gauge",
    "Whether the last batch took every change there was.",
    one(status.drained),
  ];
  yield [
    "walk_done",
    "gauge",
    "Whether every table was walked: with drained, the replica is equal.",
    one(status.walk_done),
  ];
  yield [
    "source_position",
    "gauge",
    "Batches of this epoch that are settled at the source.",
    one(status.position),
  ];
  yield [
    "replica_position",
    "gauge",
    "Batches of this epoch that the replica has.",
    one(status.replica_position),
  ];
  yield [
    "epoch_start_timestamp_seconds",
    "gauge",
    "When this epoch began.",
    one(Date.parse(status.last_epoch.begun_at) / 1000),
  ];
  yield [
    "last_sync_timestamp_seconds",
    "gauge",
    "When the source last saw the replica's row.",
    one(status.last_sync === null ? null : Date.parse(status.last_sync) / 1000),
  ];
  yield [
    "last_cron_timestamp_seconds",
    "gauge",
    "When the cron's job last ran.",
    one(
      status.heartbeat.ticked_at === null
        ? null
        : Date.parse(status.heartbeat.ticked_at) / 1000,
    ),
  ];
  yield [
    "heartbeat_stale",
    "gauge",
    "Whether no call came from the cron through to the replica for 25 minutes.",
    one(status.heartbeat.stale),
  ];
  yield [
    "last_sync_success",
    "gauge",
    "Whether the last sync that ended succeeded.",
    one(last === undefined ? null : last.error === null),
  ];
  yield [
    "last_sync_duration_seconds",
    "gauge",
    "How long the last sync that ended took.",
    one(last === undefined ? null : last.ms / 1000),
  ];
  yield ["syncs", "counter", "Syncs by how they ended.", [
    [{ outcome: "success" }, totals.syncs - totals.failed],
    [{ outcome: "failure" }, totals.failed],
  ]];
  yield [
    "sync_duration_seconds",
    "counter",
    "Seconds that syncs took.",
    one(totals.ms / 1000),
  ];
  yield [
    "messages_processed",
    "counter",
    "Messages that left the queue.",
    one(totals.processed),
  ];
  yield [
    "changes_parked",
    "counter",
    "Changes that were parked.",
    one(totals.parked),
  ];
  yield [
    "batches_applied",
    "counter",
    "Batches that were applied.",
    one(totals.batches),
  ];
  yield [
    "batches_replayed",
    "counter",
    "Batches that were applied again after the replica had lost them.",
    one(totals.replays),
  ];
  yield [
    "walk_rows",
    "gauge",
    "Rows that the current walk has compared.",
    one(walk?.rows ?? 0),
  ];
  yield [
    "paused",
    "gauge",
    "Whether an operator has paused the worker.",
    one(status.paused),
  ];
  yield [
    "schema_agrees",
    "gauge",
    "Whether worker, source and replica have the same schema.",
    one(
      schema.here === schema.source &&
        (schema.replica === null || schema.replica === schema.source),
    ),
  ];
  yield [
    "attention_needed",
    "gauge",
    "Warnings that an operator has to act on; /status lists them.",
    one(status.warnings.filter(({ level }) => level === "attention").length),
  ];
  const each = (
    value: (table: WorkerStatus["tables"][number]) => number | null,
  ): Sample[] => tables.map((table) => [{ table: table.name }, value(table)]);
  yield [
    "table_rows",
    "gauge",
    "Rows at the source, as its planner estimates them.",
    each(({ rows }) => rows),
  ];
  yield [
    "table_rows_applied",
    "counter",
    "Rows that changes wrote or removed.",
    each(({ applied }) => applied),
  ];
  yield [
    "table_drift_rows",
    "counter",
    "Rows that verifies and scrubs found different.",
    each(({ drift }) => drift),
  ];
  yield [
    "table_verified_timestamp_seconds",
    "gauge",
    "When a walk last finished the table.",
    each(({ verified_at }) =>
      verified_at === null ? null : Date.parse(verified_at) / 1000
    ),
  ];
}

function escape(text: string): string {
  return text.replace(/[\\"]/g, "\\$&").replaceAll("\n", "\\n");
}
