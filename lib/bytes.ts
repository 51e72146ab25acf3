/**
 * Ring 0. Bytes as text: hexadecimal and base64.
 *
 * @module
 */

/** A call stack takes this many arguments. */
const PIECE = 8192;

/**
 * Writes bytes as hexadecimal digits.
 *
 * @param bytes The bytes.
 * @returns Two lower-case digits a byte.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(toHex(new Uint8Array([0, 10, 255])), "000aff");
 * ```
 */
export function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0"))
    .join("");
}

/**
 * Reads hexadecimal digits.
 *
 * @param digits Two digits a byte.
 * @returns The bytes.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(fromHex("000AFF"), new Uint8Array([0, 10, 255]));
 * ```
 */
export function fromHex(digits: string): Uint8Array {
  const bytes = new Uint8Array(digits.length / 2);
  for (let at = 0; at < bytes.length; at++) {
    bytes[at] = parseInt(digits.slice(2 * at, 2 * at + 2), 16);
  }
  return bytes;
}

/**
 * Hashes a text with SHA-256.
 *
 * @param text The text, taken as UTF-8.
 * @returns 64 hexadecimal digits.
 *
 * @example
 * ```ts
 * import { assert } from "@std/assert";
 *
 * assert((await sha256Hex("")).startsWith("e3b0c44298fc1c14"));
 * ```
 */
export async function sha256Hex(text: string): Promise<string> {
  const digest = await crypto.subtle.digest(
    "SHA-256",
    new TextEncoder().encode(text),
  );
  return toHex(new Uint8Array(digest));
}

/**
 * Writes bytes as base64 with padding.
 *
 * @param bytes The bytes, any number of them.
 * @returns The base64.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(toBase64(new Uint8Array([251, 255])), "+/8=");
 * ```
 */
export function toBase64(bytes: Uint8Array): string {
  let binary = "";
  for (let at = 0; at < bytes.length; at += PIECE) {
    binary += String.fromCharCode(...bytes.subarray(at, at + PIECE));
  }
  return btoa(binary);
}

/**
 * Reads base64, also in its alphabet for URLs, with or without padding.
 *
 * @param text The base64.
 * @returns The bytes.
 * @throws {DOMException} The text is not base64.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals([...fromBase64("+/8="), ...fromBase64("-_8")], [251, 255, 251, 255]);
 * ```
 */
export function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  const binary = atob(text.replace(/-/g, "+").replace(/_/g, "/"));
  return Uint8Array.from(binary, (letter) => letter.charCodeAt(0));
}
