/**
 * Ring 0. A finding of doctor: what was checked, what was found, what to do.
 *
 * @module
 */

import { formatMs } from "../status/format.ts";

/** The result of one check. */
export interface Finding {
  /** What was checked. */
  readonly name: string;
  /** Only an error makes doctor's exit code 1. */
  readonly level: "ok" | "warning" | "error";
  /** What was found. */
  readonly found: string;
  /** How to repair it; null if nothing is wrong. */
  readonly advice: string | null;
}

/** Takes the findings, one by one. */
export type Report = (finding: Finding) => void;

/** Advice for a finding whose own text says what to do. */
export const AS_SAID = "do what the message says";

/**
 * Makes the finding of a check that found nothing wrong.
 *
 * @param name What was checked.
 * @param found What was found.
 * @returns The finding.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(ok("worker", "answers").advice, null);
 * ```
 */
export function ok(name: string, found: string): Finding {
  return { name, level: "ok", found, advice: null };
}

/**
 * Makes the finding of something to know or to do.
 *
 * @param name What was checked.
 * @param found What was found.
 * @param advice What to do.
 * @returns The finding.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(warning("clock", "5 min ahead", "set it").level, "warning");
 * ```
 */
export function warning(name: string, found: string, advice: string): Finding {
  return { name, level: "warning", found, advice };
}

/**
 * Makes the finding of something broken.
 *
 * @param name What was checked.
 * @param found What was found.
 * @param advice How to repair it.
 * @returns The finding.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(failure("worker", "does not answer", "publish it").level, "error");
 * ```
 */
export function failure(name: string, found: string, advice: string): Finding {
  return { name, level: "error", found, advice };
}

/** The worker accepts a signature for 5 minutes before and after its time. */
const SKEW_MS_MAX = 30_000;

/**
 * Judges how far a clock is from the one here.
 *
 * @param name The clock.
 * @param aheadMs How far it is ahead; negative if it is behind.
 * @returns The finding.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(skewOf("clock", 29_000).level, "ok");
 * assertEquals(skewOf("clock", -60_000).found, "1 min behind the clock here");
 * ```
 */
export function skewOf(name: string, aheadMs: number): Finding {
  if (Math.abs(aheadMs) < SKEW_MS_MAX) {
    return ok(name, "agrees with the clock here");
  }
  const direction = aheadMs < 0 ? "behind" : "ahead of";
  return warning(
    name,
    `${formatMs(Math.abs(aheadMs))} ${direction} the clock here`,
    "set the clocks by NTP: otherwise the ages in status are wrong, and beyond 5 minutes the worker refuses the cron's calls",
  );
}
