/**
 * Ring 0. What the alert webhook is told.
 *
 * Promise: an event is told once, and once more when it is over; what is told
 * holds names and counts, never a row's value.
 *
 * @module
 */

import type { Alert } from "../chain/alert.ts";

/** What it says when it begins, the advice, and what when it is over. */
const TEXTS: Record<
  Alert["name"],
  readonly [begins: (detail: string) => string, advice: string, over: string]
> = {
  parked: [
    (count) => `changes are set aside: ${count}`,
    "deno task dlq list",
    "no change is set aside any more",
  ],
  drift: [
    (count) => `a walk found rows that differ: ${count}`,
    "deno task status",
    "what differed is mended",
  ],
  stale: [
    (time) => `no sync for ${time}`,
    "deno task doctor",
    "syncs are back",
  ],
  rewind: [
    (count) => `the replica lost batches, which are replayed: ${count}`,
    "nothing to do where it does not come again",
    "the replica has what it had lost",
  ],
  epoch: [
    (reason) => `the chain was broken: ${reason}`,
    "deno task status",
    "the replica follows its chain",
  ],
};

/**
 * Writes what a webhook takes, such as Slack's.
 *
 * @param alerts What began, or is over.
 * @returns The JSON's value.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(formatAlerts([{ name: "parked", detail: "3" }, { name: "drift", detail: null }]).text,
 *   "LibSQL Sync: changes are set aside: 3 (deno task dlq list)\n" +
 *   "LibSQL Sync: over: what differed is mended");
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
