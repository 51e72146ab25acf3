-- The doctor on access: rights of other roles, the worker's role, and the secrets.

create or replace function libsql_sync.doctor_grants()
returns table (name text, level text, found text, advice text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  ours constant oid[] := libsql_sync.our_tables();
  routines constant oid[] := libsql_sync.our_functions();
  r record;
  well boolean := true;
begin
  -- What Supabase's roles of its API may do, however they got the right.
  for r in
    select s.role, 'execute ' || p.oid::regprocedure as may
    from unnest(routines) p (oid)
    cross join (
      select 'public' as role union all
      select a.rolname from pg_roles a where a.rolname in ('anon', 'authenticated', 'service_role')
    ) s
    where has_function_privilege(s.role, p.oid, 'execute')
      and not (p.oid = 'libsql_sync.bookmark()'::regprocedure
        and s.role in ('authenticated', 'service_role'))
    union all
    select s.role, 'use ' || q.oid::regclass
    from unnest(ours) q (oid)
    cross join (
      select 'public' as role union all
      select a.rolname from pg_roles a where a.rolname in ('anon', 'authenticated', 'service_role')
    ) s
    where has_table_privilege(s.role, q.oid, 'select, insert, update, delete, truncate')
      or has_any_column_privilege(s.role, q.oid, 'select, insert, update')
    order by 1, 2
    limit 20
  loop
    well := false;
    return query values ('grant', 'error', r.role || ' may ' || r.may, 'select libsql_sync.lock_down();');
  end loop;
  -- What was granted to other roles. PGMQ itself grants its tables to pg_monitor.
  for r in
    select distinct g.grantee::regrole::text as role, g.thing
    from (
      select a.grantee, p.oid::regprocedure::text as thing, p.proowner as owner
      from pg_proc p cross join lateral aclexplode(p.proacl) a
      where p.oid = any (routines)
        -- Those are for the worker's role, and for roles that write.
        and p.oid::regprocedure::text !~ '^libsql_sync\.(bookmark|claim|lease|park|release|report|reset|request_redrive|request_walk)\('
      union all
      select a.grantee, q.oid::regclass::text, q.relowner
      from pg_class q cross join lateral aclexplode(q.relacl) a
      where q.oid = any (ours)
    ) g
    join pg_roles o on o.oid = g.grantee
    where g.grantee <> g.owner and not o.rolsuper and o.rolname !~ '^pg_'
      and o.rolname not in ('anon', 'authenticated', 'service_role')
      and not pg_has_role(o.oid, g.owner, 'member')
    order by 1, 2
    limit 20
  loop
    well := false;
    return query values ('grant', 'warning', 'role ' || r.role || ' has rights on ' || r.thing,
      'revoke them, unless that role shall read every replicated row');
  end loop;
  if well then
    return query values ('grants', 'ok', 'other roles may execute and read nothing of ours', null);
  end if;

  well := true;
  for r in
    select q.oid::regclass::text as relation
    from pg_class q where q.oid = any (ours) and not q.relrowsecurity
  loop
    well := false;
    return query values ('row level security', 'error', 'off on ' || r.relation,
      format('alter table %s enable row level security;', r.relation));
  end loop;
  if well then
    return query values ('row level security', 'ok', 'on for our ' || cardinality(ours) || ' tables', null);
  end if;
exception when others then
  return query select * from libsql_sync.doctor_failed('grants', sqlstate);
end
$$;
comment on function libsql_sync.doctor_grants() is
  'The doctor on rights that roles other than the owner have on our tables and functions, and on row level security.';

create or replace function libsql_sync.doctor_worker_role()
returns table (name text, level text, found text, advice text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  members text;
  more constant text := ': the worker connects as a role that may do more than it needs';
begin
  if not exists (select from pg_roles o where o.rolname = 'libsql_sync_worker') then
    return query values ('worker role', 'warning', 'libsql_sync_worker is not here' || more,
      'create role libsql_sync_worker nologin; select libsql_sync.lock_down(); then a login role in it, as the README shows');
  elsif exists (
    select from pg_proc p
    where p.oid = any (libsql_sync.our_functions()) and p.pronamespace = 'libsql_sync'::regnamespace
      and p.proname in ('claim', 'lease', 'park', 'release', 'report', 'request_redrive', 'request_walk', 'reset')
      and not has_function_privilege('libsql_sync_worker', p.oid, 'execute')
  ) or not has_schema_privilege('libsql_sync_worker', 'libsql_sync', 'usage') then
    return query values ('worker role', 'error', 'libsql_sync_worker may not call the worker''s functions',
      'select libsql_sync.lock_down();');
  else
    select string_agg(m.member::regrole::text, ', ' order by m.member::regrole::text) into members
    from pg_auth_members m
    where m.roleid = 'libsql_sync_worker'::regrole and m.member <> (
      select s.nspowner from pg_namespace s where s.nspname = 'libsql_sync');
    if members is null then
      return query values ('worker role', 'warning', 'libsql_sync_worker has no members' || more,
        'create role libsql_sync_login login password ''...'' in role libsql_sync_worker; and name it in the worker''s PGMQ_URL');
    else
      return query values ('worker role', 'ok', 'may call the worker''s functions; in it: ' || members, null);
    end if;
  end if;
exception when others then
  return query select * from libsql_sync.doctor_failed('worker role', sqlstate);
end
$$;
comment on function libsql_sync.doctor_worker_role() is
  'The doctor on libsql_sync_worker: that the role exists, may call the worker''s functions, and has a member to log in as.';

create or replace function libsql_sync.doctor_secrets()
returns table (name text, level text, found text, advice text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  r record;
begin
  for r in
    select s.name, s.pattern, s.wanted, libsql_sync.secret(s.name) as value
    from (values
      ('libsql_sync_url', '^https?://[^/]+/sync$', 'the worker''s address with /sync at its end'),
      ('libsql_webhook_signature', '^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$', 'printable ASCII without space around it')
    ) s (name, pattern, wanted)
  loop
    if coalesce(r.value, '') = '' then
      return query values ('secret ' || r.name, 'error', 'not in the Vault: cron cannot call the worker',
        format('select vault.create_secret(''<value>'', %L);', r.name));
    elsif r.value !~ r.pattern then
      return query values ('secret ' || r.name, 'error', 'there, but not ' || r.wanted,
        format('select vault.update_secret(id, ''<value>'') from vault.secrets where name = %L;', r.name));
    else
      return query values ('secret ' || r.name, 'ok', 'there', null);
    end if;
  end loop;
  if (select p.prosrc ~ 'libsql_sync\.call_worker\(' from pg_proc p
    where p.oid = 'public.process_libsql_replication_batch()'::regprocedure)
  then
    return query values ('signature', 'ok', 'cron signs each call (HMAC-SHA-256): the secret stays in the Vault', null);
  else
    return query values ('signature', 'warning',
      'cron sends the secret itself, which every SQL role can read in net.http_request_queue',
      'run the migration in supabase/migrations again');
  end if;
exception when others then
  return query select * from libsql_sync.doctor_failed('secrets', sqlstate);
end
$$;
comment on function libsql_sync.doctor_secrets() is
  'The doctor on the two Vault secrets with which cron calls the worker. It never shows them.';
