/**
 * Ring 3. A child process whose output is read line by line, and which can be
 * ended for certain.
 *
 * Promise: after `stop` or `kill` has returned, the process is gone; it does not
 * outlive this one either.
 *
 * @module
 */
import { watchProcess } from "./watchdog.ts";

/** How many of its last lines are kept for error messages. */
const LINES_KEPT = 20;
/** How long the pipes of a dead process are still read. */
const DRAIN_MS = 1_000;

/** What to start. */
export interface ChildOptions {
  /** The program's name in messages. */
  readonly name: string;
  readonly command: string;
  readonly args: string[];
  /** The whole environment: nothing is inherited. */
  readonly env: Record<string, string>;
  readonly cwd: string;
  readonly uid?: number;
  readonly gid?: number;
  /** Called with each line the process writes. */
  readonly log?: (line: string, stream: "stdout" | "stderr") => void;
}

/** A running, or ended, child process. */
export interface Child {
  readonly pid: number;
  /** Resolves when the process has ended. */
  readonly ended: Promise<Deno.CommandStatus>;
  /** Whether it still runs. */
  isRunning(): boolean;
  /** Its last lines, for an error message. */
  lastLines(): string;
  /** Sends a signal, and SIGKILL when it still runs after the deadline. */
  stop(signal: Deno.Signal, deadlineMs: number): Promise<void>;
  /** Sends SIGKILL and waits. */
  kill(): Promise<void>;
}

/** Calls back with each line of a stream. */
async function readLines(
  stream: ReadableStream<Uint8Array>,
  onLine: (line: string) => void,
): Promise<void> {
  let rest = "";
  for await (const text of stream.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) onLine(line);
  }
  if (rest) onLine(rest);
}

/**
 * Starts a process in a session of its own, so that Ctrl-C in the terminal
 * reaches us alone and we end the parts in their order.
 *
 * @param options What to start.
 * @returns The process.
 */
export function startChild(options: ChildOptions): Child {
  const { name: _, log, ...rest } = options;
  const process = new Deno.Command(rest.command, {
    ...rest,
    clearEnv: true,
    detached: true,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const unwatch = watchProcess(process.pid);

  let isRunning = true;
  const last: string[] = [];
  const onLine = (stream: "stdout" | "stderr") => (line: string) => {
    last.push(line);
    if (last.length > LINES_KEPT) last.shift();
    log?.(line, stream);
  };
  const output = Promise.allSettled([
    readLines(process.stdout, onLine("stdout")),
    readLines(process.stderr, onLine("stderr")),
  ]);
  const ended = process.status.then(async (status) => {
    isRunning = false;
    unwatch();
    // Grandchildren may hold the pipes open a little longer than the process lives.
    await withinMs(output, DRAIN_MS);
    return status;
  });

  const send = (signal: Deno.Signal) => {
    try {
      if (isRunning) process.kill(signal);
    } catch (error) {
      // It ended a moment ago.
      if (
        isRunning &&
        !(error instanceof TypeError || error instanceof Deno.errors.NotFound)
      ) {
        throw error;
      }
    }
  };
  const kill = async () => {
    send("SIGKILL");
    await ended;
  };
  const stop = async (signal: Deno.Signal, deadlineMs: number) => {
    send(signal);
    if (!await withinMs(ended, deadlineMs)) await kill();
  };
  return {
    pid: process.pid,
    ended,
    isRunning: () => isRunning,
    lastLines: () => last.join("\n"),
    stop,
    kill,
  };
}

/**
 * Waits for a promise, but not for ever.
 *
 * @param promise What to wait for.
 * @param ms The longest wait.
 * @returns Whether it resolved in time.
 */
export async function withinMs(
  promise: Promise<unknown>,
  ms: number,
): Promise<boolean> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const timeout = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), ms);
  });
  try {
    return await Promise.race([promise.then(() => true), timeout]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Waits until a started process is ready.
 *
 * @param child The process.
 * @param isReady Asked again and again; a throw counts as no.
 * @param options The process's name and the longest wait.
 * @throws {Error} When the process ended, or was not ready in time, with its last lines.
 */
export async function waitReady(
  child: Child,
  isReady: () => Promise<boolean>,
  options: { name: string; deadlineMs: number },
): Promise<void> {
  const until = Date.now() + options.deadlineMs;
  while (child.isRunning() && Date.now() < until) {
    if (await isReady().catch(() => false)) return;
    await withinMs(child.ended, 50);
  }
  const what = child.isRunning()
    ? `it did not answer within ${options.deadlineMs / 1000} s`
    : `it ended with code ${(await child.ended).code}`;
  await child.kill();
  throw new Error(
    `Cannot start ${options.name}: ${what}. Its last lines:\n${child.lastLines()}`,
  );
}

/** Below every system's range of ports for outgoing connections, which come and go. */
/** fetch() refuses this one of them: https://fetch.spec.whatwg.org/#port-blocking. */
const NO_FETCH = 10_080;
const PORTS = { from: 10_000, to: 32_000 };
const PORTS_TRIED = 100;

/**
 * Finds a TCP port on 127.0.0.1 that is free right now and unlikely to be taken
 * before the caller's server takes it: processes that start servers at the
 * same time seldom draw the same one.
 *
 * @returns The port, drawn at random.
 * @throws {Error} When none of 100 was free.
 */
export function freePort(): number {
  for (let tried = 0; tried < PORTS_TRIED; tried++) {
    const [random] = crypto.getRandomValues(new Uint32Array(1));
    const port = PORTS.from + random! % (PORTS.to - PORTS.from);
    if (port === NO_FETCH) continue;
    try {
      Deno.listen({ hostname: "127.0.0.1", port }).close();
      return port;
    } catch (error) {
      if (!(error instanceof Deno.errors.AddrInUse)) throw error;
    }
  }
  throw new Error(
    `No free port among ${PORTS_TRIED} drawn from ${PORTS.from} to ${PORTS.to}.`,
  );
}
