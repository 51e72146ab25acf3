/**
 * Ring 3. Which processes a server started, and what a process is.
 *
 * Promise: only processes asked for by number are touched.
 *
 * @module
 */

/** How long killed processes may take to go. */
const GONE_MS = 5_000;

/** Runs ps, on systems without /proc. */
async function ps(args: string[]): Promise<string> {
  const { stdout } = await new Deno.Command("ps", { args, stderr: "null" })
    .output();
  return new TextDecoder().decode(stdout);
}

/** The parent of a process by /proc, or null when it is gone. */
async function parentOf(pid: string): Promise<number | null> {
  const stat = await Deno.readTextFile(`/proc/${pid}/stat`).catch(() => null);
  // The second field is the program's name, which may hold blanks and brackets.
  const fields = stat?.slice(stat.lastIndexOf(")") + 2).split(" ");
  return fields?.[1] === undefined ? null : Number(fields[1]);
}

/**
 * Lists the processes a process has started.
 *
 * @param pid The parent's id.
 * @returns The ids of its children that live now.
 */
export async function childrenOf(pid: number): Promise<number[]> {
  if (Deno.build.os !== "linux") {
    return (await ps(["-axo", "pid=,ppid="])).split("\n")
      .map((line) => line.trim().split(/\s+/).map(Number))
      .filter(([, parent]) => parent === pid)
      .map(([child]) => child!);
  }
  const found: number[] = [];
  for await (const { name } of Deno.readDir("/proc")) {
    if (/^\d+$/.test(name) && await parentOf(name) === pid) {
      found.push(Number(name));
    }
  }
  return found;
}

/**
 * Reads what a process runs.
 *
 * @param pid Its id.
 * @returns Its command line, or null when there is no such process.
 */
export async function commandOf(pid: number): Promise<string | null> {
  if (Deno.build.os !== "linux") {
    return (await ps(["-p", String(pid), "-o", "command="])).trim() || null;
  }
  const text = await Deno.readTextFile(`/proc/${pid}/cmdline`).catch(() =>
    null
  );
  return text === null ? null : text.replaceAll("\0", " ").trim() || null;
}

/** What a process uses. */
export interface Usage {
  /** CPU time since it began. */
  readonly cpuMs: number;
  /** Memory that is really there. */
  readonly rssBytes: number;
}

/**
 * Reads what a process uses.
 *
 * @param pid Its id.
 * @returns CPU time and memory, or null when there is no such process.
 */
export async function usageOf(pid: number): Promise<Usage | null> {
  if (Deno.build.os !== "linux") {
    const text = await ps(["-p", String(pid), "-o", "rss=,time="]);
    const [rss, time] = text.trim().split(/\s+/);
    if (time === undefined) return null;
    const seconds = time.split(":").reduce(
      (sum, part) => sum * 60 + Number(part),
      0,
    );
    return { cpuMs: seconds * 1000, rssBytes: Number(rss) * 1024 };
  }
  const stat = await Deno.readTextFile(`/proc/${pid}/stat`).catch(() => null);
  const status = await Deno.readTextFile(`/proc/${pid}/status`).catch(() => "");
  const rss = /^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1];
  if (stat === null || rss === undefined) return null;
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  // Linux counts user and system time in hundredths of a second.
  const cpuMs = (Number(fields[11]) + Number(fields[12])) * 10;
  return { cpuMs, rssBytes: Number(rss) * 1024 };
}

/**
 * Sends SIGKILL to processes and waits until they are gone.
 *
 * @param pids Their ids; those gone already are skipped.
 * @throws {Error} When one is still there after five seconds.
 */
export async function killAll(pids: number[]): Promise<void> {
  const until = Date.now() + GONE_MS;
  for (const pid of pids) {
    while (await commandOf(pid) !== null) {
      try {
        Deno.kill(pid, "SIGKILL");
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) throw error;
      }
      if (Date.now() > until) {
        throw new Error(`Cannot end process ${pid}: it is still there`);
      }
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
}
