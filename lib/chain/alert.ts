/**
 * Ring 0. What the alert webhook is due.
 *
 * @module
 */

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
