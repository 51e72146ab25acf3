/**
 * libSQL in memory: the statements run on SQLite, so that the replica's own
 * SQL, its guard and its constraints are what is tested.
 *
 * Every commit is a savepoint left open, so that a failover that lost commits
 * is a rollback to one of them.
 *
 * @module
 */

import { DatabaseSync, type StatementSync } from "node:sqlite";
import type { Database, Result, Statement } from "../../lib/replica/sql.ts";

/** What libSQL's client throws for a statement that failed. */
class BatchError extends Error {
  constructor(
    message: string,
    readonly code: string,
    readonly statementIndex: number,
  ) {
    super(message);
  }
}

/** SQLite's primary codes, as libSQL's client names them. */
const CODES: Record<number, string> = {
  1: "SQLITE_UNKNOWN",
  18: "SQLITE_TOOBIG",
  19: "SQLITE_CONSTRAINT",
  20: "SQLITE_MISMATCH",
  25: "SQLITE_RANGE",
};

/** Where a statement asks for the size of its database. */
const SIZE = /\(SELECT \(page_count.*?\) AS bytes/;

/** A database that can lose its latest commits. */
export class MemoryDatabase {
  readonly #database = new DatabaseSync(":memory:");
  readonly #statements = new Map<string, Prepared>();
  readonly #readers = new Map<string, StatementSync>();
  #commits = 0;

  readonly #measures: boolean;

  /** @param measures Whether its size is measured, which takes a third of the time. */
  constructor({ measures = true } = {}) {
    this.#measures = measures;
    this.#database.exec("BEGIN");
  }

  /** How many commits there are to lose. */
  get commits(): number {
    return this.#commits;
  }

  /** Runs a batch: all of it, or none. */
  batch(statements: readonly Statement[]): Result[] {
    const name = `c${this.#commits}`;
    this.#database.exec(`SAVEPOINT ${name}`);
    let at = 0;
    try {
      const results = statements.map((statement) => {
        const result = this.#run(statement);
        at += 1;
        return result;
      });
      // What only looks is nothing to lose.
      if (statements.every(isLook)) this.#database.exec(`RELEASE ${name}`);
      else this.#commits += 1;
      return results;
    } catch (error) {
      this.#database.exec(`ROLLBACK TO ${name}; RELEASE ${name}`);
      const { errcode, message } = error as {
        errcode: number;
        message: string;
      };
      const code = CODES[errcode & 255];
      if (code === undefined) throw error;
      throw new BatchError(message, code, at);
    }
  }

  /** Reads; it is no commit. A table that is not there has no rows. */
  read(sql: string): unknown[][] {
    try {
      let reader = this.#readers.get(sql);
      if (reader === undefined) {
        reader = inArrays(this.#database.prepare(sql));
        this.#readers.set(sql, reader);
      }
      return reader.all() as unknown as unknown[][];
    } catch (error) {
      if ((error as Error).message.startsWith("no such table")) return [];
      throw error;
    }
  }

  /** Loses every commit but the first `kept`. */
  rewind(kept: number): void {
    if (kept >= this.#commits) return;
    this.#database.exec(`ROLLBACK TO c${kept}; RELEASE c${kept}`);
    this.#commits = kept;
  }

  /** What is there stays, whatever is lost later. */
  keep(): void {
    this.#database.exec("COMMIT; BEGIN");
    this.#commits = 0;
  }

  /** Goes back to what was kept. */
  reset(): void {
    this.#database.exec("ROLLBACK; BEGIN");
    this.#commits = 0;
  }

  /** Lets go of it. */
  close(): void {
    this.#statements.clear();
    this.#database.close();
  }

  #run({ sql, args }: Statement): Result {
    let prepared = this.#statements.get(sql);
    if (prepared === undefined) {
      const statement = inArrays(this.#database.prepare(
        this.#measures ? sql : sql.replace(SIZE, "4096 AS bytes"),
      ));
      prepared = {
        statement,
        columns: statement.columns().map(({ name }) => name),
      };
      this.#statements.set(sql, prepared);
    }
    const { statement, columns } = prepared;
    if (columns.length === 0) {
      statement.run(...args);
      return { rows: [] };
    }
    return {
      rows: (statement.all(...args) as unknown as unknown[][]).map((cells) => {
        const row: Record<string, unknown> = { ...cells, length: cells.length };
        columns.forEach((name, place) => row[name] = cells[place]);
        return row as Result["rows"][number];
      }),
    };
  }
}

/** Whether a statement changes nothing that counts. */
export function isLook({ sql }: Statement): boolean {
  return /^(SELECT|UPDATE _libsql_sync SET probed_at) /.test(sql);
}

/** Has a statement return rows as arrays; Deno's types do not know of it. */
function inArrays(statement: StatementSync): StatementSync {
  (statement as StatementSync & { setReturnArrays(isSo: boolean): void })
    .setReturnArrays(true);
  return statement;
}

/** A statement that is kept, and the names of its columns. */
interface Prepared {
  readonly statement: StatementSync;
  readonly columns: readonly string[];
}

/**
 * What a replica is reached by.
 *
 * @param run Runs a batch.
 * @returns The database.
 */
export function databaseOf(
  run: (statements: readonly Statement[]) => Promise<Result[]>,
): Database {
  return {
    execute: async (statement) => (await run([statement]))[0]!,
    write: run,
  };
}
