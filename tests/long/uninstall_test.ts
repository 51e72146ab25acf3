import { assert, assertEquals, assertRejects } from "@std/assert";
import postgres from "postgres";
import { SUPERUSER } from "../../lib/dev/postgres.ts";
import { migrate } from "../../lib/dev/supabase.ts";
import { Servers, Stack } from "../db/support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

/** Everything of ours that the catalog still shows. */
async function traces({ sql }: Stack): Promise<string[]> {
  const rows = await sql.unsafe(`
    select 'function ' || oid::regprocedure as found from pg_proc where proname ~ 'libsql' or prosrc ~ 'libsql'
    union all select 'trigger ' || tgname || ' on ' || tgrelid::regclass from pg_trigger where tgname ~ 'libsql'
    union all select 'relation ' || relname from pg_class where relname ~ 'libsql'
    union all select 'type ' || typname from pg_type where typname ~ 'libsql'
    union all select 'schema ' || nspname from pg_namespace where nspname ~ 'libsql'
    union all select 'job ' || jobname from cron.job where jobname ~ 'libsql'
    union all select 'run ' || runid from cron.job_run_details where command ~ 'libsql'
    union all select 'queue ' || queue_name from pgmq.meta where queue_name ~ 'libsql'
    order by 1`);
  return rows.map(({ found }) => found);
}

/** The notices of one statement. */
async function noticesOf(stack: Stack, text: string): Promise<string[]> {
  const notices: string[] = [];
  const url = stack.server.url({ database: stack.database });
  const sql = postgres(url, {
    max: 1,
    onnotice: ({ message }) => notices.push(message ?? ""),
  });
  try {
    await sql.unsafe(text);
  } finally {
    await sql.end({ timeout: 1 });
  }
  return notices;
}

const SETUP = `
  create table parted (id int primary key, a text) partition by range (id);
  create table parted_low partition of parted for values from (0) to (100);
  create table another (id int primary key);
`;
const SCHEMA = {
  tables: {
    manifest: {
      key: "id",
      columns: { id: "INTEGER", file_name: "TEXT" },
      indexes: [],
    },
    parted: { key: "id", columns: { id: "INTEGER", a: "TEXT" }, indexes: [] },
  },
};
const WRITE =
  "insert into manifest (app_version_id, file_name, s3_path, file_hash) values (1, 'f', 's', 'h')";

Deno.test("uninstall() leaves nothing of ours, and every table of the user's as it was", async () => {
  await using stack = await Stack.start(servers, {
    setup: SETUP,
    schema: SCHEMA,
  });
  const { sql } = stack;
  // A leftover of an older setup, on a table that is not listed.
  await sql.unsafe(
    "create trigger old after insert on another for each row execute function public.trigger_http_queue_post_to_function_libsql('another')",
  );
  await stack.run(WRITE);
  await sql`insert into parted values (1, 'a')`;
  await stack.drain();
  await stack.run(WRITE);
  await stack.run(
    "insert into cron.job_run_details (jobid, username, command) select jobid, username, command from cron.job where jobname ~ 'libsql'",
    { user: SUPERUSER },
  );
  assert((await traces(stack)).length > 50);
  const before = await stack.row();

  const notices = await noticesOf(
    stack,
    "select libsql_sync.uninstall('uninstall')",
  );
  assertEquals(await traces(stack), []);
  const [left] = await sql`select
    (select count(*)::int from pg_trigger where not tgisinternal) as triggers,
    (select count(*)::int from manifest) as rows,
    (select count(*)::int from vault.secrets) as secrets,
    (select count(*)::int from pg_extension where extname = 'pgmq') as pgmq`;
  assertEquals(left, { triggers: 0, rows: 2, secrets: 2, pgmq: 1 });
  const [named] = notices.filter((text) => text.includes("Vault"));
  assert(named?.includes("libsql_sync_url, libsql_webhook_signature"), named);
  assert(!named?.includes("127.0.0.1"));

  // The replica is not touched, and the worker says what is missing.
  assertEquals(await stack.row(), before);
  const { status, body } = await stack.post("/sync");
  assertEquals([status, body.error], [500, "source_not_installed"]);
  // Writes go on.
  await stack.run(`${WRITE}; update manifest set file_name = 'g';
    insert into parted values (2, 'b'); insert into parted_low values (3, 'c');
    insert into another values (1); delete from parted where id = 1; truncate another`);

  // Installed again it is another source, until somebody takes the replica over.
  await migrate(stack.server.url({ database: stack.database }));
  const [chain] = await sql`select epoch from libsql_sync.chain`;
  assert(chain?.epoch !== before.epoch);
  assertEquals((await stack.post("/sync")).body.error, "schema_unknown");
  await sql`select libsql_sync.uninstall('uninstall')`;
  assertEquals(await traces(stack), []);
});

Deno.test("uninstall() makes way for a new epoch when it is installed again", async () => {
  await using stack = await Stack.start(servers);
  const { sql } = stack;
  await stack.run(WRITE);
  await stack.drain();
  await sql`select libsql_sync.uninstall('uninstall')`;
  await stack.run(`${WRITE}; delete from manifest where id = 1`);
  await migrate(stack.server.url({ database: stack.database }));
  await stack.run(WRITE);
  const refused = await stack.post("/sync");
  assertEquals([refused.status, refused.body.error], [409, "replica_foreign"]);
  assertEquals((await stack.post("/nuke")).status, 200);
  const body = await stack.drain();
  assertEquals(body.walk_done, true);
  assertEquals(await stack.assertEqual(), 2);
});

Deno.test("uninstall() changes nothing when it is not confirmed, or cannot have a lock", async () => {
  await using stack = await Stack.start(servers);
  const { sql } = stack;
  const before = await traces(stack);
  for (const confirm of ["null", "''", "'yes'", "'Uninstall'"]) {
    await assertRejects(
      () => sql.unsafe(`select libsql_sync.uninstall(${confirm})`),
      postgres.PostgresError,
      "expected the word 'uninstall'",
    );
  }
  const server = stack.server.url({ database: stack.database });
  const writer = postgres(server, { max: 1, onnotice: () => {} });
  try {
    await writer.unsafe(`begin; ${WRITE}`).simple();
    await assertRejects(
      () => sql.unsafe("select libsql_sync.uninstall('uninstall')"),
      postgres.PostgresError,
      "lock timeout",
    );
    await writer.unsafe("commit");
  } finally {
    await writer.end({ timeout: 1 });
  }
  assertEquals(await traces(stack), before);
  await stack.drain();
  assertEquals(await stack.assertEqual(), 1);
});

/** What an older PGMQ's drop_queue was, out of PGMQ's own upgrade scripts. */
const OLDER = [
  [
    "1.4.4",
    "pgmq--1.4.3--1.4.4.sql",
    "drop_queue(queue_name TEXT, partitioned BOOLEAN DEFAULT FALSE)",
  ],
  ["1.5.1", "pgmq--1.4.5--1.5.0.sql", "drop_queue(queue_name TEXT)"],
] as const;

for (const [version, file, signature] of OLDER) {
  Deno.test(`uninstall() drops the queues when PGMQ is ${version}`, async () => {
    await using stack = await Stack.start(servers);
    const { server, database, sql } = stack;
    const admin = postgres(server.url({ user: SUPERUSER, database }), {
      max: 1,
      onnotice: () => {},
    });
    try {
      const [script] = await admin`
        select pg_read_file(setting || '/extension/' || ${file}) as text from pg_config where name = 'SHAREDIR'`;
      const text = String(script!.text);
      const from = text.indexOf(`FUNCTION pgmq.${signature}`);
      assert(from > 0);
      const body = text.slice(
        from,
        text.indexOf("LANGUAGE plpgsql;", from) + 17,
      );
      await admin.unsafe(`
        alter extension pgmq drop function pgmq.drop_queue(text);
        alter extension pgmq drop function pgmq.drop_queue(text, boolean);
        drop function pgmq.drop_queue(text); drop function pgmq.drop_queue(text, boolean);
        create ${body}
        alter function pgmq.drop_queue owner to postgres;
      `).simple();
      // There a queue's tables belonged to the extension, and were narrower.
      for (
        const queue of ["replicate_data_libsql", "replicate_data_libsql_dlq"]
      ) {
        for (const table of [`q_${queue}`, `a_${queue}`]) {
          await admin.unsafe(`alter extension pgmq add table pgmq.${table};
            alter table pgmq.${table} drop column last_read_at`).simple();
          if (version === "1.4.4") {
            await admin.unsafe(`alter table pgmq.${table} drop column headers`);
          }
        }
        if (version === "1.5.1") {
          await admin.unsafe(
            `alter extension pgmq add sequence pgmq.q_${queue}_msg_id_seq`,
          );
        }
      }
    } finally {
      await admin.end({ timeout: 1 });
    }
    await stack.run(WRITE);
    await stack.drain();
    await sql`select libsql_sync.uninstall('uninstall')`;
    assertEquals(await traces(stack), []);
  });
}

Deno.test("uninstall() works when there is no pg_cron and no Vault", async () => {
  await using stack = await Stack.start(servers);
  await stack.run("drop schema cron, vault cascade", { user: SUPERUSER });
  await stack.sql`select libsql_sync.uninstall('uninstall')`;
  const [left] = await stack.sql`
    select to_regnamespace('libsql_sync') is null and to_regclass('pgmq.q_replicate_data_libsql') is null as gone`;
  assertEquals(left?.gone, true);
});
