/**
 * The local servers, stand-ins and the oracle: what every other test with a
 * database rests on.
 *
 * @module
 */
import { type Client, createClient } from "@libsql/client/http";
import assert from "node:assert/strict";
import { join } from "node:path";
import postgres from "postgres";
import {
  compareTables,
  describeDifferences,
  type RawSchema,
} from "../../lib/dev/compare.ts";
import { readPorts } from "../../lib/dev/dev_settings.ts";
import {
  type PostgresServer,
  startPostgres,
  SUPERUSER,
} from "../../lib/dev/postgres.ts";
import { fillSample, startTraffic } from "../../lib/dev/sample.ts";
import { makeServerTempDir } from "../../lib/dev/server_user.ts";
import { startSqld } from "../../lib/dev/sqld.ts";
import { prepareDatabase, putSecret } from "../../lib/dev/supabase.ts";
import { startTicker } from "../../lib/dev/ticker.ts";
import { describeLine } from "../../lib/dev/worker_process.ts";
import { Servers } from "../db/support/stack.ts";

const ROOT = join(import.meta.dirname!, "../../.dev");
const SAMPLE = new URL("../../lib/dev/sample.sql", import.meta.url);
const SCHEMA = new URL("../../schema.json", import.meta.url);

/** Gives a temporary folder, and removes it afterwards. */
async function withFolder(
  use: (folder: string) => Promise<void>,
): Promise<void> {
  const folder = await makeServerTempDir();
  try {
    await use(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Gives a server with a prepared database `postgres`. */
async function withPostgres(
  options: { version?: 15 | 17; settings?: Record<string, string> },
  use: (server: PostgresServer) => Promise<void>,
): Promise<void> {
  await withFolder(async (folder) => {
    const server = await startPostgres({
      root: ROOT,
      dataDir: join(folder, "data"),
      ...options,
      settings: { fsync: "off", ...options.settings },
    });
    try {
      await prepareDatabase(server, { database: "postgres" });
      await use(server);
    } finally {
      await server.stop();
    }
  });
}

/** Gives a connection, and closes it. */
async function withSql<T>(
  url: string,
  use: (sql: postgres.Sql) => Promise<T>,
): Promise<T> {
  const sql = postgres(url, { max: 1, fetch_types: false, onnotice: () => {} });
  try {
    return await use(sql);
  } finally {
    await sql.end({ timeout: 1 });
  }
}

/** Waits until something holds, a minute at most. */
async function eventually(
  what: string,
  holds: () => Promise<boolean>,
): Promise<void> {
  const until = Date.now() + 60_000;
  while (!await holds()) {
    assert(Date.now() < until, `not within 60 s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

for (const version of [17, 15] as const) {
  Deno.test(`startPostgres() keeps committed rows over a SIGKILL, version ${version}`, () =>
    withPostgres({ version, settings: { fsync: "on" } }, async (server) => {
      await withSql(server.url(), async (sql) => {
        assert.equal(
          (await sql`show server_version_num`)[0]!.server_version_num.slice(
            0,
            2,
          ),
          String(version),
        );
        await sql`select pgmq.create('q')`;
        await sql`select pgmq.send('q', '{"n": 1}'::jsonb)`;
      });
      const { port } = server;
      await server.kill();
      await assert.rejects(
        withSql(server.url(), (sql) => sql`select 1`.execute()),
      );
      await server.restart();
      assert.equal(server.port, port);
      const rows = await withSql(
        server.url(),
        (sql) => sql`select message from pgmq.read('q', 0, 10)`.execute(),
      );
      assert.deepEqual([...rows], [{ message: { n: 1 } }]);
      // Twice is no different from once.
      await prepareDatabase(server, { database: "postgres" });
    }));
}

Deno.test("startPostgres() names the reason and the data's version when they do not fit", () =>
  withFolder(async (folder) => {
    const dataDir = join(folder, "data");
    const settings = { fsync: "off" };
    await assert.rejects(
      startPostgres({
        root: ROOT,
        dataDir,
        settings: { no_such_setting: "1" },
      }),
      /ended with code 1[^]*no_such_setting/,
    );
    await assert.rejects(
      startPostgres({ root: ROOT, dataDir, settings, version: 15 }),
      /expected data of version 15, found version 17/,
    );
    const server = await startPostgres({ root: ROOT, dataDir, settings });
    await assert.rejects(
      startPostgres({ root: ROOT, dataDir, settings }),
      /already runs on it/,
    );
    await server.stop();
  }));

Deno.test("Servers has one PostgreSQL, also for those who ask for it at once", async () => {
  const servers = new Servers();
  try {
    const [database, server] = await Promise.all([
      servers.database({ migrated: false }),
      servers.postgres(),
      servers.folder(),
    ]);
    assert.equal(await servers.postgres(), server);
    await withSql(server.url({ database }), async (sql) => {
      assert.equal(
        (await sql`select current_database() as name`)[0]!.name,
        database,
      );
    });
  } finally {
    await servers.stop();
  }
});

Deno.test("prepareDatabase() gives role postgres what hosted Supabase gives it, and no more", () =>
  withPostgres({}, (server) =>
    withSql(server.url(), async (sql) => {
      const [role] = await sql`
        select rolsuper, rolcreatedb, rolcreaterole, rolbypassrls, rolreplication
        from pg_roles where rolname = current_user`;
      assert.deepEqual({ ...role }, {
        rolsuper: false,
        rolcreatedb: true,
        rolcreaterole: true,
        rolbypassrls: true,
        rolreplication: true,
      });
      const [owner] = await sql`
        select pg_get_userbyid(extowner) as pgmq from pg_extension where extname = 'pgmq'`;
      assert.equal(owner!.pgmq, "postgres");
      await sql`create function public.f() returns int language sql as 'select 1'`;
      const [may] =
        await sql`select has_function_privilege('anon', 'public.f()', 'execute') as anon`;
      assert.equal(
        may!.anon,
        true,
        "what a migration must revoke is granted here, as there",
      );
    })));

Deno.test("startSqld() loses the later commit when a backup is restored", () =>
  withFolder(async (folder) => {
    const sqld = await startSqld({ dataDir: join(folder, "data") });
    try {
      const client = createClient({ url: sqld.url });
      const count = async () =>
        Number(
          (await client.execute("select count(*) as n from t")).rows[0]!.n,
        );
      await client.batch([
        "create table t (id integer primary key)",
        "insert into t values (1)",
      ], "write");
      await sqld.backup(join(folder, "backup"));
      await client.execute("insert into t values (2)");
      assert.equal(await count(), 2);
      await sqld.kill();
      await sqld.start();
      assert.equal(await count(), 2, "a SIGKILL loses nothing");
      await sqld.restore(join(folder, "backup"));
      assert.equal(await count(), 1);
    } finally {
      await sqld.stop();
    }
  }));

Deno.test("startTicker() runs jobs as their user, one run at a time, and sends requests", async () => {
  const posted: { body: string; header: string | null }[] = [];
  await using http = Deno.serve({
    port: 0,
    hostname: "127.0.0.1",
    onListen() {},
  }, async (request) => {
    posted.push({
      body: await request.text(),
      header: request.headers.get("x-test"),
    });
    if (request.url.endsWith("/slow")) {
      await new Promise((resolve) => setTimeout(resolve, 1_000));
    }
    return Response.json({ ok: true }, { status: 201 });
  });
  const url = `http://127.0.0.1:${http.addr.port}`;
  await withPostgres({}, async (server) => {
    const log: string[] = [];
    const ticker = startTicker({
      url: server.url({ user: SUPERUSER }),
      cronEveryMs: 50,
      log: (line) => log.push(line),
    });
    try {
      await withSql(server.url(), async (sql) => {
        await putSecret(sql, { name: "s", value: "one" });
        await putSecret(sql, { name: "s", value: "two" });
        assert.deepEqual(
          [...await sql`select decrypted_secret from vault.decrypted_secrets where name = 's'`],
          [{ decrypted_secret: "two" }],
        );
        await assert.rejects(
          sql`select cron.schedule('job', 'every minute', 'select 1')`,
          /invalid schedule/,
        );
        await sql`select cron.schedule('job', '* * * * *', 'select 1')`;
        await sql`select cron.schedule('job', '5 seconds', 'select current_user, pg_sleep(0.3)')`;
        await sql`select cron.schedule('bad', '5 seconds', 'select 1 / 0')`;
        // Not a header's value: the request fails, the rest goes on.
        await sql`select net.http_post(${url}, headers := '{"x-test": "🎉"}'::jsonb)`;
        await sql`select net.http_post(${url}, '{"n":1}'::jsonb, headers := '{"x-test": "yes"}'::jsonb)`;
        await sql`select net.http_post(${
          url + "/slow"
        }, timeout_milliseconds := 200)`;
        await eventually("two runs, a failure, three answers", async () => {
          const [seen] = await sql`select
            (select count(*) from cron.job_run_details where status = 'succeeded') >= 2 as runs,
            (select count(*) from cron.job_run_details where status = 'failed') >= 1 as failures,
            (select count(*) from net._http_response) >= 3 as answers`;
          return seen!.runs && seen!.failures && seen!.answers;
        });
        const [overlap] = await sql`
          select count(*)::int as n from cron.job_run_details a join cron.job_run_details b
          using (jobid) where a.runid < b.runid and b.start_time < a.end_time`;
        assert.equal(overlap!.n, 0);
        const answers =
          await sql`select status_code, content, timed_out from net._http_response order by id desc`;
        assert.deepEqual({ ...answers[0] }, {
          status_code: null,
          content: null,
          timed_out: true,
        });
        assert.deepEqual({ ...answers[1] }, {
          status_code: 201,
          content: '{"ok":true}',
          timed_out: false,
        });
        assert.deepEqual(
          posted.find(({ header }) => header === "yes")?.body,
          '{"n": 1}',
        );
      });
      await server.kill();
      await eventually(
        "the loss is told",
        () => Promise.resolve(log.some((line) => /trying again/.test(line))),
      );
      await server.restart();
      await eventually(
        "the return is told",
        () => Promise.resolve(log.some((line) => /is back/.test(line))),
      );
      assert(
        log.some((line) => line === "cron job bad: ERROR: division by zero"),
      );
    } finally {
      await ticker.stop();
    }
  });
});

/** A table with a column of every kind the comparison treats apart. */
const ODD: RawSchema = {
  tables: {
    odd: {
      key: ["a", "b"],
      columns: {
        a: "INTEGER",
        b: "TEXT",
        num: "INTEGER",
        flag: "BOOLEAN",
        doc: "JSON",
        text: "TEXT",
        at: "TEXT",
        list: "TEXT",
        bytes: "TEXT",
        raw: "TEXT",
      },
    },
  },
};

/** Fills both sides with the same two rows, written out by hand. */
async function fillOdd(sql: postgres.Sql, client: Client): Promise<void> {
  await sql.unsafe(`
    create table public.odd (a bigint, b text, num numeric, flag text, doc jsonb, text varchar,
      at timestamptz, list int[], bytes bytea, raw json, primary key (a, b), unlisted text);
    insert into public.odd values
      (9223372036854775807, 'ü,"', 5.00, 't', '"x"', E'line\\n''"🎉', '2024-01-02 03:04:05.6+02',
        '{1,null}', '\\x00ff', '{"a" :  1e2}'),
      (-1, '', null, null, 'null', '', null, null, null, null);
    set timezone to 'Asia/Kolkata'`).simple();
  await client.batch([
    `create table odd (a integer, b text, num integer, flag integer, doc text, text text, at text,
      list text, bytes text, raw text, primary key (a, b)) without rowid`,
    {
      sql:
        "insert into odd values (9223372036854775807, ?, 5, 1, ?, ?, ?, ?, ?, ?)",
      args: [
        'ü,"',
        '"x"',
        "line\n'\"🎉",
        "2024-01-02T01:04:05.6+00:00",
        "[1,null]",
        "\\x00ff",
        '{"a" :  1e2}',
      ],
    },
    "insert into odd values (-1, '', null, null, 'null', '', null, null, null, null)",
  ], "write");
}

Deno.test("compareTables() finds each planted difference, and nothing in equal tables", () =>
  withFolder(async (folder) => {
    const sqld = await startSqld({ dataDir: join(folder, "data") });
    try {
      await withPostgres({}, (server) =>
        withSql(server.url(), async (sql) => {
          const client = createClient({ url: sqld.url });
          const compare = () => compareTables({ sql, client, schema: ODD });
          assert.deepEqual(describeDifferences(await compare()), [
            "odd: table",
          ]);
          await fillOdd(sql, client);
          assert.deepEqual(await compare(), {
            rows: 2,
            differences: [],
            hasMore: false,
            skipped: [],
          });

          const big = '["9223372036854775807","ü,\\""]';
          const planted: [string, string[]][] = [
            [
              "update odd set at = '2024-01-02T01:04:05.600+00:00' where a > 0",
              [`odd.at: value at key ${big}`],
            ],
            ["update odd set doc = null where a > 0", [
              `odd.doc: type at key ${big}`,
            ]],
            ["update odd set flag = 'true' where a > 0", [
              `odd.flag: type at key ${big}`,
            ]],
            ["update odd set text = x'00' where a > 0", [
              `odd.text: type at key ${big}`,
            ]],
            ["update odd set num = 5.5 where a > 0", [
              `odd.num: type at key ${big}`,
            ]],
            ["update odd set a = a - 1 where a > 0", [
              `odd: missing at key ${big}`,
              'odd: ghost at key ["9223372036854775806","ü,\\""]',
            ]],
            ["delete from odd where a < 0", ['odd: missing at key ["-1",""]']],
            ["insert into odd (a, b) values (0, 'new')", [
              'odd: ghost at key ["0","new"]',
            ]],
            ["alter table odd add column extra text", ["odd.extra: columns"]],
          ];
          for (const [statement, expected] of planted) {
            await client.execute("create table kept as select * from odd");
            await client.execute(statement);
            assert.deepEqual(
              describeDifferences(await compare()),
              expected,
              statement,
            );
            await client.batch([
              "delete from odd",
              ...(statement.startsWith("alter")
                ? [
                  "alter table odd drop column extra",
                ]
                : []),
              "insert into odd select * from kept",
              "drop table kept",
            ], "write");
          }
          await sql`update public.odd set num = 0.5 where a < 0`;
          await sql`alter table public.odd drop column raw`;
          const { differences, skipped } = await compare();
          assert.deepEqual(differences, [{
            table: "odd",
            kind: "refused",
            key: '["-1",""]',
            column: "num",
          }]);
          assert.deepEqual(skipped, ["odd.raw"]);
        }));
    } finally {
      await sqld.stop();
    }
  }));

Deno.test("compareTables() reads tables bigger than one response", () =>
  withFolder(async (folder) => {
    const sqld = await startSqld({ dataDir: join(folder, "data") });
    try {
      await withPostgres({}, (server) =>
        withSql(server.url(), async (sql) => {
          const client = createClient({ url: sqld.url });
          const schema = {
            tables: {
              big: { key: "id", columns: { id: "INTEGER", text: "TEXT" } },
            },
          };
          await sql`create table public.big as
            select id, repeat('ü', case when id <= 20 then 1000000 else 1 end) as text
            from generate_series(1, 10000) as id`;
          await client.execute(
            "create table big (id integer primary key, text text)",
          );
          await client.execute(`insert into big
            with recursive n(id) as (select 1 union all select id + 1 from n where id < 10000)
            select id, replace(hex(zeroblob(case when id <= 20 then 500000 else 0 end)), '0', 'ü')
              || case when id <= 20 then '' else 'ü' end from n`);
          assert.deepEqual(await compareTables({ sql, client, schema }), {
            rows: 10_000,
            differences: [],
            hasMore: false,
            skipped: [],
          });
          await client.execute("delete from big where id = 9999");
          assert.deepEqual(
            describeDifferences(await compareTables({ sql, client, schema })),
            [
              "big: missing at key 9999",
            ],
          );
        }));
    } finally {
      await sqld.stop();
    }
  }));

Deno.test("fillSample() gives the same rows for a seed, and startTraffic() changes them", () =>
  withPostgres({}, async (server) => {
    const schema: RawSchema = JSON.parse(await Deno.readTextFile(SCHEMA));
    const digests: string[] = [];
    for (const database of ["one", "two"]) {
      await prepareDatabase(server, { database });
      await withSql(server.url({ database }), async (sql) => {
        const text = await Deno.readTextFile(SAMPLE);
        await sql.unsafe(text + text).simple();
        const filled = await fillSample(sql, { seed: 7, rows: 3_000 });
        assert(filled > 2_500 && filled < 3_500);
        assert.equal(await fillSample(sql, { seed: 7, rows: 3_000 }), 0);
        digests.push(await digest(sql, schema));
      });
    }
    assert.equal(digests[0], digests[1]);
    await withSql(server.url({ database: "two" }), async (sql) => {
      const log: string[] = [];
      const url = server.url({ database: "two" });
      const traffic = startTraffic({
        url,
        seed: 1,
        everyMs: 1,
        log: (line) => log.push(line),
      });
      try {
        await eventually(
          "rows differ",
          async () => await digest(sql, schema) !== digests[1],
        );
      } finally {
        await traffic.stop();
      }
      assert.deepEqual(log, []);
    });
  }));

Deno.test("readPorts() names the port and the variable when a port cannot be used", () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  const env: Record<string, string> = {
    PORT: String(port),
    DEV_PG_PORT: "x",
    DEV_LIBSQL_PORT: String(port),
  };
  const { problems } = readPorts((name) => env[name]);
  assert.equal(problems.length, 3);
  assert(
    problems[0]!.startsWith(
      `port ${port} is taken by another program: set PORT`,
    ),
  );
  assert(problems[1]!.startsWith("DEV_PG_PORT must be"));
  assert(problems[2]!.startsWith(`PORT and DEV_LIBSQL_PORT are both ${port}`));
});

Deno.test("describeLine() keeps warnings and drops what says nothing", () => {
  const sync = {
    time: "t",
    level: "info",
    event: "sync",
    processed: 3,
    queued: 2,
    ms: 8.6,
  };
  const lines: [unknown, string | null][] = [
    [sync, "sync: 3 messages in 9 ms, 2 left"],
    [
      { ...sync, parked: 1, queued_exact: false },
      "sync: 3 messages in 9 ms, 2 or more left, 1 parked",
    ],
    [{ ...sync, processed: 0 }, null],
    [{ ...sync, event: "bootstrap" }, null],
    [
      { level: "error", event: "sync", code: "replica_full", ms: 0 },
      "error: sync, code replica_full, ms 0",
    ],
  ];
  for (const [line, expected] of lines) {
    assert.equal(describeLine(JSON.stringify(line)), expected);
  }
  assert.equal(describeLine("error: Uncaught"), "error: Uncaught");
});

/** A fingerprint of what the listed columns hold. */
async function digest(sql: postgres.Sql, schema: RawSchema): Promise<string> {
  const parts: string[] = [];
  for (const [table, { columns }] of Object.entries(schema.tables)) {
    const list = Object.keys(columns).map((column) => `"${column}"`).join(", ");
    const [row] = await sql.unsafe(
      `select count(*)::text || md5(string_agg(r::text, '' order by r::text)) as d
      from (select ${list} from public.${table}) as r`,
    );
    parts.push(row!.d);
  }
  return parts.join();
}
