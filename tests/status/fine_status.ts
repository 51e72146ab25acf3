/** A status of the source in which nothing needs attention, to be varied. */

import type { SourceStatus } from "../../lib/source/report.ts";

/** The time of every report. */
export const NOW = Date.parse("2026-11-22T12:00:00Z");

/** A time before it. */
export function minutesAgo(minutes: number): string {
  return new Date(NOW - minutes * 60_000).toISOString();
}

/** The hash of schema.json on all three sides. */
export const HASH = "c6ed9492";

/** The last walk over all tables. */
export const PASS: NonNullable<SourceStatus["last_full_pass"]> = {
  walk_gen: 3,
  kind: "scrub",
  repair: true,
  reason: "for ever",
  tables: ["apps"],
  ended_at: minutesAgo(120),
  found: { apps: { rows: 1000, differing: 0, ghosts: 0 } },
};

/** Where the replica stands. */
export const REPLICA: NonNullable<SourceStatus["replica"]> = {
  epoch: "0a1b2c3d-0000",
  position: 17,
  drained: 1,
  walk_done: 1,
  walk_at: null,
  source_time: minutesAgo(5),
  schema_hash: HASH,
};

/** The status. */
export const FINE: SourceStatus = {
  epoch: "0a1b2c3d-0000",
  position: 17,
  paused: false,
  refill: true,
  queued: 0,
  queued_exact: true,
  oldest_change: null,
  dead_letters: 0,
  last_sync: minutesAgo(5),
  heartbeat: { ticked_at: minutesAgo(1), stale: false, silent: null },
  syncing: false,
  schema: HASH,
  catalog: [],
  replica: REPLICA,
  walk: null,
  waiting_walks: [],
  last_full_pass: PASS,
  last_epoch: { reason: "installed", begun_at: minutesAgo(3000), wipe: false },
};
