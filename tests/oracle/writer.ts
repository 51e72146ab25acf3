/**
 * Ring 3. A session of a user: random transactions, one after another.
 *
 * Promise: a transaction that fails, or whose connection is gone, is given up;
 * what became of it is the log's to tell.
 *
 * @module
 */

import postgres from "postgres";
import { type Random, seededRandom } from "../../lib/dev/random.ts";
import {
  makeTransaction,
  type Step,
  type Transaction,
} from "./transactions.ts";

const STATEMENT_MS = 4_000;

/** What a writer did. */
export interface Written {
  statements: number;
  failed: number;
  transactions: number;
  rolledBack: number;
  prepared: number;
}

/** A session of its own connection. */
export class Writer {
  readonly written: Written = {
    statements: 0,
    failed: 0,
    transactions: 0,
    rolledBack: 0,
    prepared: 0,
  };
  readonly #random: Random;
  #sql: postgres.Sql;
  #step = 0;

  constructor(
    private readonly options: { name: string; url: () => string; seed: number },
  ) {
    this.#random = seededRandom(options.seed);
    this.#sql = this.#open();
  }

  #open(): postgres.Sql {
    return postgres(this.options.url(), {
      max: 1,
      prepare: false,
      fetch_types: false,
      connect_timeout: 5,
      onnotice: () => {},
      connection: {
        TimeZone: "Asia/Kolkata",
        statement_timeout: STATEMENT_MS,
        lock_timeout: 2_000,
        application_name: `oracle ${this.options.name}`,
      },
    });
  }

  /** Runs transactions until told to stop. */
  async run(isOver: () => boolean): Promise<void> {
    while (!isOver()) {
      const transaction = makeTransaction(this.#random);
      this.written.transactions += 1;
      const isDone = await this.#runOne(transaction, isOver);
      if (!isDone) this.written.rolledBack += 1;
      await sleep(this.#random.below(12));
    }
    await this.#sql.end({ timeout: 1 });
  }

  /** Runs a transaction; whether it came to its end. */
  async #runOne(
    { begin, steps, isolated, end, preparedMs }: Transaction,
    isOver: () => boolean,
  ): Promise<boolean> {
    const gid = `${this.options.name}-${this.#step}`;
    try {
      if (begin !== null) await this.#execute(begin);
      for (const step of steps) {
        // What a transaction left behind must not outlive its session.
        if (isOver()) throw new Error("over");
        if (step.do === "pause") await sleep(step.ms);
        else if (isolated && begin !== null) await this.#tryOut(step);
        else await this.#take(step);
      }
      if (begin === null) return true;
      if (end === "leave") {
        // The client is gone; the server notices and rolls back.
        await this.#again();
        return false;
      }
      if (end.endsWith("prepared")) {
        await this.#execute(`prepare transaction '${gid}'`);
        this.written.prepared += 1;
        await sleep(preparedMs);
        await this.#execute(`${end} '${gid}'`);
        return true;
      }
      await this.#execute(end);
      return end === "commit";
    } catch (error) {
      this.written.failed += 1;
      const isServers = (error as { severity?: string }).severity !== undefined;
      if (!isServers) {
        await this.#again();
        return false;
      }
      if (begin !== null) {
        await this.#execute("rollback").catch(() => this.#again());
      }
      return false;
    }
  }

  async #take(step: Exclude<Step, { do: "pause" }>): Promise<void> {
    if (step.do === "copy") await this.#copy(step);
    else await this.#execute(step.sql);
  }

  /** Runs a step; where the server refuses it, only it is rolled back. */
  async #tryOut(step: Exclude<Step, { do: "pause" }>): Promise<void> {
    const isControl = step.do === "run" &&
      /^(savepoint|release|rollback|set) /.test(step.sql);
    if (isControl) return await this.#take(step);
    await this.#execute("savepoint alone");
    try {
      await this.#take(step);
    } catch (error) {
      if ((error as { severity?: string }).severity === undefined) throw error;
      this.written.failed += 1;
      await this.#execute("rollback to savepoint alone");
    }
    await this.#execute("release savepoint alone");
  }

  async #execute(sql: string): Promise<void> {
    this.#step += 1;
    const query = this.#sql.unsafe(
      `/* ${this.options.name} ${this.#step} */ ${sql}`,
    ).simple();
    await within(STATEMENT_MS + 4_000, query);
    this.written.statements += 1;
  }

  async #copy({ sql, data }: { sql: string; data: string }): Promise<void> {
    this.#step += 1;
    const stream = await within(
      STATEMENT_MS + 4_000,
      this.#sql.unsafe(`/* ${this.options.name} ${this.#step} */ ${sql}`)
        .writable(),
    );
    stream.on("error", () => {});
    stream.end(data);
    // Where the COPY fails, the driver tells nobody: the next statement is told.
    await within(STATEMENT_MS + 4_000, this.#sql.unsafe("select 1").simple());
    this.written.statements += 1;
  }

  /** Leaves the connection, whatever is open on it, and takes another. */
  async #again(): Promise<void> {
    await this.#sql.end({ timeout: 0 }).catch(() => {});
    this.#sql = this.#open();
  }
}

/** Waits. */
export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Waits for something, and not longer. */
export async function within<T>(
  ms: number,
  promise: PromiseLike<T>,
): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${ms} ms`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
