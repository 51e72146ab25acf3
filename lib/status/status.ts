/**
 * Ring 0. Makes the status from what the source reports.
 *
 * Promise: it is fine only if no operator has to act; every age is measured by
 * the source's clock.
 *
 * @module
 */

import type {
  History,
  SourceReport,
  SourceStatus,
  Walk,
} from "../source/report.ts";
import type { StatusReport, WalkReport } from "./status_report.ts";
import { warningsOf } from "./warnings.ts";

/** How the worker, the source and the replica stand. */
export interface WorkerStatus extends StatusReport, History {
  /** The worker's build; null if it has none. */
  readonly version: string | null;
  /** `lag_ms` in seconds. */
  readonly lag_seconds: number;
}

/**
 * Makes the status of source and replica.
 *
 * @param status What the source answered.
 * @param options The source's time in milliseconds since 1970, and the hash of
 * schema.json here.
 * @returns The report.
 */
export function reportStatus(
  status: SourceStatus,
  options: { now: number; here: string },
): StatusReport {
  const { replica, walk, last_full_pass, last_epoch } = status;
  const ago = (time: string | null) =>
    time === null ? null : Math.max(0, options.now - Date.parse(time));
  const reportOf = (walk: Walk): WalkReport => ({
    walk: walk.walk_gen,
    kind: walk.kind,
    repair: walk.repair,
    ended_at: walk.ended_at,
    ended_ms_ago: ago(walk.ended_at),
    ...sumOf(walk.found),
    tables: walk.found,
  });
  const report = {
    epoch: status.epoch,
    position: status.position,
    replica_position: replica?.position ?? null,
    drained: replica?.drained === 1,
    walk_done: replica?.walk_done === 1,
    source_time: replica?.source_time ?? null,
    lag_ms: ago(status.oldest_change) ?? 0,
    queued: status.queued,
    queued_exact: status.queued_exact,
    dead_letters: status.dead_letters,
    last_sync: status.last_sync,
    last_sync_ms_ago: ago(status.last_sync),
    heartbeat: status.heartbeat,
    syncing: status.syncing,
    paused: status.paused,
    walk: walk === null
      ? null
      : { ...reportOf(walk), ...placeOf(replica?.walk_at ?? null) },
    waiting_walks: status.waiting_walks.length,
    last_full_pass: last_full_pass === null ? null : reportOf(last_full_pass),
    schema: {
      here: options.here,
      source: status.schema,
      replica: replica?.schema_hash ?? null,
    },
    last_epoch: {
      reason: last_epoch.reason,
      begun_at: last_epoch.begun_at,
      begun_ms_ago: ago(last_epoch.begun_at)!,
    },
  };
  const warnings = [...warningsOf(report, status)];
  return {
    fine: !warnings.some(({ level }) => level === "attention"),
    ...report,
    warnings,
  };
}

/**
 * Makes the status of the worker, with what its syncs did.
 *
 * @param source What the source answered.
 * @param options The hash of the worker's schema, and its build.
 * @returns The status.
 */
export function describeWorker(
  source: SourceReport,
  options: { here: string; version: string | null },
): WorkerStatus {
  const { totals, tables, syncs, minutes, letters } = source;
  const report = reportStatus(source, {
    now: Date.parse(source.now),
    here: options.here,
  });
  return {
    ...report,
    version: options.version,
    lag_seconds: report.lag_ms / 1000,
    totals,
    tables,
    syncs,
    minutes,
    letters,
  };
}

/** Where a walk is, from the replica's row. */
function placeOf(walkAt: string | null): { table: string; half: string } {
  const { table, half } = JSON.parse(walkAt ?? "{}");
  return { table: String(table ?? "-"), half: String(half ?? "-") };
}

function sumOf(
  found: Walk["found"],
): { rows: number; differences: number } {
  let rows = 0;
  let differences = 0;
  for (const table of Object.values(found)) {
    rows += table.rows;
    differences += table.differing + table.ghosts;
  }
  return { rows, differences };
}
