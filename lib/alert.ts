/**
 * Ring 0. What the alert webhook is told.
 *
 * Promise: an event is told once, and once more when it is over; what is told
 * holds names and counts, never a row's value.
 *
 * @module
 */

import { type Answer, readAnswer } from "./answer.ts";
import type { Json } from "./json.ts";

/** What began, or is over. */
export interface Alert {
  readonly name: "parked" | "drift" | "stale" | "rewind" | "epoch";
  /** A count, a length of time or a reason; null where it is over. */
  readonly detail: string | null;
}

/** What is to be told, and what the source keeps when it was. */
export interface Due {
  readonly alerts: readonly Alert[];
  readonly alerted: Json;
}

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
 * Reads what is due out of an answer of the source.
 *
 * @param value The answer.
 * @returns What is due; null where nothing is.
 * @throws {SyncError} `source_failed` where it cannot be read.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const alerts = [{ name: "parked" as const, detail: "3" }];
 * assertEquals(dueOf({ alerts, alerted: {} }), { alerts, alerted: {} });
 * assertEquals(dueOf({}), null);
 * ```
 */
export function dueOf(value: unknown): Due | null {
  const answer: Answer = readAnswer(value);
  if (answer.value("alerts") == null) return null;
  const alerts = answer.list("alerts").map((alert) => {
    const { oneOf, textOrNull } = readAnswer(alert);
    return {
      name: oneOf("name", ["parked", "drift", "stale", "rewind", "epoch"]),
      detail: textOrNull("detail"),
    };
  });
  return { alerts, alerted: answer.value("alerted") as Json };
}

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
