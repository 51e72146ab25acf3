/**
 * Ring 1. The source: the functions of schema libsql_sync, one json in, one
 * JSON out (the large one in pieces), each a transaction of its own.
 *
 * Promise: every way to the source speaks the same few verbs.
 *
 * @module
 */

import type { Due } from "../chain/alert.ts";
import {
  type Batch,
  type BatchSize,
  type Carrier,
  type Claim,
  CONTRACT,
  type Ended,
  type Lease,
  type Outcome,
  type PageRequest,
  type RequestedWalk,
  type Reset,
} from "../chain/claim.ts";
import type { Json } from "../chain/json.ts";
import type { Refusal } from "../chain/rows.ts";
import type { Walked } from "../chain/page.ts";
import type { ReplicaRow } from "../chain/row.ts";
import {
  claimOf,
  endedOf,
  isParked,
  leaseOf,
  resetOf,
  triedOf,
  walkOf,
} from "./answers.ts";
import { dueOf } from "./due.ts";
import { type SourceReport, sourceReportOf } from "./report.ts";

/** The verbs of the source. */
export interface Source {
  /** Takes the lease, for `seconds` from now. */
  lease(lease: string): Promise<Lease>;
  /** Gives the lease back, and reports what was done or which alerts were sent. */
  release(
    lease: string,
    report?: { sync?: Outcome; alerted?: Json },
  ): Promise<Ended>;
  /** Settles what the row proves, and hands out what is next. */
  claim(request: {
    lease: string;
    row: ReplicaRow | null;
    size: BatchSize;
    /** The batch that is being applied on top of the row: the one after it is asked for. */
    ahead?: string;
    /** Whether a replica of another source becomes ours, emptied. */
    takeOver?: boolean;
    /** What a page may hold; without it none is handed out. */
    page?: PageRequest;
    /** What walks found so far, for the source's status. */
    walked?: readonly Walked[];
    /** What was done so far, should this be the last claim. */
    sync?: Outcome;
  }): Promise<Claim>;
  /** Asks for a walk; null where the table is not listed. */
  requestWalk(request: {
    kind: "backfill" | "verify";
    table: string | null;
    repair: boolean;
  }): Promise<RequestedWalk | null>;
  /** Parks rows of a batch that stands on the head; false if it does not. */
  park(
    batch: Pick<Batch, "epoch" | "position" | "batch">,
    rows: readonly Refusal[],
  ): Promise<boolean>;
  /** Begins a new epoch if the one expected is still in force. */
  reset(
    request: {
      expected: string;
      wipe: boolean;
      /** Whether the replica is filled again by itself; by default as before. */
      refill?: boolean;
      reason: string;
    },
  ): Promise<Reset>;
  /** How things stand, with the newest dead letters where they are asked for. */
  report(
    request: { letters: boolean },
  ): Promise<{ report: SourceReport; due: Due | null }>;
  /** Tries dead letters again, by default all of them; returns how many. */
  requestRedrive(ids?: readonly string[]): Promise<number>;
}

/**
 * Speaks to the libsql_sync functions through a carrier.
 *
 * @param carrier Carries the calls.
 * @param options The hash of the worker's schema, the seconds a lease lasts
 * from each call on, and whether a webhook receives alerts.
 * @returns The source.
 */
export function createSource(
  carrier: Carrier,
  options: { schemaHash: string; leaseSeconds: number; alerts?: boolean },
): Source {
  const { schemaHash: schema, leaseSeconds: seconds } = options;
  const alerts: Record<string, Json> = options.alerts ? { alerts: true } : {};
  return {
    async lease(lease) {
      return leaseOf(
        await carrier.call("lease", { lease, seconds, version: CONTRACT }),
      );
    },
    async release(lease, { sync, alerted } = {}) {
      return endedOf(
        await carrier.call("release", {
          lease,
          ...(sync ? { sync: outcomeJson(sync), ...alerts } : {}),
          ...(alerted === undefined ? {} : { alerted }),
        }),
      );
    },
    async claim(
      {
        lease,
        row,
        size,
        ahead,
        takeOver,
        page,
        walked = [],
        sync,
      },
    ) {
      return claimOf(
        await carrier.call("claim", {
          lease,
          seconds,
          schema,
          row: row === null ? null : { ...row },
          rows_max: size.rows,
          bytes_max: size.bytes,
          ...(ahead ? { ahead } : {}),
          ...(takeOver ? { take_over: true } : {}),
          ...(page ? { page: pageJson(page) } : {}),
          walked: walked.map(({ walkGen, ...found }) => ({
            walk_gen: walkGen,
            ...found,
          })),
          ...(sync ? { sync: outcomeJson(sync), ...alerts } : {}),
        }),
      );
    },
    async requestWalk(request) {
      return walkOf(await carrier.call("request_walk", request));
    },
    async park({ epoch, position, batch }, rows) {
      const answer = await carrier.call("park", {
        epoch,
        position,
        batch,
        rows: rows.map(({ table, key, reason }) => ({
          table,
          key: key === null ? null : [...key],
          reason,
        })),
      });
      return isParked(answer);
    },
    async reset(request) {
      return resetOf(await carrier.call("reset", request));
    },
    async report({ letters }) {
      const answer = await carrier.call("report", { letters, ...alerts });
      return { report: sourceReportOf(answer), due: dueOf(answer) };
    },
    async requestRedrive(ids) {
      return triedOf(
        await carrier.call("request_redrive", ids ? { ids: [...ids] } : {}),
      );
    },
  };
}

function outcomeJson({ tables, error, ...counts }: Outcome): Json {
  return { ...counts, tables: { ...tables }, ...(error ? { error } : {}) };
}

function pageJson({ keys, ...page }: PageRequest): Json {
  return { ...page, keys: keys && { ...keys } as Json };
}
