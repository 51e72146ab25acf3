/**
 * Ring 3. The worker's entry: Bunny's server where there is one, else Deno's.
 *
 * @module
 */

import process from "node:process";
import { parseConfig } from "./lib/config.ts";
import { withParts } from "./lib/connect.ts";
import { createHandler } from "./lib/handler.ts";
import { createLog } from "./lib/log.ts";
import { nuke } from "./lib/nuke.ts";
import { parseSchema } from "./lib/schema.ts";
import { sync } from "./lib/sync.ts";
import schemaJson from "./schema.json" with { type: "json" };

declare const Bunny: {
  v1: { serve(handler: (request: Request) => Promise<Response>): void };
};

const log = createLog(console.log, Date.now);
const config = () => parseConfig((name) => process.env[name]);

const handler = createHandler({
  config,
  flows: {
    sync: async (config) => {
      const schema = parseSchema(schemaJson);
      const started = performance.now();
      const result = await withParts({ config, schema, log }, sync);
      const ms = Math.round(performance.now() - started);
      log("info", "sync", { ...result, ms });
      return { ...result };
    },
    nuke: async (config) => {
      const schema = parseSchema(schemaJson);
      return await withParts({ config, schema, log }, nuke);
    },
  },
  log,
  now: Date.now,
});

if ("Bunny" in globalThis) Bunny.v1.serve(handler);
else {
  const onListen = ({ port }: Deno.NetAddr) =>
    log("info", "listening", { port });
  Deno.serve({ port: portOf(), onListen }, handler);
}

/** The local port. Where settings are malformed, requests are told so there. */
function portOf(): number {
  try {
    return config().port;
  } catch {
    const port = Number(process.env.PORT);
    return Number.isInteger(port) && port > 0 && port < 65536 ? port : 8000;
  }
}
