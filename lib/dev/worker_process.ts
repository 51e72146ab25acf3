/**
 * Ring 3. The worker as a child process, and its log lines for human eyes.
 *
 * Promise: it runs main.ts itself with the permissions a deployment has and no
 * more; warnings and errors are never swallowed.
 *
 * @module
 */
import { fileURLToPath } from "node:url";
import { type Child, startChild, waitReady } from "./child.ts";

const START_MS = 30_000;

/** The worker's settings. */
export interface WorkerOptions {
  port: number;
  libsqlUrl: string;
  pgmqUrl: string;
  signature: string;
  /** Called with each line worth reading. */
  log: (line: string) => void;
}

/** A count with its noun. */
const counted = (count: number, noun: string) =>
  `${count} ${noun}${count === 1 ? "" : "s"}`;

/**
 * Turns one line of the worker's log into one for a person.
 *
 * @param line A line of the worker's output.
 * @returns The text; null for a sync that found nothing to do.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const line = '{"level":"info","event":"sync","processed":3,"queued":0,"ms":9}';
 * assertEquals(describeLine(line), "sync: 3 messages in 9 ms, 0 left");
 * ```
 */
export function describeLine(line: string): string | null {
  let fields: Record<string, unknown>;
  try {
    fields = JSON.parse(line);
    if (typeof fields !== "object" || fields === null) return line;
  } catch {
    return line || null;
  }
  const { level, event, processed, parked, queued, ms } = fields;
  if (level !== "info" && level !== undefined) {
    const rest = Object.entries(fields)
      .filter(([name]) => !["time", "level", "event"].includes(name))
      .map(([name, value]) => `${name} ${value}`);
    return [`${level}: ${event}`, ...rest].join(", ");
  }
  if (event !== "sync" || !processed && !parked) return null;
  const left = fields.queued_exact === false ? `${queued} or more` : queued;
  return `sync: ${counted(Number(processed), "message")} in ${
    Math.round(Number(ms))
  } ms, ` +
    `${left} left${parked ? `, ${parked} parked` : ""}`;
}

/** Whether the worker answers. */
async function isHealthy(port: number): Promise<boolean> {
  const response = await fetch(`http://127.0.0.1:${port}/health`, {
    signal: AbortSignal.timeout(2_000),
  });
  await response.body?.cancel();
  return response.ok;
}

/**
 * Starts the worker.
 *
 * @param options Its settings.
 * @returns Its process, once /health answers.
 * @throws {Error} When it ends at once or does not answer in time; with its last lines.
 */
export async function startWorker(options: WorkerOptions): Promise<Child> {
  const main = new URL("../../main.ts", import.meta.url);
  const child = startChild({
    name: "the worker",
    command: Deno.execPath(),
    args: [
      "run",
      "--quiet",
      "--no-prompt",
      "--allow-net",
      "--allow-env",
      fileURLToPath(main),
    ],
    env: {
      ...Deno.env.toObject(),
      LIBSQL_URL: options.libsqlUrl,
      // sqld without keys takes any token.
      LIBSQL_AUTH_TOKEN: "dev",
      PGMQ_URL: options.pgmqUrl,
      WEBHOOK_SIGNATURE: options.signature,
      PORT: String(options.port),
      NO_COLOR: "1",
    },
    cwd: fileURLToPath(new URL("../../", import.meta.url)),
    log: (line) => {
      const text = describeLine(line);
      if (text !== null) options.log(text);
    },
  });
  await waitReady(child, () => isHealthy(options.port), {
    name: `the worker on port ${options.port}`,
    deadlineMs: START_MS,
  });
  return child;
}
