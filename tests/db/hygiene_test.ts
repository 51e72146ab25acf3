import { assert, assertEquals } from "@std/assert";
import postgres from "postgres";
import { parseSchema, schemaHash, schemaText } from "../../lib/schema.ts";
import schemaJson from "../../schema.json" with { type: "json" };
import { Servers } from "./support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

/** Supabase's roles that speak for somebody else, and everybody. */
const STRANGERS = ["public", "anon", "authenticated", "service_role"];

/** Functions that need their owner's rights, and who calls them. */
const DEFINERS = [
  // Called by whoever writes: it names the chain's epoch.
  "libsql_sync.bookmark",
  // Called by the worker's role, which may touch no table.
  "libsql_sync.claim",
  "libsql_sync.lease",
  "libsql_sync.park",
  "libsql_sync.release",
  "libsql_sync.report",
  "libsql_sync.request_redrive",
  "libsql_sync.request_walk",
  "libsql_sync.reset",
];

/** What Supabase's roles of its API may call, so that they read their writes. */
const GRANTED = [
  "authenticated libsql_sync.bookmark()",
  "service_role libsql_sync.bookmark()",
];

/** Our functions: those of the private schema, and four in public. */
const OURS = `(p.pronamespace = 'libsql_sync'::regnamespace
  or p.pronamespace = 'public'::regnamespace and p.proname ~ 'libsql')`;

async function withDatabase(
  run: (sql: postgres.Sql, database: string) => Promise<void>,
): Promise<void> {
  const database = await servers.database();
  const server = await servers.postgres();
  const sql = postgres(server.url({ database }), {
    max: 1,
    onnotice: () => {},
  });
  try {
    await run(sql, database);
  } finally {
    await sql.end({ timeout: 5 });
  }
}

/** Which strangers may execute which of our functions. */
async function executable(sql: postgres.Sql): Promise<string[]> {
  const rows = await sql.unsafe(`
    select r.role || ' ' || p.oid::regprocedure as found
    from pg_proc p cross join unnest(array['${STRANGERS.join("','")}']) r (role)
    where ${OURS} and has_function_privilege(r.role, p.oid, 'execute') order by 1`);
  return rows.map(({ found }) => found);
}

Deno.test("the migration leaves no function but bookmark() that strangers may execute when Supabase's default privileges grant it", async () => {
  await withDatabase(async (sql) => {
    // The grant is in force: a new function of anybody's is open to all.
    await sql.unsafe(
      "create function public.anything() returns int language sql as 'select 1'",
    );
    const [open] =
      await sql`select has_function_privilege('anon', 'public.anything()', 'execute') as may`;
    assertEquals(open?.may, true);
    assertEquals(await executable(sql), GRANTED);

    // attach() makes the trigger functions anew.
    const ours = await sql<{ name: string }[]>`
      select oid::regprocedure::text as name from libsql_sync.trigger_functions() oid`;
    for (const { name } of ours) {
      await sql.unsafe(`drop function ${name} cascade`);
    }
    const [made] = await sql`select libsql_sync.attach() as made`;
    assertEquals(made?.made, 28);
    assertEquals(await executable(sql), GRANTED);
    // And takes back what somebody granted.
    await sql.unsafe(
      "grant execute on all functions in schema public, libsql_sync to anon; grant usage on schema libsql_sync to anon",
    );
    assert((await executable(sql)).length > GRANTED.length);
    await sql`select libsql_sync.attach()`;
    assertEquals(await executable(sql), GRANTED);
  });
});

Deno.test("the migration pins the search_path of every function, and makes definers of few", async () => {
  await withDatabase(async (sql) => {
    const functions = await sql.unsafe<
      {
        name: string;
        definer: boolean;
        config: string[] | null;
        is_ours: boolean;
      }[]
    >(`select n.nspname || '.' || p.proname as name, p.prosecdef as definer, p.proconfig as config,
         p.oid in (select libsql_sync.trigger_functions()) as is_ours
       from pg_proc p join pg_namespace n on n.oid = p.pronamespace where ${OURS} order by 1`);
    assert(functions.length > 20);
    assertEquals(
      functions.filter(({ config }) =>
        !config?.some((setting) =>
          setting === 'search_path=""' ||
          setting === "search_path=pg_catalog, pg_temp"
        )
      ).map(({ name }) => name),
      [],
    );
    assertEquals(
      functions.filter(({ definer, is_ours }) => definer && !is_ours)
        .map(({ name }) => name),
      DEFINERS,
    );
    // A writer's session runs these, with rights that the writer has not: its own
    // types must not be found first.
    const triggers = functions.filter(({ is_ours }) => is_ours);
    assertEquals(triggers.length, 1 + 3 * 7);
    for (const { name, definer, config } of triggers) {
      assert(definer, name);
      assert(config?.includes("search_path=pg_catalog, pg_temp"), name);
    }
  });
});

Deno.test("the migration keeps strangers from the queue, the archive, the dead letters and its own tables", async () => {
  await withDatabase(async (sql) => {
    const tables = await sql<{ name: string; rls: boolean }[]>`
      select c.oid::regclass::text as name, c.relrowsecurity as rls from pg_class c
      where c.relkind in ('r', 'p') and (c.relnamespace = 'libsql_sync'::regnamespace
        or c.relnamespace = 'pgmq'::regnamespace and c.relname ~ '^[qa]_replicate_data_libsql')`;
    assert(tables.length >= 9);
    assertEquals(tables.filter(({ rls }) => !rls), []);
    // PGMQ itself lets the monitoring role read what it makes.
    for (const { name } of tables) {
      const [may] =
        await sql`select has_table_privilege('pg_monitor', ${name}, 'select') as read`;
      assertEquals(may!.read, false, name);
    }
    for (const role of STRANGERS.slice(1)) {
      for (const { name } of tables) {
        for (
          const text of [
            `select from ${name}`,
            `delete from ${name}`,
            `truncate ${name}`,
          ]
        ) {
          const code = await sql.begin(async (tx) => {
            await tx.unsafe(`set local role ${role}`);
            return await tx.unsafe(text).then(() => "", ({ code }) => code);
          }).catch(({ code }) => code);
          assertEquals(code, "42501", `${role}: ${text}`);
        }
      }
    }
  });
});

Deno.test("the migration lists the tables of schema.json", async () => {
  await withDatabase(async (sql) => {
    const schema = parseSchema(schemaJson);
    const [installed] = await sql`select hash, spec = ${
      schemaText(schema)
    }::text::jsonb as same from libsql_sync.schemas order by generation desc limit 1`;
    assertEquals(installed, { hash: await schemaHash(schema), same: true });
    const tables =
      await sql`select name, key from libsql_sync.tables order by name`;
    assertEquals(
      tables.map(({ name, key }) => ({ name, key })),
      schema.tables.map(({ name, key }) => ({ name, key })).sort((a, b) =>
        a.name < b.name ? -1 : 1
      ),
    );
  });
});
