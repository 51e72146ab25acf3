/**
 * Ring 3. The worker's entry: it listens on Bunny if it runs there, else on Deno.
 *
 * @module
 */

import process from "node:process";
import { parseConfig } from "./lib/config/config.ts";
import { createLog } from "./lib/log.ts";
import { RELEASE } from "./lib/version.ts";
import { createWorker } from "./lib/worker.ts";
import schema from "./schema.json" with { type: "json" };

declare const Bunny: {
  v1: { serve(handler: (request: Request) => Promise<Response>): void };
};

/** `deno task deploy` replaces this text by the build's hash. */
const BUILD = "unstamped-build";

const log = createLog(console.log, Date.now);
const config = () => parseConfig((name) => process.env[name]);

const handler = createWorker({
  config,
  schema,
  log,
  now: Date.now,
  version: `${RELEASE}+${BUILD}`,
});

if ("Bunny" in globalThis) Bunny.v1.serve(handler);
else {
  const onListen = ({ port }: Deno.NetAddr) =>
    log("info", "listening", { port });
  Deno.serve({ port: portOf(), onListen }, handler);
}

/** The local port. If other settings are malformed, requests must still be answered. */
function portOf(): number {
  try {
    return config().port;
  } catch {
    const port = Number(process.env.PORT);
    return Number.isInteger(port) && port > 0 && port < 65536 ? port : 8000;
  }
}
