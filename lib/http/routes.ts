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
  /** The flow. A path without one needs no signature. */
  readonly flow?: keyof Flows;
  /** The query's fields. If there are none, a query is ignored. */
  readonly query?: readonly FieldName[];
}

const OPEN: Route = { allow: "GET, HEAD" };

/** Makes the paths of flows that are called by one method. */
const by = (allow: string) =>
(
  flow: keyof Flows,
  ...query: FieldName[]
): [string, Route] => [`/${flow}`, { allow, flow, query }];

const get = by("GET");
const post = by("POST");

/** Every path. */
export const ROUTES: ReadonlyMap<string, Route> = new Map([
  ["/", OPEN],
  ["/health", OPEN],
  ["/ok", OPEN],
  post("sync"),
  post("nuke", "refill", "epoch"),
  post("backfill", "table"),
  post("verify", "table", "repair"),
  post("redrive", "id"),
  get("doctor"),
  get("status", "letters"),
  get("metrics"),
]);
