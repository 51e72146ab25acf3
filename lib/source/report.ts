/**
 * Ring 0. What the source reports of itself, checked.
 *
 * @module
 */

import { type Fields, readFields } from "./field_reader.ts";

/** What a walk found in one table. */
export interface Found {
  readonly rows: number;
  readonly differing: number;
  readonly ghosts: number;
  readonly failed?: string | null;
}

export interface Walk {
  readonly walk_gen: number;
  readonly kind: string;
  readonly repair: boolean;
  readonly reason: string;
  readonly tables: readonly string[];
  readonly ended_at: string | null;
  readonly found: Readonly<Record<string, Found>>;
}

/** Whether the whole way was gone lately: cron, pg_net, worker, replica. */
export interface Heartbeat {
  /** When the cron's job last came through. */
  readonly ticked_at: string | null;
  readonly stale: boolean;
  /** Where it ends; null where it does not. */
  readonly silent: "cron" | "worker" | null;
}

/** What `libsql_sync.status()` answers, as far as it is read here. */
export interface SourceStatus {
  readonly epoch: string;
  readonly position: number;
  readonly paused: boolean;
  readonly refill: boolean;
  readonly queued: number;
  readonly queued_exact: boolean;
  readonly oldest_change: string | null;
  readonly dead_letters: number;
  readonly last_sync: string | null;
  readonly heartbeat: Heartbeat;
  readonly syncing: boolean;
  readonly schema: string | null;
  /** What doctor finds in the catalog: tables and triggers. */
  readonly catalog: readonly {
    readonly name: string;
    readonly found: string;
    readonly advice: string;
  }[];
  readonly replica:
    | {
      readonly epoch: string;
      readonly position: number;
      readonly drained: number;
      readonly walk_done: number;
      readonly walk_at: string | null;
      readonly source_time: string | null;
      readonly schema_hash: string;
    }
    | null;
  readonly walk: Walk | null;
  readonly waiting_walks: readonly Walk[];
  readonly last_full_pass: Walk | null;
  readonly last_epoch: {
    readonly reason: string;
    readonly begun_at: string;
    readonly wipe: boolean;
  };
}

/** What was done to a table over all time. */
export interface TableCounts {
  readonly name: string;
  /** About how many rows the source has. */
  readonly rows: number;
  /** Rows that changes wrote or removed. */
  readonly applied: number;
  /** Differences that verifies and scrubs found. */
  readonly drift: number;
  /** When a walk was last through with it. */
  readonly verified_at: string | null;
}

/** How a sync ended. */
export interface SyncRecord {
  /** Its number. */
  readonly n: number;
  readonly ended_at: string;
  readonly ms: number;
  readonly processed: number;
  readonly parked: number;
  readonly batches: number;
  readonly queued: number;
  /** How long the oldest change had waited when it began. */
  readonly lag_ms: number;
  /** The code of what ended it; null where it succeeded. */
  readonly error: string | null;
}

/** What the syncs of a minute did. */
export interface MinuteRecord {
  /** Minutes since 1970. */
  readonly minute: number;
  readonly syncs: number;
  readonly failed: number;
  readonly processed: number;
  /** The longest of its syncs. */
  readonly lag_ms: number;
}

/** What was done since the source was installed. */
export interface Totals {
  readonly syncs: number;
  readonly failed: number;
  readonly processed: number;
  readonly parked: number;
  readonly batches: number;
  /** Batches applied again because the replica had lost them. */
  readonly replays: number;
  readonly ms: number;
}

/** A dead letter. */
export interface Letter {
  readonly id: number;
  readonly table: string | null;
  readonly key: readonly (string | null)[] | null;
  readonly reason: string;
  readonly parked_at: string;
}

/** What syncs did. */
export interface History {
  readonly totals: Totals;
  readonly tables: readonly TableCounts[];
  /** The last 20, the newest first. */
  readonly syncs: readonly SyncRecord[];
  /** Those of the last three hours that had a sync. */
  readonly minutes: readonly MinuteRecord[];
  /** The newest 50, where they were asked for. */
  readonly letters: readonly Letter[] | null;
}

/** What `libsql_sync.report()` answers. */
export interface SourceReport extends SourceStatus, History {
  /** The source's time. */
  readonly now: string;
}

/**
 * Reads the answer of `report`.
 *
 * @param value The answer.
 * @returns The report.
 * @throws {SyncError} `source_failed` where it is none.
 */
export function sourceReportOf(value: unknown): SourceReport {
  const answer: Fields = readFields(value);
  for (const name of ["epoch", "now"]) answer.text(name);
  for (const name of ["position", "queued", "dead_letters"]) {
    answer.number(name);
  }
  for (
    const name of ["waiting_walks", "catalog", "tables", "syncs", "minutes"]
  ) answer.list(name);
  readFields(answer.value("last_epoch")).text("begun_at");
  const report = value as SourceReport;
  return { ...report, totals: { ...NONE, ...report.totals } };
}

const NONE: Totals = {
  syncs: 0,
  failed: 0,
  processed: 0,
  parked: 0,
  batches: 0,
  replays: 0,
  ms: 0,
};
