/**
 * Ring 3. Tries the ways to both databases, from wherever this runs.
 *
 * Promise: nothing is changed, no way is weaker than the settings allow, and
 * what is told holds no secret.
 *
 * @module
 */

import type { Config } from "../config/config.ts";
import { fetchWithin } from "./bounded_fetch.ts";
import { openDatabase } from "./connect.ts";
import { openCarrier, type Way } from "./open_carrier.ts";
import { SyncError } from "../errors.ts";
import { parsePostgresUrl, type PostgresAddress } from "../postgres/url.ts";
import { bare } from "../replica/sql.ts";

/** A way that was tried. */
export interface Tried {
  readonly way: string;
  /** Whether the settings take it. */
  readonly chosen: boolean;
  readonly works: boolean;
  /** How long it took, or what went wrong. */
  readonly found: string;
}

/** What the ways lead to; libSQL is left out where its address is empty. */
export type Ends =
  & Way
  & Pick<Config, "libsqlUrl" | "libsqlAuthToken">;

const REQUESTED = "TLS by request";
const PLAIN = "plain TCP";
/** Longer than connecting takes from the other side of the world. */
const TRY_MS = 5_000;

/**
 * Tries the ways to the source that the settings allow, and the way to libSQL;
 * all at once, for some seconds at most.
 *
 * @param config The settings.
 * @returns What came of each.
 */
export async function tryWays(config: Ends): Promise<Tried[]> {
  const tries = [
    ...waysOf(config).map(({ name, chosen, way }) =>
      attempt({ way: name, chosen }, () => callSource(way))
    ),
  ];
  if (config.libsqlUrl !== "") {
    const way = { way: "libSQL", chosen: true };
    tries.push(attempt(way, () => callReplica(config)));
  }
  const project = /^https?:/.test(config.pgmqUrl)
    ? null
    : projectOf(parsePostgresUrl(config.pgmqUrl));
  if (project !== null) {
    const url = `https://${project}.supabase.co/rest/v1/`;
    const way = { way: "PostgREST (not set up)", chosen: false };
    tries.push(attempt(way, () => answerOf(url)));
  }
  const tried = await Promise.all(tries);
  const plain = tried.find(({ way, works }) => way === PLAIN && works);
  const requested = tried.find(({ way }) => way === REQUESTED);
  // Where TLS is taken if it is offered, it is plain TCP where it is not.
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
 * @param tried The ways.
 * @returns The line.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(
 *   describeWays([
 *     { way: "PostgREST", chosen: true, works: true, found: "20 ms" },
 *     { way: "libSQL", chosen: true, works: false, found: "HTTP 401" },
 *   ]),
 *   "PostgREST works (chosen) | libSQL does not (chosen): HTTP 401",
 * );
 * ```
 */
export function describeWays(tried: readonly Tried[]): string {
  return tried.map(({ way, chosen, works, found }) => {
    const mark = chosen ? " (chosen)" : "";
    return works ? `${way} works${mark}` : `${way} does not${mark}: ${found}`;
  }).join(" | ");
}

/**
 * Finds the Supabase project behind a connection string's host and user.
 *
 * @param address The address.
 * @returns The project's name in addresses; null where there is none.
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

/** The ways to the source, none of them weaker than what is set. */
function waysOf(
  config: Way,
): { name: string; chosen: boolean; way: Way }[] {
  const { pgmqUrl, pgmqApiKey, pgmqToken, pgmqCa } = config;
  if (/^https?:/.test(pgmqUrl)) {
    return [{ name: "PostgREST", chosen: true, way: config }];
  }
  const { direct, tls, verify } = parsePostgresUrl(pgmqUrl, {
    hasCa: pgmqCa !== "",
  });
  const variant = (parameters: Record<string, string>): Way => {
    const url = new URL(pgmqUrl);
    for (const name of ["sslmode", "ssl", "sslnegotiation"]) {
      url.searchParams.delete(name);
    }
    for (const [name, value] of Object.entries(parameters)) {
      url.searchParams.set(name, value);
    }
    return { pgmqUrl: url.href, pgmqApiKey, pgmqToken, pgmqCa };
  };
  const sslmode = verify ? "verify-full" : "require";
  const ways = [
    {
      name: "TLS from the first byte",
      chosen: direct,
      way: direct ? config : variant({ sslnegotiation: "direct" }),
    },
    {
      name: REQUESTED,
      chosen: !direct && tls !== "disable",
      way: variant({ sslmode }),
    },
  ];
  if (tls !== "require") {
    ways.push({
      name: PLAIN,
      chosen: tls === "disable",
      way: variant({ sslmode: "disable" }),
    });
  }
  return ways;
}

/** Tries one way. */
async function attempt(
  way: Pick<Tried, "way" | "chosen">,
  run: () => Promise<void>,
): Promise<Tried> {
  const started = performance.now();
  try {
    await run();
    const ms = Math.round(performance.now() - started);
    return { ...way, works: true, found: `${ms} ms` };
  } catch (error) {
    const found = error instanceof SyncError ? error.message : "no answer";
    return { ...way, works: false, found };
  }
}

/** Gives back a lease that nobody has: every right is needed, nothing changes. */
async function callSource(way: Way): Promise<void> {
  const carrier = openCarrier(way, { timeoutMs: TRY_MS });
  try {
    await carrier.call("release", { lease: "" });
  } finally {
    await carrier.close();
  }
}

async function callReplica(config: Ends): Promise<void> {
  const database = openDatabase(config, { timeoutMs: TRY_MS });
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

/** Any answer will do: without a token there is none but a refusal. */
async function answerOf(url: string): Promise<void> {
  const response = await fetchWithin(new Request(url), {
    timeoutMs: TRY_MS,
    bytesMax: 1_048_576,
  });
  if (response.status >= 500) {
    throw new SyncError("source_unreachable", `HTTP ${response.status}`);
  }
}
