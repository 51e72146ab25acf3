/**
 * Ring 3. The worker: every flow behind its path.
 *
 * Promise: whatever serves it, Bunny, Deno or a test, serves the same.
 *
 * @module
 */

import type { Config } from "./config/config.ts";
import { withParts } from "./connect/connect.ts";
import { describeWays, tryWays } from "./connect/try_connections.ts";
import { limitConcurrency } from "./http/concurrency.ts";
import { createHandler } from "./http/handler.ts";
import type { Log } from "./log.ts";
import { parseSchema, schemaHash } from "./schema.ts";
import { formatMetrics } from "./status/metrics.ts";
import { describeWorker, type WorkerStatus } from "./status/status.ts";
import { newPace } from "./sync/batch_size.ts";
import { nuke } from "./sync/nuke.ts";
import type { Parts } from "./sync/progress.ts";
import { tell } from "./sync/send_alerts.ts";
import { sync } from "./sync/sync.ts";
import { walk } from "./sync/walk.ts";

/** One works; the others only ask, find it at work, and are soon gone. */
const CONNECTIONS_MAX = 4;

/**
 * Makes the function that answers requests.
 *
 * @param options The settings, read at each request; schema.json's value;
 * where to log; the time in milliseconds since 1970; the build's version,
 * where it has one.
 * @returns Takes a request and resolves to its response.
 */
export function createWorker(options: {
  config: () => Config;
  schema: unknown;
  log: Log;
  now: () => number;
  version?: string;
}): (request: Request) => Promise<Response> {
  const { config, log, now, version } = options;
  const limited = limitConcurrency(CONNECTIONS_MAX);
  const pace = newPace();
  const run = async <T extends object>(
    name: string,
    settings: Config,
    flow: (parts: Parts) => Promise<T>,
  ): Promise<Record<string, unknown>> => {
    const schema = parseSchema(options.schema);
    const started = performance.now();
    const made: object = await limited(() =>
      withParts({ config: settings, schema, log, pace }, flow)
    );
    const result: Record<string, unknown> = { ...made };
    const ms = Math.round(performance.now() - started);
    const { tables: _, message: __, warnings: ___, ...counts } = result;
    log("info", name, { ...counts as Record<string, string>, ms });
    return result;
  };
  /** Asks the source alone; whoever looks has the webhook told what is due. */
  const look = async (
    settings: Config,
    { letters = false }: { letters?: boolean } = {},
  ): Promise<WorkerStatus> => {
    const schema = parseSchema(options.schema);
    const here = await schemaHash(schema);
    return await limited(() =>
      withParts({ config: settings, schema, log }, async (parts) => {
        const { report, due } = await parts.source.report({ letters });
        await tell(parts, due);
        return describeWorker(report, { here, version: version ?? null });
      })
    );
  };
  return createHandler({
    config,
    flows: {
      sync: (settings) => run("sync", settings, sync),
      nuke: (settings, { refill = true, epoch }) =>
        run("nuke", settings, (parts) => nuke(parts, { refill, epoch })),
      backfill: (settings, query) =>
        run(
          "backfill",
          settings,
          (parts) => walk(parts, { kind: "backfill", ...query }),
        ),
      verify: (settings, query) =>
        run(
          "verify",
          settings,
          (parts) => walk(parts, { kind: "verify", ...query }),
        ),
      async doctor(settings) {
        const ways = await tryWays(settings);
        const says = describeWays(ways);
        log("info", "doctor", { says });
        return { says, ways };
      },
      redrive: (settings, { id }) =>
        run("redrive", settings, async ({ source }) => ({
          tried: await source.requestRedrive(id ? [id] : undefined),
        })),
      status: async (settings, query) => ({ ...await look(settings, query) }),
      metrics: async (settings) => formatMetrics(await look(settings)),
    },
    log,
    now,
    version,
  });
}
