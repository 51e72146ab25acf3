/**
 * Ring 3. Carries out what the stand-ins for pg_cron and pg_net only write down.
 *
 * Promise: never two runs of one job at once; the ticker waits for a
 * database that is lost; `stop` ends everything within seconds.
 *
 * @module
 */
import postgres from "postgres";
import { withinMs } from "./child.ts";
import { type Job, runJob } from "./ticker_cron.ts";
import { type Request, sendRequest } from "./ticker_net.ts";

/** How often the request queue is looked at; the real pg_net is woken at COMMIT. */
const NET_EVERY_MS = 100;
/** As there: this many requests at once, and all answers before the next ones. */
const NET_BATCH = 200;
/** How long answers are kept, as there. */
const NET_KEPT = "6 hours";
const STOP_MS = 3_000;

/** A running ticker. */
export interface Ticker {
  /** Ends the loops; running jobs and requests are broken off. */
  stop(): Promise<void>;
}

/** What to run. */
export interface TickerOptions {
  /** The database, as a superuser; jobs run as the user who scheduled them, with its password. */
  url: string;
  /** Every active job runs this often; its schedule is ignored. */
  cronEveryMs: number;
  /** Called when the database is lost or back, and when a job or a request fails. */
  log: (line: string) => void;
}

/** Waits; the signal ends the wait. */
async function sleep(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise<void>((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done);
  });
}

/** Does one thing again and again; says once that the database is lost, and that it is back. */
async function repeat(
  action: () => Promise<void>,
  options: {
    name: string;
    everyMs: number;
    signal: AbortSignal;
    log: (line: string) => void;
  },
): Promise<void> {
  let isLost = false;
  while (!options.signal.aborted) {
    try {
      await action();
      if (isLost) options.log(`${options.name}: the database is back`);
      isLost = false;
    } catch (error) {
      if (!isLost && !options.signal.aborted) {
        options.log(
          `${options.name}: ${(error as Error).message}; trying again`,
        );
      }
      isLost = true;
    }
    await sleep(options.everyMs, options.signal);
  }
}

/**
 * Starts carrying out cron jobs and HTTP requests.
 *
 * @param options The database, the pace, and what takes messages.
 * @returns The running ticker.
 */
export function startTicker(options: TickerOptions): Ticker {
  const { url, cronEveryMs, log } = options;
  const controller = new AbortController();
  const { signal } = controller;
  const sql = postgres(url, {
    max: 4,
    fetch_types: false,
    connect_timeout: 5,
    backoff: () => 0.2,
    onnotice: () => {},
  });
  const running = new Map<string, Promise<void>>();

  const startJobs = async () => {
    const jobs = await sql<Job[]>`
      select jobid, jobname, command, username, database from cron.job
      where active and database = current_database()`;
    for (const job of jobs) {
      if (running.has(job.jobid)) continue;
      const run = runJob(job, { sql, url, signal, log })
        .catch((error) => {
          if (!signal.aborted) {
            log(`cron job ${job.jobname ?? job.jobid}: ${error.message}`);
          }
        })
        .finally(() => running.delete(job.jobid));
      running.set(job.jobid, run);
    }
  };
  const sendRequests = async () => {
    const requests = await sql<Request[]>`
      delete from net.http_request_queue where id in
        (select id from net.http_request_queue order by id limit ${NET_BATCH})
      returning id, method, url, headers, body, timeout_milliseconds`;
    await Promise.all(
      requests.map((request) => sendRequest(request, { sql, signal, log })),
    );
    if (requests.length === 0) return;
    await sql`delete from net._http_response where created < now() - ${NET_KEPT}::text::interval`;
  };

  const loops = Promise.all([
    repeat(startJobs, { name: "cron", everyMs: cronEveryMs, signal, log }),
    repeat(sendRequests, {
      name: "pg_net",
      everyMs: NET_EVERY_MS,
      signal,
      log,
    }),
  ]);
  return {
    stop: async () => {
      controller.abort();
      await withinMs(Promise.all([loops, ...running.values()]), STOP_MS);
      await sql.end({ timeout: 1 });
    },
  };
}
