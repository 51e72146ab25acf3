/** What the migration makes, as text that two databases can be compared by. */

import type postgres from "postgres";

/** Reads what the migration makes, one line each, without what differs from install to install. */
export async function shape(sql: postgres.Sql): Promise<string[]> {
  const rows = await sql`
    select 'function ' || p.oid::regprocedure || ' ' || md5(prosrc) || ' ' || coalesce(proconfig::text, '') || ' '
      || coalesce(proacl::text, '') || prosecdef || provolatile::text as line
    from pg_proc p where pronamespace = 'libsql_sync'::regnamespace or proname ~ 'libsql'
    union all
    select 'trigger ' || tgrelid::regclass || ' ' || pg_get_triggerdef(oid) from pg_trigger where not tgisinternal
    union all
    select 'column ' || attrelid::regclass || '.' || attname || ' ' || format_type(atttypid, atttypmod) || ' '
      || attnotnull || ' ' || coalesce(pg_get_expr(d.adbin, d.adrelid), '')
    from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
    where attnum > 0 and not attisdropped and attrelid in
      (select oid from pg_class where relnamespace = 'libsql_sync'::regnamespace and relkind = 'r')
    union all
    select 'constraint ' || conname || ' ' || pg_get_constraintdef(oid) from pg_constraint
    where connamespace = 'libsql_sync'::regnamespace
    union all
    select 'index ' || indexdef from pg_indexes where schemaname = 'libsql_sync'
    union all
    select 'table ' || relname || ' ' || relrowsecurity || ' ' || coalesce(relacl::text, '') from pg_class
    where relnamespace = 'libsql_sync'::regnamespace and relkind = 'r'
    union all
    select 'comment on ' || (pg_identify_object(classoid, objoid, objsubid)).identity || ' ' || description
    from pg_description where objoid in (
      select oid from pg_class where relnamespace = 'libsql_sync'::regnamespace
      union all select oid from pg_proc where pronamespace = 'libsql_sync'::regnamespace
      union all select 'libsql_sync'::regnamespace)
    order by 1`;
  return rows.map(({ line }) => line);
}
