/**
 * Ring 1. Fetches within bounds.
 *
 * Promise: every answer is bounded in time and size, and comes from the address
 * that was asked.
 *
 * @module
 */

import { readBounded } from "./bounded_body.ts";

/**
 * Fetches an answer with its body, or gives up.
 *
 * @param request The request.
 * @param options How long answer and body may take together, in milliseconds,
 * and how many bytes the body may have.
 * @returns The answer. A redirect is returned, not followed.
 * @throws {RangeError} The body is larger. Else what fetch throws.
 */
export async function fetchWithin(
  request: Request,
  options: { timeoutMs: number; bytesMax: number },
): Promise<Response> {
  const { timeoutMs, bytesMax } = options;
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), timeoutMs);
  try {
    const { body, status, headers } = await fetch(request, {
      signal: abort.signal,
      // The databases never redirect. Rows and tokens must not follow one.
      redirect: "manual",
    });
    // A status such as 204 allows no body, not even an empty one.
    const read = body && await readBounded(body.getReader(), bytesMax);
    return new Response(read, { status, headers });
  } finally {
    clearTimeout(timer);
  }
}
