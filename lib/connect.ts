/**
 * Ring 3. Opens what one request needs, and closes it.
 *
 * Promise: every call to either database is counted, and none waits without
 * end.
 *
 * @module
 */

import { createClient } from "@libsql/client/web";
import postgres from "postgres";
import type { Carrier } from "./claim.ts";
import type { Config } from "./config.ts";
import { SyncError } from "./errors.ts";
import type { Log } from "./log.ts";
import { createPagePlanner } from "./page.ts";
import { createPlanner } from "./plan.ts";
import { connectionOptions } from "./postgres_socket.ts";
import { completePostgresUrl } from "./postgres_url.ts";
import { createReplica } from "./replica.ts";
import { type Schema, schemaHash } from "./schema.ts";
import { createSource } from "./source.ts";
import { createPostgresCarrier } from "./source_postgres.ts";
import type { Parts } from "./progress.ts";

/** Bunny allows 50 sub-requests; connecting to PostgreSQL may count as some. */
const CALLS_MAX = 45;
/** pg_net sends in batches: a long answer holds up everybody's webhooks. */
const WALL_MS = 8_000;
/** sqld ends a transaction after 5 s, and lets writers wait as long. */
const REPLICA_TIMEOUT_MS = 10_000;
const SOURCE_TIMEOUT_MS = 10_000;
/** More than sqld ever answers with, and little enough for a small worker. */
const ANSWER_BYTES_MAX = 16 * 1_048_576;
/** One message and a page of one row, each escaped at its worst. */
const SOURCE_ANSWER_BYTES_MAX = 64 * 1_048_576;
/** Longer than the longest call, as each claim takes it anew. */
const LEASE_SECONDS = 20;

/**
 * Opens the databases, runs a flow on them, and closes them.
 *
 * @param options The settings, the schema, and where to log.
 * @param run The flow.
 * @returns What the flow returned.
 * @throws {SyncError} What the flow threw.
 */
export async function withParts<T>(
  options: { config: Config; schema: Schema; log: Log },
  run: (parts: Parts) => Promise<T>,
): Promise<T> {
  const { config, schema, log } = options;
  const now = () => performance.now();
  const deadline = now() + WALL_MS;
  let calls = 0;
  const url = completePostgresUrl(config.pgmqUrl);
  const sql = usable(
    "PGMQ_URL",
    () =>
      postgres(url, {
        max: 1,
        prepare: false,
        fetch_types: false,
        connect_timeout: SOURCE_TIMEOUT_MS / 1000,
        onnotice: () => {},
        ...connectionOptions(url, { answerBytesMax: SOURCE_ANSWER_BYTES_MAX }),
      }),
  );
  const client = usable("LIBSQL_URL", () =>
    createClient({
      url: config.libsqlUrl,
      authToken: config.libsqlAuthToken,
      intMode: "number",
      fetch: (request: Request) => {
        calls += 1;
        return fetchWithin(REPLICA_TIMEOUT_MS, request);
      },
    }));
  const carrier = createPostgresCarrier(sql, { timeoutMs: SOURCE_TIMEOUT_MS });
  const counted: Carrier = {
    call(name, request) {
      calls += 1;
      return carrier.call(name, request);
    },
  };
  try {
    const hash = await schemaHash(schema);
    return await run({
      source: createSource(counted, {
        schemaHash: hash,
        leaseSeconds: LEASE_SECONDS,
      }),
      replica: createReplica(client, { schema, schemaHash: hash }),
      plan: createPlanner(schema),
      planPage: createPagePlanner(schema),
      replicaMbMax: config.libsqlMaxMb,
      budget: {
        callsLeft: () => CALLS_MAX - calls,
        msLeft: () => deadline - now(),
      },
      log,
      now,
      sleep: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
      uuid: () => crypto.randomUUID(),
    });
  } finally {
    client.close();
    await sql.end({ timeout: 1 });
  }
}

/** Makes a client; its words may show the setting, so they are not passed on. */
function usable<T>(setting: string, make: () => T): T {
  try {
    return make();
  } catch (cause) {
    throw new SyncError(
      "config_invalid",
      `Cannot use the settings: ${setting} has a part that its client refuses; check its path and its query.`,
      { cause },
    );
  }
}

/** Fetches an answer with its body, or gives up. */
async function fetchWithin(
  timeoutMs: number,
  request: Request,
): Promise<Response> {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), timeoutMs);
  try {
    const response = await fetch(request, {
      signal: abort.signal,
      // libSQL has none; where one leads is not where rows should go.
      redirect: "manual",
    });
    return new Response(await readBody(response), {
      status: response.status,
      headers: response.headers,
    });
  } finally {
    clearTimeout(timer);
  }
}

/** Reads a body, and no more of it than an answer may have; null where a status has none. */
async function readBody(response: Response): Promise<Blob | null> {
  if (response.body === null) return null;
  const chunks: Uint8Array<ArrayBuffer>[] = [];
  let bytes = 0;
  // Leaving the loop cancels the rest.
  for await (const chunk of response.body) {
    bytes += chunk.byteLength;
    if (bytes > ANSWER_BYTES_MAX) {
      throw new RangeError("the answer is too large");
    }
    chunks.push(chunk);
  }
  return new Blob(chunks);
}
