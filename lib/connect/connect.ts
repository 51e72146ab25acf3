/**
 * Ring 3. Opens what one request needs, and closes it.
 *
 * Promise: every call to either database is counted, and none waits without
 * end.
 *
 * @module
 */

import type { Carrier } from "../chain/claim.ts";
import type { Config } from "../config/config.ts";
import { fetchWithin } from "./bounded_fetch.ts";
import { openCarrier } from "./open_carrier.ts";
import type { Log } from "../log.ts";
import { createPagePlanner } from "../plan/page.ts";
import { createPlanner } from "../plan/plan.ts";
import { type OpenDatabase, openLibsql } from "../replica/libsql.ts";
import { createReplica } from "../replica/replica.ts";
import type { Schema } from "../schema.ts";
import { createSource } from "../source/source.ts";
import { newPace, type Pace } from "../sync/batch_size.ts";
import type { Parts } from "../sync/progress.ts";

/** Bunny allows 50 sub-requests; the rest is for connecting to PostgreSQL. */
const CALLS_MAX = 45;
/** What connecting again may count as: a connection, its start, a password's proof. */
const CONNECT_CALLS = 4;
/** pg_net sends in batches: a long answer holds up everybody's webhooks. */
const WALL_MS = 8_000;
/** sqld ends a transaction after 5 s, and lets writers wait as long. */
const REPLICA_TIMEOUT_MS = 10_000;
const SOURCE_TIMEOUT_MS = 10_000;
/** More than sqld ever answers with, and little enough for a small worker. */
const ANSWER_BYTES_MAX = 16 * 1_048_576;
/** Longer than the longest call, as each claim takes it anew. */
const LEASE_SECONDS = 20;
/** A webhook that is slow is told again by the next sync. */
const ALERT_TIMEOUT_MS = 3_000;
const ALERT_ANSWER_BYTES_MAX = 65_536;

/**
 * Opens the databases, runs a flow on them, and closes them.
 *
 * @param options The settings, the schema, and where to log; the pace of the
 * worker, where it has one from before.
 * @param run The flow.
 * @returns What the flow returned.
 * @throws {SyncError} What the flow threw.
 */
export async function withParts<T>(
  options: {
    config: Config;
    schema: Schema;
    hash: string;
    log: Log;
    pace?: Pace;
  },
  run: (parts: Parts) => Promise<T>,
): Promise<T> {
  const { config, schema, hash, log, pace = newPace() } = options;
  const now = () => performance.now();
  const deadline = now() + WALL_MS;
  let calls = 0;
  const database = openDatabase(config, {
    timeoutMs: REPLICA_TIMEOUT_MS,
    onCall: () => void (calls += 1),
  });
  let connections = 0;
  const carrier = openCarrier(config, {
    timeoutMs: SOURCE_TIMEOUT_MS,
    onConnect: () => {
      if (connections++ > 0) calls += CONNECT_CALLS;
    },
  });
  const alert = async (body: string): Promise<number> => {
    calls += 1;
    const request = new Request(config.alertWebhookUrl, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body,
    });
    const { status } = await fetchWithin(request, {
      timeoutMs: ALERT_TIMEOUT_MS,
      bytesMax: ALERT_ANSWER_BYTES_MAX,
    });
    return status;
  };
  const counted: Carrier = {
    call(name, request) {
      calls += 1;
      return carrier.call(name, request);
    },
  };
  try {
    return await run({
      source: createSource(counted, {
        schemaHash: hash,
        leaseSeconds: LEASE_SECONDS,
        alerts: config.alertWebhookUrl !== "",
      }),
      replica: createReplica(database, { schema, schemaHash: hash }),
      plan: createPlanner(schema),
      planPage: createPagePlanner(schema),
      replicaMbMax: config.libsqlMaxMb,
      budget: {
        callsLeft: () => CALLS_MAX - calls,
        msLeft: () => deadline - now(),
      },
      pace,
      log,
      alert: config.alertWebhookUrl === "" ? null : alert,
      now,
      sleep: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
      uuid: () => crypto.randomUUID(),
    });
  } finally {
    database.close();
    await carrier.close();
  }
}

/**
 * Opens the libSQL database.
 *
 * @param config The settings.
 * @param options How long a call may take, in milliseconds; told of each.
 * @returns The database, to be closed at the end.
 */
export function openDatabase(
  config: Pick<Config, "libsqlUrl" | "libsqlAuthToken">,
  options: { timeoutMs: number; onCall?: () => void },
): OpenDatabase {
  const { timeoutMs, onCall } = options;
  return openLibsql({
    url: config.libsqlUrl,
    authToken: config.libsqlAuthToken,
    fetch: (request) => {
      onCall?.();
      return fetchWithin(request, { timeoutMs, bytesMax: ANSWER_BYTES_MAX });
    },
  });
}
