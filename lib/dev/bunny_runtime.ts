/**
 * Ring 3. The inside of an isolate like Bunny's: what a script finds there, and
 * nothing else. It runs in a process of its own, started by bunny.ts.
 *
 * Source: Bunny documentation, scripting/standalone (serve: one argument),
 * scripting/runtime (waitUntil), scripting/environment-variables (Deno.env and
 * node:process), scripting/https-ssl-certificates (Deno.createHttpClient).
 *
 * @module
 */

import process from "node:process";
import { asRequest, LIMITS, MODULES, spend } from "./bunny_limits.ts";
import tls from "./bunny_tls.ts";

/** The header with the address that the client asked for. */
export const URL_HEADER = "x-isolate-url";

/** What the process reports to the one that started it, in a line of its own. */
export type Report =
  /** Before the script: the memory in use. */
  | { loading: number }
  /** The script has loaded, which took so long. */
  | { loadedMs: number }
  /** The script serves here. */
  | { port: number }
  /** The memory that is really in use, which is too much. */
  | { over: number };

/** How often memory is looked at. */
const WATCH_MS = 25;

type Handler = (request: Request) => Response | Promise<Response>;

/**
 * Turns this process into an isolate, and runs the script.
 *
 * @param load Imports the script.
 * @param options What each line for bunny.ts begins with; the names of the
 * script's variables; modules offered beyond those which are documented.
 */
export async function runScript(
  load: () => Promise<unknown>,
  options: {
    mark: string;
    variables: readonly string[];
    modules: readonly string[];
  },
): Promise<void> {
  const {
    serve,
    env,
    errors,
    version,
    build,
    createHttpClient,
    memoryUsage,
    exit,
  } = Deno;
  const { log, error } = console;
  const report = (found: Report) => log(options.mark + JSON.stringify(found));
  let handler: Handler | null = null;
  for (const name of Object.keys(env.toObject())) {
    if (!options.variables.includes(name)) env.delete(name);
  }
  // Documented: an unhandled rejection does not stop a script.
  addEventListener("unhandledrejection", (event) => {
    event.preventDefault();
    error("unhandled rejection", event.reason);
  });

  const realFetch = fetch;
  const getBuiltinModule = process.getBuiltinModule;
  const offered = [...MODULES, ...options.modules];
  Object.assign(process, {
    getBuiltinModule: (id: string) => {
      const name = id.startsWith("node:") ? id : `node:${id}`;
      if (!offered.includes(name)) return undefined;
      return name === "node:tls" ? tls : getBuiltinModule(name);
    },
  });
  const globals: Record<string, unknown> = {
    Deno: {
      env: {
        get: (name: string) => env.get(name),
        has: (name: string) => env.has(name),
        toObject: () => env.toObject(),
      },
      version,
      build,
      createHttpClient,
      // Deno's own node:fs looks for them here.
      errors,
    },
    fetch: async (...args: Parameters<typeof fetch>) => {
      spend();
      return await realFetch(...args);
    },
    Bunny: {
      v1: {
        serve: (given: Handler) => {
          if (handler !== null) throw new TypeError("served already");
          handler = given;
        },
        // The process stays anyway, and nothing else handles a rejection.
        waitUntil: (promise: Promise<unknown>) => {
          promise.catch((reason) => error("waitUntil", reason));
        },
      },
    },
  };
  for (const [name, value] of Object.entries(globals)) {
    Object.defineProperty(globalThis, name, {
      value,
      configurable: true,
      writable: true,
    });
  }

  // What is garbage still is not in use: Deno's own sockets leave 64 KB behind
  // with each message, and V8 takes its time.
  const { gc } = globalThis as unknown as { gc: () => void };
  Reflect.deleteProperty(globalThis, "gc");
  const inUse = () => {
    const { heapUsed, external } = memoryUsage();
    return heapUsed + external;
  };
  setInterval(() => {
    if (inUse() <= LIMITS.memoryBytes) return;
    gc();
    if (inUse() <= LIMITS.memoryBytes) return;
    report({ over: inUse() });
    exit();
  }, WATCH_MS);
  report({ loading: memoryUsage().rss });
  const started = performance.now();
  await load().catch((reason) => {
    error(reason);
    exit(1);
  });
  report({ loadedMs: performance.now() - started });
  if (handler === null) exit(1);
  serve({
    port: 0,
    hostname: "127.0.0.1",
    onListen: ({ port }) => report({ port }),
    onError: (reason) => {
      error("the handler failed", reason);
      return new Response(null, { status: 500 });
    },
  }, (request) => {
    const headers = new Headers(request.headers);
    const url = headers.get(URL_HEADER) ?? request.url;
    headers.delete(URL_HEADER);
    const { method, body } = request;
    const given = new Request(url, { method, headers, body });
    return asRequest(() => handler!(given));
  });
}
