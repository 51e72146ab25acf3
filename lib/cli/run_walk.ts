/**
 * Ring 3. A walk: asked for, watched until it is done, and printed.
 *
 * Promise: it ends without an error only when the walk is through every table;
 * when interrupted, the walk continues with the cron's syncs.
 *
 * @module
 */

import {
  callWorker,
  describeRefusal,
  type WorkerAnswer,
} from "./call_worker.ts";
import { CommandError, printJson } from "./command.ts";
import { type Query, withSource } from "./query_source.ts";
import { readSettings, type Settings } from "./settings.ts";
import { sleep } from "./wait.ts";
import {
  formatWalk,
  type FoundByTable,
  sumFound,
  unreadIn,
  walkExitCode,
  type WalkReport,
} from "./walk_report.ts";
import { estimateRows, readNewestWalk, readWalk } from "./walk_source.ts";
import { createWatcher, type Watcher } from "./walk_watcher.ts";
import { formatMs } from "../status/format.ts";

/** What to walk. */
export interface WalkRequest {
  /** The command, and the worker's route. */
  readonly kind: "backfill" | "verify";
  /** One table; default all. */
  readonly table?: string;
  /** Whether to repair what differs; a backfill always does. */
  readonly repair: boolean;
}

/** Without progress for so long, the command gives up. */
const STILL_MS_MAX = 120_000;
const RETRY_MS = 1_000;
const POLL_MS = 1_000;

/** Stands for an answer when the connection breaks in the middle of a walk. */
const UNREACHABLE: WorkerAnswer = {
  status: 503,
  headers: new Headers(),
  body: { error: "unreachable", message: "The worker no longer answers." },
};

/** A walk that is being watched. */
interface Run {
  readonly settings: Settings;
  readonly source: Query;
  readonly watcher: Watcher;
  /** The worker's route with its query. */
  readonly path: string;
  readonly rowsTotal: number | null;
  /** The newest walk before this one was asked for. */
  readonly newestBefore: number;
  /** The walk's number; null until the worker has answered. */
  walk: number | null;
  tables: FoundByTable;
  /** The walk's place when the source was last asked. */
  place: { readonly table: string; readonly half: string } | null;
  parked: number;
  /** Since when nothing moved. */
  stillSince: number;
  /** The rows and time from which the rate is counted. */
  base: { rows: number; at: number };
}

/**
 * Runs a walk for a command: reads the settings, watches, prints the result.
 *
 * @param request What to walk.
 * @param options Whether to print the result as JSON.
 * @returns The exit code.
 * @throws {CommandError} If the worker refuses, or the walk makes no progress.
 */
export async function runWalk(
  request: WalkRequest,
  options: { isJson: boolean },
): Promise<number> {
  const settings = readSettings((name) => Deno.env.get(name), [
    "PGMQ_URL",
    "WORKER_URL",
    "WEBHOOK_SIGNATURE",
  ]);
  const report = await watchWalk(settings, request, createWatcher(options));
  if (options.isJson) printJson(report);
  else {
    if (Deno.stdout.isTerminal()) console.log("\r\x1b[K");
    for (const line of formatWalk(report)) console.log(line);
  }
  return walkExitCode(report);
}

/** Asks the worker for a walk until it is done. */
async function watchWalk(
  settings: Settings,
  request: WalkRequest,
  watcher: Watcher,
): Promise<WalkReport> {
  const started = performance.now();
  return await withSource(settings.pgmqUrl, async (source) => {
    const run: Run = {
      settings,
      source,
      watcher,
      path: pathOf(request),
      rowsTotal: await estimateRows(source, request.table ?? null),
      newestBefore: await readNewestWalk(source),
      walk: null,
      tables: {},
      place: null,
      parked: 0,
      stillSince: started,
      base: { rows: 0, at: started },
    };
    while (!await advance(run));
    return {
      kind: request.kind,
      walk: run.walk!,
      repair: request.repair || request.kind === "backfill",
      ...sumFound(run.tables),
      parked: run.parked,
      seconds: Math.round((performance.now() - started) / 100) / 10,
      unread: unreadIn(run.tables),
      tables: run.tables,
    };
  });
}

function pathOf({ kind, table, repair }: WalkRequest): string {
  const query = new URLSearchParams(table === undefined ? {} : { table });
  if (kind === "verify" && repair) query.set("repair", "true");
  return `/${kind}${query.size > 0 ? "?" : ""}${query}`;
}

/** Sends one request and takes its answer; resolves to whether the walk is done. */
async function advance(run: Run): Promise<boolean> {
  const answer = await callAndWatch(run);
  const stateOf = () => JSON.stringify([run.walk, run.tables]);
  const before = stateOf();
  if (await takeAnswer(run, answer)) return true;
  showProgress(run);
  if (Number(answer.body.batches ?? 0) > 0 || before !== stateOf()) {
    run.stillSince = performance.now();
  } else await waitOrGiveUp(run, answer);
  return false;
}

/** Sends the request, and asks the source for progress until it is answered. */
async function callAndWatch(run: Run): Promise<WorkerAnswer> {
  const answer = callWorker(run.settings, run.path);
  // It may fail while the source is being asked; it is awaited again after.
  answer.catch(() => {});
  try {
    for (;;) {
      const first = await Promise.race([answer, sleep(POLL_MS)]);
      if (first !== undefined) return first;
      if (run.walk === null) continue;
      await isDone(run);
      showProgress(run);
    }
  } catch (error) {
    // Once the walk is asked for, it outlives a broken connection.
    if (run.walk === null || !(error instanceof CommandError)) throw error;
    return UNREACHABLE;
  }
}

/** Takes an answer of the worker; resolves to whether the walk is done. */
async function takeAnswer(run: Run, answer: WorkerAnswer): Promise<boolean> {
  const { status, body } = answer;
  if (status === 503) return await isDone(run);
  if (status !== 200 || typeof body.walk !== "number") {
    throw new CommandError(describeRefusal(answer));
  }
  if (body.paused) {
    throw new CommandError(
      "Cannot walk: the worker is paused; to go on: select libsql_sync.resume();",
    );
  }
  const tables = body.tables as FoundByTable;
  if (run.walk !== body.walk) {
    if (run.walk !== null) {
      // A sync of the cron may have ended the walk between two requests.
      if (await isDone(run)) return true;
      run.watcher.notice("A new epoch began: the walk starts again.");
    }
    run.walk = body.walk;
    run.tables = {};
    if (body.walk <= run.newestBefore) {
      // It was under way already: its rows say nothing about today's rate.
      run.base = { rows: sumFound(tables).rows, at: performance.now() };
    }
  }
  run.parked += Number(body.parked ?? 0);
  if (body.busy) return await isDone(run);
  run.tables = tables;
  return body.done === true;
}

/** Asks the source whether the walk is done, and keeps what it found. */
async function isDone(run: Run): Promise<boolean> {
  if (run.walk === null) return false;
  const read = await readWalk(run.source, run.walk);
  if (read === null) return false;
  run.tables = read.found;
  run.place = read.place === null ? null : JSON.parse(read.place);
  return read.ended;
}

function showProgress(run: Run): void {
  const { rows, differences } = sumFound(run.tables);
  run.watcher.progress({
    rows,
    rowsTotal: run.rowsTotal,
    differences,
    ghostsOf: run.place?.half === "back" ? run.place.table : null,
    watched: {
      rows: rows - run.base.rows,
      ms: performance.now() - run.base.at,
    },
  });
}

/** Waits before the next request, unless nothing has moved for too long. */
async function waitOrGiveUp(run: Run, answer: WorkerAnswer): Promise<void> {
  if (performance.now() - run.stillSince > STILL_MS_MAX) {
    const why = answer.body.busy
      ? "as another sync keeps the worker busy"
      : answer.status === 503
      ? `as the worker refuses: ${describeRefusal(answer)}`
      : "though the worker answers";
    throw new CommandError(
      `Cannot walk: no progress for ${
        formatMs(STILL_MS_MAX)
      }, ${why}; the walk stays open: deno task status`,
    );
  }
  await sleep(RETRY_MS);
}
