/**
 * Ring 3. Tries the connections to both databases, from wherever it runs.
 *
 * Promise: nothing is changed, no connection is weaker than the settings allow,
 * and the result holds no secret.
 *
 * @module
 */

import type { LibsqlSettings } from "../config/replica.ts";
import type { PgmqSettings } from "../config/source.ts";
import { SyncError } from "../errors.ts";
import { parsePostgresUrl, type PostgresAddress } from "../postgres/url.ts";
import { bare } from "../replica/sql.ts";
import { fetchWithin } from "./bounded_fetch.ts";
import { openDatabase } from "./connect.ts";
import { openCarrier } from "./open_carrier.ts";

/** A connection that was tried. */
export interface TriedConnection {
  /** Its name. */
  readonly way: string;
  /** Whether the worker would use it with these settings. */
  readonly chosen: boolean;
  /** Whether it works. */
  readonly works: boolean;
  /** How long it took, or what went wrong. */
  readonly found: string;
}

/** Where to connect to. libSQL is not tried if its address is empty. */
export type ConnectionSettings =
  & PgmqSettings
  & Omit<LibsqlSettings, "libsqlMaxMb">;

/** A connection to try. */
interface Candidate {
  readonly way: string;
  readonly chosen: boolean;
  readonly run: () => Promise<void>;
}

const REQUESTED = "TLS by request";
const PLAIN = "plain TCP";
/** Longer than connecting takes from the other side of the world. */
const TRY_MS = 5_000;
const ANSWER_BYTES_MAX = 1_048_576;

/**
 * Tries the connections to the source that the settings allow, and the one to
 * libSQL; all at once, for a few seconds at most.
 *
 * @param settings The settings.
 * @returns The result of each.
 */
export async function tryConnections(
  settings: ConnectionSettings,
): Promise<TriedConnection[]> {
  const tried = await Promise.all(
    [
      ...sourceCandidates(settings),
      ...replicaCandidates(settings),
      ...supabaseCandidates(settings),
    ].map(attempt),
  );
  const plain = tried.find(({ way, works }) => way === PLAIN && works);
  const requested = tried.find(({ way }) => way === REQUESTED);
  // A server that refuses the requested TLS is spoken to over plain TCP, if the
  // settings allow it.
  if (!requested?.chosen || requested.works || plain === undefined) {
    return tried;
  }
  return tried.map((each) => ({
    ...each,
    chosen: each === plain || each.chosen && each !== requested,
  }));
}

/**
 * Says in one line what works.
 *
 * @param tried The connections.
 * @returns The line.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(
 *   describeConnections([
 *     { way: "PostgREST", chosen: true, works: true, found: "20 ms" },
 *     { way: "libSQL", chosen: true, works: false, found: "HTTP 401" },
 *   ]),
 *   "PostgREST works (chosen) | libSQL does not (chosen): HTTP 401",
 * );
 * ```
 */
export function describeConnections(
  tried: readonly TriedConnection[],
): string {
  return tried.map(({ way, chosen, works, found }) => {
    const mark = chosen ? " (chosen)" : "";
    return works ? `${way} works${mark}` : `${way} does not${mark}: ${found}`;
  }).join(" | ");
}

/**
 * Finds the Supabase project behind a connection string's host and user.
 *
 * @param address The address.
 * @returns The project's name in addresses; null if it is not Supabase's.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(projectOf({ host: "db.abc.supabase.co", user: "postgres" }), "abc");
 * assertEquals(projectOf({ host: "aws-0-eu-central-1.pooler.supabase.com", user: "worker.abc" }), "abc");
 * assertEquals(projectOf({ host: "localhost", user: "worker.abc" }), null);
 * ```
 */
export function projectOf(
  { host, user }: Pick<PostgresAddress, "host" | "user">,
): string | null {
  return /^db\.([a-z0-9]+)\.supabase\.co$/.exec(host)?.[1] ??
    (host.endsWith(".pooler.supabase.com")
      ? /\.([a-z0-9]+)$/.exec(user)?.[1] ?? null
      : null);
}

function isRest({ pgmqUrl }: PgmqSettings): boolean {
  return /^https?:/.test(pgmqUrl);
}

/** The connections to the source, none of them weaker than what is set. */
function sourceCandidates(settings: PgmqSettings): Candidate[] {
  const { pgmqUrl, pgmqCa } = settings;
  const candidate = (way: string, chosen: boolean, variant: PgmqSettings) => ({
    way,
    chosen,
    run: () => callSource(variant),
  });
  if (isRest(settings)) return [candidate("PostgREST", true, settings)];
  const { direct, tls, verify } = parsePostgresUrl(pgmqUrl, {
    hasCa: pgmqCa !== "",
  });
  const variant = (parameters: Record<string, string>): PgmqSettings => {
    const url = new URL(pgmqUrl);
    for (const name of ["sslmode", "ssl", "sslnegotiation"]) {
      url.searchParams.delete(name);
    }
    for (const [name, value] of Object.entries(parameters)) {
      url.searchParams.set(name, value);
    }
    return { ...settings, pgmqUrl: url.href };
  };
  const sslmode = verify ? "verify-full" : "require";
  return [
    candidate(
      "TLS from the first byte",
      direct,
      direct ? settings : variant({ sslnegotiation: "direct" }),
    ),
    candidate(REQUESTED, !direct && tls !== "disable", variant({ sslmode })),
    ...(tls === "require" ? [] : [
      candidate(PLAIN, tls === "disable", variant({ sslmode: "disable" })),
    ]),
  ];
}

function replicaCandidates(settings: ConnectionSettings): Candidate[] {
  return settings.libsqlUrl === "" ? [] : [{
    way: "libSQL",
    chosen: true,
    run: () => callReplica(settings),
  }];
}

/** PostgREST of the same Supabase project, which may be set up instead. */
function supabaseCandidates(settings: PgmqSettings): Candidate[] {
  const project = isRest(settings)
    ? null
    : projectOf(parsePostgresUrl(settings.pgmqUrl));
  return project === null ? [] : [{
    way: "PostgREST (not set up)",
    chosen: false,
    run: () => callUrl(`https://${project}.supabase.co/rest/v1/`),
  }];
}

/** Tries one connection. */
async function attempt(
  { way, chosen, run }: Candidate,
): Promise<TriedConnection> {
  const startedAt = performance.now();
  try {
    await run();
    const ms = Math.round(performance.now() - startedAt);
    return { way, chosen, works: true, found: `${ms} ms` };
  } catch (error) {
    const found = error instanceof SyncError ? error.message : "no answer";
    return { way, chosen, works: false, found };
  }
}

/** Releases a lease that does not exist: it needs every right and changes nothing. */
async function callSource(settings: PgmqSettings): Promise<void> {
  const carrier = openCarrier(settings, { timeoutMs: TRY_MS });
  try {
    await carrier.call("release", { lease: "" });
  } finally {
    await carrier.close();
  }
}

async function callReplica(settings: ConnectionSettings): Promise<void> {
  const database = openDatabase(settings, { timeoutMs: TRY_MS });
  try {
    await database.execute(bare("SELECT 1"));
  } catch (error) {
    const { status } = (error as { cause?: { status?: unknown } }).cause ?? {};
    throw typeof status === "number"
      ? new SyncError("replica_unreachable", `HTTP ${status}`)
      : error;
  } finally {
    database.close();
  }
}

/** Any answer will do, also a refusal: there is no token yet. */
async function callUrl(url: string): Promise<void> {
  const response = await fetchWithin(new Request(url), {
    timeoutMs: TRY_MS,
    bytesMax: ANSWER_BYTES_MAX,
  });
  if (response.status >= 500) {
    throw new SyncError("source_unreachable", `HTTP ${response.status}`);
  }
}
