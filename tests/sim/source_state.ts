/**
 * What the tables of schema libsql_sync hold, in memory.
 *
 * @module
 */

import type { Json } from "../../lib/chain/json.ts";
import type { Schema } from "../../lib/schema.ts";
import type { Key } from "./source_messages.ts";
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
  /** The head: the version that was settled last. */
  position: number;
  batch: string;
  /** The highest position that was handed out. */
  handed: number;
  lease: string | null;
  leaseUntil: number;
  replayWindowMs: number;
  seen: Fields | null;
  scrubRows: number;
  refill: boolean;
  /** How many times a walk was asked to open, and up to which of them it has. */
  walkWanted: number;
  walkOpened: number;
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

/** The one message of which a version covers the first keys only. */
export interface Cut {
  readonly msgId: number;
  /** How many keys. */
  readonly keys: number;
}

/** Where a version's page leaves the walk. */
export interface Upto {
  readonly walk_gen: number;
  readonly walk_at: string;
}

/** A version: one content of one position, on top of another version. */
export interface Version {
  readonly epoch: string;
  readonly position: number;
  readonly batch: string;
  readonly prev: string;
  /** Messages that it covers whole. */
  msgIds: readonly number[];
  cut: Cut | null;
  /** The keys that were taken out of the cut message, while it is settled. */
  cutKeys: readonly Key[];
  /** How many messages that is. */
  messages: number;
  readonly drained: boolean;
  readonly snapshot: string;
  readonly sourceTime: number;
  readonly deadLetters: number;
  /** Rows to be left out. */
  parked: readonly Fields[];
  /** The tables whose truncate it carries. */
  emptied: readonly string[];
  /** Which request to open the walk it carries. */
  readonly opens: number | null;
  /** Where a version ahead of it may go on with the walk. */
  readonly upto: Upto | null;
  state: "handed" | "settled";
  readonly handedAt: number;
  settledAt: number | null;
  /** Letters that settling it closed, and numbers of those that it filed. */
  closed: readonly Letter[];
  opened: readonly number[];
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

/** A row that was set aside, or a message without a usable key. */
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
