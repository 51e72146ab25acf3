/**
 * Ring 3. HTTP: from a request to a flow, and from its outcome to a response.
 *
 * Promise: the status is honest. Success is answered after the work is done,
 * and no answer holds a row value, a secret or a driver's words.
 *
 * @module
 */

import type { Config } from "../config/config.ts";
import { readBounded } from "../connect/bounded_body.ts";
import { SyncError } from "../errors.ts";
import type { Log } from "../log.ts";
import { METRICS_TYPE } from "../status/metrics.ts";
import { explain, respond, respondError, respondJson } from "./answer.ts";
import { judge } from "./auth.ts";
import { panel } from "./panel.ts";
import { parseQuery } from "./query.ts";
import { type Flows, type Route, ROUTES } from "./routes.ts";

/** What the handler needs. */
export interface HandlerOptions {
  /** Returns the settings; throws a SyncError if they cannot be used. */
  readonly config: () => Config;
  /** What to run. */
  readonly flows: Flows;
  /** Takes what went wrong. */
  readonly log: Log;
  /** The time in milliseconds since 1970. */
  readonly now: () => number;
  /** The build that /health names in a header, so that a deployment is seen to arrive. */
  readonly version?: string;
}

/** The header that carries the secret, and the one that may do so for a GET. */
const SIGNATURE_HEADER = "x-webhook-signature";
const BEARER = /^Bearer (.+)$/;
const VERSION_HEADER = "x-libsql-sync-version";
/** A signature covers the whole body, so it is read. The cron's has a few bytes. */
const BODY_BYTES_MAX = 65_536;
const BODY_MS_MAX = 5_000;

/**
 * Makes the function that answers requests.
 *
 * It checks the path first, then the method, the settings and the signature. It
 * reads a body only to check a signature over it.
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
      // An unread body may be as large as the sender likes.
      request.body?.cancel().catch(() => {});
    }
  };
}

async function answer(
  request: Request,
  options: HandlerOptions,
): Promise<Response> {
  const url = urlOf(request);
  if (url === null) {
    return respondError("bad_request", "Cannot parse the address.");
  }
  const route = ROUTES.get(url.pathname);
  if (route === undefined) {
    return respondError("not_found", "No such path.");
  }
  const { allow, flow } = route;
  if (!allow.split(", ").includes(request.method)) {
    const message = `This path expects ${allow}.`;
    return respondError("method_not_allowed", message, { Allow: allow });
  }
  if (url.pathname === "/") {
    const { html, headers } = panel(crypto.randomUUID());
    return respond(html, "text/html; charset=utf-8", { headers });
  }
  if (flow === undefined) {
    return respond("OK", "text/plain; charset=utf-8", {
      headers: options.version ? { [VERSION_HEADER]: options.version } : {},
    });
  }
  return await runFlow(request, { url, route: { ...route, flow } }, options);
}

/** Runs the flow if the request is authentic; logs what went wrong. */
async function runFlow(
  request: Request,
  { url, route: { flow, query } }: {
    url: URL;
    route: Route & { readonly flow: keyof Flows };
  },
  { config: readConfig, flows, log, now }: HandlerOptions,
): Promise<Response> {
  const startedAt = now();
  try {
    const config = readConfig();
    const secrets = flow === "nuke" && config.nukeSecrets !== null
      ? config.nukeSecrets
      : config.webhookSecrets;
    await authenticate(request, { url, secrets, now: startedAt });
    const fields = parseQuery(url.searchParams, query);
    const result = await flows[flow](config, fields);
    return typeof result === "string"
      ? respond(result, METRICS_TYPE)
      : respondJson(200, { success: true, ...result });
  } catch (error) {
    const explained = explain(error);
    const { code, message } = explained;
    const level = code === "unauthorized" ? "warn" : "error";
    log(level, flow, { ...explained, ms: now() - startedAt });
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
  // Prometheus can send only this header. A POST changes something: a token
  // that a browser keeps and sends by itself must not be enough for it.
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
      ? `The signature in ${SIGNATURE_HEADER} is more than 5 minutes off this clock: set the sender's clock, or sign again.`
      : `The header ${SIGNATURE_HEADER} must hold the webhook's secret, or a signature of this request.`,
  );
}

/** The signed body, as far as it came in time; one that was cut fails its signature. */
async function readBody(
  { body }: Request,
): Promise<Uint8Array<ArrayBuffer>> {
  if (body === null) return new Uint8Array();
  const reader = body.getReader();
  const timer = setTimeout(
    () => void reader.cancel().catch(() => {}),
    BODY_MS_MAX,
  );
  try {
    const read = await readBounded(reader, BODY_BYTES_MAX);
    return new Uint8Array(await read.arrayBuffer());
  } catch (error) {
    throw error instanceof RangeError
      ? new SyncError(
        "body_too_large",
        `A signed body must have at most ${BODY_BYTES_MAX} bytes.`,
      )
      : new SyncError("bad_request", "The body did not arrive whole.");
  } finally {
    clearTimeout(timer);
  }
}

/** The address; null if its Host or its target is malformed. */
function urlOf(request: Request): URL | null {
  try {
    return new URL(request.url);
  } catch {
    return null;
  }
}
