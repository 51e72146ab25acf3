/**
 * Ring 3. `deno task verify`: compares every cell of the replica, and repairs.
 *
 * Promise: it says equal only when the walk it asked for is through every table
 * and found nothing; interrupted, the walk goes on with the cron's syncs.
 *
 * @module
 */

import {
  CommandError,
  describeRefusal,
  parseCall,
  post,
  printJson,
  type Query,
  readSettings,
  runCommand,
  SETTINGS,
  type Settings,
  withSource,
  type WorkerAnswer,
} from "./command.ts";
import { formatProgress, formatTable, type Progress } from "./table.ts";
import { formatCount, formatMs } from "../status/format.ts";

const USAGE = `Usage: deno task verify [--table <name>] [--repair] [--json]

Compares every cell of every table, source with replica, while both are in use.
Exit code 1 when they differ.

  --table <name>  one table
  --repair        mend what differs; then exit code 0
  --json          the result as JSON, no progress

${SETTINGS}verify`;

/** Busy or unreachable for so long at a stretch, a command gives up. */
const WAIT_MAX_MS = 120_000;
const WAIT_MS = 1_000;
const POLL_MS = 1_000;
const BAR_WIDTH = 24;

const UNREACHABLE: WorkerAnswer = {
  status: 503,
  headers: new Headers(),
  body: { error: "unreachable", message: "There is no answer any more." },
};

/** What a walk found in one table. */
export interface Found {
  readonly rows: number;
  readonly differing: number;
  readonly ghosts: number;
  readonly ended: boolean;
  /** Why it could not be read at the source, as an SQLSTATE. */
  readonly failed?: string | null;
}

/** What to walk. */
export interface WalkRequest {
  readonly kind: "backfill" | "verify";
  readonly table?: string;
  readonly repair: boolean;
}

/** What came of a walk. */
export interface WalkReport {
  readonly kind: WalkRequest["kind"];
  readonly walk: number;
  readonly repair: boolean;
  readonly rows: number;
  readonly differences: number;
  /** Changes that were set aside meanwhile: dead letters. */
  readonly parked: number;
  readonly seconds: number;
  /** Tables that could not be read at the source. */
  readonly unread: readonly string[];
  readonly tables: Readonly<Record<string, Found>>;
}

/** Takes how far a walk is; a notice is a line of its own. */
interface Watcher {
  progress(progress: Progress): void;
  notice(line: string): void;
}

/** Where a walk is, as the replica's row tells it. */
interface Place {
  readonly table: string;
  readonly half: string;
}

/** What a walk's loop keeps from one answer to the next. */
interface State {
  walk: number | null;
  tables: Record<string, Found>;
  /** Where the walk was when the source was asked last. */
  place: Place | null;
  parked: number;
  /** Since when nothing moved. */
  stillSince: number;
  /** Where the rate is counted from. */
  base: { rows: number; at: number };
}

/**
 * Asks the worker for a walk until it is through.
 *
 * @param settings Where the worker and the source are.
 * @param request What to walk.
 * @param watcher Takes how far it is.
 * @returns What it found.
 * @throws {CommandError} The worker refused, or the walk does not move.
 */
export async function runWalk(
  settings: Settings,
  request: WalkRequest,
  watcher: Watcher,
): Promise<WalkReport> {
  const { kind, table, repair } = request;
  const query = new URLSearchParams(table === undefined ? {} : { table });
  if (kind === "verify" && repair) query.set("repair", "true");
  const path = `/${kind}${query.size > 0 ? "?" : ""}${query}`;
  const started = performance.now();

  return await withSource(settings.pgmqUrl, async (source) => {
    const rowsTotal = await estimateRows(source, table ?? null);
    const newest = await newestWalk(source);
    const state: State = {
      walk: null,
      tables: {},
      place: null,
      parked: 0,
      stillSince: started,
      base: { rows: 0, at: started },
    };
    const show = () => {
      const { rows, differences } = sumOf(state.tables);
      const watched = {
        rows: rows - state.base.rows,
        ms: performance.now() - state.base.at,
      };
      const { place } = state;
      const ghostsOf = place?.half === "back" ? place.table : null;
      watcher.progress({ rows, rowsTotal, differences, ghostsOf, watched });
    };
    for (let done = false; !done;) {
      const answer = await watchPost(settings, path, async () => {
        if (state.walk === null) return;
        await isThrough(source, state);
        show();
      }).catch((error) => {
        // Once it was asked for, a broken connection is waited for.
        if (state.walk === null || !(error instanceof CommandError)) {
          throw error;
        }
        return UNREACHABLE;
      });
      const before = JSON.stringify([state.walk, state.tables]);
      done = await take(answer, { source, state, newest, watcher });
      if (!done) show();
      const moved = answer.body.batches as number > 0 ||
        before !== JSON.stringify([state.walk, state.tables]);
      if (!done) await pause(state, answer, moved);
    }
    const { rows, differences } = sumOf(state.tables);
    return {
      kind,
      walk: state.walk!,
      repair: repair || kind === "backfill",
      rows,
      differences,
      parked: state.parked,
      seconds: Math.round((performance.now() - started) / 100) / 10,
      unread: Object.entries(state.tables).filter(([, { failed }]) => failed)
        .map(([name]) => name),
      tables: state.tables,
    };
  });
}

/** Takes in what the worker answered; resolves to whether the walk is through. */
async function take(
  answer: WorkerAnswer,
  { source, state, newest, watcher }: {
    source: Query;
    state: State;
    newest: number;
    watcher: Watcher;
  },
): Promise<boolean> {
  const { status, body } = answer;
  if (status === 503) return await isThrough(source, state);
  if (status !== 200 || typeof body.walk !== "number") {
    throw new CommandError(describeRefusal(answer));
  }
  if (body.paused) {
    throw new CommandError(
      "Cannot walk: the worker is held off; select libsql_sync.resume();",
    );
  }
  if (state.walk !== body.walk) {
    if (state.walk !== null) {
      // The cron's sync brought the one before to its end between two calls.
      if (await isThrough(source, state)) return true;
      watcher.notice("The walk begins again, as a new epoch began.");
    }
    state.walk = body.walk;
    state.tables = {};
    if (body.walk <= newest) {
      state.base = {
        rows: sumOf(body.tables as Record<string, Found>).rows,
        at: performance.now(),
      };
    }
  }
  state.parked += Number(body.parked ?? 0);
  if (body.busy) return await isThrough(source, state);
  state.tables = body.tables as Record<string, Found>;
  return body.done === true;
}

/** Whether the source knows the walk to be through; keeps what it found. */
async function isThrough(source: Query, state: State): Promise<boolean> {
  if (state.walk === null) return false;
  const read = await readWalk(source, state.walk);
  if (read === null) return false;
  state.tables = read.found;
  state.place = read.place === null ? null : JSON.parse(read.place);
  return read.ended;
}

/** Waits where nothing moved, and not for ever. */
async function pause(
  state: State,
  { status, body }: WorkerAnswer,
  moved: boolean,
): Promise<void> {
  const now = performance.now();
  if (moved) {
    state.stillSince = now;
    return;
  }
  if (now - state.stillSince > WAIT_MAX_MS) {
    throw new CommandError(
      `Cannot walk: nothing moved for ${formatMs(WAIT_MAX_MS)}, ${
        body.busy
          ? "another sync keeps the worker busy"
          : status === 503
          ? describeRefusal({ status, body, headers: new Headers() })
          : "though the worker answers"
      }; the walk stays asked for: deno task status`,
    );
  }
  await sleep(WAIT_MS);
}

/** Sends a POST, and looks at the source now and then until it is answered. */
async function watchPost(
  settings: Settings,
  path: string,
  look: () => Promise<void>,
): Promise<WorkerAnswer> {
  const answer = post(settings, path);
  answer.catch(() => {});
  for (;;) {
    const first = await Promise.race([answer, sleep(POLL_MS)]);
    if (first !== undefined) return first;
    await look();
  }
}

/** A walk as the source knows it. */
interface SourceWalk {
  readonly found: Record<string, Found>;
  readonly ended: boolean;
  readonly place: string | null;
}

/** Reads a walk at the source, null where it is not there any more. */
async function readWalk(
  source: Query,
  walk: number,
): Promise<SourceWalk | null> {
  const [row] = await source<SourceWalk>(
    `select w.found, w.ended_at is not null as ended, c.seen ->> 'walk_at' as place
     from libsql_sync.walks w
     left join libsql_sync.chain c on (c.seen ->> 'walk_gen')::bigint = w.walk_gen
     where w.walk_gen = $1::bigint`,
    [String(walk)],
  );
  return row ?? null;
}

async function newestWalk(source: Query): Promise<number> {
  const [row] = await source<{ newest: string }>(
    "select coalesce(max(walk_gen), 0) as newest from libsql_sync.walks",
  );
  return Number(row!.newest);
}

/** How many rows there are about, null where a table was never analysed. */
async function estimateRows(
  source: Query,
  table: string | null,
): Promise<number | null> {
  const [row] = await source<{ rows: number | null }>(
    `select case when bool_or(c.reltuples < 0 and pg_relation_size(c.oid) > 0) then null
       else coalesce(sum(greatest(c.reltuples, 0)), 0)::float8 end as rows
     from libsql_sync.tables t
     cross join lateral to_regclass(format('public.%I', t.name)) r (oid)
     join pg_class c on c.relkind = 'r'
       and (c.oid = r.oid or c.oid in (select p.relid from pg_partition_tree(r.oid) p))
     where $1::text is null or t.name = $1::text`,
    [table],
  );
  return row!.rows;
}

function sumOf(
  tables: Readonly<Record<string, Found>>,
): { rows: number; differences: number } {
  let rows = 0;
  let differences = 0;
  for (const found of Object.values(tables)) {
    rows += found.rows;
    differences += found.differing + found.ghosts;
  }
  return { rows, differences };
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/**
 * Watches a walk as the caller can read it: a bar on a terminal, lines
 * elsewhere, nothing beside JSON. Ctrl-C ends the watching, not the walk.
 *
 * @param options Whether the result is printed as JSON.
 * @returns The watcher.
 */
export function createWatcher(options: { isJson: boolean }): Watcher {
  Deno.addSignalListener("SIGINT", () => {
    console.error(
      "\nThe walk goes on with the cron's syncs: deno task status shows how far it is.",
    );
    Deno.exit(130);
  });
  if (options.isJson) return { progress: () => {}, notice: () => {} };
  if (!Deno.stdout.isTerminal()) {
    let last = "";
    return {
      progress(progress) {
        const line = formatProgress(progress, { barWidth: 0 });
        if (line !== last) console.log(line);
        last = line;
      },
      notice: (line) => console.log(line),
    };
  }
  const write = (text: string) =>
    Deno.stdout.writeSync(new TextEncoder().encode(text));
  return {
    progress: (progress) =>
      void write(
        `\r${formatProgress(progress, { barWidth: BAR_WIDTH })}\x1b[K`,
      ),
    notice: (line) => void write(`\r${line}\x1b[K\n`),
  };
}

/**
 * Prints what came of a walk.
 *
 * @param report The report.
 * @param options Whether as JSON.
 * @returns The exit code.
 */
export function printWalk(
  report: WalkReport,
  options: { isJson: boolean },
): number {
  const { kind, repair, rows, differences, parked, seconds, unread, tables } =
    report;
  // A table that is not there yet has nothing to compare.
  const failed = unread.filter((name) => tables[name]?.failed !== "42P01");
  const code = (differences > 0 && !repair) || parked > 0 || failed.length > 0
    ? 1
    : 0;
  if (options.isJson) {
    printJson(report);
    return code;
  }
  if (Deno.stdout.isTerminal()) console.log("\r\x1b[K");
  const heading = ["table", "rows", "different", "ghosts"];
  const lines = formatTable(
    heading,
    Object.entries(tables).sort().map((
      [name, found],
    ) => [name, found.rows, found.differing, found.ghosts]),
  );
  for (const line of lines) console.log(line);
  const compared = `\n${formatCount(rows)} rows compared in ${seconds} s`;
  const count = formatCount(differences);
  const where = Object.entries(tables)
    .filter(([, { differing, ghosts }]) => differing + ghosts > 0)
    .map(([name]) => name).join(", ");
  console.log(
    kind === "backfill"
      ? `${compared}, ${count} written or removed.`
      : differences === 0
      ? `${compared}: no difference.`
      : repair
      ? `${compared}: ${count} differences found and repaired, in ${where}.`
      : `${compared}: ${count} differences, in ${where}. Mend them: deno task verify --repair`,
  );
  for (const name of unread) {
    console.log(
      tables[name]?.failed === "42P01"
        ? `Table ${name} does not exist in PostgreSQL: nothing to compare.`
        : `Table ${name} could not be read (SQLSTATE ${
          tables[name]?.failed
        }), so nothing is known of it: deno task doctor`,
    );
  }
  if (parked > 0) {
    console.log(
      `${formatCount(parked)} changes were set aside: deno task dlq list`,
    );
  }
  return code;
}

async function run(args: readonly string[]): Promise<number> {
  const { flags } = parseCall(args, {
    table: "text",
    repair: "switch",
    json: "switch",
  });
  const settings = readSettings((name) => Deno.env.get(name), [
    "PGMQ_URL",
    "WORKER_URL",
    "WEBHOOK_SIGNATURE",
  ]);
  const isJson = "json" in flags;
  const report = await runWalk(
    settings,
    { kind: "verify", table: flags.table, repair: "repair" in flags },
    createWatcher({ isJson }),
  );
  return printWalk(report, { isJson });
}

if (import.meta.main) {
  Deno.exit(await runCommand({ usage: USAGE, run }, Deno.args));
}
