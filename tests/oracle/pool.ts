/**
 * Ring 3. Workers in processes of their own, killed and replaced.
 *
 * @module
 */

import { fileURLToPath } from "node:url";
import { serveBunny } from "../../lib/dev/bunny.ts";
import { freePort, startChild, waitReady } from "../../lib/dev/child.ts";
import { bundleWorker } from "../db/support/bundle.ts";
import { type RawSchema, SECRET, settingsOf } from "../db/support/stack.ts";
import { IN_ISOLATE, MODULES_BESIDE } from "../db/support/transport.ts";

const START_MS = 40_000;
const POST_MS = 25_000;
const LINES_KEPT = 400;

interface Running {
  readonly port: number;
  kill(): Promise<void>;
}

/** A number of workers on the same databases. */
export class Pool implements AsyncDisposable {
  readonly #slots: (Running | null)[];
  /** The workers' latest log lines. */
  readonly lines: string[] = [];

  constructor(
    private readonly options: {
      size: number;
      libsqlUrl: string;
      pgmqUrl: string;
      /** What the workers that start from now on are built with. */
      schema: RawSchema;
    },
  ) {
    this.#slots = Array(options.size).fill(null);
  }

  /** A deployment: workers that run keep what they have. */
  set schema(schema: RawSchema) {
    this.options.schema = schema;
  }

  get size(): number {
    return this.#slots.length;
  }

  /** Starts the workers that do not run. */
  async start(): Promise<void> {
    await Promise.all(this.#slots.map(async (running, slot) => {
      if (running === null) this.#slots[slot] = await this.#spawn();
    }));
  }

  #note(line: string): void {
    this.lines.push(line);
    if (this.lines.length > LINES_KEPT) this.lines.shift();
  }

  async #spawn(): Promise<Running> {
    const { schema } = this.options;
    const settings = await settingsOf(this.options);
    const log = (line: string) => this.#note(line);
    if (IN_ISOLATE) {
      const bunny = serveBunny({
        script: () => bundleWorker(schema),
        env: settings,
        modules: MODULES_BESIDE,
        onLine: log,
      });
      const answer = await fetch(`${bunny.url}/health`);
      if (await answer.text() !== "OK") {
        throw new Error(`a worker does not start: ${bunny.ends}`);
      }
      return { port: bunny.addr.port, kill: () => bunny.kill() };
    }
    const port = freePort();
    const child = startChild({
      name: "a worker",
      command: Deno.execPath(),
      args: [
        "run",
        "--quiet",
        "--no-prompt",
        "--allow-net",
        "--allow-env",
        "--allow-sys",
        fileURLToPath(new URL("./worker_main.ts", import.meta.url)),
      ],
      env: {
        ...Deno.env.toObject(),
        ...settings,
        PORT: String(port),
        ORACLE_SCHEMA: JSON.stringify(schema),
        NO_COLOR: "1",
      },
      cwd: fileURLToPath(new URL("../../", import.meta.url)),
      log,
    });
    await waitReady(child, async () => {
      const answer = await fetch(`http://127.0.0.1:${port}/health`, {
        signal: AbortSignal.timeout(2_000),
      });
      return await answer.text() === "OK";
    }, { name: `a worker on port ${port}`, deadlineMs: START_MS });
    return { port, kill: () => child.kill() };
  }

  /** SIGKILL; it stays dead until `start`. */
  async kill(slot: number): Promise<void> {
    const running = this.#slots[slot];
    this.#slots[slot] = null;
    await running?.kill();
  }

  async killAll(): Promise<void> {
    await Promise.all(this.#slots.map((_, slot) => this.kill(slot)));
  }

  /** A worker's answer to a signed POST; null where there was none. */
  async post(
    slot: number,
    path: string,
  ): Promise<{ status: number; body: Record<string, unknown> } | null> {
    const running = this.#slots[slot];
    if (!running) return null;
    try {
      const response = await fetch(`http://127.0.0.1:${running.port}${path}`, {
        method: "POST",
        headers: { "x-webhook-signature": SECRET },
        signal: AbortSignal.timeout(POST_MS),
      });
      return { status: response.status, body: await response.json() };
    } catch {
      return null;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.killAll();
  }
}
