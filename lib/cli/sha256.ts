/**
 * Ring 0. The SHA-256 of a text.
 *
 * @module
 */

/**
 * Hashes a text.
 *
 * @param text The text, hashed as UTF-8.
 * @returns The hash, in hexadecimal digits.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals((await sha256("abc")).slice(0, 8), "ba7816bf");
 * ```
 */
export async function sha256(text: string): Promise<string> {
  const bytes = new TextEncoder().encode(text);
  const digest = await crypto.subtle.digest("SHA-256", bytes);
  return Array.from(
    new Uint8Array(digest),
    (byte) => byte.toString(16).padStart(2, "0"),
  ).join("");
}
