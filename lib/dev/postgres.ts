/**
 * Ring 3. A real PostgreSQL server on 127.0.0.1, from npm packages alone.
 *
 * Promise: it works as root and as a normal user, a data folder survives a
 * SIGKILL, and after `stop` or `kill` no process of it is left.
 *
 * @module
 */
import { join } from "node:path";
import postgres from "postgres";
import { type Child, freePort, startChild, waitReady } from "./child.ts";
import { installPostgres, type PostgresVersion } from "./pgsql_files.ts";
import { createDataDir, removeStalePidFile } from "./postgres_data.ts";
import { childrenOf, killAll } from "./process_tree.ts";
import { reachable, serverUser } from "./server_user.ts";

/** The password of every role of a local server that may log in. */
export const PASSWORD = "postgres";
/** The superuser, named as on Supabase. */
export const SUPERUSER = "supabase_admin";

const START_MS = 30_000;
const STOP_MS = 10_000;
const ATTEMPTS = 5;

/** A running PostgreSQL server. */
export interface PostgresServer {
  readonly port: number;
  /** The data folder in use; not the one asked for when the server's user cannot reach that. */
  readonly dataDir: string;
  /** Resolves when the server's process has ended, for any reason. */
  readonly ended: Promise<unknown>;
  /** A connection string; for role and database `postgres` by default. */
  url(options?: { user?: string; database?: string }): string;
  /** Fast shutdown: open transactions are rolled back; SIGKILL after a deadline. */
  stop(): Promise<void>;
  /** SIGKILL to every process of the server, as a crash of the machine would. */
  kill(): Promise<void>;
  /** Stops it when it runs, and starts it on the same data and port. */
  restart(): Promise<void>;
}

/** What to start. */
export interface PostgresOptions {
  /** The folder that holds the binaries, shared by servers. */
  root: string;
  /** The data; created when missing. */
  dataDir: string;
  /** 0 or missing: a free one. */
  port?: number;
  /** 17 by default. */
  version?: PostgresVersion;
  /** Certificate and key as PEM text; with them the server offers TLS. */
  tls?: { cert: string; key: string };
  /** Settings by name, as in postgresql.conf. */
  settings?: Record<string, string>;
  /** Called with each line of the server's log. */
  log?: (line: string) => void;
}

/** Whether a connection works. */
async function answers(port: number): Promise<boolean> {
  const sql = postgres({
    host: "127.0.0.1",
    port,
    user: SUPERUSER,
    password: PASSWORD,
    database: "template1",
    max: 1,
    connect_timeout: 5,
    fetch_types: false,
    onnotice: () => {},
  });
  try {
    await sql`select 1`;
    return true;
  } finally {
    await sql.end({ timeout: 1 });
  }
}

/** The settings as command line arguments. */
function settingArgs(options: PostgresOptions, port: number): string[] {
  const settings: Record<string, string> = {
    listen_addresses: "127.0.0.1",
    port: String(port),
    // A socket's path is short by law and needs a folder; TCP is all we use.
    unix_socket_directories: "",
    logging_collector: "off",
    // Something else in its place here would hide what time zones do to values.
    timezone: "UTC",
    ...(options.tls
      ? { ssl: "on", ssl_cert_file: "server.crt", ssl_key_file: "server.key" }
      : {}),
    ...options.settings,
  };
  return Object.entries(settings).flatMap((
    [name, value],
  ) => ["-c", `${name}=${value}`]);
}

/**
 * Starts PostgreSQL, with the genuine PGMQ ready to be created as an extension.
 *
 * @param options What to start.
 * @returns The server, once a connection works.
 * @throws {Error} When it ends at once, does not answer in time, or its data is
 *   another version's or in use; with its last lines.
 */
export async function startPostgres(
  options: PostgresOptions,
): Promise<PostgresServer> {
  const version = options.version ?? 17;
  const files = await installPostgres(options.root, version);
  const dataDir = reachable(options.dataDir);
  await createDataDir({
    files,
    dataDir,
    version,
    password: PASSWORD,
    superuser: SUPERUSER,
  });
  if (options.tls) await writeTls(dataDir, options.tls);

  let port = options.port || freePort();
  let child: Child;

  const startOnce = async () => {
    await removeStalePidFile(dataDir);
    child = startChild({
      name: `PostgreSQL ${version}`,
      command: join(files, "bin", "postgres"),
      args: ["-D", dataDir, ...settingArgs(options, port)],
      env: { LC_ALL: "C", PATH: "/usr/bin:/bin" },
      cwd: files,
      ...serverUser(),
      log: options.log,
    });
    await waitReady(child, () => answers(port), {
      name: `PostgreSQL ${version} on port ${port}`,
      deadlineMs: START_MS,
    });
  };
  const start = async () => {
    for (let attempt = 1;; attempt++) {
      try {
        return await startOnce();
      } catch (error) {
        const text = (error as Error).message;
        // A killed server's processes need a moment to notice; a port found free
        // may be taken by now.
        const mayHelp = text.includes("pre-existing shared memory block") ||
          (!options.port && text.includes("could not bind"));
        if (!mayHelp || attempt === ATTEMPTS) throw error;
        if (!options.port && text.includes("could not bind")) port = freePort();
        await new Promise((resolve) => setTimeout(resolve, 200 * attempt));
      }
    }
  };
  await start();

  // SIGINT is PostgreSQL's fast shutdown; SIGTERM would wait for clients to go.
  const stop = async () => {
    const processes = await childrenOf(child.pid);
    await child.stop("SIGINT", STOP_MS);
    await killAll(processes);
  };
  return {
    get port() {
      return port;
    },
    dataDir,
    get ended() {
      return child.ended;
    },
    url: ({ user = "postgres", database = "postgres" } = {}) =>
      `postgres://${user}:${PASSWORD}@127.0.0.1:${port}/${database}`,
    stop,
    kill: async () => {
      const processes = await childrenOf(child.pid);
      await child.kill();
      await killAll(processes);
    },
    restart: async () => {
      if (child.isRunning()) await stop();
      await start();
    },
  };
}

/** Puts certificate and key where the server reads them; it refuses a key that others may read. */
async function writeTls(
  dataDir: string,
  tls: { cert: string; key: string },
): Promise<void> {
  const user = serverUser();
  for (
    const [name, text] of [["server.crt", tls.cert], [
      "server.key",
      tls.key,
    ]] as const
  ) {
    const path = join(dataDir, name);
    await Deno.writeTextFile(path, text, { mode: 0o600 });
    await Deno.chmod(path, 0o600);
    if (user) await Deno.chown(path, user.uid, user.gid);
  }
}
