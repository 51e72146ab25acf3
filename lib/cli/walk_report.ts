/**
 * Ring 0. The result of a walk: its numbers, its exit code, its text.
 *
 * Promise: the exit code is 0 only if every table was compared, nothing was
 * parked, and no difference is left.
 *
 * @module
 */

import { formatTable } from "./table.ts";
import { formatCount } from "../status/format.ts";

/** What a walk found in one table. */
export interface Found {
  /** Rows compared. */
  readonly rows: number;
  /** Rows that the replica lacks or has with other values. */
  readonly differing: number;
  /** Rows that only the replica has. */
  readonly ghosts: number;
  /** Whether the walk is through this table. */
  readonly ended: boolean;
  /** Why the source could not read the table, as an SQLSTATE. */
  readonly failed?: string | null;
}

/** What a walk found, by table. */
export type FoundByTable = Readonly<Record<string, Found>>;

/** The result of a walk. */
export interface WalkReport {
  /** The command that asked for it. */
  readonly kind: "backfill" | "verify";
  /** The walk's number. */
  readonly walk: number;
  /** Whether it repaired what differed. */
  readonly repair: boolean;
  /** Rows compared. */
  readonly rows: number;
  /** Rows that differed. */
  readonly differences: number;
  /** Changes that were parked meanwhile, each as a dead letter. */
  readonly parked: number;
  /** How long it took. */
  readonly seconds: number;
  /** Tables that the source could not read. */
  readonly unread: readonly string[];
  /** What it found, by table. */
  readonly tables: FoundByTable;
}

/** The SQLSTATE of a table that does not exist yet: nothing to compare. */
const UNDEFINED_TABLE = "42P01";

/**
 * Adds up what a walk found.
 *
 * @param tables What it found, by table.
 * @returns The rows compared, and those that differed.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const tables = { apps: { rows: 5, differing: 1, ghosts: 2, ended: true } };
 * assertEquals(sumFound(tables), { rows: 5, differences: 3 });
 * ```
 */
export function sumFound(
  tables: FoundByTable,
): { rows: number; differences: number } {
  let rows = 0;
  let differences = 0;
  for (const found of Object.values(tables)) {
    rows += found.rows;
    differences += found.differing + found.ghosts;
  }
  return { rows, differences };
}

/**
 * Lists the tables that the source could not read.
 *
 * @param tables What the walk found, by table.
 * @returns Their names.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const found = { rows: 0, differing: 0, ghosts: 0, ended: true };
 * assertEquals(unreadIn({ a: found, b: { ...found, failed: "42703" } }), ["b"]);
 * ```
 */
export function unreadIn(tables: FoundByTable): string[] {
  return Object.entries(tables).filter(([, { failed }]) => failed)
    .map(([name]) => name);
}

/**
 * Decides the exit code of a walk.
 *
 * @param report The result.
 * @returns 0, or 1 if something is left to do.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const report = { differences: 2, parked: 0, unread: [], tables: {} };
 * assertEquals(walkExitCode({ ...report, repair: false }), 1);
 * assertEquals(walkExitCode({ ...report, repair: true }), 0);
 * ```
 */
export function walkExitCode(
  report: Pick<
    WalkReport,
    "repair" | "differences" | "parked" | "unread" | "tables"
  >,
): 0 | 1 {
  const { repair, differences, parked, unread, tables } = report;
  const isUnknown = unread.some((name) =>
    tables[name]?.failed !== UNDEFINED_TABLE
  );
  return (differences > 0 && !repair) || parked > 0 || isUnknown ? 1 : 0;
}

/**
 * Formats the result of a walk for people.
 *
 * @param report The result.
 * @returns The lines.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const apps = { rows: 5, differing: 0, ghosts: 0, ended: true };
 * const report: WalkReport = {
 *   kind: "verify", walk: 1, repair: false, rows: 5, differences: 0, parked: 0,
 *   seconds: 0.4, unread: [], tables: { apps },
 * };
 * assertEquals(formatWalk(report).at(-1), "5 rows compared in 0.4 s: no difference.");
 * ```
 */
export function formatWalk(report: WalkReport): string[] {
  const { rows, seconds, parked, unread, tables } = report;
  return [
    ...formatTable(
      ["table", "rows", "different", "ghosts"],
      Object.entries(tables).sort().map((
        [name, found],
      ) => [name, found.rows, found.differing, found.ghosts]),
    ),
    "",
    `${formatCount(rows)} rows compared in ${seconds} s${outcomeOf(report)}`,
    ...unread.map((name) => unreadLine(name, tables[name]?.failed)),
    ...parked === 0 ? [] : [
      `${formatCount(parked)} ${
        parked === 1 ? "change was" : "changes were"
      } parked: deno task dlq list`,
    ],
  ];
}

/** What came of the comparison, as the rest of a sentence. */
function outcomeOf({ kind, repair, differences, tables }: WalkReport): string {
  const count = formatCount(differences);
  if (kind === "backfill") return `, ${count} written or removed.`;
  if (differences === 0) return ": no difference.";
  const where = Object.entries(tables)
    .filter(([, { differing, ghosts }]) => differing + ghosts > 0)
    .map(([name]) => name).join(", ");
  const found = `: ${count} ${
    differences === 1 ? "difference" : "differences"
  }`;
  return repair
    ? `${found} found and repaired, in ${where}.`
    : `${found}, in ${where}. Repair: deno task verify --repair`;
}

function unreadLine(name: string, failed?: string | null): string {
  return failed === UNDEFINED_TABLE
    ? `Table ${name} does not exist in PostgreSQL: nothing to compare.`
    : `Table ${name} could not be read (SQLSTATE ${failed}) and was not compared: deno task doctor`;
}
