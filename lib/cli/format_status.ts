/**
 * Ring 0. How source and replica stand, as text for people.
 *
 * @module
 */

import { formatPairs, formatTable } from "./table.ts";
import { formatCount, formatMs } from "../status/format.ts";
import type { StatusReport } from "../status/status_report.ts";

/**
 * Formats a status report for people.
 *
 * @param report The report.
 * @returns The lines.
 */
export function formatStatus(report: StatusReport): string[] {
  return [
    ...formatPairs([
      ["replica", describeReplica(report)],
      ["position", describePosition(report)],
      ["lag", formatMs(report.lag_ms)],
      [
        "queued",
        `${formatCount(report.queued)}${report.queued_exact ? "" : " or more"}`,
      ],
      ["dead letters", formatCount(report.dead_letters)],
      ["last sync", describeLastSync(report)],
      ["walk", describeWalk(report)],
      ["last full pass", describePass(report)],
      ["schema", describeSchema(report)],
    ]),
    ...tablesOf(report),
    ...report.warnings.flatMap(({ level, found, advice }) => [
      "",
      `${level === "attention" ? "!" : "-"} ${found}`,
      ...advice === null ? [] : [`  -> ${advice}`],
    ]),
  ];
}

function describeReplica(report: StatusReport): string {
  if (report.replica_position === null) return "not started";
  if (!report.drained || !report.walk_done) {
    return `${report.drained ? "drained" : "not drained"}, ${
      report.walk_done ? "walked" : "not walked yet"
    }`;
  }
  return `equal to the source as of ${report.source_time}${
    report.dead_letters > 0 ? ", except for dead letters" : ""
  }`;
}

function describePosition(report: StatusReport): string {
  const { replica_position, position, epoch, last_epoch } = report;
  return `${replica_position ?? "-"} of ${position}, epoch ${
    epoch.slice(0, 8)
  } (${last_epoch.reason}, ${formatMs(last_epoch.begun_ms_ago)} ago)`;
}

function describeLastSync(report: StatusReport): string {
  if (report.last_sync_ms_ago === null) return "never";
  return `${formatMs(report.last_sync_ms_ago)} ago${
    report.syncing ? ", one is running" : ""
  }${report.paused ? ", paused" : ""}`;
}

function describeWalk({ walk, waiting_walks }: StatusReport): string {
  if (walk === null) {
    return waiting_walks === 0 ? "none" : `${waiting_walks} waiting`;
  }
  return `${walk.kind} ${walk.walk} at ${walk.table} (${walk.half}), ${
    formatCount(walk.rows)
  } rows, ${formatCount(walk.differences)} different`;
}

function describePass({ last_full_pass: pass }: StatusReport): string {
  if (pass === null) return "none";
  const outcome = pass.kind === "backfill"
    ? "written"
    : pass.repair && pass.differences > 0
    ? "different and repaired"
    : "different";
  return `${pass.kind} ${pass.walk}, ended ${
    formatMs(pass.ended_ms_ago ?? 0)
  } ago: ${formatCount(pass.rows)} rows, ${
    formatCount(pass.differences)
  } ${outcome}`;
}

function describeSchema({ schema }: StatusReport): string {
  const here = `${schema.here.slice(0, 8)} here`;
  const agree = schema.source === schema.here &&
    (schema.replica === null || schema.replica === schema.source);
  if (agree) {
    return `${here}, at the source${
      schema.replica === null ? "" : " and in the replica"
    }`;
  }
  return `${here}, ${schema.source?.slice(0, 8) ?? "none"} at the source, ${
    schema.replica?.slice(0, 8) ?? "none"
  } in the replica`;
}

/** The tables of the open walk, or of a full pass that found differences. */
function tablesOf({ walk, last_full_pass: pass }: StatusReport): string[] {
  const shown = walk ?? (pass !== null && pass.differences > 0 ? pass : null);
  if (shown === null || Object.keys(shown.tables).length === 0) return [];
  const rows = Object.entries(shown.tables).sort().map((
    [name, { rows, differing, ghosts }],
  ) => [name, rows, differing, ghosts]);
  const heading = [
    `${shown.kind} ${shown.walk}`,
    "rows",
    "different",
    "ghosts",
  ];
  return ["", ...formatTable(heading, rows)];
}
