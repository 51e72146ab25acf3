import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import postgres from "postgres";
import { SUPERUSER } from "../../lib/dev/postgres.ts";
import { migrate, putSecret } from "../../lib/dev/supabase.ts";
import schemaJson from "../../schema.json" with { type: "json" };
import {
  configure,
  type RawSchema,
  SECRET,
  Servers,
  Stack,
} from "./support/stack.ts";

const servers = new Servers();
const older = new Servers({ version: 15 });
Deno.test.afterAll(async () => {
  await servers.stop();
  await older.stop();
});

const TABLES = Object.keys(schemaJson.tables).sort();
const SAMPLE = new URL("../../lib/dev/sample.sql", import.meta.url);

/** A database before the migration, as role postgres. */
class Database implements AsyncDisposable {
  readonly #open: postgres.Sql[] = [];
  private constructor(
    readonly name: string,
    readonly url: string,
    readonly superuserUrl: string,
  ) {}

  static async create(
    options: { servers?: Servers; sample?: boolean } = {},
  ): Promise<Database> {
    const from = options.servers ?? servers;
    const database = await from.database({ migrated: false });
    const server = await from.postgres();
    const made = new Database(
      database,
      server.url({ database }),
      server.url({ user: SUPERUSER, database }),
    );
    if (options.sample ?? true) await made.connect().file(SAMPLE).simple();
    return made;
  }

  connect(url = this.url): postgres.Sql {
    const sql = postgres(url, { max: 1, prepare: false, onnotice: () => {} });
    this.#open.push(sql);
    return sql;
  }

  async [Symbol.asyncDispose]() {
    for (const sql of this.#open) await sql.end({ timeout: 5 });
  }
}

/** Everything the migration makes, as one text. */
async function dump(sql: postgres.Sql): Promise<string> {
  const parts = [
    `select p.oid, p.oid::regprocedure::text, prosrc, proconfig, proacl::text, prosecdef, provolatile from pg_proc p
     where pronamespace = 'libsql_sync'::regnamespace or proname ~ 'libsql' order by 1`,
    `select oid, tgrelid::regclass::text, tgname, tgfoid, tgtype, tgargs, tgenabled, xmin::text from pg_trigger where not tgisinternal order by 1`,
    `select c.oid, c.relname, c.relacl::text, c.relrowsecurity, a.attname, a.atttypid, a.attnotnull from pg_class c
     join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
     where relnamespace = 'libsql_sync'::regnamespace or relname ~ 'replicate_data_libsql' order by 1, a.attnum`,
    `select oid, conname, pg_get_constraintdef(oid) from pg_constraint where connamespace = 'libsql_sync'::regnamespace order by 1`,
    "select nspacl::text from pg_namespace where nspname = 'libsql_sync'",
    "select * from libsql_sync.chain",
    "select * from libsql_sync.epochs",
    "select * from libsql_sync.schemas",
    "select * from libsql_sync.tables order by name",
    "select jobid, jobname, schedule, command, active from cron.job order by jobname",
    "select queue_name from pgmq.meta order by queue_name",
  ];
  const texts: string[] = [];
  for (const part of parts) {
    texts.push(
      ...(await sql.unsafe(part)).map((row) =>
        JSON.stringify(
          row,
          (_, value) => typeof value === "bigint" ? String(value) : value,
        )
      ),
    );
  }
  return texts.join("\n");
}

for (const [version, of] of [[17, servers], [15, older]] as const) {
  Deno.test(`the migration installs what is named when a role that is no superuser runs it on PostgreSQL ${version}`, async () => {
    await using database = await Database.create({ servers: of });
    const sql = database.connect();
    const [role] =
      await sql`select rolsuper, current_setting('server_version_num')::int / 10000 as version from pg_roles where rolname = current_user`;
    assertEquals(role, { rolsuper: false, version });
    await migrate(database.url);

    const triggers =
      await sql`select tgrelid::regclass::text as table, tgname as name from pg_trigger where tgname ~ '^replicate_.*_libsql$' order by 1`;
    assertEquals(
      triggers.map(({ table, name }) => [table, name]),
      TABLES.map((table) => [table, `replicate_${table}_libsql`]),
    );
    for (
      const name of [
        "public.get_libsql_sync_url()",
        "public.get_libsql_webhook_signature()",
        "public.trigger_http_queue_post_to_function_libsql()",
        "public.process_libsql_replication_batch()",
        "libsql_sync.attach()",
      ]
    ) {
      const [found] =
        await sql`select to_regprocedure(${name}) is not null as is`;
      assertEquals(found?.is, true, name);
    }
    const queues = await sql`select queue_name from pgmq.meta order by 1`;
    assertEquals(queues.map((row) => row.queue_name), [
      "replicate_data_libsql",
      "replicate_data_libsql_dlq",
    ]);
    assertEquals(
      [
        ...await sql`select schedule, command from cron.job where jobname = 'process_libsql_replication'`,
      ],
      [{
        schedule: "*/5 * * * *",
        command: "select public.process_libsql_replication_batch()",
      }],
    );
  });

  Deno.test(`the migration changes nothing when it runs again on PostgreSQL ${version}`, async () => {
    await using database = await Database.create({ servers: of });
    const sql = database.connect();
    await migrate(database.url);
    await sql`insert into orgs (created_by, name, management_email) values (gen_random_uuid(), 'a', 'b')`;
    const before = await dump(sql);
    await migrate(database.url);
    await migrate(database.url);
    assertEquals(await dump(sql), before);
    const [queue] =
      await sql`select count(*)::int as n from pgmq.q_replicate_data_libsql`;
    assertEquals(queue?.n, 1);
  });
}

Deno.test("the migration takes no lock on user tables and waits for no writer when it runs again", async () => {
  await using database = await Database.create();
  await migrate(database.url);
  const writer = database.connect();
  await writer.unsafe(
    `begin; lock table ${TABLES.join(", ")} in access exclusive mode`,
  ).simple();
  const other = database.connect();
  // It holds a lock on the queue until it commits.
  await other.unsafe(
    "begin; insert into pgmq.q_replicate_data_libsql (vt, message) values (now(), '{}')",
  ).simple();
  await migrate(database.url);
  await writer.unsafe("rollback");
  await other.unsafe("rollback");
});

Deno.test("the migration installs once when five run at the same time", async () => {
  await using database = await Database.create();
  await Promise.all(Array.from({ length: 5 }, () => migrate(database.url)));
  const sql = database.connect();
  const [found] = await sql`select
    (select count(*)::int from pg_trigger where tgname like 'replicate\\_%') as triggers,
    (select count(*)::int from libsql_sync.epochs) as epochs,
    (select count(*)::int from libsql_sync.schemas) as schemas,
    (select count(*)::int from cron.job where jobname = 'process_libsql_replication') as jobs`;
  assertEquals(found, {
    triggers: 4 * TABLES.length,
    epochs: 1,
    schemas: 1,
    jobs: 1,
  });
});

Deno.test("the migration gives up soon and leaves nothing when a writer holds a table, and succeeds afterwards", async () => {
  await using database = await Database.create();
  const writer = database.connect();
  const sql = database.connect();
  await writer.unsafe(
    "begin; insert into orgs (created_by, name, management_email) values (gen_random_uuid(), 'a', 'b')",
  ).simple();
  const started = Date.now();
  await assertRejects(
    () => migrate(database.url),
    Error,
    "Cannot attach to public.orgs: expected its lock within 3 s",
  );
  assert(Date.now() - started < 10_000);
  const [left] =
    await sql`select to_regnamespace('libsql_sync') is null as schema, to_regclass('pgmq.q_replicate_data_libsql') is null as queue`;
  assertEquals(left, { schema: true, queue: true });
  await writer.unsafe("commit");
  await migrate(database.url);
});

Deno.test("attach() attaches later when listed tables do not exist yet", async () => {
  await using database = await Database.create({ sample: false });
  const sql = database.connect();
  const notices: string[] = [];
  await migrate(database.url, { onNotice: (text) => notices.push(text) });
  assertEquals(
    notices.filter((text) => text.includes("attach()")),
    TABLES.map((table) =>
      `Table public.${table} does not exist yet: create it, then run select libsql_sync.attach()`
    ),
  );
  await sql.file(SAMPLE).simple();
  const attach = async () =>
    (await sql`select libsql_sync.attach() as made`)[0]?.made;
  assertEquals(await attach(), 4 * TABLES.length);
  assertEquals(await attach(), 0);
  // What somebody dropped, disabled or replaced comes back.
  await sql.unsafe(`drop trigger replicate_orgs_libsql on orgs;
    alter table apps disable trigger replicate_apps_libsql_update;
    create function nothing() returns trigger language plpgsql as 'begin return null; end';
    create or replace trigger replicate_manifest_libsql after insert or update or delete on manifest
      for each row execute function nothing();`).simple();
  assertEquals(await attach(), 3);
  await sql`insert into manifest (app_version_id, file_name, s3_path, file_hash) values (1, 'a', 'b', 'c')`;
  const [queue] =
    await sql`select count(*)::int as n from pgmq.q_replicate_data_libsql`;
  assertEquals(queue?.n, 1);
});

/** Tables that cannot be replicated, and why. */
const REFUSED: Record<string, [ddl: string, problem: string]> = {
  a_no_key: [
    "create table a_no_key (id bigint)",
    "has no unique, not null key (id)",
  ],
  b_nullable: [
    "create table b_nullable (id bigint unique)",
    "has no unique, not null key (id)",
  ],
  c_partial: [
    "create table c_partial (id bigint not null, d int); create unique index on c_partial (id) where d is null",
    "has no unique, not null key (id)",
  ],
  d_expression: [
    "create table d_expression (id bigint not null); create unique index on d_expression ((id + 0))",
    "has no unique, not null key (id)",
  ],
  e_wider: [
    "create table e_wider (id bigint not null, d int not null, unique (id, d))",
    "has no unique, not null key (id)",
  ],
  f_view: ["create view f_view as select 1::bigint as id", "is a view"],
  g_materialized: [
    "create materialized view g_materialized as select 1::bigint as id",
    "is a materialized view",
  ],
  h_parent: [
    "create table h_parent (id bigint primary key)",
    "takes part in table inheritance",
  ],
  i_child: [
    "create table i_child (primary key (id)) inherits (h_parent)",
    "takes part in table inheritance",
  ],
  j_leaf: [
    "create table whole (id bigint primary key) partition by range (id); create table j_leaf partition of whole default",
    "is a partition: list the partitioned table",
  ],
  k_sequence: ["create sequence k_sequence", "is not a table"],
  l_missing_key: [
    "create table l_missing_key (other bigint primary key)",
    "has no unique, not null key (id)",
  ],
  m_include: [
    "create table m_include (d bigint not null, id bigint not null); create unique index on m_include (d) include (id)",
    "has no unique, not null key (id)",
  ],
};

/** A list of tables with key id. */
const listing = (names: string[]): RawSchema => ({
  tables: Object.fromEntries(
    names.map((
      name,
    ) => [name, { key: "id", columns: { id: "INTEGER" }, indexes: [] }]),
  ),
});

Deno.test("attach() refuses tables by name, all in one message, when their rows cannot be told apart", async () => {
  await using database = await Database.create();
  const sql = database.connect();
  await migrate(database.url);
  const good = `create table good_primary (id bigint primary key);
    create table good_unique (other bigint primary key, id bigint not null); create unique index on good_unique (id) include (other);
    create table good_deferrable (id bigint not null, unique (id) deferrable initially deferred);`;
  await sql.unsafe(
    `${good} ${Object.values(REFUSED).map(([ddl]) => ddl).join(";")}`,
  ).simple();
  const names = ["good_primary", "good_unique", "good_deferrable"];
  const before = await dump(sql);
  const error = await assertRejects(
    () => configure(sql, listing([...names, ...Object.keys(REFUSED)])),
    postgres.PostgresError,
  );
  assertEquals(
    error.message,
    `Cannot attach: ${
      Object.entries(REFUSED).map(([name, [, problem]]) =>
        `public.${name} ${problem}`
      ).join("; ")
    }`,
  );
  assertEquals(await dump(sql), before);
  await configure(sql, listing(names));
  await sql.unsafe(
    "insert into good_primary values (1); insert into good_unique values (1, 2); insert into good_deferrable values (3)",
  ).simple();
  const [queue] =
    await sql`select count(*)::int as n from pgmq.q_replicate_data_libsql`;
  assertEquals(queue?.n, 3);
});

Deno.test("the migration leaves nothing behind when it refuses a table", async () => {
  await using database = await Database.create();
  const sql = database.connect();
  await sql.unsafe(
    "alter table orgs drop constraint orgs_pkey; drop table apps; create view apps as select 1 as id;",
  ).simple();
  await assertRejects(
    () => migrate(database.url),
    Error,
    "Cannot attach: public.apps is a view; public.orgs has no unique, not null key (id)",
  );
  const [left] =
    await sql`select to_regnamespace('libsql_sync') is null as schema,
    to_regclass('pgmq.q_replicate_data_libsql') is null as queue,
    not exists (select from pg_trigger where tgname ~ 'libsql') as triggers,
    not exists (select from cron.job where jobname ~ 'libsql') as jobs,
    not exists (select from pg_proc where proname ~ 'libsql') as functions`;
  assertEquals(left, {
    schema: true,
    queue: true,
    triggers: true,
    jobs: true,
    functions: true,
  });
});

Deno.test("attach() refuses a table whose rows are hidden from its owner, and a claim takes no row for gone when they are hidden later", async () => {
  await using database = await Database.create();
  const admin = database.connect(database.superuserUrl);
  const sql = database.connect();
  await migrate(database.url);
  await admin`alter role postgres nobypassrls`;
  try {
    await sql.unsafe(
      "create table hidden (id bigint primary key); alter table hidden enable row level security",
    ).simple();
    await configure(sql, listing(["hidden"]));
    await sql.unsafe("alter table hidden force row level security");
    await assertRejects(
      () => configure(sql, listing(["hidden"])),
      postgres.PostgresError,
      "public.hidden hides rows from postgres by row level security",
    );
    await sql.unsafe(
      "create policy a_part on hidden using (id > 5) with check (true); insert into hidden values (1), (9)",
    ).simple();
    const messages =
      await sql`select message from pgmq.q_replicate_data_libsql`;
    assertEquals(messages.map(({ message }) => message), [
      { v: 2, table: "hidden", keys: [["1"], ["9"]] },
    ]);
    // A part of the rows would look like deletes of the others: the walk says why.
    const [read] = await sql`
      select pieces, opens, messages from libsql_sync.read_changes(0, null, '{}', 100, 1000000)`;
    assertEquals(read, { pieces: [], opens: true, messages: 1 });
  } finally {
    await admin`alter role postgres bypassrls`;
  }
});

/** What later versions of PGMQ added to its tables. */
const OLDER_LAYOUTS = {
  "1.5.1": ["last_read_at"],
  "1.4.4": ["last_read_at", "headers"],
};
for (const [version, columns] of Object.entries(OLDER_LAYOUTS)) {
  const drop = ["q_replicate_data_libsql", "a_replicate_data_libsql"].flatMap(
    (table) => [table, `${table}_dlq`],
  ).map((table) =>
    `alter table pgmq.${table} ${
      columns.map((column) => `drop column if exists ${column}`).join(", ")
    };`
  ).join("\n");
  for (const when of ["before", "after"]) {
    Deno.test(`sync() works when PGMQ's tables are those of ${version}, made ${when} the migration`, async () => {
      await using database = await Database.create();
      const sql = database.connect();
      const create =
        "select pgmq.create('replicate_data_libsql'), pgmq.create('replicate_data_libsql_dlq')";
      if (when === "before") await sql.unsafe(`${create}; ${drop}`).simple();
      await migrate(database.url);
      if (when === "after") await sql.unsafe(drop).simple();
      // A layout that grew has its columns in another order.
      else if (version === "1.5.1") {
        await sql.unsafe(
          "alter table pgmq.q_replicate_data_libsql add column last_read_at timestamptz",
        );
      }
      await migrate(database.url);
      await exercise(database, sql);
    });
  }
}

/** Writes, syncs, and finds the rows and one dead letter. */
async function exercise(database: Database, sql: postgres.Sql): Promise<void> {
  await using stack = await Stack.start(servers, { database: database.name });
  await sql.unsafe(`
    insert into orgs (created_by, name, management_email) select gen_random_uuid(), 'a', 'b' from generate_series(1, 3);
    update orgs set name = 'c'; truncate orgs;
    insert into orgs (created_by, name, management_email) values (gen_random_uuid(), 'd', 'e');
    insert into pgmq.q_replicate_data_libsql (vt, message) values (now(), '{"table": "unknown"}');
  `).simple();
  assertEquals((await stack.drain()).parked, 1);
  assertEquals((await stack.deadLetters()).length, 1);
  assertEquals(await stack.assertEqual(), 1);
}

Deno.test("process_libsql_replication_batch() calls the worker once when something is queued", async () => {
  await using database = await Database.create();
  const sql = database.connect();
  await migrate(database.url);
  const call = async () =>
    (await sql`select public.process_libsql_replication_batch() as id`)[0]?.id;
  const write = () =>
    sql`insert into manifest (app_version_id, file_name, s3_path, file_hash) values (1, 'a', 'b', 'c')`;

  // A replica that was never seen is work; one that is equal is none.
  await sql`update libsql_sync.chain set walk_opened = walk_wanted, seen_at = now(), seen = jsonb_build_object(
    'epoch', epoch, 'position', position, 'walk_gen', 0, 'walk_done', 1)`;
  assertEquals(await call(), null);
  await write();
  for (
    const [found, secret] of [
      ["found neither", "libsql_sync_url"],
      ["found no libsql_webhook_signature", "libsql_webhook_signature"],
    ] as const
  ) {
    const error = await assertRejects(call, postgres.PostgresError, found);
    assert(error.hint?.includes("vault.create_secret"));
    // Capture needs no secret.
    await write();
    const value = secret === "libsql_sync_url"
      ? "https://worker.example/sync"
      : SECRET;
    await putSecret(sql, { name: secret, value });
  }
  const [url] =
    await sql`select public.get_libsql_sync_url() as url, public.get_libsql_webhook_signature() as signature`;
  assertEquals(url, { url: "https://worker.example/sync", signature: SECRET });
  assert(await call() !== null);
  const requests =
    await sql`select method, url, headers, convert_from(body, 'UTF8') as body, timeout_milliseconds as ms from net.http_request_queue`;
  const signature = requests[0]?.headers["x-webhook-signature"];
  assertMatch(signature, /^t=\d+,v1=[0-9a-f]{64}$/);
  assertEquals([...requests], [{
    method: "POST",
    url: "https://worker.example/sync",
    headers: {
      "Content-Type": "application/json",
      "x-webhook-signature": signature,
    },
    body: "{}",
    ms: 15_000,
  }]);
  const [queue] =
    await sql`select count(*)::int as n from pgmq.q_replicate_data_libsql`;
  assertEquals(queue?.n, 3);
});

Deno.test("the migration installs and captures when there is no pg_cron, pg_net or Vault", async () => {
  await using database = await Database.create();
  const admin = database.connect(database.superuserUrl);
  await admin.unsafe("drop schema cron, net, vault cascade");
  const notices: string[] = [];
  await migrate(database.url, { onNotice: (text) => notices.push(text) });
  assert(notices.some((text) => text.startsWith("pg_cron is not here")));
  const sql = database.connect();
  await exercise(database, sql);
  await sql`insert into manifest (app_version_id, file_name, s3_path, file_hash) values (1, 'a', 'b', 'c')`;
  await assertRejects(
    () => sql.unsafe("select public.process_libsql_replication_batch()"),
    postgres.PostgresError,
    "found neither",
  );
});

Deno.test("capture and sync work when the source is PostgreSQL 15", async () => {
  const schema: RawSchema = {
    tables: {
      t: {
        key: "id",
        columns: { id: "INTEGER", a: "TEXT", j: "JSON" },
        indexes: ["a"],
      },
      p: { key: "id", columns: { id: "INTEGER", a: "TEXT" }, indexes: [] },
    },
  };
  await using stack = await Stack.start(older, {
    schema,
    setup: `create table t (id bigint primary key deferrable, a text, j jsonb);
      create table p (id bigint primary key, a text) partition by range (id);
      create table p_low partition of p for values from (0) to (100);
      create table p_high partition of p for values from (100) to (200);`,
  });
  const { sql } = stack;
  await sql.unsafe(`
    insert into t select i, 'a' || i, to_jsonb(i) from generate_series(1, 2000) i;
    update t set id = 3 - id where id < 3;
    update t set a = 'b' where id between 5 and 10;
    delete from t where id > 1990;
    merge into t using (values (1, 'm'), (-1, 'n')) s (id, a) on s.id = t.id
      when matched then update set a = s.a when not matched then insert values (s.id, s.a);
    insert into p values (1, 'a'), (150, 'b'); insert into p_low values (2, 'c');
    update p set id = 160 where id = 1; truncate p_low;
    alter table t drop column j; insert into t values (-2, 'without j');
  `).simple();
  assertEquals(await stack.settle(), 1994);
});
