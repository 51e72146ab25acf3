/**
 * What the migration makes, as a list of lines: tests/db/catalog.txt. The bodies of
 * functions and the order of columns are not in it. After a change that is meant:
 * UPDATE=1 deno test -A tests/db/catalog_test.ts
 */

import { assertEquals } from "@std/assert";
import postgres from "postgres";
import { Servers } from "./support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

const FIXTURE = new URL("./catalog.txt", import.meta.url);

/** The rights in an access list, sorted: the order of grants says nothing. */
const rights = (acl: string) =>
  `coalesce((select string_agg(i::text, ' ' order by i::text) from unnest(${acl}) i), 'default')`;
const OUR_TABLES = `(c.relnamespace = 'libsql_sync'::regnamespace
  or c.relnamespace = 'pgmq'::regnamespace and c.relname ~ '^[qa]_replicate_data_libsql(_dlq)?$')`;
const OUR_FUNCTIONS = `(p.pronamespace = 'libsql_sync'::regnamespace
  or p.pronamespace = 'public'::regnamespace and p.proname ~ 'libsql')`;

/** One query a kind of object, one line an object. */
const CATALOG = [
  `select concat_ws(' ', 'schema', nspname, 'owner', nspowner::regrole, 'rights', ${
    rights("nspacl")
  }) from pg_namespace where nspname = 'libsql_sync'`,
  `select concat_ws(' ', 'role', rolname, 'super', rolsuper, 'inherit', rolinherit, 'createrole', rolcreaterole,
     'createdb', rolcreatedb, 'login', rolcanlogin, 'replication', rolreplication, 'bypassrls', rolbypassrls)
   from pg_roles where rolname = 'libsql_sync_worker'`,
  `select concat_ws(' ', 'default rights', defaclrole::regrole, defaclobjtype, ${
    rights("defaclacl")
  }) from pg_default_acl where defaclnamespace = 'libsql_sync'::regnamespace`,
  `select concat_ws(' ', case c.relkind when 'S' then 'sequence' else 'table' end, c.oid::regclass,
     'owner', c.relowner::regrole, 'persistence', c.relpersistence, 'row security', c.relrowsecurity,
     'forced', c.relforcerowsecurity, 'rights', ${rights("c.relacl")})
   from pg_class c where ${OUR_TABLES} and c.relkind in ('r', 'p', 'v', 'm', 'S')`,
  `select concat_ws(' ', 'sequence', s.seqrelid::regclass, s.seqtypid::regtype, 'start', s.seqstart, 'by', s.seqincrement,
     'min', s.seqmin, 'max', s.seqmax, 'cache', s.seqcache, 'cycle', s.seqcycle)
   from pg_sequence s join pg_class c on c.oid = s.seqrelid where ${OUR_TABLES}`,
  `select concat_ws(' ', 'column', c.oid::regclass || '.' || a.attname, format_type(a.atttypid, a.atttypmod),
     case when a.attnotnull then 'not null' end, case a.attidentity when 'a' then 'generated always as identity' end,
     'default ' || pg_get_expr(d.adbin, d.adrelid), 'rights', ${
    rights("a.attacl")
  })
   from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
   left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
   where c.relnamespace = 'libsql_sync'::regnamespace and c.relkind in ('r', 'p', 'v')`,
  `select concat_ws(' ', 'constraint', conrelid::regclass || '.' || conname, pg_get_constraintdef(oid))
   from pg_constraint where connamespace = 'libsql_sync'::regnamespace`,
  `select 'index ' || indexdef from pg_indexes where schemaname = 'libsql_sync'`,
  `select concat_ws(' ', 'policy', schemaname || '.' || tablename, policyname, cmd, roles, qual, with_check)
   from pg_policies where schemaname = 'libsql_sync' or tablename ~ 'replicate_data_libsql'`,
  `select concat_ws(' ', 'trigger', pg_get_triggerdef(oid), 'enabled', tgenabled) from pg_trigger where not tgisinternal`,
  `select concat_ws(' ', 'function', p.oid::regprocedure, 'takes', '(' || pg_get_function_arguments(p.oid) || ')',
     'returns', pg_get_function_result(p.oid), 'language', l.lanname,
     case p.provolatile when 'i' then 'immutable' when 's' then 'stable' else 'volatile' end,
     case when p.prosecdef then 'definer' else 'invoker' end, case when p.proisstrict then 'strict' end,
     'parallel', p.proparallel, 'cost', p.procost, 'rows', p.prorows, 'owner', p.proowner::regrole,
     'set', array_to_string(p.proconfig, '; '), 'rights', ${rights("p.proacl")})
   from pg_proc p join pg_language l on l.oid = p.prolang where ${OUR_FUNCTIONS}`,
  `select concat_ws(' ', 'type', t.oid::regtype, t.typtype, 'rights', ${
    rights("t.typacl")
  }) from pg_type t where t.typnamespace = 'libsql_sync'::regnamespace and t.typelem = 0`,
  `select concat_ws(' ', 'queue', queue_name, 'partitioned', is_partitioned, 'unlogged', is_unlogged) from pgmq.meta`,
  `select concat_ws(' ', 'cron job', jobname, schedule, command, 'active', active) from cron.job`,
];

/** What is there, one line each, sorted. */
async function readCatalog(sql: postgres.Sql): Promise<string[]> {
  const lines: string[] = [];
  for (const query of CATALOG) {
    for (const [line] of await sql.unsafe(query).values()) {
      lines.push(String(line).replaceAll("\n", " "));
    }
  }
  return lines.sort();
}

/** Runs with a connection to a database that has the migration. */
async function withDatabase(
  run: (sql: postgres.Sql) => Promise<void>,
): Promise<void> {
  const database = await servers.database();
  const url = (await servers.postgres()).url({ database });
  const sql = postgres(url, { max: 1, onnotice: () => {} });
  try {
    await run(sql);
  } finally {
    await sql.end({ timeout: 5 });
  }
}

Deno.test("the migration makes what catalog.txt lists, and nothing else", async () => {
  await withDatabase(async (sql) => {
    const found = await readCatalog(sql);
    if (Deno.env.get("UPDATE")) {
      await Deno.writeTextFile(FIXTURE, found.join("\n") + "\n");
    }
    const expected = (await Deno.readTextFile(FIXTURE)).trimEnd().split("\n");
    assertEquals(
      [
        ...expected.filter((line) => !found.includes(line))
          .map((line) => `- ${line}`),
        ...found.filter((line) => !expected.includes(line))
          .map((line) => `+ ${line}`),
      ],
      [],
      "Is the change meant? Then write the file anew: UPDATE=1 deno test -A tests/db/catalog_test.ts. " +
        "A function that takes or returns other types than in a release fails the upgrade, as create or replace refuses it: give it another name.",
    );
  });
});

Deno.test("every table, column and function of the migration has a comment", async () => {
  await withDatabase(async (sql) => {
    const rows = await sql.unsafe(`
      select 'table ' || c.oid::regclass as name from pg_class c
      where c.relnamespace = 'libsql_sync'::regnamespace and c.relkind in ('r', 'p', 'v')
        and coalesce(obj_description(c.oid, 'pg_class'), '') = ''
      union all
      select 'column ' || c.oid::regclass || '.' || a.attname from pg_class c
      join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
      where c.relnamespace = 'libsql_sync'::regnamespace and c.relkind in ('r', 'p', 'v')
        and coalesce(col_description(c.oid, a.attnum), '') = ''
      union all
      select 'function ' || p.oid::regprocedure from pg_proc p
      where ${OUR_FUNCTIONS} and coalesce(obj_description(p.oid, 'pg_proc'), '') = ''
      order by 1`);
    assertEquals(rows.map(({ name }) => name), []);
  });
});
