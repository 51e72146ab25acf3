/**
 * Ring 0. Doctor's findings as text for people.
 *
 * @module
 */

import type { Finding } from "./finding.ts";
import { oneLine } from "./table.ts";

/** As wide as "warning". */
const LEVEL_WIDTH = 7;

/**
 * Formats findings, each with its advice on a line of its own.
 *
 * @param findings The findings.
 * @param options Whether those that are fine are shown as well.
 * @returns The lines.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const clock = { name: "clock", level: "warning", found: "5 min ahead", advice: "set it" } as const;
 * assertEquals(formatFindings([clock], { isAll: false }), [
 *   "warning  clock  5 min ahead",
 *   "                -> set it",
 *   "",
 *   "1 check: 0 fine, 1 warning, 0 errors.",
 * ]);
 * ```
 */
export function formatFindings(
  findings: readonly Finding[],
  options: { isAll: boolean },
): string[] {
  const shown = findings.filter(({ level }) => options.isAll || level !== "ok");
  const width = Math.max(0, ...shown.map(({ name }) => oneLine(name).length));
  const indent = " ".repeat(LEVEL_WIDTH + width + 4);
  const lines = shown.flatMap(({ name, level, found, advice }) => [
    `${level.padEnd(LEVEL_WIDTH)}  ${oneLine(name).padEnd(width)}  ${
      oneLine(found)
    }`,
    ...advice === null ? [] : [`${indent}-> ${oneLine(advice)}`],
  ]);
  const countOf = (level: Finding["level"]) =>
    findings.filter((finding) => finding.level === level).length;
  return [
    ...lines,
    ...lines.length > 0 ? [""] : [],
    `${plural(findings.length, "check")}: ${countOf("ok")} fine, ${
      plural(countOf("warning"), "warning")
    }, ${plural(countOf("error"), "error")}.`,
  ];
}

function plural(count: number, word: string): string {
  return `${count} ${word}${count === 1 ? "" : "s"}`;
}
