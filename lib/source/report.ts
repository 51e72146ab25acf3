/**
 * Ring 0. What the source reports of itself, checked.
 *
 * @module
 */

import { type Fields, readFields } from "./field_reader.ts";

/** What a walk found in one table. */
export interface Found {
  /** Rows that were looked at. */
  readonly rows: number;
  /** Rows that were missing or different. */
  readonly differing: number;
  /** Rows that the source does not have. */
  readonly ghosts: number;
  /** Why the table could not be read, as an SQLSTATE. */
  readonly failed?: string | null;
}

/** A walk, as the source has it on record. */
export interface Walk {
  /** Its number. */
  readonly walk_gen: number;
  /** Why it is open. */
  readonly kind: string;
  /** Whether it repairs what it finds. */
  readonly repair: boolean;
  /** What asked for it. */
  readonly reason: string;
  /** The tables it goes through, in order. */
  readonly tables: readonly string[];
  /** When it ended; null if it has not. */
  readonly ended_at: string | null;
  /** What it found so far, by table. */
  readonly found: Readonly<Record<string, Found>>;
}

/** Whether the whole way was gone lately: cron, pg_net, worker, replica. */
export interface Heartbeat {
  /** When the cron's job last came through. */
  readonly ticked_at: string | null;
  /** Whether it is late. */
  readonly stale: boolean;
  /** Where it ends; null where it does not. */
  readonly silent: "cron" | "worker" | null;
}

/** What `libsql_sync.status()` answers, as far as it is read here. */
export interface SourceStatus {
  /** The chain in force. */
  readonly epoch: string;
  /** How many batches of it are settled. */
  readonly position: number;
  /** Whether an operator paused the worker. */
  readonly paused: boolean;
  /** Whether an empty replica is filled by itself. */
  readonly refill: boolean;
  /** How many messages wait, at most 10,000. */
  readonly queued: number;
  /** Whether that number is exact, or a lower bound. */
  readonly queued_exact: boolean;
  /** When the oldest change that waits was made. */
  readonly oldest_change: string | null;
  /** How many dead letters are open. */
  readonly dead_letters: number;
  /** When a sync last ended. */
  readonly last_sync: string | null;
  /** The cron's last round trip. */
  readonly heartbeat: Heartbeat;
  /** Whether a sync holds the lease. */
  readonly syncing: boolean;
  /** The hash of the schema in force. */
  readonly schema: string | null;
  /** What doctor finds in the catalog: tables and triggers. */
  readonly catalog: readonly {
    readonly name: string;
    readonly found: string;
    readonly advice: string;
  }[];
  /** The replica's row as the last claim saw it. */
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
  /** The walk that is open. */
  readonly walk: Walk | null;
  /** Walks that were asked for and have not begun. */
  readonly waiting_walks: readonly Walk[];
  /** The last walk over all tables that ended. */
  readonly last_full_pass: Walk | null;
  /** How the chain in force began. */
  readonly last_epoch: {
    readonly reason: string;
    readonly begun_at: string;
    readonly wipe: boolean;
  };
}

/** What was done to a table over all time. */
export interface TableCounts {
  /** The table. */
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
  /** When it ended. */
  readonly ended_at: string;
  /** How long it took, in milliseconds. */
  readonly ms: number;
  /** Messages that left the queue. */
  readonly processed: number;
  /** Rows that were parked. */
  readonly parked: number;
  /** Batches that were applied. */
  readonly batches: number;
  /** Messages that still waited at its end. */
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
  /** How many syncs ended in that minute. */
  readonly syncs: number;
  /** How many of them failed. */
  readonly failed: number;
  /** Messages that left the queue. */
  readonly processed: number;
  /** The longest of its syncs. */
  readonly lag_ms: number;
}

/** What was done since the source was installed. */
export interface Totals {
  /** Syncs that ended. */
  readonly syncs: number;
  /** Those of them that failed. */
  readonly failed: number;
  /** Messages that left the queue. */
  readonly processed: number;
  /** Rows that were parked. */
  readonly parked: number;
  /** Batches that were applied. */
  readonly batches: number;
  /** Batches that the replica had lost: their messages were put back. */
  readonly replays: number;
  /** Milliseconds that all syncs took together. */
  readonly ms: number;
}

/** A dead letter. */
export interface Letter {
  /** Its number. */
  readonly id: number;
  /** Its table; null where the messages name none that is listed. */
  readonly table: string | null;
  /** The row's key; null for messages that say none. */
  readonly key: readonly (string | null)[] | null;
  /** Why it was parked. */
  readonly reason: string;
  /** When. */
  readonly parked_at: string;
}

/** What syncs did. */
export interface History {
  /** Counts since the source was installed. */
  readonly totals: Totals;
  /** Counts by table. */
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
