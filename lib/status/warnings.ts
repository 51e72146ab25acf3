/**
 * Ring 0. What needs attention, and what to do about it.
 *
 * Promise: it is fine only if nothing needs to be done.
 *
 * @module
 */

import type { Found, Heartbeat, SourceStatus } from "../source/report.ts";
import { formatCount, formatMs } from "./format.ts";

/** Without a sync for so long, something does not call the worker. */
const STALE_MS = 30 * 60_000;

const DAY_MS = 24 * 3_600_000;

/** Something to know, and what to do about it. */
export interface Warning {
  /** "attention": somebody has to do something; "note": it mends itself. */
  readonly level: "attention" | "note";
  readonly found: string;
  readonly advice: string | null;
}

/** A walk in short. */
export interface WalkReport {
  readonly walk: number;
  readonly kind: string;
  readonly repair: boolean;
  readonly ended_at: string | null;
  readonly ended_ms_ago: number | null;
  readonly rows: number;
  readonly differences: number;
  readonly tables: Readonly<Record<string, Found>>;
}

/** How source and replica stand. */
export interface StatusReport {
  readonly fine: boolean;
  readonly epoch: string;
  readonly position: number;
  readonly replica_position: number | null;
  /** Whether the last batch took every change there was. */
  readonly drained: boolean;
  /** Whether every table was walked: with drained, the replica is equal. */
  readonly walk_done: boolean;
  /** As of when the replica is what the source was. */
  readonly source_time: string | null;
  readonly lag_ms: number;
  readonly queued: number;
  readonly queued_exact: boolean;
  readonly dead_letters: number;
  readonly last_sync: string | null;
  readonly last_sync_ms_ago: number | null;
  readonly heartbeat: Heartbeat;
  readonly syncing: boolean;
  readonly paused: boolean;
  readonly walk: (WalkReport & { table: string; half: string }) | null;
  readonly waiting_walks: number;
  readonly last_full_pass: WalkReport | null;
  readonly schema: {
    readonly here: string;
    readonly source: string | null;
    readonly replica: string | null;
  };
  readonly last_epoch: {
    reason: string;
    begun_at: string;
    begun_ms_ago: number;
  };
  readonly warnings: readonly Warning[];
}

const SILENT = {
  cron: ": the cron is silent",
  worker: ": nothing behind the cron answers",
  nobody: "",
};

/** What there is to know, the worst first. */
export function* warningsOf(
  report: Omit<StatusReport, "fine" | "warnings">,
  status: SourceStatus,
): Generator<Warning> {
  const attention = (found: string, advice: string): Warning => ({
    level: "attention",
    found,
    advice,
  });
  const note = (found: string, advice: string | null = null): Warning => ({
    level: "note",
    found,
    advice,
  });
  const { schema, last_full_pass: pass, last_sync_ms_ago: idle } = report;
  for (const { name, found, advice } of status.catalog) {
    yield attention(`${name}: ${found}.`, advice);
  }
  if (report.paused) {
    yield attention(
      "The worker is held off: changes stay queued.",
      "select libsql_sync.resume();",
    );
  } else if (idle === null) {
    yield attention("No worker has called yet.", "deno task doctor");
  } else if (report.heartbeat.stale || idle > STALE_MS) {
    const waits = report.queued > 0 || report.walk !== null ||
      report.waiting_walks > 0;
    const found = `The last sync was ${formatMs(idle)} ago${
      waits ? ", though there is work" : ""
    }${SILENT[report.heartbeat.silent ?? "nobody"]}.`;
    yield waits || report.heartbeat.stale
      ? attention(found, "deno task doctor")
      : note(found, "deno task doctor");
  }
  if (report.dead_letters > 0) {
    const count = report.dead_letters > 10_000
      ? "More than 10,000"
      : formatCount(report.dead_letters);
    yield attention(
      `${count} changes are set aside.`,
      "deno task dlq list",
    );
  }
  if (schema.source !== schema.here) {
    yield attention(
      "schema.json here is not the one in force at the source.",
      "deno task schema, then the migration, then deploy; or check out the one that is deployed",
    );
  }
  if (schema.replica !== null && schema.replica !== schema.source) {
    yield attention(
      "The replica does not have the schema in force at the source.",
      "deploy the worker with that schema.json: its next sync alters the replica",
    );
  }
  if (pass !== null) {
    const where = Object.entries(pass.tables)
      .filter(([, { differing, ghosts }]) => differing + ghosts > 0)
      .map(([name]) => name).join(", ");
    const found = `The last full pass found ${
      formatCount(pass.differences)
    } differences, in ${where}`;
    if (pass.differences > 0 && !pass.repair) {
      yield attention(`${found}.`, "deno task verify --repair");
    } else if (pass.differences > 0 && pass.kind !== "backfill") {
      yield note(`${found}, and mended them.`);
    }
    for (const [name, { failed }] of Object.entries(pass.tables)) {
      if (failed) {
        yield attention(
          `The last full pass could not read table ${name} (SQLSTATE ${failed}).`,
          "deno task doctor",
        );
      }
    }
  }
  const begun = report.last_epoch.begun_ms_ago;
  const { replica } = status;
  if (replica !== null && replica.epoch !== status.epoch) {
    const found = `The replica does not follow the epoch that began ${
      formatMs(begun)
    } ago.`;
    yield begun > STALE_MS
      ? attention(found, "deno task doctor")
      : note(found, "the next sync makes it follow");
  }
  if (
    begun < DAY_MS && !/^(installed|nuke)$/.test(report.last_epoch.reason)
  ) {
    yield note(
      `A new epoch began ${formatMs(begun)} ago: ${report.last_epoch.reason}.`,
      "the walk mends what was lost meanwhile",
    );
  }
  if (replica !== null && !report.walk_done && report.walk === null) {
    yield status.refill || report.waiting_walks > 0
      ? note("Not every table was walked yet.", "the next syncs do it")
      : note(
        "The replica was emptied and is not filled.",
        "deno task backfill",
      );
  }
}
