/**
 * Ring 0. The alerts that the webhook has not received yet.
 *
 * @module
 */

import type { Json } from "./json.ts";

/** What began, or is over. */
export interface Alert {
  /** What it is about. */
  readonly name: "parked" | "drift" | "stale" | "rewind" | "epoch";
  /** A count, a length of time or a reason; null where it is over. */
  readonly detail: string | null;
}

/** Alerts to send, and what the source records once they are sent. */
export interface Due {
  /** The alerts, in the order in which they are sent. */
  readonly alerts: readonly Alert[];
  /** What the source records: the alerts that are on. */
  readonly alerted: Json;
}
