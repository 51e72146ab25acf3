/**
 * Ring 0. How source and replica stand, and what somebody has to do about it.
 *
 * Promise: it is fine only where nobody has to do anything.
 *
 * @module
 */

import { type Answer, readAnswer } from "./answer.ts";
import { formatCount, formatMs } from "./format.ts";

/** Without a sync for so long, something does not call the worker. */
const STALE_MS = 30 * 60_000;
const DAY_MS = 24 * 3_600_000;

/** What a walk found in one table. */
interface Found {
  readonly rows: number;
  readonly differing: number;
  readonly ghosts: number;
  readonly failed?: string | null;
}

interface Walk {
  readonly walk_gen: number;
  readonly kind: string;
  readonly repair: boolean;
  readonly reason: string;
  readonly tables: readonly string[];
  readonly ended_at: string | null;
  readonly found: Readonly<Record<string, Found>>;
}

/** Whether the whole way was gone lately: cron, pg_net, worker, replica. */
export interface Heartbeat {
  /** When the cron's job last came through. */
  readonly ticked_at: string | null;
  readonly stale: boolean;
  /** Where it ends; null where it does not. */
  readonly silent: "cron" | "worker" | null;
}

/** What `libsql_sync.status()` answers, as far as it is read here. */
export interface SourceStatus {
  readonly epoch: string;
  readonly position: number;
  readonly paused: boolean;
  readonly refill: boolean;
  readonly queued: number;
  readonly queued_exact: boolean;
  readonly oldest_change: string | null;
  readonly dead_letters: number;
  readonly last_sync: string | null;
  readonly heartbeat: Heartbeat;
  readonly syncing: boolean;
  readonly schema: string | null;
  /** What doctor finds in the catalog: tables and triggers. */
  readonly catalog: readonly {
    readonly name: string;
    readonly found: string;
    readonly advice: string;
  }[];
  readonly replica:
    | {
      readonly epoch: string;
      readonly position: number;
      readonly drained: number;
      readonly walk_done: number;
      readonly walk_at: string | null;
      readonly source_time: string | null;
      readonly schema_hash: string;
    }
    | null;
  readonly walk: Walk | null;
  readonly waiting_walks: readonly Walk[];
  readonly last_full_pass: Walk | null;
  readonly last_epoch: {
    readonly reason: string;
    readonly begun_at: string;
    readonly wipe: boolean;
  };
}

/** What was done to a table over all time. */
export interface TableCounts {
  readonly name: string;
  /** About how many rows the source has. */
  readonly rows: number;
  /** Rows that changes wrote or removed. */
  readonly applied: number;
  /** Differences that verifies and scrubs found. */
  readonly drift: number;
  /** When a walk was last through with it. */
  readonly verified_at: string | null;
}

/** How a sync ended. */
export interface SyncRecord {
  /** Its number. */
  readonly n: number;
  readonly ended_at: string;
  readonly ms: number;
  readonly processed: number;
  readonly parked: number;
  readonly batches: number;
  readonly queued: number;
  /** How long the oldest change had waited when it began. */
  readonly lag_ms: number;
  /** The code of what ended it; null where it succeeded. */
  readonly error: string | null;
}

/** What the syncs of a minute did. */
export interface MinuteRecord {
  /** Minutes since 1970. */
  readonly minute: number;
  readonly syncs: number;
  readonly failed: number;
  readonly processed: number;
  /** The longest of its syncs. */
  readonly lag_ms: number;
}

/** What was done since the source was installed. */
export interface Totals {
  readonly syncs: number;
  readonly failed: number;
  readonly processed: number;
  readonly parked: number;
  readonly batches: number;
  /** Batches applied again because the replica had lost them. */
  readonly replays: number;
  readonly ms: number;
}

/** A change that was set aside. */
export interface Letter {
  readonly id: number;
  readonly table: string | null;
  readonly key: readonly (string | null)[] | null;
  readonly reason: string;
  readonly parked_at: string;
}

/** What syncs did. */
interface History {
  readonly totals: Totals;
  readonly tables: readonly TableCounts[];
  /** The last 20, the newest first. */
  readonly syncs: readonly SyncRecord[];
  /** Those of the last three hours that had a sync. */
  readonly minutes: readonly MinuteRecord[];
  /** The newest 50, where they were asked for. */
  readonly letters: readonly Letter[] | null;
}

/** What `libsql_sync.report()` answers. */
export interface SourceReport extends SourceStatus, History {
  /** The source's time. */
  readonly now: string;
}

/** What the worker tells of itself, the source and the replica. */
export interface WorkerStatus extends StatusReport, History {
  /** The build. */
  readonly version: string | null;
  readonly lag_seconds: number;
}

/** Something to know, and what to do about it. */
export interface Warning {
  /** "attention": somebody has to do something; "note": it mends itself. */
  readonly level: "attention" | "note";
  readonly found: string;
  readonly advice: string | null;
}

/** A walk in short. */
interface WalkReport {
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

/**
 * Puts together how source and replica stand.
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
 * Reads the answer of `report`.
 *
 * @param value The answer.
 * @returns The report.
 * @throws {SyncError} `source_failed` where it is none.
 */
export function sourceReportOf(value: unknown): SourceReport {
  const answer: Answer = readAnswer(value);
  for (const name of ["epoch", "now"]) answer.text(name);
  for (const name of ["position", "queued", "dead_letters"]) {
    answer.number(name);
  }
  for (
    const name of ["waiting_walks", "catalog", "tables", "syncs", "minutes"]
  ) answer.list(name);
  readAnswer(answer.value("last_epoch")).text("begun_at");
  const report = value as SourceReport;
  return { ...report, totals: { ...NONE, ...report.totals } };
}

const NONE: Totals = {
  syncs: 0,
  failed: 0,
  processed: 0,
  parked: 0,
  batches: 0,
  replays: 0,
  ms: 0,
};

/**
 * Puts together what the worker tells.
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

const SILENT = {
  cron: ": the cron is silent",
  worker: ": nothing behind the cron answers",
  nobody: "",
};

/** What there is to know, the worst first. */
function* warningsOf(
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

/** Where a walk is. */
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
