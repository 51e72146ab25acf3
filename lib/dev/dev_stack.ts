/**
 * Ring 3. Starts the parts of `deno task dev` in their order.
 *
 * Promise: each part that has started is handed to `onStart` before the next
 * one starts.
 *
 * @module
 */
import { join, relative, resolve } from "node:path";
import postgres from "postgres";
import type { Flags, Ports } from "./dev_settings.ts";
import { startPostgres, SUPERUSER } from "./postgres.ts";
import { fillSample, startTraffic } from "./sample.ts";
import { reachable } from "./server_user.ts";
import { serveSides } from "./sides.ts";
import { startSqld } from "./sqld.ts";
import {
  createWorkerLogin,
  migrate,
  prepareDatabase,
  putSecret,
  WORKER_LOGIN,
} from "./supabase.ts";
import { startTicker } from "./ticker.ts";
import { startWorker } from "./worker_process.ts";
import schema from "../../schema.json" with { type: "json" };

/** The servers' binaries; the data as well, unless DEV_FOLDER names another folder. */
const ROOT = join(import.meta.dirname!, "../../.dev");
/** Where the data is kept. */
const folderOf = () => resolve(Deno.env.get("DEV_FOLDER") || ROOT);
const SIGNATURE = "dev-signature";
const SEED = 1;
const ROWS = 4_000;
const CRON_EVERY_MS = 2_000;
const TRAFFIC_EVERY_MS = 500;

/** How it is started. */
export interface DevOptions {
  flags: Flags;
  ports: Ports;
  print: (line: string) => void;
  /** Looked at between the steps: no further part is started once it is aborted. */
  signal: AbortSignal;
  /** Takes the stop of each part that has started. */
  onStart: (stop: () => Promise<void>) => void;
  /** Called when a part ends, whether asked to or not. */
  onCrash: (name: string) => void;
}

/** What runs. */
export interface Dev {
  readonly pgUrl: string;
  readonly libsqlUrl: string;
  readonly workerUrl: string;
  readonly signature: string;
  /** The page with both sides. */
  readonly sidesUrl: string;
  readonly cronEveryMs: number;
  readonly folder: string;
}

/** Removes what earlier runs left, but for the binaries. */
async function forget(): Promise<void> {
  for (
    const folder of [
      reachable(join(folderOf(), "postgres")),
      join(folderOf(), "libsql"),
    ]
  ) {
    await Deno.remove(folder, { recursive: true }).catch((error) => {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    });
  }
}

/** A log file of a part, begun anew. */
async function openLog(name: string): Promise<(line: string) => void> {
  const file = await Deno.open(join(folderOf(), name), {
    create: true,
    write: true,
    truncate: true,
  });
  const encoder = new TextEncoder();
  return (line) => void file.writeSync(encoder.encode(line + "\n"));
}

/** Makes the database, its tables, the migration, and rows once the triggers are there. */
async function fillDatabase(
  server: Awaited<ReturnType<typeof startPostgres>>,
  options: DevOptions,
): Promise<void> {
  await prepareDatabase(server, { database: "postgres" });
  const sql = postgres(server.url(), {
    max: 1,
    fetch_types: false,
    onnotice: () => {},
  });
  try {
    await sql.unsafe(
      await Deno.readTextFile(new URL("sample.sql", import.meta.url)),
    ).simple();
    await migrate(server.url());
    await createWorkerLogin(sql);
    await putSecret(sql, {
      name: "libsql_sync_url",
      value: `http://127.0.0.1:${options.ports.worker}/sync`,
    });
    await putSecret(sql, {
      name: "libsql_webhook_signature",
      value: SIGNATURE,
    });
    const rows = await fillSample(sql, { seed: SEED, rows: ROWS });
    if (rows > 0) options.print(`sample: ${rows} rows in PostgreSQL`);
  } finally {
    await sql.end({ timeout: 5 });
  }
}

/**
 * Starts PostgreSQL, sqld, the worker, the ticker and the traffic.
 *
 * @param options How.
 * @returns How to reach the parts.
 * @throws {Error} When a part does not start, or the signal was aborted meanwhile.
 */
export async function startDev(options: DevOptions): Promise<Dev> {
  const { flags, ports, print, signal, onStart, onCrash } = options;
  await Deno.mkdir(folderOf(), { recursive: true });
  if (flags.fresh) await forget();

  const pgLog = await openLog("postgres.log");
  const server = await startPostgres({
    root: ROOT,
    dataDir: join(folderOf(), "postgres"),
    port: ports.postgres,
    // After a power cut the data may be made again with --fresh.
    settings: { synchronous_commit: "off" },
    log: (line) => {
      pgLog(line);
      if (/ PANIC: /.test(line)) print(`PostgreSQL: ${line}`);
    },
  });
  onStart(server.stop);
  void server.ended.then(() =>
    onCrash(`PostgreSQL (its log: ${join(folderOf(), "postgres.log")})`)
  );
  print(`PostgreSQL 17 on port ${server.port}`);

  signal.throwIfAborted();
  await fillDatabase(server, options);

  signal.throwIfAborted();
  const sqld = await startSqld({
    dataDir: join(folderOf(), "libsql"),
    port: ports.libsql,
    log: await openLog("libsql.log"),
  });
  onStart(sqld.stop);
  void sqld.ended.then(() =>
    onCrash(`sqld (its log: ${join(folderOf(), "libsql.log")})`)
  );
  print(`sqld on port ${sqld.port}`);

  signal.throwIfAborted();
  const worker = await startWorker({
    port: ports.worker,
    libsqlUrl: sqld.url,
    pgmqUrl: server.url({ user: WORKER_LOGIN }),
    signature: SIGNATURE,
    log: print,
  });
  onStart(() => worker.stop("SIGTERM", 5_000));
  void worker.ended.then(() => onCrash("the worker"));
  print(`worker on port ${ports.worker}`);

  signal.throwIfAborted();
  const log = (line: string) => void (signal.aborted || print(line));
  const ticker = startTicker({
    url: server.url({ user: SUPERUSER }),
    cronEveryMs: CRON_EVERY_MS,
    log,
  });
  onStart(ticker.stop);
  const sides = serveSides({
    pgUrl: server.url(),
    libsqlUrl: sqld.url,
    schema,
  });
  onStart(sides.stop);
  if (!flags.once) {
    const traffic = startTraffic({
      url: server.url(),
      seed: Date.now(),
      everyMs: TRAFFIC_EVERY_MS,
      log,
    });
    onStart(traffic.stop);
  }
  return {
    pgUrl: server.url(),
    libsqlUrl: sqld.url,
    workerUrl: `http://127.0.0.1:${ports.worker}`,
    signature: SIGNATURE,
    sidesUrl: sides.url,
    cronEveryMs: CRON_EVERY_MS,
    folder: relative(Deno.cwd(), folderOf()) || folderOf(),
  };
}
