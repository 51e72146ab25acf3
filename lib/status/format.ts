/**
 * Ring 0. Counts and lengths of time as people read them.
 *
 * Promise: the same value always reads the same; no locale plays a part.
 *
 * @module
 */

/**
 * Formats a count with a comma at each thousand.
 *
 * @param count A whole number.
 * @returns The text.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(formatCount(1234567), "1,234,567");
 * ```
 */
export function formatCount(count: number): string {
  return String(count).replace(/\B(?=(\d{3})+$)/g, ",");
}

/**
 * Formats a length of time by its two largest units.
 *
 * @param ms Milliseconds.
 * @returns The text.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(formatMs(93_000), "1 min 33 s");
 * assertEquals(formatMs(90_000_000), "1 d 1 h");
 * assertEquals(formatMs(400), "0 s");
 * ```
 */
export function formatMs(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const units = [
    [Math.floor(seconds / 86_400), "d"],
    [Math.floor(seconds / 3_600) % 24, "h"],
    [Math.floor(seconds / 60) % 60, "min"],
    [seconds % 60, "s"],
  ] as const;
  const first = units.findIndex(([count]) => count > 0);
  if (first === -1) return "0 s";
  return units.slice(first, first + 2).filter(([count]) => count > 0)
    .map(([count, unit]) => `${count} ${unit}`).join(" ");
}
