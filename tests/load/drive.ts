/**
 * Ring 3. Drives a worker in a process of its own, as the cron would, and
 * measures what each request took.
 *
 * @module
 */

import { assert } from "@std/assert";
import { fileURLToPath } from "node:url";
import { countSource, throughPort } from "../bench/proxies.ts";
import { SECRET, type Stack } from "../db/support/stack.ts";
import { WorkerProcess } from "../db/support/worker_process.ts";
import { openGate } from "./gate.ts";

/** Calls to either database in one request: design.md, section 8. */
export const CALLS_MAX = 45;
/** An argument of several rows. */
const ROWS_BYTES_MAX = 2_000_000;
/** A value of libSQL. */
const VALUE_BYTES_MAX = 5_000_000;
/** A Bunny isolate has 128 MB: V8 collects accordingly, and ends beyond it. */
const HEAP_MB = 128;
const MB = 1_048_576;

/** What a drain took. */
export interface Measured {
  readonly requests: number;
  readonly processed: number;
  /** The answer to the first request. */
  readonly first: Record<string, unknown>;
  /** Calls to both databases in one request, at most. */
  readonly callsMax: number;
  /** The longest request. */
  readonly wallMsMax: number;
  readonly totalMs: number;
  /** The worker's process, all of Deno in it. */
  readonly peakMb: number;
  /** The largest argument of several rows, and of any kind. */
  readonly rowsMb: number;
  readonly argumentMb: number;
}

/** A worker between its databases, with what passes counted. */
export interface Driven {
  /** Posts to a path: its status and its answer. */
  post(
    path: string,
  ): Promise<{ status: number; body: Record<string, unknown> }>;
  /** Calls to both databases so far. */
  calls(): { source: number; replica: number; connections: number };
  /** Requests to libSQL under way at once, at most. */
  atOnceMax(): number;
  /** Posts to /sync until nothing is left; fails where a bound is passed. */
  drain(): Promise<Measured>;
}

/**
 * Runs something with a worker process.
 *
 * @param stack The databases.
 * @param options How long libSQL is held back.
 * @param run What to do.
 * @returns What it returned.
 */
export async function withWorker<T>(
  stack: Stack,
  options: { delayMs?: number },
  run: (driven: Driven) => Promise<T>,
): Promise<T> {
  await using gate = openGate(stack.sqld.url, options);
  await using source = countSource(stack.server.port);
  await using worker = await WorkerProcess.start(
    fileURLToPath(new URL("../../main.ts", import.meta.url)),
    {
      LIBSQL_URL: gate.url,
      LIBSQL_AUTH_TOKEN: "load",
      PGMQ_URL: `${throughPort(stack.workerUrl, source.port)}?sslmode=disable`,
      WEBHOOK_SIGNATURE: SECRET,
      DENO_V8_FLAGS: `--max-old-space-size=${HEAP_MB}`,
    },
  );
  const post: Driven["post"] = async (path) => {
    const response = await fetch(`http://127.0.0.1:${worker.port}${path}`, {
      method: "POST",
      headers: { "x-webhook-signature": SECRET },
    });
    return { status: response.status, body: await response.json() };
  };
  const calls = () => ({
    source: source.calls,
    replica: gate.requests,
    connections: source.connections,
  });
  return await run({
    post,
    calls,
    atOnceMax: () => gate.atOnceMax,
    async drain() {
      const begun = performance.now();
      let [requests, processed, callsMax, wallMsMax] = [0, 0, 0, 0];
      let first: Record<string, unknown> | undefined;
      for (let last = -1;;) {
        const before = calls();
        const started = performance.now();
        const { status, body } = await post("/sync");
        wallMsMax = Math.max(wallMsMax, performance.now() - started);
        assert(status === 200, `${status} ${JSON.stringify(body)}`);
        first ??= body;
        const after = calls();
        callsMax = Math.max(
          callsMax,
          after.source + after.replica - before.source - before.replica,
        );
        requests += 1;
        processed += Number(body.processed);
        if (body.queued === 0 && body.drained === true) break;
        assert(
          processed > last,
          `a request brought nothing: ${JSON.stringify(body)}`,
        );
        last = processed;
      }
      const pid = worker.process.pid;
      const text = await Deno.readTextFile(`/proc/${pid}/status`);
      assert(callsMax <= CALLS_MAX, `${callsMax} calls in one request`);
      assert(gate.rowsBytesMax <= ROWS_BYTES_MAX, `${gate.rowsBytesMax} bytes`);
      assert(gate.argumentBytesMax <= VALUE_BYTES_MAX);
      return {
        requests,
        processed,
        first,
        callsMax,
        wallMsMax,
        totalMs: performance.now() - begun,
        peakMb: Number(/VmHWM:\s+(\d+)/.exec(text)![1]) / 1024,
        rowsMb: gate.rowsBytesMax / MB,
        argumentMb: gate.argumentBytesMax / MB,
      };
    },
  });
}
