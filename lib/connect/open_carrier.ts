/**
 * Ring 3. Opens the connection to the source that the settings name.
 *
 * Promise: each call is bounded, and nothing is opened before the first one.
 *
 * @module
 */

import type { PgmqSettings } from "../config/source.ts";
import {
  createPostgresCarrier,
  type PostgresCarrier,
} from "../postgres/carrier.ts";
import { openSocket } from "../postgres/socket.ts";
import { parsePostgresUrl } from "../postgres/url.ts";
import { createRestCarrier } from "../source/rest_carrier.ts";
import { fetchWithin } from "./bounded_fetch.ts";

/** One message and a page of one row, each escaped at its worst, and again by PostgREST. */
const ANSWER_BYTES_MAX = 104 * 1_048_576;

/**
 * Makes the carrier: PostgREST for http:// and https://, else PostgreSQL's own
 * protocol.
 *
 * @param settings The settings of the source.
 * @param options How long a call may take, in milliseconds; what to call for
 * each connection that is opened.
 * @returns The carrier; close it at the end.
 */
export function openCarrier(
  settings: PgmqSettings,
  options: { timeoutMs: number; onConnect?: () => void },
): PostgresCarrier {
  const { pgmqUrl, pgmqApiKey, pgmqToken, pgmqCa: ca } = settings;
  const { timeoutMs, onConnect } = options;
  if (/^https?:/.test(pgmqUrl)) {
    const carrier = createRestCarrier(
      (request) =>
        fetchWithin(request, { timeoutMs, bytesMax: ANSWER_BYTES_MAX }),
      { url: pgmqUrl, apiKey: pgmqApiKey, token: pgmqToken },
    );
    return { ...carrier, close: () => Promise.resolve() };
  }
  const address = parsePostgresUrl(pgmqUrl, { hasCa: ca !== "" });
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
