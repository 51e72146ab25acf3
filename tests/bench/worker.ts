/**
 * Ring 3. Our contender: the worker in a process of its own, called as the
 * cron does.
 *
 * @module
 */

import { fileURLToPath } from "node:url";
import {
  type Child,
  freePort,
  startChild,
  waitReady,
} from "../../lib/dev/child.ts";

/** The secret of every worker here. */
export const SIGNATURE = "bench-webhook-signature";
const START_MS = 30_000;
const STOP_MS = 10_000;
const MAIN = fileURLToPath(new URL("../../main.ts", import.meta.url));
const STOPPABLE = fileURLToPath(new URL("worker_main.ts", import.meta.url));

/** The worker's answer to a request. */
export type Answer = Record<string, unknown>;

/** A worker. */
export interface Worker extends AsyncDisposable {
  /** Its address, without a path. */
  readonly url: string;
  /** Posts to a path; the answer must be a success. */
  post(path: string): Promise<Answer>;
  /** CPU seconds its process used so far. */
  cpuSeconds(): Promise<number>;
  /** Ends it in good order; only one with flags for V8 can. */
  stop(): Promise<void>;
}

/**
 * Starts a worker.
 *
 * @param options Its databases; flags for V8, and where its lines go.
 * @returns The worker, once it answers.
 */
export async function startWorker(
  options: {
    libsqlUrl: string;
    pgmqUrl: string;
    v8Flags?: string[];
    log?: (line: string) => void;
  },
): Promise<Worker> {
  const { libsqlUrl, pgmqUrl, v8Flags = [], log } = options;
  const port = freePort();
  const child = startChild({
    name: "the worker",
    command: Deno.execPath(),
    args: [
      "run",
      "--quiet",
      "--no-prompt",
      ...(v8Flags.length > 0 ? [`--v8-flags=${v8Flags.join(",")}`] : []),
      "--allow-net",
      "--allow-env",
      "--allow-sys",
      v8Flags.length > 0 ? STOPPABLE : MAIN,
    ],
    env: {
      ...Deno.env.toObject(),
      LIBSQL_URL: libsqlUrl,
      LIBSQL_AUTH_TOKEN: "bench",
      PGMQ_URL: pgmqUrl,
      WEBHOOK_SIGNATURE: SIGNATURE,
      PORT: String(port),
      NO_COLOR: "1",
    },
    cwd: fileURLToPath(new URL("../../", import.meta.url)),
    log,
  });
  const url = `http://127.0.0.1:${port}`;
  await waitReady(child, async () => {
    const response = await fetch(`${url}/health`);
    await response.body?.cancel();
    return response.ok;
  }, { name: "the worker", deadlineMs: START_MS });
  return {
    url,
    async post(path) {
      const response = await fetch(url + path, {
        method: "POST",
        headers: { "x-webhook-signature": SIGNATURE },
      });
      const answer: Answer = await response.json();
      if (!response.ok || answer.success !== true) {
        throw new Error(
          `The worker failed at ${path}: ${answer.error}: ${answer.message}`,
        );
      }
      return answer;
    },
    cpuSeconds: () => cpuSecondsOf(child),
    stop: () => child.stop("SIGTERM", STOP_MS),
    [Symbol.asyncDispose]: () => child.kill(),
  };
}

/** Linux counts in hundredths of a second, wherever it runs. */
const TICKS = 100;

/** CPU seconds of a process, in user and system mode, all its threads. */
async function cpuSecondsOf(child: Child): Promise<number> {
  if (Deno.build.os === "linux") {
    const stat = await Deno.readTextFile(`/proc/${child.pid}/stat`);
    // The second field is the program's name, which may hold blanks and brackets.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return (Number(fields[11]) + Number(fields[12])) / TICKS;
  }
  const { stdout } = await new Deno.Command("ps", {
    args: ["-p", String(child.pid), "-o", "time="],
  }).output();
  return new TextDecoder().decode(stdout).trim().split(":").reduce(
    (seconds, part) => seconds * 60 + Number(part),
    0,
  );
}

/**
 * Syncs until the queue is empty.
 *
 * @param worker The worker.
 * @returns How many messages were dealt with.
 */
export async function drainOurs(worker: Worker): Promise<number> {
  let drained = 0;
  for (;;) {
    const { processed, queued, drained: isDrained, parked } = await worker.post(
      "/sync",
    );
    drained += Number(processed);
    if (parked !== 0) throw new Error("changes were set aside");
    if (queued === 0 && isDrained === true) return drained;
    if (processed === 0) throw new Error("a sync brought nothing");
  }
}

/**
 * Posts to /backfill or /verify until it is done.
 *
 * @param worker The worker.
 * @param path The path.
 * @returns Differences found in its last part.
 */
export async function finishWalk(
  worker: Worker,
  path: string,
): Promise<number> {
  for (;;) {
    const { done, differences } = await worker.post(path);
    if (done === true) return Number(differences);
  }
}
