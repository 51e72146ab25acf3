/**
 * Ring 0. The progress of a walk, as the commands print it for people.
 *
 * Promise: it shows 100 % never, as the total is an estimate, and no time left
 * without a rate to compute it from.
 *
 * @module
 */

import { oneLine } from "./table.ts";
import { formatCount, formatMs } from "../status/format.ts";

/** How far a walk is. */
export interface Progress {
  /** Rows compared so far. */
  readonly rows: number;
  /** About how many rows there are; null if PostgreSQL has no estimate. */
  readonly rowsTotal: number | null;
  /** Differences found so far. */
  readonly differences: number;
  /** The table that is being checked for ghosts, rows that the source lacks. */
  readonly ghostsOf: string | null;
  /** Rows compared while watching, and in how many milliseconds. */
  readonly watched: { readonly rows: number; readonly ms: number };
}

/** The bar is full only when the walk is done. */
const SHARE_MAX = 0.99;

/**
 * Formats the progress of a walk, with a bar if the total is known.
 *
 * @param progress How far the walk is.
 * @param options The bar's width; 0 leaves it out.
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
  const { rows, differences, ghostsOf } = progress;
  const rowsTotal = progress.rowsTotal || null;
  return [
    ...rowsTotal === null ? [`${formatCount(rows)} rows`] : [
      ...formatShare(rows / rowsTotal, options.barWidth),
      `${formatCount(rows)} of about ${
        formatCount(Math.max(rowsTotal, rows))
      } rows`,
    ],
    ...formatRate(progress),
    `${formatCount(differences)} different`,
    // This half counts no rows: without a word it would look stuck.
    ...ghostsOf === null ? [] : [`checking ${oneLine(ghostsOf)} for ghosts`],
  ].join("  ");
}

/** The bar, if it has a width, and the share in percent. */
function formatShare(share: number, barWidth: number): string[] {
  const shown = Math.min(share, SHARE_MAX);
  const percent = `${Math.floor(shown * 100)} %`;
  if (barWidth === 0) return [percent];
  const bar = "#".repeat(Math.floor(shown * barWidth)).padEnd(barWidth);
  return [`[${bar}]`, percent.padStart(4)];
}

/** The rows per second, and the time left as long as rows are counted. */
function formatRate(
  { rows, rowsTotal, ghostsOf, watched }: Progress,
): string[] {
  const rate = watched.ms > 0 ? watched.rows / (watched.ms / 1000) : 0;
  if (rate < 1) return [];
  const shown = `${formatCount(Math.round(rate))}/s`;
  if (rowsTotal === null || rowsTotal <= rows || ghostsOf !== null) {
    return [shown];
  }
  return [shown, `${formatMs((rowsTotal - rows) / rate * 1000)} left`];
}
