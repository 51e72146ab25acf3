/**
 * Ring 3. `deno task status`: how replica and source stand.
 *
 * Promise: exit code 0 only where nobody has to do anything; nothing is counted
 * that a large queue would make slow, and nothing is asked of the replica.
 *
 * @module
 */

import {
  CommandError,
  parseCall,
  printJson,
  readSchema,
  readSettings,
  runCommand,
  SETTINGS,
  withSource,
} from "./command.ts";
import { formatPairs, formatTable } from "./table.ts";
import type { SourceStatus } from "../source/report.ts";
import { formatCount, formatMs } from "../status/format.ts";
import { reportStatus } from "../status/status.ts";
import type { StatusReport } from "../status/status_report.ts";

const USAGE = `Usage: deno task status [--json]

Where the replica stands, what is queued, set aside, walked and compared.
Exit code 1 when somebody has to do something: it is told what.

  --json  the same as JSON

${SETTINGS}status`;

/**
 * Writes a report for people.
 *
 * @param report The report.
 * @returns The lines.
 */
export function formatStatus(report: StatusReport): string[] {
  const { walk, last_full_pass: pass, schema, last_epoch } = report;
  const agree = schema.source === schema.here &&
    (schema.replica === null || schema.replica === schema.source);
  const state = report.replica_position === null
    ? "not started"
    : report.drained && report.walk_done
    ? `equal to the source as of ${report.source_time}${
      report.dead_letters > 0 ? ", but for dead letters" : ""
    }`
    : `${report.drained ? "drained" : "not drained"}, ${
      report.walk_done ? "walked" : "not walked yet"
    }`;
  const lines = formatPairs([
    ["replica", state],
    [
      "position",
      `${report.replica_position ?? "-"} of ${report.position}, epoch ${
        report.epoch.slice(0, 8)
      } (${last_epoch.reason}, ${formatMs(last_epoch.begun_ms_ago)} ago)`,
    ],
    ["lag", formatMs(report.lag_ms)],
    [
      "queued",
      `${formatCount(report.queued)}${report.queued_exact ? "" : " or more"}`,
    ],
    ["dead letters", formatCount(report.dead_letters)],
    [
      "last sync",
      report.last_sync_ms_ago === null
        ? "never"
        : `${formatMs(report.last_sync_ms_ago)} ago${
          report.syncing ? ", one is running" : ""
        }${report.paused ? ", paused" : ""}`,
    ],
    [
      "walk",
      walk === null
        ? report.waiting_walks === 0
          ? "none"
          : `${report.waiting_walks} waiting`
        : `${walk.kind} ${walk.walk} at ${walk.table} (${walk.half}), ${
          formatCount(walk.rows)
        } rows, ${formatCount(walk.differences)} different`,
    ],
    [
      "last full pass",
      pass === null
        ? "none"
        : `${pass.kind} ${pass.walk}, ended ${
          formatMs(pass.ended_ms_ago ?? 0)
        } ago: ${formatCount(pass.rows)} rows, ${
          formatCount(pass.differences)
        } ${
          pass.kind === "backfill"
            ? "written"
            : pass.repair && pass.differences > 0
            ? "different and mended"
            : "different"
        }`,
    ],
    [
      "schema",
      agree
        ? `${schema.here.slice(0, 8)} here, at the source${
          schema.replica === null ? "" : " and in the replica"
        }`
        : `${schema.here.slice(0, 8)} here, ${
          schema.source?.slice(0, 8) ?? "none"
        } at the source, ${
          schema.replica?.slice(0, 8) ?? "none"
        } in the replica`,
    ],
  ]);
  const shown = walk ?? (pass !== null && pass.differences > 0 ? pass : null);
  if (shown !== null && Object.keys(shown.tables).length > 0) {
    const rows = Object.entries(shown.tables).sort().map((
      [name, { rows, differing, ghosts }],
    ) => [name, rows, differing, ghosts]);
    lines.push(
      "",
      ...formatTable([
        `${shown.kind} ${shown.walk}`,
        "rows",
        "different",
        "ghosts",
      ], rows),
    );
  }
  for (const { level, found, advice } of report.warnings) {
    lines.push(
      "",
      `${level === "attention" ? "!" : "-"} ${found}`,
      ...advice === null ? [] : [`  -> ${advice}`],
    );
  }
  return lines;
}

async function run(args: readonly string[]): Promise<number> {
  const { flags } = parseCall(args, { json: "switch" });
  const { pgmqUrl } = readSettings((name) => Deno.env.get(name), ["PGMQ_URL"]);
  const { hash } = await readSchema();
  const row = await withSource(pgmqUrl, async (query) => {
    const [row] = await query<{ status: SourceStatus | null; now: number }>(
      "select libsql_sync.status() as status, extract(epoch from clock_timestamp())::float8 * 1000 as now",
    );
    return row!;
  });
  if (row.status === null) {
    throw new CommandError(
      "Cannot tell: the migration began and did not end; run it again",
    );
  }
  const report = reportStatus(row.status, { now: row.now, here: hash });
  if ("json" in flags) printJson(report);
  else for (const line of formatStatus(report)) console.log(line);
  return report.fine ? 0 : 1;
}

if (import.meta.main) {
  Deno.exit(await runCommand({ usage: USAGE, run }, Deno.args));
}
