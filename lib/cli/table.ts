/**
 * Ring 0. What the commands print for people: tables, pairs, ages, progress.
 *
 * Promise: plain text of one width per column; whatever a cell holds, a line
 * stays a line and a terminal obeys none of it.
 *
 * @module
 */

import { formatCount, formatMs } from "../status/format.ts";

// deno-lint-ignore no-control-regex
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g;
const GAP = "  ";

/**
 * Makes a text fit to be printed on one line.
 *
 * @param text The text.
 * @param charactersMax Where it is cut, if at all.
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
 * @param rows The cells, as many in each row; numbers stand on the right.
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
 * Formats names with what they stand for, one a line.
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

/** How far a walk is. */
export interface Progress {
  /** Rows compared so far. */
  readonly rows: number;
  /** Rows there are about; null where nobody knows. */
  readonly rowsTotal: number | null;
  /** Differences found so far. */
  readonly differences: number;
  /** The table whose rows the source may not have are looked for now. */
  readonly ghostsOf: string | null;
  /** Rows compared while watching, and in how many milliseconds. */
  readonly watched: { readonly rows: number; readonly ms: number };
}

/**
 * Formats how far a walk is, with a bar where the total is known.
 *
 * The total is an estimate, so the bar is full only when the walk is done, and
 * the time left is left out until there is a rate to go by.
 *
 * @param progress How far it is.
 * @param options How wide the bar is; 0 leaves it out.
 * @returns One line.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(
 *   formatProgress(
 *     { rows: 5000, rowsTotal: 20000, differences: 0, ghostsOf: null, watched: { rows: 5000, ms: 1000 } },
 *     { barWidth: 8 },
 *   ),
 *   "[##      ]  25 %  5,000 of about 20,000 rows  5,000/s  3 s left  0 different",
 * );
 * ```
 */
export function formatProgress(
  progress: Progress,
  options: { barWidth: number },
): string {
  const { rows, rowsTotal, differences, ghostsOf, watched } = progress;
  const rate = watched.ms > 0 ? watched.rows / (watched.ms / 1000) : 0;
  const parts: string[] = [];
  if (rowsTotal !== null && rowsTotal > 0) {
    const share = Math.min(rows / rowsTotal, 0.99);
    const filled = Math.floor(share * options.barWidth);
    if (options.barWidth > 0) {
      const empty = " ".repeat(options.barWidth - filled);
      parts.push(`[${"#".repeat(filled)}${empty}]`);
    }
    const percent = `${Math.floor(share * 100)} %`;
    parts.push(options.barWidth > 0 ? percent.padStart(4) : percent);
    const about = Math.max(rowsTotal, rows);
    parts.push(`${formatCount(rows)} of about ${formatCount(about)} rows`);
  } else parts.push(`${formatCount(rows)} rows`);
  if (rate >= 1) {
    parts.push(`${formatCount(Math.round(rate))}/s`);
    if (rowsTotal !== null && rowsTotal > rows && ghostsOf === null) {
      parts.push(`${formatMs((rowsTotal - rows) / rate * 1000)} left`);
    }
  }
  parts.push(`${formatCount(differences)} different`);
  // This half counts no rows: it would look as if nothing moved.
  if (ghostsOf !== null) parts.push(`ghosts of ${oneLine(ghostsOf)}?`);
  return parts.join(GAP);
}

function widthOf(text: string): number {
  return [...text].length;
}
