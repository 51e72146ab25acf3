/**
 * Ring 3. The paths, and the flow behind each.
 *
 * Promise: a path has one spelling: no slash at its end, no percent-encoding.
 *
 * @module
 */

import type { Config } from "../config/config.ts";
import type { FieldName, Query } from "./query.ts";

/** The flows behind the paths; each returns the fields of a successful answer. */
export interface Flows {
  /** Brings the replica up to date. */
  sync(config: Config): Promise<Record<string, unknown>>;
  /** Empties the replica and begins a new epoch. */
  nuke(config: Config, query: Query): Promise<Record<string, unknown>>;
  /** Compares every cell and repairs what differs. */
  backfill(config: Config, query: Query): Promise<Record<string, unknown>>;
  /** Compares every cell, and repairs what differs if asked to. */
  verify(config: Config, query: Query): Promise<Record<string, unknown>>;
  /** Tries the connections to both databases. */
  doctor(config: Config): Promise<Record<string, unknown>>;
  /** Tries dead letters again. */
  redrive(config: Config, query: Query): Promise<Record<string, unknown>>;
  /** Reports how source and replica stand. */
  status(config: Config, query: Query): Promise<Record<string, unknown>>;
  /** Reports the same as OpenMetrics. */
  metrics(config: Config): Promise<string>;
}

/** A path's methods, its flow, and the fields of its query. */
export interface Route {
  /** The methods, as the header Allow lists them. */
  readonly allow: string;
  /** The flow; `/` and `/health` have none and need no signature. */
  readonly flow?: keyof Flows;
  /** The query's fields. If there are none, a query is ignored. */
  readonly query?: readonly FieldName[];
}

/** Every path. */
export const ROUTES: ReadonlyMap<string, Route> = new Map<string, Route>([
  ["/", { allow: "GET, HEAD" }],
  ["/health", { allow: "GET, HEAD" }],
  ["/ok", { allow: "GET, HEAD" }],
  ["/sync", { allow: "POST", flow: "sync" }],
  ["/nuke", { allow: "POST", flow: "nuke", query: ["refill", "epoch"] }],
  ["/backfill", { allow: "POST", flow: "backfill", query: ["table"] }],
  ["/verify", { allow: "POST", flow: "verify", query: ["table", "repair"] }],
  ["/doctor", { allow: "GET", flow: "doctor" }],
  ["/redrive", { allow: "POST", flow: "redrive", query: ["id"] }],
  ["/status", { allow: "GET", flow: "status", query: ["letters"] }],
  ["/metrics", { allow: "GET", flow: "metrics" }],
]);
