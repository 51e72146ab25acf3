/**
 * Ring 1. Carries calls to the source over PostgREST, such as Supabase's Data
 * API: for runtimes that have `fetch` alone.
 *
 * Promise: a call is one request; another response than an answer is reported
 * by the same codes as over the PostgreSQL protocol, and in our own words.
 *
 * @module
 */

import { type Carrier, IN_PIECES } from "../chain/claim.ts";
import { type ErrorCode, SyncError } from "../errors.ts";
import { sourceError } from "./source_error.ts";

/** What to do about errors of PostgREST's own, by the start of their code. */
const ADVICE: readonly [code: string, error: ErrorCode, advice: string][] = [
  ["PGRST0", "source_unreachable", "try again later"],
  [
    "PGRST106",
    "config_invalid",
    "expose the schema libsql_sync (Supabase: Data API, exposed schemas)",
  ],
  [
    "PGRST20",
    "source_not_installed",
    "apply the migration in supabase/migrations, then run: notify pgrst, 'reload schema'",
  ],
  [
    "PGRST30",
    "config_invalid",
    "check PGMQ_TOKEN: it may have expired, or be signed with another secret",
  ],
];

/**
 * Carries calls as requests.
 *
 * @param send Sends a request and reads the answer, within a time and a size.
 * @param options PostgREST's address, the key of the gateway before it (empty
 * where there is none), and the JWT that names our role.
 * @returns The carrier.
 */
export function createRestCarrier(
  send: (request: Request) => Promise<Response>,
  options: { url: string; apiKey: string; token: string },
): Carrier {
  const { url, apiKey, token } = options;
  return {
    async call(name, request) {
      const refuse = (code: ErrorCode, rest: string, cause?: unknown) =>
        new SyncError(
          code,
          `Cannot call libsql_sync.${name}: expected an answer of PostgREST, found ${rest}`,
          { cause },
        );
      let status: number;
      let text: string;
      try {
        const response = await send(
          new Request(`${url}/rpc/${name}`, {
            method: "POST",
            headers: {
              ...(apiKey === "" ? {} : { apikey: apiKey }),
              authorization: `Bearer ${token}`,
              "content-type": "application/json",
              "content-profile": "libsql_sync",
            },
            body: JSON.stringify({ request }),
          }),
        );
        status = response.status;
        text = await response.text();
      } catch (cause) {
        const rest = "none; check PGMQ_URL, or try again later";
        throw refuse("source_unreachable", rest, cause);
      }
      const result = parse(text);
      const value = IN_PIECES.has(name) && Array.isArray(result)
        ? parse(result.join(""))
        : result;
      if (status === 200 && value !== undefined) return value;
      const { code, message } = (value ?? {}) as Record<string, unknown>;
      const state = typeof code === "string" ? code : "";
      for (const [start, errorCode, advice] of ADVICE) {
        if (state.startsWith(start)) {
          throw refuse(errorCode, `${start}...; ${advice}`);
        }
      }
      if (/^[0-9A-Z]{5}$/.test(state)) {
        throw sourceError(name, {
          state,
          text: String(message),
          cause: undefined,
        });
      }
      if (status === 401 || status === 403) {
        throw refuse(
          "config_invalid",
          `HTTP ${status}; check PGMQ_API_KEY and PGMQ_TOKEN`,
        );
      }
      throw status >= 500 || status === 408 || status === 429 || status === 200
        ? refuse("source_unreachable", `HTTP ${status}; try again later`)
        : refuse("config_invalid", `HTTP ${status}; check PGMQ_URL`);
    },
  };
}

/** Some JSON; undefined where it is none. */
function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
