/**
 * Ring 3. One session of the oracle: writers, workers and faults on real
 * databases, and a checker that judges every state the replica promises.
 *
 * @module
 */

import postgres from "postgres";
import { compareTables, type Difference } from "../../lib/dev/compare.ts";
import { type Random, seededRandom } from "../../lib/dev/random.ts";
import { parseSchema, schemaHash } from "../../lib/schema.ts";
import { isApply, Proxy } from "../db/support/http_proxy.ts";
import { type Servers, Stack } from "../db/support/stack.ts";
import {
  Checker,
  compareState,
  type Found,
  readerOf,
  readState,
  type ReplicaState,
  type Schemas,
} from "./checker.ts";
import type { Counts } from "./counts.ts";
import { Cutter } from "./cutter.ts";
import { Faults } from "./faults.ts";
import { limitClaims } from "./limits.ts";
import { Order } from "./order.ts";
import { Pool } from "./pool.ts";
import { settle } from "./settle.ts";
import { createShadow, type Shadow } from "./shadow.ts";
import { SCHEMA, SCHEMAS, TABLES } from "./tables.ts";
import { sleep, within, Writer } from "./writer.ts";

/** How a session goes. */
export interface SessionOptions {
  readonly seed: number;
  /** Rounds of writing under faults; after each the faults stop and all must be equal. */
  readonly rounds: number;
  readonly roundMs: number;
  /** Whether anything fails; true unless told. */
  readonly faults?: boolean;
  /** Takes a line of progress. */
  readonly log?: (line: string) => void;
}

/** Says how to repeat a session that failed. */
export function describeFailure({ options, trace }: Session): string {
  const { seed, rounds, roundMs } = options;
  return [
    `seed ${seed}: something differs. The last faults: ${
      trace.slice(-12).join(", ")
    }`,
    `Again: deno task soak --seed ${seed} --sessions 1 --rounds ${rounds} --seconds ${
      roundMs / 1_000
    } (the same statements and faults; when each lands is chance)`,
  ].join("\n");
}

/** Settings of the server that sessions need. */
export const SETTINGS = {
  deadlock_timeout: "60ms",
  max_prepared_transactions: "20",
};

/** What a worker under faults may answer; anything else was not foreseen. */
const FORESEEN =
  /^(200|source_unreachable|replica_unreachable|replica_moved|replica_schema|schema_outdated|nuke_pending|none)$/;
const QUEUE_MAX = 40;
const SETTLE_MS = 300_000;

/** Everything a session has. */
export class Session implements AsyncDisposable {
  readonly random: Random;
  readonly checker: Checker;
  readonly order = new Order();
  /** Rows that somebody's hand was in: table, NUL, key. */
  excused = new Set<string>();
  /** The first thing that is wrong. */
  failure: Error | null = null;
  isOver = false;
  /** The schema in force. */
  schema = SCHEMA;
  /** The faults so far, in their order. */
  readonly trace: string[] = [];
  #judging: Promise<void> = Promise.resolve();
  #waiting = 0;
  readonly #sql: postgres.Sql;

  private constructor(
    readonly options: SessionOptions,
    readonly counts: Counts,
    readonly stack: Stack,
    readonly proxy: Proxy,
    readonly httpCutter: Cutter,
    readonly sourceCutter: Cutter,
    readonly pool: Pool,
    readonly schemas: Schemas,
  ) {
    this.random = seededRandom(options.seed);
    // Of its own: what is terminated or cancelled is somebody else's.
    this.#sql = postgres(stack.server.url({ database: stack.database }), {
      max: 2,
      prepare: false,
      onnotice: () => {},
      connection: { application_name: "oracle checker" },
    });
    this.checker = new Checker({ sql: this.#sql });
  }

  static async start(
    servers: Servers,
    options: SessionOptions,
    counts: Counts,
  ): Promise<Session> {
    const stack = await Stack.start(servers, { schema: SCHEMA, setup: TABLES });
    await createShadow(stack.sql);
    if (options.seed % 3 > 0) await limitClaims(stack.sql);
    const proxy = new Proxy(() => stack.sqld.url);
    const httpCutter = new Cutter(() => Number(new URL(proxy.url).port));
    const sourceCutter = new Cutter(() => stack.server.port);
    const url = new URL(stack.workerUrl);
    url.port = String(sourceCutter.port);
    const pool = new Pool({
      size: options.faults === false ? 1 : 2 + options.seed % 2,
      libsqlUrl: `http://127.0.0.1:${httpCutter.port}`,
      pgmqUrl: url.href,
      schema: SCHEMA,
    });
    const session = new Session(
      options,
      counts,
      stack,
      proxy,
      httpCutter,
      sourceCutter,
      pool,
      new Map(
        await Promise.all(
          SCHEMAS.map(async (schema) =>
            [await schemaHash(parseSchema(schema)), schema] as const
          ),
        ),
      ),
    );
    proxy.afterwards = async (body) => {
      if (isApply(body)) await session.look();
    };
    await pool.start();
    return session;
  }

  /** Notes what is wrong, and ends the session. */
  fail(error: unknown): void {
    this.failure ??= error instanceof Error ? error : new Error(String(error));
    this.isOver = true;
  }

  /** Reads the replica's state, and judges it in its turn. */
  async look(): Promise<void> {
    if (this.#waiting >= QUEUE_MAX) return;
    const { failovers } = this.order;
    const state = await this.read();
    if (state === null) return;
    this.order.note(state, failovers);
    this.#waiting += 1;
    const excused = new Set(this.excused);
    this.#judging = this.#judging.then(() => this.#judge(state, excused));
  }

  /** The replica's state; null where there is none, or no answer. */
  async read(): Promise<ReplicaState | null> {
    // A client of its own: one that met a hanging server hangs as well.
    const client = readerOf(this.stack.sqld.url);
    try {
      return await readState(client, this.schemas);
    } catch {
      return null;
    } finally {
      client.close();
    }
  }

  async #judge(
    state: ReplicaState,
    excused: ReadonlySet<string>,
  ): Promise<void> {
    try {
      if (this.failure !== null) return;
      await this.patiently(() =>
        this.checker.judge(state, {
          isExcused: (table, key) =>
            excused.has(`${table}\0${key}`) ||
            this.excused.has(`${table}\0${key}`),
        })
      );
    } catch (error) {
      this.fail(error);
    } finally {
      this.#waiting -= 1;
    }
  }

  /** Compares a state, nobody excused. */
  compare(state: ReplicaState, shadow: Shadow): { found: Found[] } {
    return compareState(state, shadow);
  }

  /** Every difference of the tables themselves. */
  async compareTables(): Promise<Difference[]> {
    const { sql, client } = this.stack;
    const { schema } = this;
    const { differences } = await compareTables({ sql, client, schema });
    // A column that is listed no more stays as it is.
    return differences.filter(({ kind }) => kind !== "columns");
  }

  /** Everything that was read is judged. */
  async judged(): Promise<void> {
    await this.#judging;
  }

  /** Asks the source again while it is being restarted. */
  async patiently<T>(ask: () => Promise<T>): Promise<T> {
    for (let tries = 1;; tries++) {
      try {
        return await within(20_000, ask());
      } catch (error) {
        const { code = "" } = error as { code?: string };
        const isAway = /^(57P0|CONNECTION|ECONN|EPIPE|53300)/.test(code);
        if (!isAway || tries === 100) throw error;
        await sleep(100);
      }
    }
  }

  /** Posts to a worker, and notes an answer that was not foreseen. */
  async post(slot: number, path: string): Promise<Record<string, unknown>> {
    const answer = await this.pool.post(slot, path);
    const code = answer === null
      ? "none"
      : answer.status === 200
      ? "200"
      : String(answer.body.error);
    const { answers } = this.counts;
    answers[code] = (answers[code] ?? 0) + 1;
    if (!FORESEEN.test(code)) {
      this.fail(
        new Error(
          `${path} was answered ${answer?.status} ${
            JSON.stringify(answer?.body)
          }; the workers' last lines:\n${
            this.pool.lines.slice(-30).join("\n")
          }`,
        ),
      );
    }
    return answer?.body ?? {};
  }

  /**
   * Runs every round.
   *
   * @throws {Error} Something differs, or does not come to rest.
   */
  async run(): Promise<void> {
    try {
      await this.#run();
    } finally {
      const { states, equal, rows } = this.checker.checked;
      this.counts.states += states;
      this.counts.equal += equal;
      this.counts.rows += rows;
    }
  }

  async #run(): Promise<void> {
    const { options, counts, stack } = this;
    const { seed, rounds, roundMs } = options;
    counts.sessions += 1;
    await this.warmUp();
    const faults = new Faults(this);
    for (let round = 0; round < rounds; round++) {
      const end = performance.now() + roundMs;
      const isOver = () => this.isOver || performance.now() > end;
      const writers = Array.from({ length: 4 }, (_, i) =>
        new Writer({
          name: `w${i}r${round}`,
          url: () => stack.server.url({ database: stack.database }),
          seed: seed * 1_000 + round * 10 + i,
        }));
      const tickers = [0, 1].map((i) => this.#tick(i, round, isOver));
      await Promise.all([
        ...writers.map((writer) => writer.run(isOver)),
        ...tickers,
        this.#watch(isOver),
        ...(options.faults === false ? [] : [faults.run(isOver)]),
      ]);
      for (const { written } of writers) {
        counts.statements += written.statements;
        counts.statementsFailed += written.failed;
        counts.transactions += written.transactions;
        counts.rolledBack += written.rolledBack;
        counts.prepared += written.prepared;
      }
      if (this.failure === null) {
        await within(SETTLE_MS, settle(this, faults));
      }
      await within(SETTLE_MS, this.judged());
      if (this.failure !== null) throw this.failure;
      options.log?.(`seed ${seed} round ${round + 1} of ${rounds}: equal`);
    }
  }

  /** Some rows before anything fails, and a replica that has them. */
  async warmUp(): Promise<void> {
    const { stack } = this;
    await stack.sql.unsafe(
      `insert into hot select i, 'row ' || i, i from generate_series(1, 20) i;
       insert into parent select i, 'p' from generate_series(1, 20) i;
       insert into child select i, 1 + i % 7, 'c' from generate_series(1, 20) i;
       insert into toy select i, 1 + i % 5, 't' from generate_series(1, 20) i;
       insert into fat select i, repeat('fat', 4000) from generate_series(1, 60) i;
       insert into swap select i, 's' || i from generate_series(1, 20) i;`,
    ).simple();
    await stack.walk();
    await stack.drain();
  }

  /** Posts as a cron and as impatient users do. */
  async #tick(
    ticker: number,
    round: number,
    isOver: () => boolean,
  ): Promise<void> {
    const { seed } = this.options;
    const random = seededRandom(seed * 1_000 + 500 + round * 10 + ticker);
    while (!isOver()) {
      await this.post(random.below(this.pool.size), "/sync");
      await sleep(random.below(60));
    }
  }

  /** Looks at the replica as a reader does, at any time. */
  async #watch(isOver: () => boolean): Promise<void> {
    while (!isOver()) {
      await this.look();
      await sleep(150);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.pool[Symbol.asyncDispose]();
    await this.httpCutter[Symbol.asyncDispose]();
    await this.stack.sqld.kill();
    await this.proxy[Symbol.asyncDispose]();
    await this.sourceCutter[Symbol.asyncDispose]();
    await this.#sql.end({ timeout: 1 });
    await this.stack[Symbol.asyncDispose]();
  }
}
