/**
 * Ring 3. Opens what one request needs, and closes it.
 *
 * Promise: every call to either database is counted and bounded in time.
 *
 * @module
 */

import type { Carrier } from "../chain/claim.ts";
import type { Config } from "../config/config.ts";
import type { Log } from "../log.ts";
import { createPagePlanner } from "../plan/page.ts";
import { createPlanner } from "../plan/plan.ts";
import { type OpenDatabase, openLibsql } from "../replica/libsql.ts";
import { createReplica } from "../replica/replica.ts";
import type { Schema } from "../schema.ts";
import { createSource } from "../source/source.ts";
import { newPace, type Pace } from "../sync/batch_size.ts";
import type { Parts } from "../sync/progress.ts";
import { fetchWithin } from "./bounded_fetch.ts";
import { openCarrier } from "./open_carrier.ts";

/** Bunny allows 50 sub-requests; the others are for connecting to PostgreSQL. */
const CALLS_MAX = 45;
/** What connecting again may count as: the connection, its start, the password's proof. */
const CONNECT_CALLS = 4;
/** pg_net sends in batches: a long answer holds up all other webhooks. */
const WALL_MS = 8_000;
/** sqld ends a transaction after 5 s, and lets a writer wait for as long. */
const REPLICA_TIMEOUT_MS = 10_000;
const SOURCE_TIMEOUT_MS = 10_000;
/** More than sqld ever answers, and small enough for a worker's memory. */
const ANSWER_BYTES_MAX = 16 * 1_048_576;
/** Longer than the longest call: each claim renews the lease. */
const LEASE_SECONDS = 20;
/** If the webhook is slower, the next sync sends again. */
const ALERT_TIMEOUT_MS = 3_000;
const ALERT_ANSWER_BYTES_MAX = 65_536;

/** What the parts are made of. */
export interface PartsOptions {
  /** The settings. */
  readonly config: Config;
  /** schema.json. */
  readonly schema: Schema;
  /** Its hash. */
  readonly hash: string;
  /** The log. */
  readonly log: Log;
  /** What the worker has learned of the replica's speed. Default: nothing. */
  readonly pace?: Pace;
}

/**
 * Opens the databases, runs a flow on them, and closes them.
 *
 * @param options The settings, the schema, the log and the pace.
 * @param run The flow.
 * @returns What the flow returned.
 * @throws {SyncError} What the flow threw.
 */
export async function withParts<T>(
  options: PartsOptions,
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
  const alert = (body: string) => {
    calls += 1;
    return postAlert(config.alertWebhookUrl, body);
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

/** Posts an alert; returns the HTTP status. */
async function postAlert(url: string, body: string): Promise<number> {
  const request = new Request(url, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body,
  });
  const { status } = await fetchWithin(request, {
    timeoutMs: ALERT_TIMEOUT_MS,
    bytesMax: ALERT_ANSWER_BYTES_MAX,
  });
  return status;
}

/**
 * Opens the libSQL database.
 *
 * @param config The settings.
 * @param options How long a call may take, in milliseconds; what to call for
 * each.
 * @returns The database; close it at the end.
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
