/**
 * Ring 3. A source, a replica and a worker behind HTTP, made for one test.
 *
 * @module
 */

import { type Client, createClient } from "@libsql/client/http";
import { assert, assertEquals } from "@std/assert";
import { fileURLToPath } from "node:url";
import postgres from "postgres";
import { parseConfig } from "../../../lib/config/config.ts";
import { withParts } from "../../../lib/connect/connect.ts";
import { serveBunny } from "../../../lib/dev/bunny.ts";
import {
  compareTables,
  describeDifferences,
} from "../../../lib/dev/compare.ts";
import {
  type PostgresServer,
  startPostgres,
  SUPERUSER,
} from "../../../lib/dev/postgres.ts";
import { makeServerTempDir } from "../../../lib/dev/server_user.ts";
import { type SqldServer, startSqld } from "../../../lib/dev/sqld.ts";
import {
  createWorkerLogin,
  migrate,
  prepareDatabase,
  putSecret,
  WORKER_LOGIN,
} from "../../../lib/dev/supabase.ts";
import { parseSchema, schemaHash, schemaText } from "../../../lib/schema.ts";
import type { Parts } from "../../../lib/sync/progress.ts";
import { createWorker } from "../../../lib/worker.ts";
import schemaJson from "../../../schema.json" with { type: "json" };
import { bundleWorker } from "./bundle.ts";
import {
  admitToken,
  closeWays,
  IN_ISOLATE,
  MODULES_BESIDE,
  ownCertificate,
  settingsFor,
  TRANSPORT,
} from "./transport.ts";

/** The worker's secret in every test. */
export const SECRET = "test-webhook-signature";

/** schema.json's shape. */
export type RawSchema = {
  tables: Record<
    string,
    {
      key: string | string[];
      columns: Record<string, string>;
      indexes: (string | string[])[];
    }
  >;
};

/** Servers that outlive a test: one PostgreSQL for a file of tests. */
export class Servers {
  #root?: Promise<string>;
  #postgres?: Promise<PostgresServer>;
  #template?: Promise<string>;
  #made = 0;

  constructor(
    private readonly options: {
      version?: 15 | 17;
      settings?: Record<string, string>;
      /** Whether the server offers TLS, by the certificate of this run. */
      tls?: boolean;
      /** Takes each line of the server's log. */
      log?: (line: string) => void;
    } = {},
  ) {}

  /** The server, started when first asked for; one, also for two who ask at once. */
  postgres(): Promise<PostgresServer> {
    return this.#postgres ??= this.#start();
  }

  async #start(): Promise<PostgresServer> {
    return await startPostgres({
      root: fileURLToPath(new URL("../../../.dev", import.meta.url)),
      dataDir: `${await this.#ownRoot()}/pg`,
      version: this.options.version,
      log: this.options.log,
      ...(this.options.tls || TRANSPORT === "tls"
        ? { tls: await ownCertificate() }
        : {}),
      settings: {
        fsync: "off",
        max_connections: "60",
        ...this.options.settings,
      },
    });
  }

  #ownRoot(): Promise<string> {
    return this.#root ??= makeServerTempDir();
  }

  /** A folder of its own for each caller. */
  async folder(): Promise<string> {
    return `${await this.#ownRoot()}/${++this.#made}`;
  }

  /** A new database that looks like Supabase's, with the migration by default. */
  async database(options: { migrated?: boolean } = {}): Promise<string> {
    const server = await this.postgres();
    const database = `test_${++this.#made}`;
    if (options.migrated ?? true) {
      const template = await (this.#template ??= makeTemplate(server));
      await cloneDatabase(server, { template, database });
      if (TRANSPORT === "rest") await admitToken(server, database);
    } else {
      await prepareDatabase(server, { database });
    }
    return database;
  }

  async stop(): Promise<void> {
    await closeWays();
    await (await this.#postgres)?.stop();
    if (this.#root) await Deno.remove(await this.#root, { recursive: true });
  }
}

/** Makes the database that others are copies of: a copy takes a third of the time. */
async function makeTemplate(server: PostgresServer): Promise<string> {
  const database = "test_template";
  await prepareDatabase(server, { database });
  const url = server.url({ database });
  const sql = postgres(url, { max: 1, onnotice: () => {} });
  try {
    await sql.file(new URL("../../../lib/dev/sample.sql", import.meta.url))
      .simple();
  } finally {
    await sql.end();
  }
  await migrate(url);
  return database;
}

/** Copies the template. The copy has a chain of its own, as each installation has. */
async function cloneDatabase(
  server: PostgresServer,
  options: { template: string; database: string },
): Promise<void> {
  const { template, database } = options;
  const connect = (database: string) =>
    postgres(server.url({ user: SUPERUSER, database }), {
      max: 1,
      fetch_types: false,
      onnotice: () => {},
    });
  const admin = connect("template1");
  try {
    await admin`create database ${admin(database)}
      template ${admin(template)} owner postgres`;
  } finally {
    await admin.end();
  }
  const sql = connect(database);
  try {
    const genesis = crypto.randomUUID();
    // Foreign keys are not checked: the two tables refer to one another.
    await sql.unsafe(`
      set session_replication_role = replica;
      update libsql_sync.epochs set epoch = '${genesis}';
      update libsql_sync.chain set epoch = '${genesis}', batch = '${genesis}';
      update cron.job set database = current_database();
    `).simple();
  } finally {
    await sql.end();
  }
}

/** A source and a replica with a worker between them. */
export class Stack implements AsyncDisposable {
  private constructor(
    readonly database: string,
    readonly server: PostgresServer,
    readonly sqld: SqldServer,
    /** As role postgres, in a time zone that is not UTC. */
    readonly sql: postgres.Sql,
    readonly client: Client,
    readonly schema: RawSchema,
    readonly log: Record<string, unknown>[],
    readonly worker: ServedWorker,
    readonly folder: string,
  ) {}

  static async start(
    servers: Servers,
    options: {
      schema?: RawSchema;
      setup?: string;
      /** One that has the migration already; its secrets are left alone. */
      database?: string;
      /** Whether the replica is filled and scrubbed by itself; true unless told. */
      walks?: boolean;
    } = {},
  ): Promise<Stack> {
    const server = await servers.postgres();
    const database = options.database ?? await servers.database();
    const folder = await servers.folder();
    const sqld = await startSqld({ dataDir: `${folder}/sqld` });
    const sql = postgres(server.url({ database }), {
      max: 5,
      prepare: false,
      onnotice: () => {},
      connection: { TimeZone: "Asia/Kolkata" },
    });
    const client = createClient({ url: sqld.url, authToken: "test" });
    await createWorkerLogin(sql);
    const log: Record<string, unknown>[] = [];
    const raw = options.schema ?? schemaJson;
    if (options.setup) await sql.unsafe(options.setup).simple();
    if (options.schema) await configure(sql, raw);
    if (options.walks === false) {
      await sql`update libsql_sync.chain set refill = false, walk_opened = walk_wanted, scrub_rows = 0`;
    }
    const worker = serveWorker(
      { libsqlUrl: sqld.url, pgmqUrl: server.url({ database }) },
      raw,
      log,
    );
    if (options.database === undefined) {
      for (
        const [name, value] of [
          ["libsql_sync_url", `http://127.0.0.1:${worker.addr.port}/sync`],
          ["libsql_webhook_signature", SECRET],
        ] as const
      ) await putSecret(sql, { name, value });
    }
    return new Stack(
      database,
      server,
      sqld,
      sql,
      client,
      raw,
      log,
      worker,
      folder,
    );
  }

  /** PostgreSQL as the worker reaches it: by a role with the worker's rights. */
  get workerUrl(): string {
    return this.server.url({ database: this.database, user: WORKER_LOGIN });
  }

  /** The worker's answer to a signed POST. */
  async post(
    path: string,
    options: { port?: number } = {},
  ): Promise<{ status: number; body: Record<string, unknown> }> {
    const port = options.port ?? this.worker.addr.port;
    const response = await fetch(`http://127.0.0.1:${port}${path}`, {
      method: "POST",
      headers: { "x-webhook-signature": SECRET },
    });
    return { status: response.status, body: await response.json() };
  }

  /** One /sync that must succeed. */
  async sync(): Promise<Record<string, unknown>> {
    const { status, body } = await this.post("/sync");
    assertEquals(status, 200, JSON.stringify(body));
    assertEquals(body.success, true);
    return body;
  }

  /**
   * Syncs until nothing is queued, and returns the last answer, with what all of
   * them counted: on a busy machine one takes less of the queue.
   */
  async drain(): Promise<Record<string, unknown>> {
    const counted = { processed: 0, parked: 0, batches: 0 };
    for (let tries = 0; tries < 50; tries++) {
      const body = await this.sync();
      counted.processed += Number(body.processed);
      counted.parked += Number(body.parked);
      counted.batches += Number(body.batches);
      if (body.queued === 0 && body.drained === true) {
        return { ...body, ...counted };
      }
    }
    throw new Error("still queued after 50 syncs");
  }

  /** Runs a script on a connection of its own: it may hold transactions. */
  async run(script: string, options: { user?: string } = {}): Promise<void> {
    const url = this.server.url({ database: this.database, ...options });
    const sql = postgres(url, {
      max: 1,
      onnotice: () => {},
      connection: { TimeZone: "Asia/Kolkata" },
    });
    try {
      await sql.unsafe(script).simple();
    } finally {
      await sql.end({ timeout: 1 });
    }
  }

  /** Posts /backfill or /verify until it is done, and returns the last answer. */
  async finish(path: string): Promise<Record<string, unknown>> {
    for (let tries = 0; tries < 60; tries++) {
      const { status, body } = await this.post(path);
      assertEquals(status, 200, JSON.stringify(body));
      if (body.done === true) return body;
    }
    throw new Error(`${path} is not done after 60 requests`);
  }

  /** Syncs until every table is walked. */
  async walk(): Promise<void> {
    for (let tries = 0; tries < 60; tries++) {
      if ((await this.sync()).walk_done === true) return;
    }
    throw new Error("not walked after 60 syncs");
  }

  /** The replica's row without probed_at, which every probe sets to the second. */
  async row(): Promise<Record<string, unknown>> {
    const { rows } = await this.client.execute("SELECT * FROM _libsql_sync");
    assertEquals(rows.length, 1);
    const { probed_at: _, ...row } = rows[0]!;
    return row;
  }

  /** Replica and source are equal, cell by cell; returns how many rows. */
  async assertEqual(schema: RawSchema = this.schema): Promise<number> {
    const found = await compareTables({
      sql: this.sql,
      client: this.client,
      schema,
      withValues: true,
    });
    assert(
      found.differences.length === 0,
      describeDifferences(found).join("\n"),
    );
    return found.rows;
  }

  /**
   * Drains; of these tables nothing was set aside, no message says that capture
   * failed, and both sides are equal. Returns how many rows.
   */
  async settle(schema: RawSchema = this.schema): Promise<number> {
    const isOurs = ({ table }: Record<string, unknown>) =>
      String(table) in schema.tables;
    // An SQLSTATE: of a partition that is emptied, no keys are known.
    const walks = (await this.messages()).filter(({ walk }) =>
      typeof walk === "string" && /^[0-9A-Z]{5}$/.test(walk)
    );
    await this.drain();
    assertEquals(walks.filter(isOurs), []);
    assertEquals((await this.deadLetters()).filter(isOurs), []);
    return await this.assertEqual(schema);
  }

  /** What the queue holds, in order. */
  async messages(): Promise<Record<string, unknown>[]> {
    const rows = await this
      .sql`select message from pgmq.q_replicate_data_libsql order by msg_id`;
    return rows.map(({ message }) => message);
  }

  /** What the dead-letter queue holds, in order. */
  async deadLetters(): Promise<Record<string, unknown>[]> {
    const rows = await this
      .sql`select message from pgmq.q_replicate_data_libsql_dlq order by msg_id`;
    return rows.map(({ message }) => message);
  }

  /** Runs something with a worker's parts, as a worker of this schema would. */
  async withParts<T>(
    run: (parts: Parts) => Promise<T>,
    schema: RawSchema = this.schema,
  ): Promise<T> {
    const config = await configOf({
      libsqlUrl: this.sqld.url,
      pgmqUrl: this.server.url({ database: this.database }),
    });
    const parsed = parseSchema(schema);
    return await withParts({
      config,
      schema: parsed,
      hash: await schemaHash(parsed),
      log: () => {},
    }, run);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.worker.shutdown();
    this.client.close();
    await this.sql.end({ timeout: 1 });
    await this.sqld.kill();
  }
}

/** Puts a schema in force at the source, as the migration's own call does. */
export async function configure(
  sql: postgres.Sql,
  raw: RawSchema,
): Promise<void> {
  const schema = parseSchema(raw);
  const hash = await schemaHash(schema);
  await sql`select libsql_sync.configure(${hash}, ${
    schemaText(schema)
  }::text::jsonb)`;
}

/** A worker on a port. */
export interface ServedWorker {
  readonly addr: { readonly port: number };
  shutdown(): Promise<void>;
}

/** What a worker is told, which connects as its own role whoever's URL this is. */
export async function settingsOf(
  urls: { libsqlUrl: string; pgmqUrl: string },
): Promise<Record<string, string>> {
  return {
    LIBSQL_URL: urls.libsqlUrl,
    LIBSQL_AUTH_TOKEN: "test",
    WEBHOOK_SIGNATURE: SECRET,
    ...await settingsFor(
      urls.pgmqUrl.replace(
        "postgres://postgres:",
        `postgres://${WORKER_LOGIN}:`,
      ),
    ),
  };
}

async function configOf(urls: { libsqlUrl: string; pgmqUrl: string }) {
  const settings = await settingsOf(urls);
  return parseConfig((name) => settings[name]);
}

/** A worker on a free port: as main.ts puts it together, or main.ts itself in the isolate. */
export function serveWorker(
  urls: { libsqlUrl: string; pgmqUrl: string },
  raw: RawSchema,
  lines: Record<string, unknown>[] = [],
  more: Record<string, string> = {},
): ServedWorker {
  if (IN_ISOLATE) {
    return serveBunny({
      script: () => bundleWorker(raw),
      env: async () => ({ ...await settingsOf(urls), ...more }),
      modules: MODULES_BESIDE,
      onLine: (line) => {
        if (line.startsWith("{")) lines.push(JSON.parse(line));
      },
    });
  }
  const log = (level: string, event: string, fields: object) => {
    lines.push({ level, event, ...fields });
  };
  let worker: Promise<ReturnType<typeof createWorker>> | null = null;
  return Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen: () => {} },
    async (request) => {
      worker ??= settingsOf(urls).then((settings) =>
        createWorker({
          config: () => parseConfig((name) => more[name] ?? settings[name]),
          schema: raw,
          log,
          now: Date.now,
        })
      );
      return await (await worker)(request);
    },
  );
}
