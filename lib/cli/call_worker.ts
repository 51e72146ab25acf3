/**
 * Ring 3. Signed requests to the worker, for the commands.
 *
 * Promise: a secret leaves only as a signature, and every request ends within a
 * limit.
 *
 * @module
 */

import { CommandError } from "./command.ts";
import type { Settings } from "./settings.ts";
import { oneLine } from "./table.ts";
import { sign } from "../http/auth.ts";

/** An answer of the worker. */
export interface WorkerAnswer {
  /** The HTTP status. */
  readonly status: number;
  /** The HTTP headers. */
  readonly headers: Headers;
  /** The JSON object of the body; empty if the body is something else. */
  readonly body: Record<string, unknown>;
}

/** A sync ends within 8 s and one more step. */
const ANSWER_MS_MAX = 60_000;

/**
 * Sends a signed request to the worker.
 *
 * Each secret makes a signature: while a secret is being changed, one that both
 * sides have is among them.
 *
 * @param settings The worker's address and secrets.
 * @param path The path with its query.
 * @param options The method; default POST.
 * @returns The answer, of any status.
 * @throws {CommandError} If there is no answer.
 */
export async function callWorker(
  settings: Pick<Settings, "workerUrl" | "secrets">,
  path: string,
  options: { method?: "GET" | "POST" } = {},
): Promise<WorkerAnswer> {
  const { method = "POST" } = options;
  const url = new URL(settings.workerUrl + path);
  const signature = await sign(settings.secrets, {
    method,
    path: url.pathname + url.search,
    body: new Uint8Array(),
  }, Date.now());
  try {
    const response = await fetch(url, {
      method,
      headers: { "x-webhook-signature": signature },
      redirect: "manual",
      signal: AbortSignal.timeout(ANSWER_MS_MAX),
    });
    const { status, headers } = response;
    const text = await response.text();
    return { status, headers, body: parseObject(text) };
  } catch (error) {
    const found = (error as Error).name === "TimeoutError"
      ? `none in ${ANSWER_MS_MAX / 1000} s`
      : "no connection";
    throw new CommandError(
      `Cannot reach the worker: expected an answer of ${url.host}, found ${found}; check WORKER_URL`,
      { cause: error },
    );
  }
}

/** A JSON object; an empty one if the text is anything else. */
function parseObject(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? { ...value } : {};
  } catch {
    return {};
  }
}

/**
 * Explains a refusal of the worker.
 *
 * @param answer The answer.
 * @returns A sentence with the worker's code and message.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(
 *   describeRefusal({ status: 401, headers: new Headers(), body: { error: "unauthorized", message: "No." } }),
 *   "The worker answered 401 unauthorized: No. Set WEBHOOK_SIGNATURE here to the worker's secret.",
 * );
 * ```
 */
export function describeRefusal({ status, body }: WorkerAnswer): string {
  const { error, message } = body;
  if (typeof error !== "string" || typeof message !== "string") {
    return `Cannot read the worker's answer: expected a code and a message, found HTTP ${status} with another body; check WORKER_URL`;
  }
  const advice = status === 401
    ? " Set WEBHOOK_SIGNATURE here to the worker's secret."
    : status === 404
    ? " That worker is older than this command: deploy it again."
    : "";
  return `The worker answered ${status} ${oneLine(error, 40)}: ${
    oneLine(message, 600)
  }${advice}`;
}
