/**
 * Ring 0. The words that the worker and the source share: what is claimed, and what is asked for.
 *
 * @module
 */

import type { Due } from "./alert.ts";
import type { Json } from "./json.ts";
import type { Refusal, TableRows, Unusable } from "./rows.ts";
import type { Page, PageHead } from "./page.ts";

/** The contract's version, which the worker and the source functions must share; not the release. */
export const CONTRACT = 5;

/** Carries one call to the source and its answer back. */
export interface Carrier {
  /**
   * Calls a function of the source.
   *
   * @param name The function in schema libsql_sync.
   * @param request Its argument.
   * @returns Its answer, parsed.
   * @throws {SyncError} The source could not be reached, or refused.
   */
  call(name: string, request: Json): Promise<unknown>;
}

/** The functions that return a JSON text in pieces, as text[], and not json. */
export const IN_PIECES: ReadonlySet<string> = new Set(["claim"]);

/** How many messages wait. */
export interface Queued {
  /** Their number, at most 10,000. */
  readonly queued: number;
  /** Whether it is exact, or a lower bound. */
  readonly queuedExact: boolean;
}

/** How many messages wait when a sync ends, and the alerts to send. */
export interface Ended extends Queued {
  /** The alerts to send; null if there are none. */
  readonly due: Due | null;
}

/** What a sync did so far. */
export interface Outcome {
  /** Messages that were acked. */
  readonly processed: number;
  /** Rows that were parked. */
  readonly parked: number;
  /** Batches that were applied. */
  readonly batches: number;
  /** Batches that the replica had lost: their messages were put back. */
  readonly replays: number;
  /** How long it took, in milliseconds. */
  readonly ms: number;
  /** The code of what ended it. */
  readonly error?: string;
  /** Rows that changes wrote or removed, by table. */
  readonly tables: Readonly<Record<string, number>>;
}

/** The lease, or the news that another sync has it. */
export type Lease =
  | {
    readonly do: "granted";
    readonly epoch: string;
    /** Whether a batch may carry a page of the scrub. */
    readonly scrub: boolean;
    /** Whether the next call comes at once when there is more. */
    readonly brief: boolean;
  }
  | {
    readonly do: "busy";
    readonly epoch: string;
    /** Whether the replica was seen in this epoch. */
    readonly followed: boolean;
    /** Whether an operator holds the worker off. */
    readonly paused: boolean;
  } & Queued;

/** A batch to apply. */
export interface Batch {
  /** The verb. */
  readonly do: "batch";
  /** The chain it belongs to. */
  readonly epoch: string;
  /** Its place in the chain, from 1 on. */
  readonly position: number;
  /** Its id, which is new with every claim. */
  readonly batch: string;
  /** The id of the batch before it. */
  readonly prev: string;
  /** Whether it covers every message its snapshot could see. */
  readonly drained: boolean;
  /** That snapshot; of a batch that is not drained, the one of the last that was. */
  readonly snapshot: string;
  /** When its snapshot was taken, as ISO 8601. */
  readonly sourceTime: string;
  /** Dead letters that were open when it was claimed. */
  readonly deadLetters: number;
  /** Whether the walk starts over: something went past the queue. */
  readonly reopen: boolean;
  /** How many messages it covers. */
  readonly messages: number;
  /** The rows of their keys. */
  readonly tables: readonly TableRows[];
  /** Messages without a key that could be used. */
  readonly unusable: readonly Unusable[];
  /** Rows to leave out: parked by an earlier batch of its position, and not changed since. */
  readonly parked: readonly Refusal[];
  /** Rows of a walk that ride on it. */
  readonly page: Page | null;
}

/** A batch without its rows, once these are planned. */
export interface BatchHead extends Omit<Batch, "tables" | "unusable" | "page"> {
  /** Its page without rows; null if it carries none. */
  readonly page: PageHead | null;
}

/** What the source did on the way to its answer. */
export interface Settled {
  /** Messages that were settled. */
  readonly acked: number;
  /** Batches whose messages were put back, as the replica had lost them. */
  readonly putBack: number;
}

/** What to do next. */
export type Claim =
  & Settled
  & (
    | Batch
    | {
      readonly do: "bootstrap";
      readonly epoch: string;
      readonly wipe: boolean;
    }
    | {
      readonly do: "adopt";
      readonly epoch: string;
      readonly from: string;
      readonly wipe: boolean;
      readonly reason: string;
    }
    | { readonly do: "alter"; readonly from: string }
    | { readonly do: "idle" | "settled" } & Ended
    | { readonly do: "busy" | "none" }
    | { readonly do: "stop"; readonly error: StopCode }
  );

/** Why the source hands out nothing. */
export type StopCode =
  | "replica_foreign"
  | "replica_ahead"
  | "schema_outdated"
  | "schema_unknown";

/** A walk that was asked for. */
export interface RequestedWalk {
  /** Its number. */
  readonly walkGen: number;
  /** The tables it goes through. */
  readonly tables: readonly string[];
}

/** How much a page may hold, and what it needs from the replica. */
export interface PageRequest extends BatchSize {
  /** Whether a page of the scrub may be handed out. */
  readonly scrub: boolean;
  /** The replica's next keys, where the walk goes by them. */
  readonly keys:
    | {
      /** The place they follow: the row's `walk_at`. */
      readonly at: string;
    }
      & (
        | Keys
        | {
          /** How many there are: where the source has as many rows, it needs no keys. */
          readonly count: number;
        }
      )
    | null;
}

/** Keys of the replica, in its order. */
export interface Keys {
  /** The keys, each in the order of the table's key. */
  readonly keys: readonly (readonly string[])[];
  /** The last of them. */
  readonly after: readonly string[] | null;
  /** Whether there are no more. */
  readonly last: boolean;
}

/** What came of asking for a new epoch. */
export interface Reset {
  /** Whether this call began it, or another one had before. */
  readonly do: "begun" | "moved";
  /** The epoch in force. */
  readonly epoch: string;
}

/** How much a batch may hold. */
export interface BatchSize {
  /** Rows at most; 0 settles and hands out nothing. */
  readonly rows: number;
  /** Bytes of their cells at most, one row at least. */
  readonly bytes: number;
}
