/**
 * Ring 0. What needs attention, and what to do about it.
 *
 * Promise: this is the one place that judges a status; nothing that an operator
 * has to act on is a mere note.
 *
 * @module
 */

import type { SourceStatus } from "../source/report.ts";
import { formatCount, formatMs } from "./format.ts";
import type { StatusReport, WalkReport, Warning } from "./status_report.ts";

/** After this long without a sync, something fails to call the worker. */
const STALE_MS = 30 * 60_000;
const DOCTOR = "deno task doctor";
const DAY_MS = 24 * 3_600_000;

/** A report that is not judged yet. */
export type Facts = Omit<StatusReport, "fine" | "warnings">;

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

/**
 * Judges a status.
 *
 * @param report How source and replica stand.
 * @param status What the source answered.
 * @returns The warnings: first the source's catalog, then the way of a change.
 */
export function* warningsOf(
  report: Facts,
  status: SourceStatus,
): Generator<Warning> {
  for (const { name, found, advice } of status.catalog) {
    yield attention(`${name}: ${found}.`, advice);
  }
  yield* ofCalls(report);
  yield* ofLetters(report);
  yield* ofSchemas(report);
  if (report.last_full_pass !== null) yield* ofPass(report.last_full_pass);
  yield* ofEpochs(report, status);
}

/** Whether the worker is called. */
function* ofCalls(report: Facts): Generator<Warning> {
  const { heartbeat, last_sync_ms_ago: idle } = report;
  if (report.paused) {
    yield attention(
      "The worker is paused: changes stay queued.",
      "select libsql_sync.resume();",
    );
  } else if (idle === null) {
    yield attention("No worker has called yet.", DOCTOR);
  } else if (heartbeat.stale || idle > STALE_MS) {
    const waits = report.queued > 0 || report.walk !== null ||
      report.waiting_walks > 0;
    const where = {
      cron: ": the cron is silent",
      worker: ": the cron calls, but no worker answers",
      nowhere: "",
    }[heartbeat.silent ?? "nowhere"];
    const found = `The last sync was ${formatMs(idle)} ago${
      waits ? ", though there is work" : ""
    }${where}.`;
    const warn = waits || heartbeat.stale ? attention : note;
    yield warn(found, DOCTOR);
  }
}

function* ofLetters({ dead_letters }: Facts): Generator<Warning> {
  if (dead_letters === 0) return;
  const count = dead_letters > 10_000
    ? "more than 10,000"
    : formatCount(dead_letters);
  yield attention(`Parked changes: ${count}.`, "deno task dlq list");
}

function* ofSchemas({ schema }: Facts): Generator<Warning> {
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
}

/** What the last walk over all tables found. */
function* ofPass(
  { tables, differences, repair, kind }: WalkReport,
): Generator<Warning> {
  const names = Object.entries(tables)
    .filter(([, { differing, ghosts }]) => differing + ghosts > 0)
    .map(([name]) => name).join(", ");
  const found = `The last full pass found ${
    formatCount(differences)
  } differences, in ${names}`;
  if (differences > 0 && !repair) {
    yield attention(`${found}.`, "deno task verify --repair");
  } else if (differences > 0 && kind !== "backfill") {
    yield note(`${found}, and repaired them.`);
  }
  for (const [name, { failed }] of Object.entries(tables)) {
    if (failed) {
      yield attention(
        `The last full pass could not read table ${name} (SQLSTATE ${failed}).`,
        DOCTOR,
      );
    }
  }
}

/** Whether the replica follows the source's chain, and is filled. */
function* ofEpochs(report: Facts, status: SourceStatus): Generator<Warning> {
  const { begun_ms_ago: begun, reason } = report.last_epoch;
  const { replica, refill } = status;
  if (replica !== null && replica.epoch !== status.epoch) {
    const found = `The replica does not follow the epoch that began ${
      formatMs(begun)
    } ago.`;
    yield begun > STALE_MS
      ? attention(found, DOCTOR)
      : note(found, "the next sync makes it follow");
  }
  if (begun < DAY_MS && !/^(installed|nuke)$/.test(reason)) {
    yield note(
      `A new epoch began ${formatMs(begun)} ago: ${reason}.`,
      "the walk repairs what was lost",
    );
  }
  if (replica !== null && !report.walk_done && report.walk === null) {
    yield refill || report.waiting_walks > 0
      ? note("Not every table was walked yet.", "the next syncs walk them")
      : note(
        "The replica was emptied and is not filled.",
        "deno task backfill",
      );
  }
}
