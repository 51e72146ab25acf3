/**
 * Ring 3. Looks at one replica's states in their order: a row may lag behind the
 * source, but it only ever goes on.
 *
 * Promise: a row of the replica is at each position one that the source had, whole,
 * and none that is older than it was a position before, nor than a transaction that
 * the replica contains left it. So it is walked or not.
 *
 * @module
 */

import type { Sql } from "postgres";
import type { Cell } from "../../lib/dev/compare_source.ts";
import { contains } from "../../lib/reader.ts";
import type { RawSchema } from "../db/support/stack.ts";
import type { Found, ReplicaState } from "./checker.ts";
import { type Entry, shadowLog } from "./shadow.ts";

/** A state, with its rows packed. */
interface Look {
  readonly schema: RawSchema;
  readonly chain: string;
  readonly position: number;
  readonly tables: Map<string, Map<string, string>>;
  /** Whether a reader is told that it contains this transaction. */
  readonly contains: (xid: string) => boolean;
}

/** A question whose answers are kept. */
function remembered(
  ask: (text: string) => boolean,
): (text: string) => boolean {
  const known = new Map<string, boolean>();
  return (text) => {
    const answer = known.get(text) ?? ask(text);
    known.set(text, answer);
    return answer;
  };
}

/** Equal rows give equal texts. */
function pack(cells: Record<string, Cell>): string {
  return JSON.stringify(
    Object.values(cells).map(({ type, text }) => [type, text]),
  );
}

/** The states of one replica, as they were read. */
export class Order {
  #looks: Look[] = [];
  /** One string for equal rows: there are hundreds of states. */
  readonly #texts = new Map<string, string>();
  /** How many failovers there were: each may take the replica back. */
  failovers = 0;

  /** Keeps a state, after so many failovers. */
  note({ schema, row, tables }: ReplicaState, failovers: number): void {
    this.#looks.push({
      schema,
      chain: `${row.epoch} ${row.schema_hash} ${failovers}`,
      position: Number(row.position),
      contains: remembered((xid) => contains(row, `${xid}:0:${row.epoch}`)),
      tables: new Map(
        [...tables].map(([table, rows]) => [
          table,
          new Map([...rows].map(([key, cells]) => [key, this.#one(cells)])),
        ]),
      ),
    });
  }

  #one(cells: Record<string, Cell>): string {
    const text = pack(cells);
    const known = this.#texts.get(text);
    if (known === undefined) this.#texts.set(text, text);
    return known ?? text;
  }

  /** Forgets what was kept: hands were in it. */
  forget(): void {
    this.#looks = [];
    this.#texts.clear();
  }

  /**
   * Judges what was kept, and forgets it.
   *
   * @param sql A connection as the log's owner; nobody writes any more.
   * @param isExcused Whether somebody's hand was in a row.
   * @returns Rows that were never so, or went back.
   */
  async judge(
    sql: Sql,
    isExcused: (table: string, key: string) => boolean,
  ): Promise<Found[]> {
    const found: Found[] = [];
    const looks = this.#looks;
    this.forget();
    for (const schema of new Set(looks.map(({ schema }) => schema))) {
      const log = await shadowLog(sql, schema);
      const chains = Map.groupBy(
        looks.filter((look) => look.schema === schema),
        ({ chain }) => chain,
      );
      for (const chain of chains.values()) {
        chain.sort((a, b) => a.position - b.position);
        for (const [table, keys] of log) {
          for (const [key, entries] of keys) {
            if (isExcused(table, key)) continue;
            const what = follow(chain, { table, key, entries });
            if (what !== null) found.push({ table, key, what });
          }
          for (const [key, what] of unknownRows(chain, table, keys)) {
            if (!isExcused(table, key)) found.push({ table, key, what });
          }
        }
      }
    }
    return found;
  }
}

/** Whether the replica cannot hold it. */
function isRefused({ cells }: Entry): boolean {
  return cells !== null &&
    Object.values(cells).some(({ type }) => type === "refused");
}

/** Rows of a table whose key the source never had. */
function unknownRows(
  looks: readonly Look[],
  table: string,
  keys: ReadonlyMap<string, unknown>,
): Map<string, string> {
  const unknown = new Map<string, string>();
  for (const { position, tables } of looks) {
    for (const [key, text] of tables.get(table)!) {
      if (keys.has(key) || unknown.has(key)) continue;
      unknown.set(key, `at position ${position} a row that never was: ${text}`);
    }
  }
  return unknown;
}

/** Follows a row through the states; what is wrong with it, if anything. */
function follow(
  looks: readonly Look[],
  row: { table: string; key: string; entries: readonly Entry[] },
): string | null {
  const { table, key } = row;
  const texts = [
    null,
    ...row.entries.map(({ cells }) => cells && pack(cells)),
  ];
  let at = 0;
  for (const { position, tables, contains } of looks) {
    const text = tables.get(table)!.get(key) ?? null;
    const seen = row.entries.findLastIndex(({ xid }) => contains(xid));
    // What the replica could not hold when it was read was set aside, until it came again.
    if (!row.entries.slice(Math.max(seen, 0)).some(isRefused)) {
      at = Math.max(at, seen + 1);
    }
    const next = texts.indexOf(text, at);
    if (next < 0) {
      const before = texts.lastIndexOf(text);
      return before < 0
        ? `at position ${position} a row that never was: ${text}`
        : `at position ${position} back to entry ${before} of ${texts.length} from ${at}: ${text}`;
    }
    at = next;
  }
  return null;
}
