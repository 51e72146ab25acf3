/**
 * Ring 0. The words of a walk: a page of a table, and what a walk found.
 *
 * @module
 */

import type { Broken, Cell } from "./rows.ts";

/** Why a walk is on. */
export type WalkKind = "backfill" | "verify" | "scrub" | "redrive";

/** Rows of one table in the snapshot of the batch they ride on. */
export interface Page {
  /** The walk it belongs to. */
  readonly walkGen: number;
  /** Why that walk is open. */
  readonly kind: WalkKind;
  /** Whether differences are repaired, or counted only. */
  readonly repair: boolean;
  /** The table. */
  readonly table: string;
  /** By the source's keys, by the replica's, or of some keys. */
  readonly half: "forward" | "back" | "keys";
  /** Whether it is the first of its table. */
  readonly starts: boolean;
  /** Whether the source's table is too large to index in one transaction. */
  readonly large: boolean;
  /** Whether it is the last of its half. */
  readonly last: boolean;
  /** Rows or keys that were looked at. */
  readonly rows: number;
  /** Why the table could not be read at the source, as an SQLSTATE. */
  readonly failed: string | null;
  /** The names of the cells. */
  readonly columns: readonly string[];
  /** The rows. */
  readonly cells: readonly (readonly Cell[])[];
  /** Keys of the replica that the source does not have. */
  readonly ghosts: readonly (readonly Cell[])[];
  /** Rows that could not be read. */
  readonly broken: readonly Broken[];
  /** Keys with an open dead letter; `skip` if the replica refused the row. */
  readonly open: readonly {
    readonly key: readonly Cell[];
    readonly skip: boolean;
  }[];
  /** Where the walk stands after it; null at its end. */
  readonly upto: string | null;
  /** Whether every table is walked and repaired once it is applied. */
  readonly closes: boolean;
}

/** A page without its rows, once these are planned. */
export type PageHead = Omit<Page, "cells">;

/** What a walk found in one table, so far. */
export interface Walked {
  /** The number of the walk. */
  readonly walkGen: number;
  /** The table. */
  readonly table: string;
  /** Rows compared. */
  readonly rows: number;
  /** Rows that were missing or different. */
  readonly differing: number;
  /** Rows the source does not have. */
  readonly ghosts: number;
  /** Whether the whole table was walked. */
  readonly ended: boolean;
  /** Why the table could not be read at the source, as an SQLSTATE. */
  readonly failed: string | null;
}
