/**
 * Ring 3. The watchdog: a small process that outlives this one and ends what
 * this one has started.
 *
 * Promise: however this process ends, kill -9 included, no process that was
 * handed to `watchProcess` and no folder that was handed to `watchFolder` stays.
 * Only a kill -9 in the instant in which a server starts can leave that one.
 *
 * @module
 */
import { fileURLToPath } from "node:url";

const SCRIPT = fileURLToPath(new URL("watchdog.sh", import.meta.url));

/** Writes lines to the watchdog, in their order; null before it is needed. */
let writer: WritableStreamDefaultWriter<Uint8Array> | null = null;

/** Starts the watchdog in a session of its own, so that no Ctrl-C reaches it. */
function start(): WritableStreamDefaultWriter<Uint8Array> {
  const process = new Deno.Command("/bin/sh", {
    args: [SCRIPT],
    clearEnv: true,
    env: { PATH: "/usr/bin:/bin" },
    cwd: "/",
    detached: true,
    stdin: "piped",
    stdout: "null",
    stderr: "null",
  }).spawn();
  // It waits for this process to end, so this process does not wait for it.
  process.unref();
  return process.stdin.getWriter();
}

function write(line: string): void {
  writer ??= start();
  // A watchdog that was killed takes nothing more: the program goes on.
  writer.write(new TextEncoder().encode(`${line}\n`)).catch(() => {});
}

/**
 * Has a process ended when this one is gone: by SIGINT, and by SIGKILL when it
 * still runs five seconds later.
 *
 * @param pid Its id; it leads a process group, as each `detached` child does.
 * @returns To be called once the process has ended, as its id is given again.
 */
export function watchProcess(pid: number): () => void {
  write(`process ${pid}`);
  return () => write(`ended ${pid}`);
}

/**
 * Has a folder removed when this process is gone, after its processes.
 *
 * @param path Its absolute path. Removing it earlier is fine.
 */
export function watchFolder(path: string): void {
  write(`folder ${path}`);
}
