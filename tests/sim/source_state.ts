/**
 * What the tables of schema libsql_sync hold, in memory.
 *
 * @module
 */

import type { Json } from "../../lib/chain/json.ts";
import type { Schema } from "../../lib/schema.ts";
import type { Message, Rows } from "./tables.ts";

/** What messages and answers carry. */
export type Fields = { [name: string]: Json };

/** A schema.json that was installed; the newest is in force. */
export interface Installed {
  readonly generation: number;
  readonly hash: string;
  readonly schema: Schema;
}

/** A chain, and how it began. */
export interface Epoch {
  readonly generation: number;
  readonly epoch: string;
  readonly wipe: boolean;
  readonly reason: string;
}

/** Where the chain stands. */
export interface Chain {
  epoch: string;
  position: number;
  batch: string;
  lease: string | null;
  leaseUntil: number;
  replayWindowMs: number;
  seen: Fields | null;
  scrubRows: number;
  refill: boolean;
  reopen: boolean;
  paused: boolean;
  realtime: boolean;
  scrubbedAt: number | null;
  /** Up to this position walks closed dead letters. */
  lettersClosed: number;
  /** No message below it is in the queue, or can appear there. */
  floor: number;
  floorNext: number | null;
  /** Transactions that keep the floor from rising. */
  floorAwaits: readonly string[];
}

/** What a position contains, in one version. */
export interface Version {
  readonly epoch: string;
  readonly position: number;
  batch: string;
  readonly prev: string;
  version: number;
  /** Handed out while the one before it was pending. */
  readonly ahead: boolean;
  msgIds: readonly number[];
  messages: number;
  drained: boolean;
  snapshot: string;
  sourceTime: number;
  readonly deadLetters: number;
  parked: readonly Fields[];
  state: "pending" | "acked" | "trimmed";
  ackedAt: number;
  readonly reopen: boolean;
}

/** A walk that was asked for. */
export interface AskedWalk {
  readonly walkGen: number;
  readonly kind: "backfill" | "verify" | "scrub" | "redrive";
  readonly tables: readonly string[];
  readonly keys: readonly Json[] | null;
  readonly repair: boolean;
  readonly closes: boolean;
  /** Dead letters up to this id were filed before. */
  lettersUntil: number;
  endedAt: number | null;
  found: Fields;
}

/** A change that was set aside. */
export interface Letter {
  readonly id: number;
  readonly message: Fields;
}

/** Everything a backup of the source holds. */
export interface SourceState {
  schemas: Installed[];
  epochs: Epoch[];
  chain: Chain;
  batches: Version[];
  walks: AskedWalk[];
  archive: Map<number, Message>;
  letters: Letter[];
  nextGeneration: number;
  nextWalkGen: number;
  nextLetter: number;
  rows: Rows;
  queue: Map<number, Message>;
  nextMsgId: number;
  detached: readonly string[];
}

/** Whether two values are the same JSON. */
export function isSame(a: Json | undefined, b: Json | undefined): boolean {
  if (a === b) return true;
  if (a === undefined || b === undefined) return false;
  return canonical(a) === canonical(b);
}

/** JSON with the fields of every object in order. */
export function canonical(value: Json): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const fields = value as Fields;
  return `{${
    Object.keys(fields).sort().map((name) =>
      `${JSON.stringify(name)}:${canonical(fields[name]!)}`
    ).join()
  }}`;
}
