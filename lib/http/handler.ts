/**
 * Ring 3. HTTP: from a request to a flow, and from its outcome to a response.
 *
 * Promise: the status is honest. Success is answered after the work is done,
 * and no answer holds a row value, a secret or a driver's words.
 *
 * @module
 */

import type { Config } from "../config/config.ts";
import { type ErrorCode, SyncError } from "../errors.ts";
import { judge } from "./auth.ts";
import { panel } from "./panel.ts";
import type { Log } from "../log.ts";
import { METRICS_TYPE } from "../status/metrics.ts";

/** What a request may say after "?". */
export interface Query {
  /** One table, instead of all. */
  readonly table?: string;
  /** Whether a verify mends what it finds. */
  readonly repair?: boolean;
  /** Whether a nuked replica is filled again by itself. */
  readonly refill?: boolean;
  /** The epoch a nuke ends; any unless told. */
  readonly epoch?: string;
  /** Whether a status has the newest dead letters, whose keys are of rows. */
  readonly letters?: boolean;
  /** The dead letter to try again; all of them unless told. */
  readonly id?: string;
}

/** What can be asked for; each returns the fields of a successful answer. */
export interface Flows {
  /** Brings the replica up to date. */
  sync(config: Config): Promise<Record<string, unknown>>;
  /** Empties the replica and begins a new epoch. */
  nuke(config: Config, query: Query): Promise<Record<string, unknown>>;
  /** Compares every cell and mends what differs. */
  backfill(config: Config, query: Query): Promise<Record<string, unknown>>;
  /** Compares every cell, and mends what differs when asked. */
  verify(config: Config, query: Query): Promise<Record<string, unknown>>;
  /** Tries the ways to both databases. */
  doctor(config: Config): Promise<Record<string, unknown>>;
  /** Tries dead letters again. */
  redrive(config: Config, query: Query): Promise<Record<string, unknown>>;
  /** Tells how things stand. */
  status(config: Config, query: Query): Promise<Record<string, unknown>>;
  /** Tells the same as OpenMetrics. */
  metrics(config: Config): Promise<string>;
}

/** What the handler needs. */
export interface HandlerOptions {
  /** Returns the settings; throws a SyncError when they cannot be used. */
  readonly config: () => Config;
  /** What to run. */
  readonly flows: Flows;
  /** Takes what went wrong. */
  readonly log: Log;
  /** The time in milliseconds since 1970. */
  readonly now: () => number;
  /** What /health tells in a header, so that a deployment is seen to arrive. */
  readonly version?: string;
}

/** The header that carries the secret, and the one that may do so for a GET. */
const SIGNATURE_HEADER = "x-webhook-signature";
const BEARER = /^Bearer (.+)$/;
const VERSION_HEADER = "x-libsql-sync-version";
const RETRY_AFTER_S = 5;
/** A signature speaks of the whole body, so it is read. Ours have some bytes. */
const BODY_BYTES_MAX = 65_536;
const BODY_MS_MAX = 5_000;

/** A closed list again: a new code does not compile until it has a status. */
const STATUS: Record<ErrorCode, number> = {
  bad_request: 400,
  body_too_large: 413,
  config_invalid: 500,
  schema_invalid: 500,
  unauthorized: 401,
  not_found: 404,
  method_not_allowed: 405,
  source_unreachable: 503,
  source_failed: 502,
  source_not_installed: 500,
  replica_unreachable: 503,
  replica_unauthorized: 500,
  replica_full: 507,
  replica_moved: 503,
  replica_schema: 503,
  replica_refused: 502,
  replica_ahead: 409,
  replica_foreign: 409,
  schema_outdated: 409,
  schema_unknown: 409,
  version_mismatch: 409,
  nuke_pending: 503,
  epoch_moved: 409,
  internal: 500,
};

/** A path: what it allows, and the flow behind it if there is one. */
interface Route {
  readonly allow: string;
  readonly flow?: keyof Flows;
  /** Names of the query's fields; without them a query is ignored. */
  readonly query?: readonly (keyof Query)[];
}

/** One path has one spelling: no slash at the end, no percent-encoding. */
const ROUTES: ReadonlyMap<string, Route> = new Map<string, Route>([
  ["/", { allow: "GET, HEAD" }],
  ["/health", { allow: "GET, HEAD" }],
  ["/ok", { allow: "GET, HEAD" }],
  ["/sync", { allow: "POST", flow: "sync" }],
  ["/nuke", { allow: "POST", flow: "nuke", query: ["refill", "epoch"] }],
  ["/backfill", { allow: "POST", flow: "backfill", query: ["table"] }],
  ["/verify", { allow: "POST", flow: "verify", query: ["table", "repair"] }],
  ["/doctor", { allow: "GET", flow: "doctor" }],
  ["/redrive", { allow: "POST", flow: "redrive", query: ["id"] }],
  ["/status", { allow: "GET", flow: "status", query: ["letters"] }],
  ["/metrics", { allow: "GET", flow: "metrics" }],
]);

/**
 * Makes the function that answers requests.
 *
 * The path is looked at first, then the method, the settings, the signature; of
 * a request's body nothing is taken but what a signature speaks of.
 *
 * @param options The settings, the flows, the log, the clock and the version.
 * @returns Takes a request and resolves to its response; it never rejects.
 */
export function createHandler(
  options: HandlerOptions,
): (request: Request) => Promise<Response> {
  return async (request) => {
    try {
      return await answer(request, options);
    } finally {
      // What nobody read may be as large as the sender likes.
      request.body?.cancel().catch(() => {});
    }
  };
}

async function answer(
  request: Request,
  options: HandlerOptions,
): Promise<Response> {
  const startedAt = options.now();
  const url = urlOf(request);
  if (url === null) {
    return respondError("bad_request", "The address is no URL.");
  }
  const route = ROUTES.get(url.pathname);
  if (route === undefined) {
    return respondError("not_found", "There is no such path.");
  }
  if (!route.allow.split(", ").includes(request.method)) {
    const message = `This path expects ${route.allow}.`;
    return respondError("method_not_allowed", message, { Allow: route.allow });
  }
  if (url.pathname === "/") {
    const { html, headers } = panel(crypto.randomUUID());
    return respond(html, {
      status: 200,
      type: "text/html; charset=utf-8",
      headers,
    });
  }
  if (route.flow === undefined) {
    return respond("OK", {
      status: 200,
      type: "text/plain; charset=utf-8",
      headers: options.version ? { [VERSION_HEADER]: options.version } : {},
    });
  }
  try {
    const config = options.config();
    const secrets = route.flow === "nuke" && config.nukeSecrets !== null
      ? config.nukeSecrets
      : config.webhookSecrets;
    await authenticate(request, { url, secrets, now: startedAt });
    const query = parseQuery(url, route.query);
    const result = await options.flows[route.flow](config, query);
    return typeof result === "string"
      ? respond(result, { status: 200, type: METRICS_TYPE })
      : respondJson(200, { success: true, ...result });
  } catch (error) {
    const { code, message } = explain(error);
    options.log(code === "unauthorized" ? "warn" : "error", route.flow, {
      code,
      status: STATUS[code],
      message,
      class: code === "internal" ? className(error) : undefined,
      ms: options.now() - startedAt,
    });
    return respondError(code, message);
  }
}

/** Throws unless the request carries a secret or was signed with one. */
async function authenticate(
  request: Request,
  { url, secrets, now }: {
    url: URL;
    secrets: readonly string[];
    now: number;
  },
): Promise<void> {
  // Prometheus sends no header of another name; where something is changed, a
  // token that a browser keeps must not do.
  const bearer = request.method === "GET"
    ? BEARER.exec(request.headers.get("authorization") ?? "")?.[1]
    : undefined;
  const given = request.headers.get(SIGNATURE_HEADER) ?? bearer ?? null;
  const verdict = await judge(given, {
    secrets,
    request: {
      method: request.method,
      path: url.pathname + url.search,
      readBody: () => readBody(request),
    },
    now,
  });
  if (verdict === "authentic") return;
  throw new SyncError(
    "unauthorized",
    verdict === "late"
      ? `The header ${SIGNATURE_HEADER} is signed right, more than 5 minutes off this clock: set the sender's clock, or sign anew.`
      : `The header ${SIGNATURE_HEADER} must hold the webhook's secret, or a signature of this request made with it.`,
  );
}

/** The body, as much of it as came in time; what is cut off fails its signature. */
async function readBody(request: Request): Promise<Uint8Array<ArrayBuffer>> {
  const chunks: Uint8Array<ArrayBuffer>[] = [];
  let bytes = 0;
  if (request.body === null) return new Uint8Array();
  const reader = request.body.getReader();
  const timer = setTimeout(
    () => void reader.cancel().catch(() => {}),
    BODY_MS_MAX,
  );
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      bytes += value.byteLength;
      if (bytes > BODY_BYTES_MAX) break;
      chunks.push(value);
    }
  } catch {
    throw new SyncError("bad_request", "The body did not arrive whole.");
  } finally {
    clearTimeout(timer);
    reader.releaseLock();
  }
  if (bytes > BODY_BYTES_MAX) {
    throw new SyncError(
      "body_too_large",
      `A signed body must have ${BODY_BYTES_MAX} bytes at most.`,
    );
  }
  return new Uint8Array(await new Blob(chunks).arrayBuffer());
}

/** Where a request goes; null where its Host or its target is none. */
function urlOf(request: Request): URL | null {
  try {
    return new URL(request.url);
  } catch {
    return null;
  }
}

/** Fields of a query that hold a text; the others are true or false. */
const TEXTS: readonly string[] = ["table", "epoch", "id"];

/** The query's fields, where the route has some. */
function parseQuery(url: URL, names: readonly (keyof Query)[] = []): Query {
  const fields: Record<string, string | boolean> = {};
  if (names.length === 0) return fields;
  for (const [name, value] of url.searchParams) {
    if (!names.includes(name as keyof Query) || name in fields) {
      throw new SyncError(
        "bad_request",
        `The query expects ${names.join(" and ")}, each at most once.`,
      );
    }
    if (!TEXTS.includes(name) && value !== "true" && value !== "false") {
      throw new SyncError("bad_request", `${name} must be true or false.`);
    }
    if (name === "id" && !/^[0-9]{1,18}$/.test(value)) {
      throw new SyncError("bad_request", "id must be a dead letter's number.");
    }
    if (value.includes("\0")) {
      throw new SyncError("bad_request", `${name} must be without U+0000.`);
    }
    fields[name] = TEXTS.includes(name) ? value : value === "true";
  }
  return fields;
}

/** Only a SyncError's words are known to hold no data. */
function explain(error: unknown): { code: ErrorCode; message: string } {
  if (error instanceof SyncError) return error;
  return {
    code: "internal",
    message:
      "Something went wrong that was not foreseen; the log names its class.",
  };
}

function className(error: unknown): string {
  const name = error instanceof Error ? error.name : "";
  return /^[A-Za-z]\w{0,63}$/.test(name) ? name : "unknown";
}

function respondError(
  code: ErrorCode,
  message: string,
  headers: Record<string, string> = {},
): Response {
  const status = STATUS[code];
  const retry: Record<string, string> = status === 503
    ? { "Retry-After": String(RETRY_AFTER_S) }
    : {};
  return respondJson(status, { success: false, error: code, message }, {
    ...headers,
    ...retry,
  });
}

function respondJson(
  status: number,
  body: Record<string, unknown>,
  headers?: Record<string, string>,
): Response {
  return respond(JSON.stringify(body), {
    status,
    type: "application/json",
    headers,
  });
}

function respond(
  body: string,
  { status, type, headers }: {
    status: number;
    type: string;
    headers?: Record<string, string>;
  },
): Response {
  // A cache stands in front of the worker where it is deployed.
  return new Response(body, {
    status,
    headers: { "Content-Type": type, "Cache-Control": "no-store", ...headers },
  });
}
