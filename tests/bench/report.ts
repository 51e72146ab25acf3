/**
 * Ring 0. What the bench says: a table for people.
 *
 * @module
 */

import { GOALS, isReached } from "./found.ts";

/**
 * Puts figures into a table.
 *
 * @param figures What was measured, by key.
 * @returns Its lines.
 */
export function table(figures: Record<string, number>): string[] {
  const rows = Object.entries(figures).map(([key, value]) => {
    const { what, atLeast, atMost } = GOALS[key]!;
    const goal = atLeast === undefined ? `<= ${atMost}` : `>= ${atLeast}`;
    return [
      key,
      goal,
      String(round(value)),
      isReached(key, value) ? "ok" : "NOT REACHED",
      what,
    ];
  });
  const lines = [["figure", "goal", "measured", "", ""], ...rows];
  const widths = lines[0]!.map((_, at) =>
    Math.max(...lines.map((line) => line[at]!.length))
  );
  return lines.map((line) =>
    line.map((cell, at) =>
      at === 1 || at === 2
        ? cell.padStart(widths[at]!)
        : cell.padEnd(widths[at]!)
    ).join("  ").trimEnd()
  );
}

/**
 * Rounds to three digits that count.
 *
 * @param value Any number.
 * @returns The number for human eyes.
 */
export function round(value: number): number {
  return Math.abs(value) >= 100
    ? Math.round(value)
    : Number(value.toPrecision(3));
}
