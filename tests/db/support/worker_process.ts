/**
 * Ring 3. A worker in a process of its own, to be killed.
 *
 * @module
 */

import { assertEquals } from "@std/assert";

const DEADLINE_MS = 20_000;

/** A worker, main.ts or its bundle, in a process of its own until disposed. */
export class WorkerProcess implements AsyncDisposable {
  private constructor(
    readonly port: number,
    readonly process: Deno.ChildProcess,
  ) {}

  static async start(
    file: string,
    env: Record<string, string>,
  ): Promise<WorkerProcess> {
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const port = listener.addr.port;
    listener.close();
    // The bundle needs nothing beside it: no import map, no packages.
    const config = file.endsWith("main.ts") ? [] : ["--no-config"];
    const process = new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "--quiet",
        ...config,
        "--allow-net",
        "--allow-env",
        "--allow-sys",
        file,
      ],
      env: { ...env, PORT: String(port) },
      stdout: "null",
      stderr: "inherit",
    }).spawn();
    const worker = new WorkerProcess(port, process);
    for (const end = Date.now() + DEADLINE_MS; Date.now() < end;) {
      const answer = await fetch(`http://127.0.0.1:${port}/health`).catch(() =>
        null
      );
      if (answer !== null) {
        assertEquals(await answer.text(), "OK");
        return worker;
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    await worker[Symbol.asyncDispose]();
    throw new Error("the worker did not answer /health in time");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.process.kill("SIGKILL");
    } catch {
      // It ended by itself.
    }
    await this.process.status;
  }
}
