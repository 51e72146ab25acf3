/**
 * Ring 0. What an error about a setting may say of what was found.
 *
 * Promise: of a value, only its length and a scheme from a closed list are shown.
 *
 * @module
 */

/** Takes the sentence that says what is wrong with a setting. */
export type Report = (problem: string) => void;

/** The schemes that an error may name; another could be part of a secret. */
const SCHEMES = [
  "libsql",
  "https",
  "http",
  "wss",
  "ws",
  "file",
  "postgres",
  "postgresql",
  "mysql",
  "redis",
];

/**
 * Finds the scheme of what may be a URL.
 *
 * @param text The text.
 * @returns The scheme in lower case, if there is one.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(schemeOf("LIBSQL://host"), "libsql");
 * ```
 */
export function schemeOf(text: string): string | undefined {
  return /^([a-z][a-z0-9+.-]*):\/\//i.exec(text)?.[1]?.toLowerCase();
}

/**
 * Says which scheme was found, without showing what may be a secret.
 *
 * @param text The text.
 * @returns The words.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(foundScheme("mysql://u:p@h"), "mysql://");
 * assertEquals(foundScheme("secret"), "6 characters without a scheme");
 * ```
 */
export function foundScheme(text: string): string {
  const scheme = schemeOf(text);
  if (scheme === undefined) return `${lengthOf(text)} without a scheme`;
  return SCHEMES.includes(scheme) ? `${scheme}://` : "another scheme";
}

/**
 * Says how long a text is, which is all that may be shown of it.
 *
 * @param text The text.
 * @returns The words.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(lengthOf("a"), "1 character");
 * ```
 */
export function lengthOf(text: string): string {
  return `${text.length} character${text.length === 1 ? "" : "s"}`;
}
