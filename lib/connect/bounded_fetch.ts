/**
 * Ring 1. Fetches with bounds.
 *
 * Promise: no answer is waited for without end, none is larger than a small
 * worker can hold, and none leads anywhere else.
 *
 * @module
 */

/**
 * Fetches an answer with its body, or gives up.
 *
 * @param request The request.
 * @param options How long both may take, in milliseconds, and how many bytes
 * the body may have.
 * @returns The answer; a redirect is one.
 * @throws {RangeError} The answer is too large. Else what fetch throws.
 */
export async function fetchWithin(
  request: Request,
  options: { timeoutMs: number; bytesMax: number },
): Promise<Response> {
  const { timeoutMs, bytesMax } = options;
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), timeoutMs);
  try {
    const response = await fetch(request, {
      signal: abort.signal,
      // The databases have none; where one leads is not where rows should go.
      redirect: "manual",
    });
    return new Response(await readBody(response, bytesMax), {
      status: response.status,
      headers: response.headers,
    });
  } finally {
    clearTimeout(timer);
  }
}

/** Reads a body, and no more of it than an answer may have; null where a status has none. */
async function readBody(
  response: Response,
  bytesMax: number,
): Promise<Blob | null> {
  if (response.body === null) return null;
  const chunks: Uint8Array<ArrayBuffer>[] = [];
  let bytes = 0;
  // Leaving the loop cancels the rest.
  for await (const chunk of response.body) {
    bytes += chunk.byteLength;
    if (bytes > bytesMax) {
      throw new RangeError("the answer is too large");
    }
    chunks.push(chunk);
  }
  return new Blob(chunks);
}
