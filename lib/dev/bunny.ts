/**
 * Ring 3. A place like bunny.net Edge Scripting, for tests: an isolate in a
 * process of its own, and the CDN in front of it.
 *
 * Promise: what is known of Bunny's limits is enforced here, each with its
 * source named, and what is not known is not offered.
 *
 * @module
 */

import { builtinModules } from "node:module";
import { pathToFileURL } from "node:url";
import { LIMITS, MODULES } from "./bunny_limits.ts";
import { type Report, URL_HEADER } from "./bunny_runtime.ts";
import { type Child, startChild, withinMs } from "./child.ts";
import { usageOf } from "./process_tree.ts";
import { watchFolder } from "./watchdog.ts";

/** What to run. */
export interface BunnyOptions {
  /** The path of the script: one file. */
  readonly script: string | (() => Promise<string>);
  /** Its variables and secrets. */
  readonly env:
    | Record<string, string>
    | (() => Promise<Record<string, string>>);
  /** Modules offered beyond those which are documented. */
  readonly modules?: readonly string[];
  /** CPU time per request, for tests that cannot wait for Bunny's limit. */
  readonly cpuMs?: number;
  /** Called with each line the script writes. */
  readonly onLine?: (line: string) => void;
}

/** A script behind its CDN. */
export interface Bunny extends AsyncDisposable {
  readonly addr: { readonly port: number };
  readonly url: string;
  /** Why isolates ended before they were stopped. */
  readonly ends: readonly string[];
  /** How many isolates were started. */
  readonly starts: number;
  /** Stops it; answers on their way still leave. */
  shutdown(): Promise<void>;
  /** Stops it at once. */
  kill(): Promise<void>;
}

/** Memory of a script that never waits is measured from outside, which counts garbage too. */
const RSS_FACTOR = 2;
/** How often CPU time and memory are looked at. */
const WATCH_MS = 20;
/** "Occasional spikes above a limit are tolerated." Tries to start in time. */
const START_TRIES = 3;
/** A script that has not loaded by then never will. */
const LOAD_MS_MAX = 10_000;
/** How long answers on their way are waited for at the end. */
const CLOSE_MS = 10_000;
/** How long the CDN keeps what says nothing of it: longer than any test. */
const CACHE_MS = 2_592_000_000;

/**
 * Serves a script as Bunny would. The first request starts it.
 *
 * @param options What to run.
 * @returns The place.
 * @throws {RangeError} The variables are too many or too large.
 */
export function serveBunny(options: BunnyOptions): Bunny {
  if (typeof options.env !== "function") checkVariables(options.env);
  const ends: string[] = [];
  let starts = 0;
  let isolate: Promise<Isolate> | null = null;
  const running = () => {
    isolate ??= startIsolate(options, (reason) => {
      isolate = null;
      ends.push(reason);
    }, () => starts++).catch((error) => {
      isolate = null;
      throw error;
    });
    return isolate;
  };
  const cache = new Map<string, { until: number; answer: Response }>();

  const server = Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen: () => {} },
    async (request, { remoteAddr }) => {
      const { pathname } = new URL(request.url);
      // Bunny documentation, scripting/before-cache: "By default, edge scripts
      // run after the cache"; a pull zone's cache key leaves out the query and
      // every header by default.
      const cached = cache.get(pathname);
      if (
        request.method === "GET" && cached !== undefined &&
        cached.until > Date.now()
      ) return withHeader(cached.answer.clone(), "cdn-cache", "HIT");
      let place: Isolate;
      try {
        place = await running();
      } catch (error) {
        ends.push((error as Error).message);
        // scripting/limits: "A script that does not start in time makes the edge
        // answer 400 with an empty body."
        return new Response(null, { status: 400 });
      }
      const headers = new Headers(request.headers);
      headers.set(URL_HEADER, request.url);
      headers.set("x-forwarded-for", remoteAddr.hostname);
      let answer: Response;
      try {
        const { method, body } = request;
        answer = await place.run(() =>
          fetch(`http://127.0.0.1:${place.port}${pathname}`, {
            method,
            headers,
            body,
            redirect: "manual",
          })
        );
      } catch {
        // scripting/limits: a script over a limit "will be throttled or terminated".
        return new Response(null, { status: 500 });
      }
      const keptMs = request.method === "GET" ? cacheMs(answer) : 0;
      if (keptMs > 0) {
        const copy = answer.clone();
        cache.set(pathname, { until: Date.now() + keptMs, answer: copy });
      }
      return withHeader(answer, "cdn-cache", "MISS");
    },
  );
  const end = async (graceMs: number) => {
    const closed = server.shutdown();
    // Nothing waits for an answer that never comes.
    await withinMs(closed, graceMs);
    await (await isolate?.catch(() => null))?.stop();
    await closed;
    for (const { answer } of cache.values()) await answer.body?.cancel();
  };
  const shutdown = () => end(CLOSE_MS);
  return {
    addr: server.addr,
    url: `http://127.0.0.1:${server.addr.port}`,
    ends,
    get starts() {
      return starts;
    },
    shutdown,
    kill: () => end(0),
    [Symbol.asyncDispose]: shutdown,
  };
}

/** A running isolate. */
interface Isolate {
  readonly port: number;
  /** Runs one request, and ends the isolate when it takes too much. */
  run<T>(send: () => Promise<T>): Promise<T>;
  stop(): Promise<void>;
}

/** Starts an isolate, in as many tries as are tolerated. */
async function startIsolate(
  options: BunnyOptions,
  onEnd: (reason: string) => void,
  onStart: () => void,
): Promise<Isolate> {
  const { script } = options;
  const path = typeof script === "string" ? script : await script();
  const { env } = options;
  const variables = typeof env === "function" ? await env() : env;
  checkVariables(variables);
  const { size } = await Deno.stat(path);
  if (size > LIMITS.scriptBytes) {
    throw new RangeError("the script is too large");
  }
  for (let tries = 1;; tries++) {
    onStart();
    try {
      return await startOnce(path, { ...options, env: variables }, onEnd);
    } catch (error) {
      if (!(error instanceof LateError) || tries === START_TRIES) throw error;
    }
  }
}

/** The script did not start in time. */
class LateError extends Error {}

async function startOnce(
  path: string,
  options: BunnyOptions & { env: Record<string, string> },
  onEnd: (reason: string) => void,
): Promise<Isolate> {
  const folder = await Deno.makeTempDir({ prefix: "isolate-" });
  watchFolder(folder);
  const mark = `${crypto.randomUUID()} `;
  const reported: Partial<Record<keyof Report | string, number>> = {};
  const news = { ...Promise.withResolvers<void>() };
  const child = startChild({
    name: "the isolate",
    command: Deno.execPath(),
    args: await writeEntry(folder, {
      path,
      mark,
      variables: Object.keys(options.env),
      modules: options.modules ?? [],
    }),
    env: { ...options.env, NO_COLOR: "1" },
    cwd: folder,
    log: (line) => {
      if (!line.startsWith(mark)) return options.onLine?.(line);
      Object.assign(reported, JSON.parse(line.slice(mark.length)));
      news.resolve();
      Object.assign(news, Promise.withResolvers<void>());
    },
  });
  const stop = async () => {
    await child.kill();
    await Deno.remove(folder, { recursive: true });
  };
  const knows = async (name: string, ms: number) => {
    const until = Date.now() + ms;
    while (reported[name] === undefined && child.isRunning()) {
      const left = until - Date.now();
      if (left <= 0) return false;
      await withinMs(Promise.race([news.promise, child.ended]), left);
    }
    return reported[name] !== undefined;
  };
  try {
    if (!await knows("loading", 60_000)) {
      throw new Error(`no isolate: ${child.lastLines()}`);
    }
    const hasLoaded = await knows("loadedMs", LOAD_MS_MAX);
    if (!hasLoaded && !child.isRunning()) {
      throw new Error(`the script does not load: ${child.lastLines()}`);
    }
    if (!hasLoaded || reported.loadedMs! > LIMITS.startMs) {
      throw new LateError(`the script took over ${LIMITS.startMs} ms to start`);
    }
    if (!await knows("port", 10_000)) {
      throw new Error(`the script serves nothing: ${child.lastLines()}`);
    }
  } catch (error) {
    await stop();
    throw error;
  }
  return watch(child, {
    port: reported.port!,
    isOver: () => reported.over !== undefined,
    rssMax: reported.loading! + RSS_FACTOR * LIMITS.memoryBytes,
    cpuMs: options.cpuMs ?? LIMITS.cpuMs,
    stop,
    onEnd,
  });
}

/** Ends an isolate that takes too much. */
function watch(child: Child, options: {
  port: number;
  isOver: () => boolean;
  rssMax: number;
  cpuMs: number;
  stop: () => Promise<void>;
  onEnd: (reason: string) => void;
}): Isolate {
  const { port, isOver, rssMax, cpuMs, stop, onEnd } = options;
  // What each running request found spent; one isolate answers many at once, and
  // each is charged for all.
  const running = new Set<{ cpuMs: number }>();
  let reason: string | null = null;
  const done = (async () => {
    while (child.isRunning()) {
      const usage = await usageOf(child.pid);
      if (usage !== null) {
        if (usage.rssBytes > rssMax) reason = "memory";
        for (const request of running) {
          if (usage.cpuMs - request.cpuMs > cpuMs) reason = "cpu";
        }
        if (reason !== null) await child.kill();
      }
      await withinMs(child.ended, WATCH_MS);
    }
    if (isOver()) reason ??= "memory";
    if (reason !== "stopped") onEnd(reason ?? `crash: ${child.lastLines()}`);
  })();
  return {
    port,
    async run(send) {
      const request = { cpuMs: (await usageOf(child.pid))?.cpuMs ?? 0 };
      running.add(request);
      try {
        return await send();
      } catch (error) {
        await withinMs(done, 1_000);
        throw error;
      } finally {
        running.delete(request);
      }
    },
    async stop() {
      reason = "stopped";
      await stop();
      await done;
    },
  };
}

/** Writes the isolate's first module and its import map; returns Deno's arguments. */
async function writeEntry(
  folder: string,
  { path, mark, variables, modules }: {
    path: string;
    mark: string;
    variables: readonly string[];
    modules: readonly string[];
  },
): Promise<string[]> {
  const here = (name: string) => new URL(name, import.meta.url).href;
  const offered = [...MODULES, ...modules];
  const imports: Record<string, string> = {};
  const own: Record<string, string> = {};
  for (const name of builtinModules.map((name) => `node:${name}`)) {
    own[name] = name;
    if (offered.includes(name)) continue;
    const text = `throw new TypeError("Bunny documents no ${name}")`;
    imports[name] = `data:text/javascript,${encodeURIComponent(text)}`;
  }
  imports["node:tls"] = here("bunny_tls.ts");
  await Deno.writeTextFile(
    `${folder}/map.json`,
    JSON.stringify({ imports, scopes: { [here("./")]: own } }),
  );
  await Deno.writeTextFile(
    `${folder}/entry.js`,
    `import { runScript } from ${JSON.stringify(here("bunny_runtime.ts"))};
await runScript(() => import(${JSON.stringify(pathToFileURL(path).href)}), ${
      JSON.stringify({ mark, variables, modules })
    });
`,
  );
  return [
    "run",
    "--quiet",
    "--no-prompt",
    "--no-config",
    "--no-lock",
    "--no-remote",
    "--no-npm",
    `--import-map=${folder}/map.json`,
    // What a module may reach is decided above: permissions do not distinguish
    // fetch from plain TCP.
    "--allow-net",
    "--allow-env",
    `--v8-flags=--expose-gc,--max-heap-size=${LIMITS.memoryBytes / 1_048_576}`,
    `${folder}/entry.js`,
  ];
}

function checkVariables(env: Record<string, string>): void {
  const names = Object.keys(env);
  if (names.length > LIMITS.variables) {
    throw new RangeError(
      `${names.length} variables: Bunny takes ${LIMITS.variables}`,
    );
  }
  for (const [name, value] of Object.entries(env)) {
    if (new TextEncoder().encode(value).length > LIMITS.variableBytes) {
      throw new RangeError(`${name} is larger than Bunny takes`);
    }
  }
}

/** How long the CDN keeps an answer; 0 if it must not keep it. */
function cacheMs(answer: Response): number {
  const control = answer.headers.get("cache-control") ?? "";
  if (
    answer.status !== 200 || answer.headers.has("set-cookie") ||
    /no-store|no-cache|private/i.test(control)
  ) return 0;
  const seconds = /s-maxage=(\d+)/i.exec(control) ??
    /max-age=(\d+)/i.exec(control);
  return seconds === null ? CACHE_MS : Number(seconds[1]) * 1000;
}

function withHeader(answer: Response, name: string, value: string): Response {
  const { status, body } = answer;
  const headers = new Headers(answer.headers);
  headers.set(name, value);
  return new Response(body, { status, headers });
}
