/**
 * Ring 1. Whether a request carries a secret, or was signed with one.
 *
 * Promise: how long the answer takes tells nothing about a secret, neither its
 * length nor how much of it was right.
 *
 * @module
 */

import { timingSafeEqual } from "@std/crypto/timing-safe-equal";
import { toHex } from "../bytes.ts";

/** What a signature speaks of. */
export interface SignedRequest {
  readonly method: string;
  /** The path with its query, as they stand in the address. */
  readonly path: string;
  readonly body: Uint8Array<ArrayBuffer>;
}

/** The same of a request that has arrived: its body is read when it counts. */
export interface UnreadRequest extends Omit<SignedRequest, "body"> {
  readonly readBody: () => Promise<Uint8Array<ArrayBuffer>>;
}

/** `late`: signed with a secret, at a time too far from ours. */
export type Verdict = "authentic" | "late" | "wrong";

const TOLERANCE_S = 300;
/** A sender that changes its secret may sign with several. */
const SIGNATURE = /^t=(\d{1,12})((?:,v1=[0-9a-f]{64}){1,4})$/;

/**
 * Judges what a request sent: a secret as it is, or
 * `t=<unix seconds>,v1=<hex HMAC-SHA-256 of "t.METHOD.path?query.body">`.
 *
 * A signature holds for 5 minutes either way, and whoever saw it may send it
 * again as long. That is no harm to /sync, /backfill and /verify, which bring
 * the replica nearer to the source whoever asks; /nuke takes the epoch to end
 * for this, after which the same request is refused. A plain secret can be sent
 * again for ever. A header sent twice arrives as one text joined by ", ", and so
 * is wrong even when each of them is right.
 *
 * @param given What the header holds, null when there is none.
 * @param options The secrets of which one must be right (an empty one never
 * is), what was asked for, and the time in milliseconds since 1970.
 * @returns The verdict.
 * @throws What `readBody` throws, which is asked for a signature only.
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
 * @param secrets The secrets, each of which makes one signature; four at most.
 * @param request What is asked for.
 * @param now The time in milliseconds since 1970.
 * @returns What the header shall hold.
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

/** The signature of one secret, in hexadecimal digits. */
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
