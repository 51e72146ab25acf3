/**
 * Ring 3. The ways to the source, and the settings each of them needs.
 *
 * `TRANSPORT` names the one that the stacks of a run take (tcp unless told), and
 * `THROUGH=isolate` has their workers run as dist.js in an isolate like Bunny's.
 *
 * @module
 */

import postgres from "postgres";
import { generate } from "selfsigned";
import { signToken } from "../../../lib/dev/jwt.ts";
import { type PostgresServer, SUPERUSER } from "../../../lib/dev/postgres.ts";
import { type Postgrest, startPostgrest } from "../../../lib/dev/postgrest.ts";
import { type Pooler, startPooler } from "./pooler.ts";

/** Every way: plain TCP, TLS from the first byte, a pooler in between, PostgREST. */
export const TRANSPORTS = ["tcp", "tls", "pooler", "rest"] as const;

/** A way to the source. */
export type Transport = typeof TRANSPORTS[number];

const named = Deno.env.get("TRANSPORT") ?? "tcp";
if (!TRANSPORTS.some((each) => each === named)) {
  throw new RangeError(`TRANSPORT must be one of ${TRANSPORTS.join(", ")}`);
}

/** The way that stacks take. */
export const TRANSPORT = named as Transport;

/** Whether their workers run in the isolate. */
export const IN_ISOLATE = Deno.env.get("THROUGH") === "isolate";

/** What those ways need that Bunny neither offers nor denies. */
export const MODULES_BESIDE: readonly string[] = /tcp|pooler/.test(TRANSPORT)
  ? ["node:net"]
  : [];

const API_KEY = "sb_publishable_test";
const JWT_SECRET = "a secret that signs the tokens of this test";
/** The role of the worker's calls. */
const ROLE = "libsql_sync_worker";

let certificate: Promise<{ cert: string; key: string }> | null = null;

/** A certificate of this run for localhost and 127.0.0.1, which is its own CA. */
export function ownCertificate(): Promise<{ cert: string; key: string }> {
  certificate ??= generate([{ name: "commonName", value: "localhost" }], {
    extensions: [
      { name: "basicConstraints", cA: true },
      {
        name: "subjectAltName",
        altNames: [
          { type: 2, value: "localhost" },
          { type: 7, ip: "127.0.0.1" },
        ],
      },
    ],
  }).then(({ cert, private: key }) => ({ cert, key }));
  return certificate;
}

const opened = new Map<string, Promise<Postgrest | Pooler>>();

/**
 * Finds the settings that reach a database by a way. What stands in between is
 * started, and kept until {@linkcode closeWays}.
 *
 * @param url The database's connection string.
 * @param transport The way.
 * @returns Variables by name, PGMQ_URL among them.
 */
export async function settingsFor(
  url: string,
  transport: Transport = TRANSPORT,
): Promise<Record<string, string>> {
  if (transport === "tcp") return { PGMQ_URL: url };
  if (transport === "tls") {
    const direct = new URL(url);
    direct.searchParams.set("sslnegotiation", "direct");
    return { PGMQ_URL: direct.href, PGMQ_CA: (await ownCertificate()).cert };
  }
  const key = `${transport} ${url}`;
  let way = opened.get(key);
  if (way === undefined) {
    way = Promise.resolve(
      transport === "pooler" ? startPooler(url) : startPostgrest({
        databaseUrl: withUser(url, "authenticator"),
        apiKey: API_KEY,
        jwtSecret: JWT_SECRET,
      }),
    );
    opened.set(key, way);
  }
  const PGMQ_URL = (await way).url;
  return transport === "pooler" ? { PGMQ_URL } : {
    PGMQ_URL,
    PGMQ_API_KEY: API_KEY,
    PGMQ_TOKEN: await workerToken(),
  };
}

/** A token of the worker's role. */
export function workerToken(
  claims: Record<string, unknown> = { role: ROLE },
): Promise<string> {
  return signToken(claims, JWT_SECRET);
}

/** Stops what stands in between. */
export async function closeWays(): Promise<void> {
  for (const way of opened.values()) await (await way)[Symbol.asyncDispose]();
  opened.clear();
}

/**
 * Lets PostgREST's login role switch to the worker's role, which may call the
 * worker's functions.
 */
export async function admitToken(
  server: PostgresServer,
  database: string,
): Promise<void> {
  const sql = postgres(server.url({ user: SUPERUSER, database }), {
    max: 1,
    onnotice: () => {},
  });
  try {
    await sql.unsafe(`
      do $$
      begin
        create role ${ROLE} nologin;
      exception when duplicate_object or unique_violation then null;
      end
      $$;
      grant ${ROLE} to authenticator;
      grant usage on schema libsql_sync to ${ROLE};
      grant execute on function libsql_sync.claim(json), libsql_sync.lease(json),
        libsql_sync.park(json), libsql_sync.release(json),
        libsql_sync.report(json), libsql_sync.request_redrive(json),
        libsql_sync.request_walk(json), libsql_sync.reset(json) to ${ROLE};
    `).simple();
  } finally {
    await sql.end({ timeout: 1 });
  }
}

function withUser(url: string, user: string): string {
  const other = new URL(url);
  other.username = user;
  return other.href;
}
