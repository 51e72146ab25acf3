/**
 * Ring 3. Opens the way to the source that the settings name.
 *
 * Promise: whichever it is, each call is bounded, and nothing is opened before
 * the first one.
 *
 * @module
 */

import type { Config } from "../config/config.ts";
import { fetchWithin } from "./bounded_fetch.ts";
import {
  createPostgresCarrier,
  type PostgresCarrier,
} from "../postgres/carrier.ts";
import { openSocket } from "../postgres/socket.ts";
import { parsePostgresUrl } from "../postgres/url.ts";
import { createRestCarrier } from "../source/rest_carrier.ts";

/** One message and a page of one row, each escaped at its worst, and by PostgREST again. */
const ANSWER_BYTES_MAX = 104 * 1_048_576;

/** What names a way to the source. */
export type Way = Pick<
  Config,
  "pgmqUrl" | "pgmqApiKey" | "pgmqToken" | "pgmqCa"
>;

/**
 * Makes the carrier: PostgREST for http:// and https://, else PostgreSQL's own
 * protocol.
 *
 * @param way The settings.
 * @param options How long a call may take, in milliseconds; told of each
 * connection.
 * @returns The carrier; it is closed at the end.
 */
export function openCarrier(
  way: Way,
  options: { timeoutMs: number; onConnect?: () => void },
): PostgresCarrier {
  const { timeoutMs, onConnect } = options;
  if (/^https?:/.test(way.pgmqUrl)) {
    const carrier = createRestCarrier(
      (request) =>
        fetchWithin(request, { timeoutMs, bytesMax: ANSWER_BYTES_MAX }),
      { url: way.pgmqUrl, apiKey: way.pgmqApiKey, token: way.pgmqToken },
    );
    return { ...carrier, close: () => Promise.resolve() };
  }
  const ca = way.pgmqCa;
  const address = parsePostgresUrl(way.pgmqUrl, { hasCa: ca !== "" });
  const open = () => {
    onConnect?.();
    return openSocket(address, { ca, timeoutMs });
  };
  return createPostgresCarrier(open, {
    address,
    timeoutMs,
    bytesMax: ANSWER_BYTES_MAX,
  });
}
