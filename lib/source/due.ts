/**
 * Ring 0. Reads the alerts that are due out of an answer of the source.
 *
 * @module
 */

import type { Due } from "../chain/alert.ts";
import type { Json } from "../chain/json.ts";
import { type Fields, readFields } from "./field_reader.ts";

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
  const answer: Fields = readFields(value);
  if (answer.value("alerts") == null) return null;
  const alerts = answer.list("alerts").map((alert) => {
    const { oneOf, textOrNull } = readFields(alert);
    return {
      name: oneOf("name", ["parked", "drift", "stale", "rewind", "epoch"]),
      detail: textOrNull("detail"),
    };
  });
  return { alerts, alerted: answer.value("alerted") as Json };
}
