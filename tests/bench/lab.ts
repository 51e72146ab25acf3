/**
 * Ring 3. Sources and replicas to measure on, set up once and copied for each run.
 *
 * Promise: every run begins with the same bytes on both sides.
 *
 * @module
 */

import { type Client, createClient } from "@libsql/client/http";
import { cp } from "node:fs/promises";
import postgres from "postgres";
import { SUPERUSER } from "../../lib/dev/postgres.ts";
import { type SqldServer, startSqld } from "../../lib/dev/sqld.ts";
import { migrate } from "../../lib/dev/supabase.ts";
import { fillBaseline } from "./baseline.ts";
import { CAPTURE } from "./baseline_capture.ts";
import { LEAST_CAPTURE } from "./least_capture.ts";
import { changeRows, insertRows, type Kind, prepareRows } from "./rows.ts";
import { finishWalk, startWorker } from "./worker.ts";
import { Servers } from "../db/support/stack.ts";

/** A source and a replica, stopped: to be copied. */
interface Frozen {
  readonly database: string;
  readonly folder: string;
}

/** A source and a replica. */
export interface Pair extends AsyncDisposable {
  readonly database: string;
  /** The source's address, as role postgres. */
  readonly url: string;
  readonly sql: postgres.Sql;
  readonly sqld: SqldServer;
  readonly client: Client;
  readonly folder: string;
}

/** Who captures at a source. */
export type Capture = "none" | "baseline" | "least" | "ours";

const connect = (url: string, max = 1) =>
  postgres(url, { max, fetch_types: false, onnotice: () => {} });

/** Everything the bench runs on, until disposed. */
export class Lab implements AsyncDisposable {
  readonly #servers: Servers;
  readonly #frozen = new Map<string, Promise<Frozen>>();
  #made = 0;

  constructor(
    private readonly log: (line: string) => void,
    settings: Record<string, string> = {},
  ) {
    this.#servers = new Servers({
      settings: {
        shared_buffers: "512MB",
        // Full pages after a checkpoint would be measured as somebody's work.
        max_wal_size: "16GB",
        checkpoint_timeout: "1h",
        ...settings,
      },
    });
  }

  /** A copy of app_versions with so many rows, its replica full and drained. */
  async filled(options: { capture: Capture; rows: number }): Promise<Pair> {
    return await this.#open(await this.#filled(options));
  }

  /** The same, with changes that wait in the queue. */
  async changed(
    options: { capture: Capture; rows: number; kind: Kind; count: number },
  ): Promise<Pair> {
    const { capture, rows, kind, count } = options;
    const name = `${capture}, ${rows} rows, ${count} of ${kind}`;
    return await this.#open(
      await this.#once(name, async () => {
        const pair = await this.#open(await this.#filled({ capture, rows }));
        await changeRows(pair.sql, { kind, rows, count });
        return await this.#freeze(pair);
      }),
    );
  }

  /** A source with so many rows, and an empty replica. */
  async empty(options: { capture: Capture; rows: number }): Promise<Pair> {
    return await this.#open(await this.#empty(options));
  }

  /** A folder that goes with the lab. */
  async folder(): Promise<string> {
    const folder = await this.#servers.folder();
    await Deno.mkdir(folder, { recursive: true });
    return folder;
  }

  #once(name: string, make: () => Promise<Frozen>): Promise<Frozen> {
    const known = this.#frozen.get(name);
    if (known) return known;
    this.log(`preparing ${name}`);
    const made = make();
    this.#frozen.set(name, made);
    return made;
  }

  #empty(options: { capture: Capture; rows: number }): Promise<Frozen> {
    const { capture, rows } = options;
    return this.#once(`${capture}, ${rows} rows, empty replica`, async () => {
      const isBare = capture === "none";
      const pair = await this.#open(
        isBare
          ? await this.#bare()
          : await this.#empty({ capture: "none", rows }),
      );
      if (isBare) await insertRows(pair.sql, rows);
      if (capture === "ours") await migrate(pair.url);
      if (capture === "baseline") await pair.sql.unsafe(CAPTURE).simple();
      if (capture === "least") await pair.sql.unsafe(LEAST_CAPTURE).simple();
      return await this.#freeze(pair);
    });
  }

  #filled(options: { capture: Capture; rows: number }): Promise<Frozen> {
    const { capture, rows } = options;
    return this.#once(`${capture}, ${rows} rows`, async () => {
      const pair = await this.#open(await this.#empty(options));
      if (capture === "baseline") await fillBaseline(pair.sql, pair.client);
      if (capture === "ours") {
        await using worker = await startWorker({
          libsqlUrl: pair.sqld.url,
          pgmqUrl: pair.url,
        });
        await finishWalk(worker, "/backfill");
        await worker.post("/sync");
      }
      return await this.#freeze(pair);
    });
  }

  /** The tables without rows. */
  #bare(): Promise<Frozen> {
    return this.#once("tables", async () => {
      const database = await this.#servers.database({ migrated: false });
      const server = await this.#servers.postgres();
      const sql = connect(server.url({ database }));
      try {
        await sql.file(new URL("../../lib/dev/sample.sql", import.meta.url))
          .simple();
        await prepareRows(sql);
      } finally {
        await sql.end({ timeout: 5 });
      }
      return { database, folder: await this.folder() };
    });
  }

  /** Stops a pair, so that it can be copied. */
  async #freeze(pair: Pair): Promise<Frozen> {
    await pair.sql.unsafe("vacuum analyze").simple();
    await this.#close(pair);
    return { database: pair.database, folder: pair.folder };
  }

  /** Copies what is stopped, and starts it. */
  async #open(frozen: Frozen): Promise<Pair> {
    const database = `bench_${++this.#made}`;
    const folder = await this.#servers.folder();
    const server = await this.#servers.postgres();
    await this.#admin((sql) =>
      sql`create database ${sql(database)} template ${
        sql(frozen.database)
      } strategy file_copy owner postgres`
    );
    await cp(frozen.folder, folder, { recursive: true });
    const sqld = await startSqld({ dataDir: folder });
    const url = server.url({ database });
    const pair = {
      database,
      folder,
      url,
      sqld,
      sql: connect(url, 4),
      client: createClient({ url: sqld.url, authToken: "bench" }),
    };
    return {
      ...pair,
      [Symbol.asyncDispose]: async () => {
        await this.#close(pair);
        await this.#admin((sql) =>
          sql`drop database ${sql(database)} with (force)`
        );
        await Deno.remove(folder, { recursive: true });
      },
    };
  }

  async #close(pair: Omit<Pair, typeof Symbol.asyncDispose>): Promise<void> {
    pair.client.close();
    await pair.sql.end({ timeout: 5 });
    await pair.sqld.kill();
  }

  async #admin(run: (sql: postgres.Sql) => Promise<unknown>): Promise<void> {
    const server = await this.#servers.postgres();
    const sql = connect(
      server.url({ user: SUPERUSER, database: "template1" }),
    );
    try {
      await run(sql);
    } finally {
      await sql.end({ timeout: 5 });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#servers.stop();
  }
}
