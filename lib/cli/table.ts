/**
 * Ring 0. Tables and lists of pairs, as the commands print them for people.
 *
 * Promise: a row is one line of aligned columns, and no cell holds a control
 * character that a terminal would obey.
 *
 * @module
 */

import { formatCount } from "../status/format.ts";

// deno-lint-ignore no-control-regex
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g;
const GAP = "  ";

/**
 * Makes a text safe to print on one line.
 *
 * @param text The text.
 * @param charactersMax The length to cut it to; default no limit.
 * @returns The text, each control character shown as "\ufffd".
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(oneLine("a\nb"), "a\ufffdb");
 * assertEquals(oneLine("abcdef", 4), "abc…");
 * ```
 */
export function oneLine(text: string, charactersMax = Infinity): string {
  const clean = text.replace(CONTROL, "\ufffd");
  const characters = [...clean];
  return characters.length <= charactersMax
    ? clean
    : characters.slice(0, charactersMax - 1).join("") + "…";
}

/**
 * Formats rows as columns under a heading.
 *
 * @param heading The names of the columns.
 * @param rows The cells, one for each column; columns of numbers align right.
 * @returns The lines.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(formatTable(["table", "rows"], [["apps", 5], ["orgs", 1200]]), [
 *   "table   rows",
 *   "apps       5",
 *   "orgs   1,200",
 * ]);
 * ```
 */
export function formatTable(
  heading: readonly string[],
  rows: readonly (readonly (string | number)[])[],
): string[] {
  const isNumber = heading.map((_, i) =>
    rows.some((row) => typeof row[i] === "number")
  );
  const texts = [
    heading,
    ...rows.map((row) =>
      row.map((cell) =>
        typeof cell === "number" ? formatCount(cell) : oneLine(cell)
      )
    ),
  ];
  const widths = heading.map((_, i) =>
    Math.max(...texts.map((row) => widthOf(row[i] ?? "")))
  );
  return texts.map((row) =>
    row.map((cell, i) => {
      const pad = " ".repeat(widths[i]! - widthOf(cell));
      return isNumber[i] ? pad + cell : cell + pad;
    }).join(GAP).trimEnd()
  );
}

/**
 * Formats names and their texts, one pair per line.
 *
 * @param pairs The names and texts.
 * @returns The lines.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(formatPairs([["queued", "0"], ["lag", "3 s"]]), ["queued  0", "lag     3 s"]);
 * ```
 */
export function formatPairs(
  pairs: readonly (readonly [string, string])[],
): string[] {
  const width = Math.max(0, ...pairs.map(([name]) => widthOf(name)));
  return pairs.map(([name, text]) =>
    `${name}${" ".repeat(width - widthOf(name))}${GAP}${oneLine(text)}`
      .trimEnd()
  );
}

function widthOf(text: string): number {
  return [...text].length;
}
