/**
 * Ring 3. Runs one job of the stand-in for pg_cron.
 *
 * Promise: every run is recorded, with what came of it.
 *
 * @module
 */
import postgres from "postgres";

/** A row of cron.job. */
export interface Job {
  jobid: string;
  jobname: string | null;
  command: string;
  username: string;
  database: string;
}

/** What one statement gave. */
type Result = { command: string; count: number; [index: number]: unknown };

/** Runs a job's command on a connection of its own, as the user who scheduled it. */
async function runCommand(
  job: Job,
  url: string,
  signal: AbortSignal,
): Promise<string> {
  const target = new URL(url);
  target.username = job.username;
  target.pathname = `/${job.database}`;
  const sql = postgres(target.href, {
    max: 1,
    fetch_types: false,
    connect_timeout: 5,
    onnotice: () => {},
  });
  const end = () => void sql.end({ timeout: 0 });
  signal.addEventListener("abort", end, { once: true });
  try {
    const results = await sql.unsafe(job.command).simple() as unknown as
      | Result
      | Result[];
    // Several statements give several results; the last one counts, as there.
    const result = Array.isArray(results[0])
      ? (results as Result[]).at(-1)!
      : results as Result;
    const { command, count } = result;
    return command === "SELECT"
      ? `${count} row${count === 1 ? "" : "s"}`
      : `${command} ${count}`;
  } finally {
    signal.removeEventListener("abort", end);
    await sql.end({ timeout: 1 });
  }
}

/**
 * Runs a job once and records the run.
 *
 * @param job The job.
 * @param options A connection that may write the records, the database's
 *   address, the signal that ends it, and what takes a failure.
 */
export async function runJob(
  job: Job,
  options: {
    sql: postgres.Sql;
    url: string;
    signal: AbortSignal;
    log: (line: string) => void;
  },
): Promise<void> {
  const { sql, url, signal, log } = options;
  const [run] = await sql`
    insert into cron.job_run_details
      (jobid, database, username, command, status, start_time)
    values (${job.jobid}, ${job.database}, ${job.username}, ${job.command},
      'running', clock_timestamp())
    returning runid`;
  const [status, message] = await runCommand(job, url, signal).then(
    (text) => ["succeeded", text] as const,
    (error) => ["failed", `ERROR: ${error.message}`] as const,
  );
  if (status === "failed" && !signal.aborted) {
    log(`cron job ${job.jobname ?? job.jobid}: ${message}`);
  }
  await sql`
    update cron.job_run_details set status = ${status},
      return_message = ${message}, end_time = clock_timestamp()
    where runid = ${run!.runid}`;
}
