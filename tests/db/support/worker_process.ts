/**
 * Ring 3. A worker in a process of its own, to be killed.
 *
 * @module
 */

import { fileURLToPath } from "node:url";
import {
  type Child,
  freePort,
  startChild,
  waitReady,
} from "../../../lib/dev/child.ts";

const DEADLINE_MS = 20_000;

/** A worker, main.ts or its bundle, in a process of its own until disposed. */
export class WorkerProcess implements AsyncDisposable {
  private constructor(
    readonly port: number,
    readonly process: Child,
  ) {}

  static async start(
    file: string,
    env: Record<string, string>,
  ): Promise<WorkerProcess> {
    const port = freePort();
    // The bundle needs nothing beside it: no import map, no packages.
    const config = file.endsWith("main.ts") ? [] : ["--no-config"];
    const process = startChild({
      name: "the worker",
      command: Deno.execPath(),
      args: [
        "run",
        "--quiet",
        ...config,
        "--allow-net",
        "--allow-env",
        "--allow-sys",
        file,
      ],
      env: { ...Deno.env.toObject(), ...env, PORT: String(port) },
      cwd: fileURLToPath(new URL("../../../", import.meta.url)),
      log: (line, stream) => {
        if (stream === "stderr") console.error(line);
      },
    });
    await waitReady(process, async () => {
      const answer = await fetch(`http://127.0.0.1:${port}/health`);
      return await answer.text() === "OK";
    }, { name: "the worker", deadlineMs: DEADLINE_MS });
    return new WorkerProcess(port, process);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.process.kill();
  }
}
