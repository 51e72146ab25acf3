/**
 * Ring 0. The words of a status: what `deno task status` prints and GET /status
 * answers.
 *
 * @module
 */

import type { Found, Heartbeat } from "../source/report.ts";

/** Something to know, and what to do about it. */
export interface Warning {
  /** `attention`: an operator has to act. `note`: it resolves by itself. */
  readonly level: "attention" | "note";
  /** What was found, as a sentence. */
  readonly found: string;
  /** A command or an action; null if there is nothing to do. */
  readonly advice: string | null;
}

/** A walk in short. */
export interface WalkReport {
  /** Its number. */
  readonly walk: number;
  /** `backfill`, `verify`, `scrub` or `redrive`. */
  readonly kind: string;
  /** Whether it repairs what it finds. */
  readonly repair: boolean;
  /** When it ended; null if it goes on. */
  readonly ended_at: string | null;
  /** How long ago that was, in milliseconds. */
  readonly ended_ms_ago: number | null;
  /** Rows compared. */
  readonly rows: number;
  /** Rows that were missing or different, and ghosts. */
  readonly differences: number;
  /** The same by table. */
  readonly tables: Readonly<Record<string, Found>>;
}

/** How source and replica stand. */
export interface StatusReport {
  /** Whether no warning needs attention. */
  readonly fine: boolean;
  /** The source's epoch. */
  readonly epoch: string;
  /** Batches of it that are settled. */
  readonly position: number;
  /** Batches that the replica has applied; null before the first sync. */
  readonly replica_position: number | null;
  /** Whether the last batch took every change there was. */
  readonly drained: boolean;
  /** Whether every table was walked: with `drained`, the replica is equal. */
  readonly walk_done: boolean;
  /** When the source was as the replica is now. */
  readonly source_time: string | null;
  /** The age of the oldest change that is not in the replica; 0 when drained. */
  readonly lag_ms: number;
  /** Messages that wait. */
  readonly queued: number;
  /** Whether `queued` is exact, or a lower bound. */
  readonly queued_exact: boolean;
  /** Parked changes. */
  readonly dead_letters: number;
  /** When the source last saw the replica's row; null before the first sync. */
  readonly last_sync: string | null;
  /** How long ago that was, in milliseconds. */
  readonly last_sync_ms_ago: number | null;
  /** Whether calls came the whole way from the cron to the replica lately. */
  readonly heartbeat: Heartbeat;
  /** Whether a sync is running. */
  readonly syncing: boolean;
  /** Whether an operator has paused the worker. */
  readonly paused: boolean;
  /** The walk under way, and where it is. */
  readonly walk: (WalkReport & { table: string; half: string }) | null;
  /** How many walks wait for it. */
  readonly waiting_walks: number;
  /** The last walk that went over all tables. */
  readonly last_full_pass: WalkReport | null;
  /** The hashes of schema.json. */
  readonly schema: {
    /** In the worker or beside the command. */
    readonly here: string;
    /** In force at the source. */
    readonly source: string | null;
    /** The replica's tables. */
    readonly replica: string | null;
  };
  /** Why and when the epoch began. */
  readonly last_epoch: {
    reason: string;
    begun_at: string;
    begun_ms_ago: number;
  };
  /** What there is to know, the most urgent first. */
  readonly warnings: readonly Warning[];
}
