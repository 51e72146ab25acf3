/**
 * Ring 1. Whether a request carries a secret, or was signed with one.
 *
 * Promise: the time an answer takes reveals nothing about a secret, neither its
 * length nor how much of it was right.
 *
 * @module
 */

import { timingSafeEqual } from "@std/crypto/timing-safe-equal";
import { toHex } from "../bytes.ts";

/** What a signature covers. */
export interface SignedRequest {
  /** The HTTP method. */
  readonly method: string;
  /** The path with its query, as the address has them. */
  readonly path: string;
  /** The body. */
  readonly body: Uint8Array<ArrayBuffer>;
}

/** The same of a request that has arrived. */
export interface UnreadRequest extends Omit<SignedRequest, "body"> {
  /** Reads the body; called only to check a signature. */
  readonly readBody: () => Promise<Uint8Array<ArrayBuffer>>;
}

/** `late`: signed with a secret, but too long before or after our time. */
export type Verdict = "authentic" | "late" | "wrong";

const TOLERANCE_S = 300;
/** A sender that changes its secret may sign with several. */
const SIGNATURE = /^t=(\d{1,12})((?:,v1=[0-9a-f]{64}){1,4})$/;

/**
 * Judges what a request sent: a secret as it is, or
 * `t=<unix seconds>,v1=<hex HMAC-SHA-256 of "t.METHOD.path?query.body">`.
 *
 * A signature is valid for 5 minutes before and after its time; until then, an
 * eavesdropper can send the request again. That does no harm: /sync, /backfill
 * and /verify only bring the replica nearer to the source, and a /nuke that
 * names the epoch to end works once. A header that is sent twice arrives as one
 * text joined by ", ", and is wrong even if each part is right.
 *
 * @param given The header's text; null if it was not sent.
 * @param options The secrets, one of which must be right (an empty one never
 * is), the request, and the time in milliseconds since 1970.
 * @returns The verdict.
 * @throws What `readBody` throws.
 */
export async function judge(
  given: string | null,
  options: {
    secrets: readonly string[];
    request: UnreadRequest;
    now: number;
  },
): Promise<Verdict> {
  const { request, now } = options;
  const text = given ?? "";
  const secrets = options.secrets.filter((secret) => secret !== "");
  const sent = await hash(text);
  let isRight = false;
  for (const secret of secrets) {
    if (timingSafeEqual(sent, await hash(secret))) isRight = true;
  }
  if (isRight) return "authentic";

  const [, time, signatures] = SIGNATURE.exec(text) ?? [];
  if (time === undefined) return "wrong";
  const body = await request.readBody();
  for (const secret of secrets) {
    const expected = await mac(secret, time, { ...request, body });
    for (const one of signatures!.split(",v1=").slice(1)) {
      if (timingSafeEqual(bytesOf(one), bytesOf(expected))) isRight = true;
    }
  }
  if (!isRight) return "wrong";
  return Math.abs(now / 1000 - Number(time)) > TOLERANCE_S
    ? "late"
    : "authentic";
}

/**
 * Signs a request.
 *
 * @param secrets The secrets, at most four; each makes one signature.
 * @param request The request.
 * @param now The time in milliseconds since 1970.
 * @returns The text for the header.
 */
export async function sign(
  secrets: readonly string[],
  request: SignedRequest,
  now: number,
): Promise<string> {
  const time = String(Math.floor(now / 1000));
  const parts = [`t=${time}`];
  for (const secret of secrets) {
    parts.push(`v1=${await mac(secret, time, request)}`);
  }
  return parts.join(",");
}

/** The signature made with one secret, in hexadecimal digits. */
async function mac(
  secret: string,
  time: string,
  { method, path, body }: SignedRequest,
): Promise<string> {
  const key = await crypto.subtle.importKey(
    "raw",
    bytesOf(secret),
    { name: "HMAC", hash: "SHA-256" },
    false,
    ["sign"],
  );
  const text = new Blob([`${time}.${method}.${path}.`, body]);
  const made = await crypto.subtle.sign("HMAC", key, await text.arrayBuffer());
  return toHex(new Uint8Array(made));
}

function hash(text: string): Promise<ArrayBuffer> {
  return crypto.subtle.digest("SHA-256", bytesOf(text));
}

function bytesOf(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text);
}
