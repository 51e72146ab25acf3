/**
 * The user's tables in memory: rows, transactions that stay open, and the keys
 * that capture sends.
 *
 * Row locks and unique keys keep open transactions apart, as they do in
 * PostgreSQL; a statement that would wait is not made.
 *
 * @module
 */

import type { Json } from "../../lib/chain/json.ts";

/** A row of the user's, every cell as a claim renders it. */
export type Row = Readonly<Record<string, string | null>>;

/** What is committed, by table and key. Maps are replaced, never changed. */
export type Rows = Readonly<Record<string, ReadonlyMap<string, Row>>>;

/** A message as the queue holds it; never changed. */
export type Message = Json;

/** The columns of the user's tables and their keys. */
export const USER_TABLES: Readonly<
  Record<string, { key: readonly string[]; columns: readonly string[] }>
> = {
  item: { key: ["id"], columns: ["id", "name", "size", "extra"] },
  part: { key: ["item", "code"], columns: ["item", "code", "note"] },
};

/** A statement of the user's. */
export type UserStatement =
  | { kind: "insert"; table: string; rows: readonly Row[] }
  | { kind: "update"; table: string; keys: readonly string[]; set: Row }
  /** The same where a row trigger of the user's changes the row again. */
  | {
    kind: "touch";
    table: string;
    keys: readonly string[];
    set: Row;
    again: Row;
  }
  | { kind: "rekey"; table: string; key: string; set: Row }
  | { kind: "delete"; table: string; keys: readonly string[] }
  | { kind: "truncate"; table: string }
  /** A truncate, and new rows in the same transaction. */
  | { kind: "reload"; table: string; rows: readonly Row[] };

/** Why a row cannot be read. */
export const UNREADABLE = "the row cannot be read: SQLSTATE 22P02";

/** Whether reading a row raises an error. */
export function isUnreadable({ name, note }: Row): boolean {
  return (name ?? note)?.startsWith("torn ") ?? false;
}

/** A row that went, and when. */
export interface Gone {
  readonly table: string;
  readonly key: string;
  readonly stamp: number;
}

/** A transaction of the user's that is open. */
interface Transaction {
  readonly xid: number;
  /** What it wrote; null is a row that is gone. */
  readonly wrote: Map<string, Map<string, Row | null>>;
  /** The tables it truncated. */
  readonly truncated: Set<string>;
  /** Rows it took away. */
  readonly gone: Gone[];
  /** Whether it holds the lock that an INSERT takes on the queue. */
  isWriter: boolean;
  /** What it queued: seen when it commits. */
  readonly queued: [number, Message][];
}

/** What is wrong with capture, for the mutation check. */
export interface CaptureFaults {
  /** The new keys of rows alone. */
  newKeys?: boolean;
}

/** A key's name: its cells in order. */
export function keyOf(table: string, row: Row): string {
  return JSON.stringify(USER_TABLES[table]!.key.map((name) => row[name]));
}

/** The user's side of a source. */
export class UserTables {
  rows: Rows = { item: new Map(), part: new Map() };
  /** What the queue shows. */
  queue = new Map<number, Message>();
  nextMsgId = 1;
  nextXid = 100;
  /** Columns whose changes capture sends, by table: those of the schema in force. */
  listed: Record<string, readonly string[]> = {};
  /** Tables whose triggers are gone. */
  readonly detached = new Set<string>();
  readonly open = new Map<number, Transaction>();
  faults: CaptureFaults = {};
  /** Told of every write that goes past the queue. */
  onBypass: (table: string, key: string) => void = () => {};
  /** Told of every state that a row is given, when that is committed. */
  onWrote: (table: string, key: string, row: Row) => void = () => {};
  /** Told of every row that is gone, when that is committed. */
  onGone: (gone: Gone) => void = () => {};
  /** Numbers what is made, in order. */
  stamp: () => number = () => 0;

  /** Begins a transaction under a name. */
  begin(name: number): boolean {
    if (this.open.has(name)) return false;
    this.open.set(name, {
      xid: this.nextXid++,
      wrote: new Map(),
      truncated: new Set(),
      gone: [],
      isWriter: false,
      queued: [],
    });
    return true;
  }

  /** Ends a transaction: all of it is seen, or none. */
  end(name: number, how: "commit" | "rollback"): boolean {
    const transaction = this.open.get(name);
    if (transaction === undefined) return false;
    this.open.delete(name);
    if (how === "rollback") return true;
    const rows: Record<string, ReadonlyMap<string, Row>> = { ...this.rows };
    for (const table of transaction.truncated) rows[table] = new Map();
    for (const gone of transaction.gone) this.onGone(gone);
    for (const [table, wrote] of transaction.wrote) {
      const after = new Map(rows[table]);
      for (const [key, row] of wrote) {
        if (row === null) {
          after.delete(key);
        } else {
          after.set(key, row);
          this.onWrote(table, key, row);
        }
      }
      rows[table] = after;
    }
    this.rows = rows;
    for (const [id, message] of transaction.queued) this.queue.set(id, message);
    return true;
  }

  /** Makes a statement in a transaction, or in one of its own; false where it
   * would wait or fail. */
  run(statement: UserStatement, name: number | null = null): boolean {
    if (name !== null) {
      const transaction = this.open.get(name);
      return transaction !== undefined && this.#make(statement, transaction);
    }
    const own = -1;
    this.begin(own);
    const made = this.#make(statement, this.open.get(own)!);
    this.end(own, made ? "commit" : "rollback");
    return made;
  }

  /** Whether somebody holds the whole table. */
  isLocked(table: string): boolean {
    return [...this.open.values()].some(({ truncated }) =>
      truncated.has(table)
    );
  }

  /** Whether an open transaction wrote to the table. */
  isTouched(table: string): boolean {
    return [...this.open.values()].some(({ wrote, truncated }) =>
      truncated.has(table) || wrote.has(table)
    );
  }

  /** As pg_current_snapshot() writes it. */
  snapshot(): string {
    const open = [...this.open.values()].map(({ xid }) => xid).sort((a, b) =>
      a - b
    );
    return `${open[0] ?? this.nextXid}:${this.nextXid}:${open.join(",")}`;
  }

  /** The table as a transaction sees it. */
  #seen(table: string, transaction: Transaction): Map<string, Row> {
    const rows = new Map(
      transaction.truncated.has(table) ? [] : this.rows[table],
    );
    for (const [key, row] of transaction.wrote.get(table) ?? []) {
      if (row === null) rows.delete(key);
      else rows.set(key, row);
    }
    return rows;
  }

  #make(statement: UserStatement, transaction: Transaction): boolean {
    const { table } = statement;
    const others = [...this.open.values()].filter((t) => t !== transaction);
    if (others.some(({ truncated }) => truncated.has(table))) return false;
    const isFree = (key: string) =>
      !others.some(({ wrote }) => wrote.get(table)?.has(key));
    const before = this.#seen(table, transaction);
    const keysOf = "keys" in statement
      ? statement.keys
      : "rows" in statement
      ? statement.rows.map((row) => keyOf(table, row))
      : "key" in statement
      ? [statement.key]
      : [];
    if (!keysOf.every(isFree)) return false;
    const wrote = transaction.wrote.get(table) ?? new Map<string, Row | null>();
    const write = (key: string, row: Row | null) => {
      wrote.set(key, row);
      if (row === null) goes(key);
    };
    const goes = (key: string) =>
      transaction.gone.push({ table, key, stamp: this.stamp() });
    // Also where no row is changed, the table is held against a truncate.
    if (statement.kind !== "truncate") transaction.wrote.set(table, wrote);
    switch (statement.kind) {
      case "truncate":
        return this.#truncate(table, transaction);
      case "reload":
        return this.#truncate(table, transaction) &&
          this.#make({ ...statement, kind: "insert" }, transaction);
      case "insert": {
        const fresh = statement.rows.filter((row) =>
          !before.has(keyOf(table, row))
        );
        const keys = fresh.map((row) => keyOf(table, row));
        fresh.forEach((row, at) => write(keys[at]!, row));
        this.#capture(transaction, table, keys);
        return true;
      }
      case "delete": {
        const keys = statement.keys.filter((key) => before.has(key));
        for (const key of keys) write(key, null);
        this.#capture(transaction, table, keys);
        return true;
      }
      case "rekey": {
        const named = Object.fromEntries(
          USER_TABLES[table]!.key.map((name, at) => [
            name,
            JSON.parse(statement.key)[at] as string,
          ]),
        );
        const key = keyOf(table, { ...named, ...statement.set });
        if (!isFree(key)) return false;
        const row = before.get(statement.key);
        if (row === undefined || before.has(key)) return true;
        const moved = { ...row, ...statement.set };
        write(statement.key, null);
        write(key, moved);
        this.#capture(
          transaction,
          table,
          this.faults.newKeys ? [key] : [key, statement.key],
        );
        return true;
      }
      case "update":
      case "touch": {
        const keys = statement.keys.filter((key) => before.has(key));
        const outer = new Map(
          keys.map((key) => [key, { ...before.get(key)!, ...statement.set }]),
        );
        for (const [key, row] of outer) write(key, row);
        if (statement.kind === "touch") {
          // The inner statement's message comes before the outer one's.
          for (const key of keys) {
            const before = outer.get(key)!;
            const after = { ...before, ...statement.again };
            write(key, after);
            const changes = [{ key, before, after }];
            this.#captureUpdate(transaction, table, changes);
          }
        }
        const changes = keys.map((key) => ({
          key,
          before: before.get(key)!,
          after: outer.get(key)!,
        }));
        this.#captureUpdate(transaction, table, changes);
        return true;
      }
    }
  }

  #truncate(table: string, transaction: Transaction): boolean {
    const others = [...this.open.values()].filter((t) => t !== transaction);
    const isUsed = others.some(({ wrote, truncated }) =>
      wrote.has(table) || truncated.has(table)
    );
    if (isUsed) return false;
    const before = this.#seen(table, transaction);
    for (const key of before.keys()) {
      transaction.gone.push({ table, key, stamp: this.stamp() });
    }
    transaction.truncated.add(table);
    transaction.wrote.delete(table);
    if (this.detached.has(table)) {
      for (const key of before.keys()) this.onBypass(table, key);
    } else {
      this.#queue(transaction, { v: 2, table, truncate: true });
    }
    return true;
  }

  /** Queues the keys of rows whose listed columns an update changed. */
  #captureUpdate(
    transaction: Transaction,
    table: string,
    changes: readonly { key: string; before: Row; after: Row }[],
  ): void {
    const listed = this.listed[table] ?? [];
    const changed = changes.filter(({ before, after }) =>
      listed.some((name) => before[name] !== after[name])
    );
    this.#capture(transaction, table, changed.map(({ key }) => key));
  }

  /** Queues the keys that a statement touched. */
  #capture(
    transaction: Transaction,
    table: string,
    keys: readonly string[],
  ): void {
    if (this.detached.has(table)) {
      for (const key of keys) this.onBypass(table, key);
      return;
    }
    if (this.listed[table] === undefined || keys.length === 0) return;
    this.#queue(transaction, {
      v: 2,
      table,
      keys: keys.map((key) => JSON.parse(key) as Json),
    });
  }

  #queue(transaction: Transaction, message: Message): void {
    transaction.isWriter = true;
    transaction.queued.push([this.nextMsgId++, message]);
  }
}
