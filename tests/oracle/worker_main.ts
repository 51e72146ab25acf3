/**
 * Ring 3. The worker as main.ts puts it together, with a schema from outside.
 *
 * @module
 */

import { parseConfig } from "../../lib/config/config.ts";
import { createLog } from "../../lib/log.ts";
import { createWorker } from "../../lib/worker.ts";

const config = () => parseConfig((name) => Deno.env.get(name));
const handler = createWorker({
  config,
  schema: JSON.parse(Deno.env.get("ORACLE_SCHEMA")!),
  log: createLog(console.log, Date.now),
  now: Date.now,
});
Deno.serve({ port: config().port, hostname: "127.0.0.1" }, handler);
