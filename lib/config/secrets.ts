/**
 * Ring 0. The settings that hold secrets.
 *
 * Promise: an old and a new secret are both accepted while senders change, and a
 * secret with a comma in it is never cut by accident.
 *
 * @module
 */

import { lengthOf, type Report } from "./found.ts";

/** Each of two secrets must be this long, so that one long secret is not split. */
const SECRET_LENGTH_MIN = 16;

/**
 * Reads and checks a setting of secrets.
 *
 * The whole text is always a secret. A comma also separates an old and a new one
 * if both are long; a comma with a space after it, which no generated secret
 * has, must separate two.
 *
 * @param name The setting.
 * @param read Reads a setting; empty if it is not set.
 * @param report Takes each problem.
 * @returns The secrets; none if there is a problem.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const parse = (text: string) => parseSecrets("NAME", () => text, () => {});
 * assertEquals(parse("a,b"), ["a,b"]);
 * const [old, fresh] = ["0123456789abcdef", "fedcba9876543210"];
 * assertEquals(parse(`${old},${fresh}`), [`${old},${fresh}`, old, fresh]);
 * ```
 */
export function parseSecrets(
  name: string,
  read: (name: string) => string,
  report: Report,
): readonly string[] {
  const text = read(name);
  // Senders encode characters beyond ASCII differently.
  if (text === "" || text !== text.trim() || !/^[\x20-\x7e]*$/.test(text)) {
    const found = text === ""
      ? "nothing"
      : text !== text.trim()
      ? `${lengthOf(text)} with space around them`
      : `${lengthOf(text)}, not all of them such`;
    report(
      `${name} must be printable ASCII without space around it: found ${found}; ` +
        `set it to the secret that the webhook sends.`,
    );
    return [];
  }
  const parts = text.split(/, */);
  if (
    parts.length === 2 &&
    parts.every((part) => part.length >= SECRET_LENGTH_MIN)
  ) return [text, ...parts];
  if (text.includes(", ")) {
    report(
      `${name} must be one secret, or an old and a new one with a comma between them, each of ${SECRET_LENGTH_MIN} characters or more: found ${parts.length}, of ${
        parts.map(({ length }) => length).join(" and ")
      } characters; a shorter one is replaced in one step.`,
    );
  }
  return [text];
}
