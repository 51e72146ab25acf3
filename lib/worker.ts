/**
 * Ring 3. The worker: every flow behind its path.
 *
 * Promise: Bunny, Deno and the tests serve the same worker.
 *
 * @module
 */

import type { Config } from "./config/config.ts";
import { withParts } from "./connect/connect.ts";
import {
  describeConnections,
  tryConnections,
} from "./connect/try_connections.ts";
import { limitConcurrency } from "./http/concurrency.ts";
import { createHandler } from "./http/handler.ts";
import type { Flows } from "./http/routes.ts";
import type { Log } from "./log.ts";
import { parseSchema, type Schema, schemaHash } from "./schema.ts";
import { formatMetrics } from "./status/metrics.ts";
import { describeWorker, type WorkerStatus } from "./status/status.ts";
import { newPace } from "./sync/batch_size.ts";
import { nuke } from "./sync/nuke.ts";
import type { Parts } from "./sync/progress.ts";
import { sendAlerts } from "./sync/send_alerts.ts";
import { sync } from "./sync/sync.ts";
import { walk } from "./sync/walk.ts";

/** One request works. The others find the lease taken and end soon. */
const CONNECTIONS_MAX = 4;

/** What the worker needs from its surroundings. */
export interface WorkerOptions {
  /** Returns the settings; it is called at each request. */
  readonly config: () => Config;
  /** The value of schema.json. If it is invalid, each request answers so. */
  readonly schema: unknown;
  /** The log. */
  readonly log: Log;
  /** The time in milliseconds since 1970. */
  readonly now: () => number;
  /** The build's version, if it has one. */
  readonly version?: string;
}

/** schema.json and its hash. */
interface HashedSchema {
  readonly schema: Schema;
  readonly hash: string;
}

/**
 * Makes the function that answers requests.
 *
 * @param options The settings, the schema, the log, the clock and the version.
 * @returns Takes a request and resolves to its response.
 */
export function createWorker(
  options: WorkerOptions,
): (request: Request) => Promise<Response> {
  const { config, log, now, version } = options;
  const open = createOpener(options);
  /** Runs a flow and logs one line of what it did. */
  const run = async (
    name: string,
    settings: Config,
    flow: (parts: Parts) => Promise<object>,
  ): Promise<Record<string, unknown>> => {
    const started = performance.now();
    const result: Record<string, unknown> = { ...await open(settings, flow) };
    const ms = Math.round(performance.now() - started);
    const { tables: _, message: __, warnings: ___, ...counts } = result;
    log("info", name, { ...counts as Record<string, string>, ms });
    return result;
  };
  const walkAs =
    (kind: "backfill" | "verify"): Flows["verify"] => (settings, query) =>
      run(kind, settings, (parts) => walk(parts, { kind, ...query }));
  /** Asks the source alone, and sends the alerts that are due. */
  const look = (settings: Config, letters: boolean): Promise<WorkerStatus> =>
    open(settings, async (parts, here) => {
      const { report, due } = await parts.source.report({ letters });
      await sendAlerts(parts, due);
      return describeWorker(report, { here, version: version ?? null });
    });
  return createHandler({
    config,
    flows: {
      sync: (settings) => run("sync", settings, sync),
      nuke: (settings, query) =>
        run("nuke", settings, (parts) => nuke(parts, query)),
      backfill: walkAs("backfill"),
      verify: walkAs("verify"),
      async doctor(settings) {
        const ways = await tryConnections(settings);
        const says = describeConnections(ways);
        log("info", "doctor", { says });
        return { says, ways };
      },
      redrive: (settings, { id }) =>
        run("redrive", settings, async ({ source }) => ({
          tried: await source.requestRedrive(id ? [id] : undefined),
        })),
      status: async (settings, { letters = false }) => ({
        ...await look(settings, letters),
      }),
      metrics: async (settings) => formatMetrics(await look(settings, false)),
    },
    log,
    now,
    version,
  });
}

/** Makes the function that runs something with the databases open. */
function createOpener({ schema: value, log }: WorkerOptions) {
  const limited = limitConcurrency(CONNECTIONS_MAX);
  const pace = newPace();
  let hashed: Promise<HashedSchema> | null = null;
  return async <T>(
    config: Config,
    flow: (parts: Parts, hash: string) => Promise<T>,
  ): Promise<T> => {
    // Once, and not at the start: a schema that is invalid must be answered.
    const { schema, hash } = await (hashed ??= readSchema(value));
    return await limited(() =>
      withParts(
        { config, schema, hash, log, pace },
        (parts) => flow(parts, hash),
      )
    );
  };
}

async function readSchema(value: unknown): Promise<HashedSchema> {
  const schema = parseSchema(value);
  return { schema, hash: await schemaHash(schema) };
}
