/**
 * Ring 1. Whether a request carries the secret.
 *
 * Promise: how long the answer takes tells nothing about the secret, neither
 * its length nor how much of it was right.
 *
 * @module
 */

import { timingSafeEqual } from "@std/crypto/timing-safe-equal";

/**
 * Compares what a request sent with the secret, by the hashes of both.
 *
 * A header sent twice arrives as one text joined by ", ", and so is wrong even
 * when each of them is right.
 *
 * @param given What the header holds, null when there is none.
 * @param secret What it should hold.
 * @returns Whether they are the same; never, for an empty secret.
 */
export async function isAuthentic(
  given: string | null,
  secret: string,
): Promise<boolean> {
  const [a, b] = await Promise.all([hash(given ?? ""), hash(secret)]);
  return timingSafeEqual(a, b) && secret !== "";
}

function hash(text: string): Promise<ArrayBuffer> {
  return crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
}
