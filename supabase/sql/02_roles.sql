-- Who may do what: the role libsql_sync_worker, and lock_down(), which revokes all that
-- the default privileges of PostgreSQL, Supabase and PGMQ would grant. attach() calls it,
-- so every run of the migration ends with these rights.

create schema if not exists libsql_sync;

-- The role that may call the worker's functions. It has no login; a login role is its
-- member. Roles belong to the whole server, so another database may have made it.
do $$
begin
  if not exists (select from pg_roles where rolname = 'libsql_sync_worker') then
    create role libsql_sync_worker nologin;
  end if;
exception
  when duplicate_object or unique_violation then null;
  when insufficient_privilege then
    raise notice 'Role libsql_sync_worker is not here, and % may not create roles: have an administrator run create role libsql_sync_worker nologin; then run select libsql_sync.lock_down(). Until then the worker connects as %',
      current_user, current_user;
end
$$;

-- PostgreSQL grants EXECUTE to PUBLIC, Supabase's default privileges grant it to the
-- roles of its API, and PGMQ lets pg_monitor read its tables.
create or replace function libsql_sync.lock_down()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  grantee text;
  routine regprocedure;
begin
  for grantee in
    select 'public' union all
    select quote_ident(r.rolname) from pg_roles r
    where r.rolname in ('anon', 'authenticated', 'service_role', 'pg_monitor', 'libsql_sync_worker')
  loop
    execute 'revoke all on schema libsql_sync from ' || grantee;
    execute 'revoke all on all tables in schema libsql_sync from ' || grantee;
    execute 'revoke all on all sequences in schema libsql_sync from ' || grantee;
    execute 'revoke all on all functions in schema libsql_sync from ' || grantee;
    execute 'revoke all on table pgmq.q_replicate_data_libsql, pgmq.a_replicate_data_libsql,'
      || ' pgmq.q_replicate_data_libsql_dlq, pgmq.a_replicate_data_libsql_dlq from ' || grantee;
    for routine in
      select p.oid from pg_proc p
      where p.pronamespace = 'public'::regnamespace and p.proname in (
        'get_libsql_sync_url', 'get_libsql_webhook_signature',
        'process_libsql_replication_batch', 'trigger_http_queue_post_to_function_libsql')
    loop
      execute format('revoke all on function %s from %s', routine, grantee);
    end loop;
  end loop;
  if exists (select from pg_roles r where r.rolname = 'libsql_sync_worker') then
    grant usage on schema libsql_sync to libsql_sync_worker;
    for routine in
      select p.oid from pg_proc p
      where p.pronamespace = 'libsql_sync'::regnamespace
        and p.proname in ('claim', 'lease', 'park', 'release', 'report', 'request_redrive', 'request_walk', 'reset')
    loop
      execute format('grant execute on function %s to libsql_sync_worker', routine);
    end loop;
  end if;
  -- Roles that write may ask for a bookmark; grant another role of yours the same.
  for grantee in
    select quote_ident(r.rolname) from pg_roles r
    where r.rolname in ('authenticated', 'service_role')
  loop
    execute 'grant usage on schema libsql_sync to ' || grantee;
    for routine in
      select p.oid from pg_proc p
      where p.pronamespace = 'libsql_sync'::regnamespace and p.proname = 'bookmark'
    loop
      execute format('grant execute on function %s to %s', routine, grantee);
    end loop;
  end loop;
end
$$;
comment on function libsql_sync.lock_down() is
  'Revokes from other roles all rights on our functions, tables and queues, and grants the worker''s role its eight calls and the roles that write bookmark(). Safe at any time. Returns nothing.';
