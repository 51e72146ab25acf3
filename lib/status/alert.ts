/**
 * Ring 0. The texts of alerts.
 *
 * Promise: they hold names, counts, times and reasons, never a row's value.
 *
 * @module
 */

import type { Alert } from "../chain/alert.ts";

/** The text when it begins, the advice, and the text when it is over. */
const TEXTS: Record<
  Alert["name"],
  readonly [begins: (detail: string) => string, advice: string, over: string]
> = {
  parked: [
    (count) => `parked changes: ${count}`,
    "deno task dlq list",
    "no change is parked any more",
  ],
  drift: [
    (count) => `a walk found rows that differ: ${count}`,
    "deno task status",
    "the rows that differed are repaired",
  ],
  stale: [
    (time) => `no sync for ${time}`,
    "deno task doctor",
    "syncs are back",
  ],
  rewind: [
    (count) => `the replica lost batches, now put back: ${count}`,
    "nothing to do unless it happens again",
    "the replica has the lost batches again",
  ],
  epoch: [
    (reason) => `the chain was broken: ${reason}`,
    "deno task status",
    "the replica follows its chain",
  ],
};

/**
 * Formats alerts as a webhook such as Slack's takes them.
 *
 * @param alerts The alerts that begin or are over.
 * @returns The JSON's value.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(formatAlerts([{ name: "parked", detail: "3" }, { name: "drift", detail: null }]).text,
 *   "LibSQL Sync: parked changes: 3 (deno task dlq list)\n" +
 *   "LibSQL Sync: over: the rows that differed are repaired");
 * ```
 */
export function formatAlerts(
  alerts: readonly Alert[],
): { text: string; alerts: readonly Alert[] } {
  const lines = alerts.map(({ name, detail }) => {
    const [begins, advice, over] = TEXTS[name];
    return `LibSQL Sync: ${
      detail === null ? `over: ${over}` : `${begins(detail)} (${advice})`
    }`;
  });
  return { text: lines.join("\n"), alerts };
}
