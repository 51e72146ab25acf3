/**
 * Who may do what: the worker's role, and the matrix in supabase/README.md,
 * which is made from the catalog. After a change that is meant:
 * UPDATE=1 deno test -A tests/long/privileges_test.ts
 */

import { assert, assertEquals } from "@std/assert";
import postgres from "postgres";
import { SUPERUSER } from "../../lib/dev/postgres.ts";
import {
  createWorkerLogin,
  migrate,
  WORKER_LOGIN,
} from "../../lib/dev/supabase.ts";
import { Servers, Stack } from "../db/support/stack.ts";

const servers = new Servers();
/** Roles belong to a server: here none is left by another test. */
const alone = new Servers();
Deno.test.afterAll(async () => {
  await servers.stop();
  await alone.stop();
});

const README = new URL("../../supabase/README.md", import.meta.url);
const WORKER = "libsql_sync_worker";
/** The columns: Supabase's roles, and what is granted to everybody. */
const ROLES = [
  "postgres",
  WORKER,
  "service_role",
  "authenticated",
  "anon",
  "pg_monitor",
  "public",
];

const OBJECTS = `
  select 'schema' as kind, 'libsql_sync' as part, '\`libsql_sync\`' as name, r.role, concat_ws(', ',
    case when has_schema_privilege(r.role, 'libsql_sync', 'usage') then 'use' end,
    case when has_schema_privilege(r.role, 'libsql_sync', 'create') then 'create' end) as may
  from roles r
  union all
  select 'function', p.pronamespace::regnamespace::text,
    '\`' || p.proname || '\`', r.role,
    case when has_schema_privilege(r.role, p.pronamespace, 'usage') and has_function_privilege(r.role, p.oid, 'execute')
      then 'execute' else '' end
  from roles r, pg_proc p
  where p.pronamespace = 'libsql_sync'::regnamespace
    or p.pronamespace = 'public'::regnamespace and p.proname ~ 'libsql'
  union all
  select 'table', c.relnamespace::regnamespace::text, '\`' || c.relname || '\`', r.role, case
    when not has_schema_privilege(r.role, c.relnamespace, 'usage') then ''
    when has_table_privilege(r.role, c.oid, 'select') and has_table_privilege(r.role, c.oid, 'insert')
      and has_table_privilege(r.role, c.oid, 'update') and has_table_privilege(r.role, c.oid, 'delete')
      then 'read, write'
    when has_any_column_privilege(r.role, c.oid, 'select') then 'read'
    when has_table_privilege(r.role, c.oid, 'insert, update, delete, truncate')
      or has_any_column_privilege(r.role, c.oid, 'insert, update') then 'write'
    else '' end
  from roles r, pg_class c
  where c.relkind in ('r', 'p', 'v') and (c.relnamespace = 'libsql_sync'::regnamespace
    or c.relnamespace = 'pgmq'::regnamespace and c.relname ~ 'replicate_data_libsql'
    or c.oid in ('vault.decrypted_secrets'::regclass, 'net.http_request_queue'::regclass))
  order by 1, 2, 3`;

/** Rows of the matrix: objects of a kind with the same rights are one row. */
async function matrix(sql: postgres.Sql): Promise<string[][]> {
  const cells = await sql.unsafe<
    { kind: string; part: string; name: string; role: string; may: string }[]
  >(`with roles as (select * from unnest(array['${
    ROLES.join("','")
  }']) r (role)) ${OBJECTS}`);
  const groups = new Map<string, Map<string, Map<string, string>>>();
  for (const { kind, part, name, role, may } of cells) {
    const group = `${kind} ${part}`;
    const objects = groups.get(group) ?? new Map();
    groups.set(group, objects);
    const object = objects.get(name) ?? new Map();
    objects.set(name, object.set(role, may || "-"));
  }
  const rows: string[][] = [];
  for (const [group, objects] of groups) {
    const alike = new Map<string, string[]>();
    for (const [name, object] of objects) {
      const rights = ROLES.map((role) => object.get(role)!).join("|");
      alike.set(rights, [...(alike.get(rights) ?? []), name]);
    }
    // The largest lot needs no names: what comes anew belongs to it.
    const lots = [...alike].sort(([, a], [, b]) => a.length - b.length);
    for (const [at, [rights, names]] of lots.entries()) {
      const [kind, part] = group.split(" ");
      const isRest = at === lots.length - 1 && names.length > 5;
      const label = kind === "schema"
        ? `schema ${names[0]}`
        : isRest
        ? `every ${lots.length > 1 ? "other " : ""}${kind} of \`${part}\``
        : `${kind} ${names.sort().join(", ")} of \`${part}\``;
      rows.push([label, ...rights.split("|")]);
    }
  }
  return rows;
}

const HEAD = [
  "",
  "owner",
  ...ROLES.slice(1).map((role) =>
    role === "public" ? "everybody" : `\`${role}\``
  ),
];

/** The table between the marks, without the widths of its columns. */
function readTable(text: string): string[][] {
  const [, table] =
    /<!-- privileges -->\n([\s\S]*?)<!-- \/privileges -->/.exec(text) ?? [];
  assert(table !== undefined, "supabase/README.md has the marks of the matrix");
  return table.trim().split("\n").filter((line) => !/^[|\s-]*$/.test(line))
    .map((line) => line.split("|").slice(1, -1).map((cell) => cell.trim()));
}

Deno.test("supabase/README.md says who may do what, as the catalog does", async () => {
  await using stack = await Stack.start(servers);
  const expected = [HEAD, ...await matrix(stack.sql)];
  if (Deno.env.get("UPDATE")) {
    const lines = [expected[0]!, HEAD.map(() => "---"), ...expected.slice(1)]
      .map((cells) => `| ${cells.join(" | ")} |`);
    const text = await Deno.readTextFile(README);
    await Deno.writeTextFile(
      README,
      text.replace(
        /(<!-- privileges -->\n)[\s\S]*?(<!-- \/privileges -->)/,
        `$1\n${lines.join("\n")}\n\n$2`,
      ),
    );
    await new Deno.Command(Deno.execPath(), {
      args: ["fmt", "--quiet", "supabase/README.md"],
      cwd: new URL("../../", import.meta.url),
    }).output();
  }
  assertEquals(readTable(await Deno.readTextFile(README)), expected);
});

/** What came of each statement, run as the login role: its SQLSTATE, or "". */
async function attempts(
  url: string,
  texts: readonly string[],
): Promise<Record<string, string>> {
  const sql = postgres(url, { max: 1, prepare: false, onnotice: () => {} });
  try {
    const found: Record<string, string> = {};
    for (const text of texts) {
      found[text] = await sql.unsafe(text).simple().then(
        () => "",
        ({ code }) => String(code),
      );
    }
    return found;
  } finally {
    await sql.end({ timeout: 1 });
  }
}

Deno.test("the worker's role may call the worker's functions and do nothing else", async () => {
  await using stack = await Stack.start(servers);
  const { sql } = stack;
  const login = stack.workerUrl;
  const [role] =
    await sql`select rolsuper, rolcreaterole, rolcreatedb, rolbypassrls, rolreplication, rolcanlogin
      from pg_roles where rolname = ${WORKER}`;
  assertEquals({ ...role }, {
    rolsuper: false,
    rolcreaterole: false,
    rolcreatedb: false,
    rolbypassrls: false,
    rolreplication: false,
    rolcanlogin: false,
  });
  // The whole list, from the catalog: new functions are not among them.
  const may = await sql<{ name: string }[]>`
    select p.proname as name from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where n.nspname not in ('pg_catalog', 'information_schema') and p.prokind in ('f', 'p')
      and has_schema_privilege(${WORKER_LOGIN}, n.oid, 'usage')
      and has_function_privilege(${WORKER_LOGIN}, p.oid, 'execute')
      -- Open to every role, as on Supabase.
      and n.nspname <> 'net'
    order by 1`;
  assertEquals(may.map(({ name }) => name), [
    "claim",
    "lease",
    "park",
    "release",
    "report",
    "request_redrive",
    "request_walk",
    "reset",
  ]);
  const tables = await sql<{ name: string }[]>`
    select c.oid::regclass::text as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname not in ('pg_catalog', 'information_schema', 'net') and c.relkind in ('r', 'p', 'v', 'm', 'S')
      and has_schema_privilege(${WORKER_LOGIN}, n.oid, 'usage')
      and (case when c.relkind = 'S' then has_sequence_privilege(${WORKER_LOGIN}, c.oid, 'usage, select, update')
        else has_table_privilege(${WORKER_LOGIN}, c.oid, 'select, insert, update, delete, truncate, references, trigger')
          or has_any_column_privilege(${WORKER_LOGIN}, c.oid, 'select, insert, update, references') end)`;
  assertEquals(tables.map(({ name }) => name), []);

  const refused = [
    "select * from libsql_sync.chain",
    "select * from pgmq.q_replicate_data_libsql",
    "select * from public.orgs",
    "insert into public.orgs default values",
    "select * from vault.decrypted_secrets",
    "select public.get_libsql_webhook_signature()",
    "select public.process_libsql_replication_batch()",
    "select libsql_sync.status()",
    "select libsql_sync.uninstall('uninstall')",
    "select libsql_sync.secret('libsql_webhook_signature')",
    "select pgmq.purge_queue('replicate_data_libsql')",
    "create table public.mine (id int)",
    "create table libsql_sync.mine (id int)",
    "create schema mine",
    "create role mine",
    "set role postgres",
    "set role service_role",
  ];
  assertEquals(
    await attempts(login, refused),
    Object.fromEntries(refused.map((text) => [text, "42501"])),
  );
  // What it may do is all that a worker needs.
  await stack.run(
    "insert into manifest (app_version_id, file_name, s3_path, file_hash) values (1, 'f', 's', 'h')",
  );
  await stack.drain();
  await stack.finish("/verify");
  assertEquals((await stack.post("/nuke")).status, 200);
  await stack.walk();
  assertEquals(await stack.assertEqual(), 1);
});

Deno.test("lock_down() takes from the worker's role what somebody gave it, and gives it back what it needs", async () => {
  await using stack = await Stack.start(servers);
  await stack.run(`
    grant select on all tables in schema libsql_sync to ${WORKER};
    grant select on pgmq.q_replicate_data_libsql to ${WORKER};
    grant execute on all functions in schema libsql_sync to ${WORKER};
    grant execute on function public.get_libsql_webhook_signature() to ${WORKER};
    revoke execute on function libsql_sync.claim(json) from ${WORKER};
    select libsql_sync.lock_down();`);
  const expected = readTable(await Deno.readTextFile(README));
  assertEquals([HEAD, ...await matrix(stack.sql)], expected);
  await stack.drain();
});

Deno.test("a role that PostgREST switches to by a JWT has the same rights", async () => {
  await using stack = await Stack.start(servers);
  await stack.run(`grant ${WORKER} to authenticator`);
  const url = stack.server.url({
    database: stack.database,
    user: "authenticator",
  });
  const as = (text: string) =>
    `begin; set local role ${WORKER}; ${text}; commit`;
  const texts = [
    as('select libsql_sync.release(\'{"lease": "x"}\')'),
    as("select libsql_sync.status()"),
    "rollback",
    // Without the role, nothing.
    'select libsql_sync.release(\'{"lease": "x"}\')',
  ];
  assertEquals(Object.values(await attempts(url, texts)), [
    "",
    "42501",
    "",
    "42501",
  ]);
  await stack.run(`revoke ${WORKER} from authenticator`);
});

/** Runs a script, and returns what it noticed. */
async function noticesOf(url: string, text: string): Promise<string[]> {
  const notices: string[] = [];
  const sql = postgres(url, {
    max: 1,
    onnotice: ({ message }) => notices.push(message ?? ""),
  });
  try {
    await sql.unsafe(text).simple();
  } finally {
    await sql.end({ timeout: 1 });
  }
  return notices.filter((text) => text.includes(WORKER));
}

Deno.test("the worker's role goes with the last database that uses it, and stays while somebody is in it", async () => {
  const server = await alone.postgres();
  const urls: string[] = [];
  // No copies of a template: it would be a database that uses the role as well.
  for (let at = 0; at < 2; at++) {
    const database = await alone.database({ migrated: false });
    urls.push(server.url({ database }));
    await migrate(urls.at(-1)!);
  }
  const [first, second] = urls as [string, string];
  const admin = postgres(server.url({ user: SUPERUSER }), { max: 1 });
  const exists = async () =>
    (await admin`select from pg_roles where rolname = ${WORKER}`).length === 1;
  const uninstall = "select libsql_sync.uninstall('uninstall')";
  try {
    assertEquals(await noticesOf(first, uninstall), [
      `Role ${WORKER} stays, as it has rights elsewhere: another database may use it`,
    ]);
    assert(await exists());
    await admin.unsafe(`create role a_login login in role ${WORKER}`);
    assertEquals(await noticesOf(second, uninstall), [
      `Role ${WORKER} stays, as it has members: a_login`,
    ]);
    assert(await exists());
    await migrate(second);
    await admin`drop role a_login`;
    assertEquals(await noticesOf(second, uninstall), []);
    assert(!await exists());

    // Made anew, and used.
    await migrate(second);
    assert(await exists());
    const sql = postgres(second, { max: 1, onnotice: () => {} });
    await createWorkerLogin(sql);
    await createWorkerLogin(sql);
    await sql.end();
    const login = second.replace(
      "postgres://postgres:",
      `postgres://${WORKER_LOGIN}:`,
    );
    assertEquals(
      await attempts(login, ["select libsql_sync.release('{}')"]),
      { "select libsql_sync.release('{}')": "" },
    );
    await admin.unsafe(`drop role ${WORKER_LOGIN}`);
    assertEquals(await noticesOf(second, uninstall), []);
    // One that somebody else has made.
    await admin.unsafe(`create role ${WORKER} nologin`);
    await migrate(second);
    assertEquals(await noticesOf(second, uninstall), [
      `Role ${WORKER} stays, as postgres may not drop it`,
    ]);
    await admin.unsafe(`drop role ${WORKER}`);
  } finally {
    await admin.end({ timeout: 1 });
  }
});

Deno.test("the migration says what to do where it may not create the role, and works without", async () => {
  const server = await alone.postgres();
  const database = await alone.database({ migrated: false });
  const url = server.url({ database });
  const admin = postgres(server.url({ user: SUPERUSER }), { max: 1 });
  try {
    await admin`alter role postgres nocreaterole`;
    const notices: string[] = [];
    await migrate(url, { onNotice: (text) => notices.push(text) });
    assertEquals(notices.filter((text) => text.includes(WORKER)), [
      `Role ${WORKER} is not here, and postgres may not create roles: have an administrator run create role ${WORKER} nologin; then run select libsql_sync.lock_down(). Until then the worker connects as postgres`,
    ]);
    const sql = postgres(url, { max: 1 });
    const look = async () =>
      [...await sql`select level, found from libsql_sync.doctor(array['worker role'])`]
        .map(({ level, found }) => `${level} ${found}`);
    assertEquals(await look(), [
      "warning libsql_sync_worker is not here: the worker connects as a role that may do more than it needs",
    ]);
    await admin.unsafe(`create role ${WORKER} nologin`);
    assertEquals(await look(), [
      "error libsql_sync_worker may not call the worker's functions",
    ]);
    await sql`select libsql_sync.lock_down()`;
    assertEquals(await look(), [
      "warning libsql_sync_worker has no members: the worker connects as a role that may do more than it needs",
    ]);
    await admin.unsafe(`create role a_login login in role ${WORKER}`);
    assertEquals(await look(), [
      "ok may call the worker's functions; in it: a_login",
    ]);
    await sql.end({ timeout: 1 });
  } finally {
    await admin`alter role postgres createrole`;
    await admin.end({ timeout: 1 });
  }
});
