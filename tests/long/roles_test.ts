/**
 * Roles that are not the owner try everything, on every function and table the
 * catalog has of ours: what comes anew is tried as well.
 */

import { assert, assertEquals } from "@std/assert";
import postgres from "postgres";
import { putSecret, WORKER_LOGIN } from "../../lib/dev/supabase.ts";
import { SECRET, Servers, Stack } from "../db/support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

const REFUSED = "42501";
/** A role of anybody's, with a login and nothing else. */
const STRANGER = "stranger_login";
const API_ROLES = ["anon", "authenticated", "service_role"];
/** What roles may execute, and nothing else. */
const CALLS: Record<string, readonly string[]> = {
  [WORKER_LOGIN]: [
    ...["claim", "lease", "park", "release", "report", "reset"],
    ...["request_redrive", "request_walk"],
  ],
  authenticated: ["bookmark"],
  service_role: ["bookmark"],
};

/** A session of one of the roles. */
async function as<T>(
  stack: Stack,
  role: string,
  run: (sql: postgres.Sql) => Promise<T>,
): Promise<T> {
  const isApi = API_ROLES.includes(role);
  const sql = postgres(
    stack.server.url({
      database: stack.database,
      user: isApi ? "authenticator" : role,
    }),
    { max: 1, prepare: false, onnotice: () => {}, fetch_types: false },
  );
  try {
    if (isApi) await sql.unsafe(`set role ${role}`);
    return await run(sql);
  } finally {
    await sql.end({ timeout: 1 });
  }
}

/** The SQLSTATE of each statement, "" where it was carried out. */
async function attempt(
  sql: postgres.Sql,
  texts: readonly string[],
): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  for (const text of texts) {
    // What may work is taken back.
    await sql.unsafe("begin");
    found.set(
      text,
      await sql.unsafe(text).simple().then(
        () => "",
        ({ code }) => String(code),
      ),
    );
    await sql.unsafe("rollback");
  }
  return found;
}

async function startStack(): Promise<Stack> {
  const stack = await Stack.start(servers);
  const server = await servers.postgres();
  const admin = postgres(server.url({ database: stack.database }), { max: 1 });
  try {
    const [found] =
      await admin`select from pg_roles where rolname = ${STRANGER}`;
    if (!found) {
      await admin.unsafe(
        `create role ${STRANGER} login password 'postgres'`,
      );
    }
  } finally {
    await admin.end({ timeout: 1 });
  }
  return stack;
}

Deno.test("no role but the owner's calls a function of ours, or the worker's those that are not its", async () => {
  await using stack = await startStack();
  const functions = await stack.sql<
    { name: string; call: string; schema: string }[]
  >`
    select p.proname as name, n.nspname as schema, format('select %I.%I(%s)', n.nspname, p.proname,
      (select string_agg(format('(select null::%s)', t::regtype), ', ' order by o)
       from unnest(p.proargtypes::oid[]) with ordinality a (t, o)
       where o <= p.pronargs)) as call
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where n.nspname in ('libsql_sync', 'pgmq') or n.nspname = 'public' and p.proname ~ 'libsql'
    order by 2, 1`;
  assert(
    functions.filter(({ schema }) => schema === "libsql_sync").length > 50,
  );
  assert(functions.filter(({ schema }) => schema === "pgmq").length > 20);
  for (const role of [...API_ROLES, STRANGER, WORKER_LOGIN]) {
    const own = CALLS[role] ?? [];
    const tried = functions.filter(({ name, schema }) =>
      schema !== "libsql_sync" || !own.includes(name)
    );
    const found = await as(
      stack,
      role,
      (sql) => attempt(sql, tried.map(({ call }) => call)),
    );
    for (const [text, code] of found) {
      assertEquals(code, REFUSED, `${role}: ${text}`);
    }
  }
});

Deno.test("no role but the owner's reads, writes or changes a table of ours", async () => {
  await using stack = await startStack();
  const { sql } = stack;
  const relations = await sql<{ name: string; kind: string; column: string }[]>`
    select c.oid::regclass::text as name, c.relkind::text as kind,
      (select quote_ident(a.attname) from pg_attribute a where a.attrelid = c.oid and a.attnum > 0
        order by a.attidentity, a.attnum desc limit 1) as column
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'v', 'm', 'S')
      and (n.nspname = 'libsql_sync' or n.nspname = 'pgmq' and c.relname ~ 'replicate_data_libsql'
        or n.nspname = 'pgmq' and c.relname = 'meta' or n.nspname in ('vault', 'cron'))`;
  assert(relations.length >= 15);
  const texts = relations.flatMap(({ name, kind, column }) =>
    kind === "S"
      ? [
        `select nextval('${name}')`,
        `select setval('${name}', 1)`,
        `select last_value from ${name}`,
      ]
      : [
        `select from ${name}`,
        `select ${column} from ${name} limit 1`,
        `insert into ${name} default values`,
        `update ${name} set ${column} = ${column}`,
        `delete from ${name}`,
        `copy ${name} to stdout`,
        `truncate ${name}`,
        `lock table ${name}`,
        `alter table ${name} disable row level security`,
        `alter table ${name} add column mine int`,
        `create index on ${name} (${column})`,
        `create trigger mine after insert on ${name} execute function pg_catalog.suppress_redundant_updates_trigger()`,
        `create policy mine on ${name} using (true)`,
        `comment on table ${name} is 'mine'`,
        `grant all on ${name} to public`,
        `drop table ${name}`,
        `create table pg_temp.mine (like ${name})`,
      ]
  );
  for (const role of [...API_ROLES, STRANGER, WORKER_LOGIN]) {
    const found = await as(stack, role, (session) => attempt(session, texts));
    for (const [text, code] of found) {
      // A view or a sequence is no table to some of these.
      assert(
        code === REFUSED || ["42809", "0A000"].includes(code),
        `${role}: ${text}: ${code || "done"}`,
      );
    }
  }
});

Deno.test("no role but the owner's gets at the triggers, the cron, another role or the secret", async () => {
  await using stack = await startStack();
  const { sql } = stack;
  await putSecret(sql, { name: "libsql_webhook_signature", value: SECRET });
  await sql`select public.process_libsql_replication_batch()`;
  const tables = await sql<{ name: string; trigger: string }[]>`
    select t.tgrelid::regclass::text as name, quote_ident(t.tgname) as trigger
    from pg_trigger t
    where t.tgfoid in (select libsql_sync.trigger_functions())`;
  assert(tables.length >= 28);
  const texts = [
    ...tables.flatMap(({ name, trigger }) => [
      `alter table ${name} disable trigger ${trigger}`,
      `alter trigger ${trigger} on ${name} rename to mine`,
      `drop trigger ${trigger} on ${name}`,
    ]),
    "set session_replication_role = replica",
    "create or replace function public.trigger_http_queue_post_to_function_libsql() returns trigger language plpgsql as 'begin return null; end'",
    "create or replace function libsql_sync.version() returns integer language sql as 'select 2'",
    "drop function public.process_libsql_replication_batch()",
    "alter function libsql_sync.claim(json) security invoker",
    "alter schema libsql_sync rename to mine",
    "drop schema libsql_sync cascade",
    "create table libsql_sync.mine (id int)",
    "create function libsql_sync.mine() returns int language sql as 'select 1'",
    "select cron.schedule('mine', '* * * * *', 'select 1')",
    "select cron.unschedule('process_libsql_replication')",
    "select * from vault.decrypted_secrets",
    "select secret from vault.secrets",
    "select pg_read_file('postgresql.conf')",
    "copy (select 1) to program 'id'",
    "set role postgres",
    "set role libsql_sync_worker",
    "set session authorization postgres",
    "alter role postgres password 'mine'",
    "grant postgres to current_user",
    "alter default privileges for role postgres grant all on tables to public",
  ];
  for (const role of [...API_ROLES, STRANGER, WORKER_LOGIN]) {
    await as(stack, role, async (session) => {
      for (const [text, code] of await attempt(session, texts)) {
        // The worker's login is in the group, and gains nothing by it.
        if (role === WORKER_LOGIN && text === "set role libsql_sync_worker") {
          continue;
        }
        assertEquals(code, REFUSED, `${role}: ${text}`);
      }
      // Every role may read what pg_net sends: the secret is not in it.
      const requests = await session.unsafe(
        "select headers::text, url, convert_from(body, 'UTF8') as body from net.http_request_queue",
      );
      assert(requests.length > 0);
      assert(!JSON.stringify(requests).includes(SECRET));
    });
  }
  // Whatever they tried, everything is in place.
  await stack.drain();
  await stack.walk();
  const findings =
    await sql`select * from libsql_sync.doctor(array['triggers', 'tables']) where level = 'error'`;
  assertEquals([...findings], []);
});

/** Types whose pairs an operator or a function of somebody's may fit better. */
const TYPES = [
  ...["text", "name", "varchar", "oid", "regclass", "regnamespace", "regtype"],
  ...["bigint", "integer", "boolean", "json", "jsonb", "text[]", "bytea"],
];

/**
 * Plants functions and operators in public that fit some call better than those
 * of pg_catalog, and tell who ran them.
 */
const PLANT = `
create table if not exists public.seen (by text, what text);
grant all on public.seen to public;
create or replace function public.tell(what text) returns void language sql as
  $$ insert into public.seen values (current_user, what) $$;
grant execute on function public.tell to public;
do $plant$
declare
  f record;
  l text;
  r text;
  types text[] := '{${TYPES.map((type) => `"${type}"`).join(",")}}';
begin
  -- Operators first: what is planted below would be run here as well.
  foreach l in array types loop
    foreach r in array types loop
      begin
        execute format('create function public.op_bool(%s, %s) returns boolean language plpgsql as
          $$ begin perform public.tell(%L); return true; end $$', l, r, format('operator %s %s', l, r));
        execute format('create function public.op_text(%s, %s) returns text language plpgsql as
          $$ begin perform public.tell(%L); return ''''; end $$', l, r, format('operator %s %s', l, r));
        for f in select unnest('{=,<>,<,>,~,!~}'::text[]) as op loop
          execute format('create operator public.%s (leftarg = %s, rightarg = %s, function = public.op_bool)', f.op, l, r);
        end loop;
        execute format('create operator public.|| (leftarg = %s, rightarg = %s, function = public.op_text)', l, r);
      exception when others then null;
      end;
    end loop;
  end loop;
  -- Functions of two arguments at most, each by a type that may fit better.
  for f in
    select distinct p.proname, p.pronargs, p.prorettype::regtype::text as returns
    from pg_catalog.pg_proc p
    where p.pronamespace = 11 and p.prokind = 'f' and p.pronargs between 1 and 2
      and p.prorettype::regtype::text not in ('internal', 'cstring', 'trigger', 'event_trigger', 'record', 'language_handler')
      and p.proname = any (pg_catalog.current_setting('test.names')::text[])
  loop
    foreach l in array types loop
      foreach r in array case f.pronargs when 1 then '{none}' else types end loop
        begin
          execute pg_catalog.format('create function public.%I(%s) returns %s language plpgsql as %L', f.proname,
            case r when 'none' then l else pg_catalog.concat(l, ', ', r) end,
            case when f.returns like 'any%' or f.returns in ('void', '"any"') then 'text' else f.returns end,
            pg_catalog.format('begin perform public.tell(%L); return null; end', pg_catalog.concat('function ', f.proname)));
        exception when others then null;
        end;
      end loop;
    end loop;
  end loop;
end
$plant$;`;

Deno.test("nothing of ours runs what others planted in public, when it is installed again, called, synced or written to", async () => {
  await using stack = await startStack();
  const { sql } = stack;
  const folder = new URL("../../supabase/migrations/", import.meta.url);
  let text = await Deno.readTextFile(
    new URL("../../lib/postgres/carrier.ts", import.meta.url),
  );
  const files: string[] = [];
  for await (const { name } of Deno.readDir(folder)) {
    if (name.endsWith(".sql")) files.push(name);
  }
  for (const name of files.sort()) {
    text += await Deno.readTextFile(new URL(name, folder));
  }
  const names = [
    ...new Set(
      [...text.matchAll(/\b([a-z_0-9]+)\(/g)].map(([, name]) => name!),
    ),
  ];
  // As projects have it that are older than PostgreSQL 15.
  await sql`grant create on schema public to authenticated`;
  await as(stack, "authenticated", async (session) => {
    await session`select set_config('test.names', ${`{${
      names.join(",")
    }}`}, false)`;
    await session.unsafe(PLANT).simple();
  });
  await sql.unsafe(`grant select, insert on public.seen to public;
    create policy mine on public.manifest to authenticated using (true) with check (true)`)
    .simple();
  const [planted] = await sql`
    select (select count(*)::int from pg_proc where pronamespace = 'public'::regnamespace) as functions,
      (select count(*)::int from pg_operator where oprnamespace = 'public'::regnamespace) as operators`;
  assert(
    planted!.functions > 300 && planted!.operators > 300,
    JSON.stringify(planted),
  );
  // They do run for who calls them by a plain name.
  const [trap] =
    await sql`select format('%s', 'public.seen'::regclass) as said`;
  assertEquals(trap!.said, null);
  const seen = async (when: string) =>
    assertEquals(
      (await sql`delete from public.seen returning by, what`).map((row) => ({
        when,
        ...row,
      })),
      [],
    );
  await sql`delete from public.seen`;

  for (const name of files) {
    await stack.run(await Deno.readTextFile(new URL(name, folder)));
  }
  await seen("the migration again");
  await as(
    stack,
    "authenticated",
    (session) =>
      session.unsafe(
        `insert into public.manifest (app_version_id, file_name, s3_path, file_hash)
      select n, 'f', 's', 'h' from generate_series(1, 5) n;
      update public.manifest set file_name = 'g'; delete from public.manifest where app_version_id = 1;`,
      )
        .simple(),
  );
  await seen("writes");
  await stack.drain();
  await stack.finish("/verify?repair=true");
  assertEquals((await stack.post("/nuke")).status, 200);
  await stack.walk();
  await seen("the worker");
  await sql`select public.process_libsql_replication_batch()`;
  await seen("the cron");
  for (
    const call of [
      ...["status()", "doctor()", "backfill()", "verify()", "redrive()"],
      ...["discard()", "pause()", "resume()", "attach()", "dead_letters()"],
    ]
  ) {
    await sql.unsafe(`select libsql_sync.${call}`);
    await seen(call);
  }
  await stack.drain();
  await seen("the end");
  // By hand: what compares would run it too.
  const rows = await sql`select id, file_name from public.manifest`;
  const { rows: stored } = await stack.client.execute(
    "SELECT id, file_name FROM manifest ORDER BY id",
  );
  assertEquals(
    stored.map((row) => [String(row.id), row.file_name]),
    rows.map((row) => [String(row.id), row.file_name]).sort(),
  );
  assertEquals(stored.length, 4);
});
