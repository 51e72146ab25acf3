/**
 * Ring 3. Sends one request of the stand-in for pg_net.
 *
 * Promise: a request that cannot be sent becomes an answer that says so.
 *
 * @module
 */
import type postgres from "postgres";

/** A row of net.http_request_queue. */
export interface Request {
  id: string;
  method: string;
  url: string;
  headers: Record<string, string>;
  body: Uint8Array | null;
  timeout_milliseconds: number;
}

/** What came of a request. */
interface Answer {
  status: number | null;
  type: string | null;
  headers: string | null;
  content: string | null;
  timedOut: boolean;
  error: string | null;
}

/** Sends a request; a failure is an answer as well. */
async function fetchAnswer(
  request: Request,
  stopped: AbortSignal,
): Promise<Answer> {
  const timeout = AbortSignal.timeout(request.timeout_milliseconds);
  try {
    const response = await fetch(request.url, {
      method: request.method,
      headers: request.headers,
      body: request.body as BodyInit | null,
      redirect: "manual",
      signal: AbortSignal.any([timeout, stopped]),
    });
    return {
      status: response.status,
      type: response.headers.get("content-type"),
      headers: JSON.stringify(Object.fromEntries(response.headers)),
      // PostgreSQL's text holds no NUL.
      content: (await response.text()).replaceAll("\0", ""),
      timedOut: false,
      error: null,
    };
  } catch (error) {
    return {
      status: null,
      type: null,
      headers: null,
      content: null,
      timedOut: timeout.aborted,
      error: timeout.aborted
        ? `Timeout of ${request.timeout_milliseconds} ms reached`
        : (error as Error).message,
    };
  }
}

/**
 * Sends one request and writes its answer to net._http_response.
 *
 * @param request The request.
 * @param options A connection, the signal that ends it, and what takes a failure.
 */
export async function sendRequest(
  request: Request,
  options: {
    sql: postgres.Sql;
    signal: AbortSignal;
    log: (line: string) => void;
  },
): Promise<void> {
  const { sql, signal, log } = options;
  const answer = await fetchAnswer(request, signal);
  if (signal.aborted) return;
  if (answer.error !== null) log(`pg_net request: ${answer.error}`);
  await sql`
    insert into net._http_response
      (id, status_code, content_type, headers, content, timed_out, error_msg)
    values (${request.id}, ${answer.status}, ${answer.type},
      ${answer.headers}::text::jsonb, ${answer.content}, ${answer.timedOut},
      ${answer.error})`;
}
