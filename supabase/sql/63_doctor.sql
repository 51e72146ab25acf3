-- The doctor: what a deployment needs, as seen from the source. One function per
-- section; each row says what was found and, if it is not well, how to repair it.
-- They change nothing, and work without the schemas vault, cron and net. Vault
-- secrets are checked, never shown.
--
-- deno task doctor prints the rows, status() warns of those of tables and triggers.
--
-- In the sections a variable "what" holds the column "found": in PL/pgSQL that name
-- is a variable of its own.

-- What is ours, for the questions of rights.
create or replace function libsql_sync.our_tables()
returns oid[]
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select array(
    select r.oid from pg_class r
    where r.relkind in ('r', 'p') and (r.relnamespace = 'libsql_sync'::regnamespace
      or r.relnamespace = 'pgmq'::regnamespace and r.relname in (
        'q_replicate_data_libsql', 'a_replicate_data_libsql',
        'q_replicate_data_libsql_dlq', 'a_replicate_data_libsql_dlq')))
$$;
comment on function libsql_sync.our_tables() is
  'The tables of libsql_sync and the queues'' tables of PGMQ.';

create or replace function libsql_sync.our_functions()
returns oid[]
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select array(
    select p.oid from pg_proc p
    where p.pronamespace = 'libsql_sync'::regnamespace
      or p.pronamespace = 'public'::regnamespace and p.proname in (
        'get_libsql_sync_url', 'get_libsql_webhook_signature',
        'process_libsql_replication_batch', 'trigger_http_queue_post_to_function_libsql'))
$$;
comment on function libsql_sync.our_functions() is
  'The functions of libsql_sync and our four in public.';

create or replace function libsql_sync.doctor_failed(section text, state text)
returns table (name text, level text, found text, advice text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select section, 'error', 'cannot be examined: SQLSTATE ' || state,
    case when state = '42501' then 'ask as the role that ran the migration (postgres)'
      else 'run the migration in supabase/migrations again' end
$$;
comment on function libsql_sync.doctor_failed(text, text) is
  'The doctor''s row for a section that ended with an error; the rows before it stay.';

create or replace function libsql_sync.doctor(only_sections text[] default null)
returns table (name text, level text, found text, advice text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  sections constant text[] := array['server', 'extensions', 'queues', 'tables', 'triggers', 'leftovers',
    'grants', 'worker role', 'secrets', 'cron', 'pg_net', 'queue', 'archive', 'replica'];
  section text;
  c libsql_sync.chain;
begin
  select * into strict c from libsql_sync.chain h where h.id = 1;
  foreach section in array coalesce(only_sections, sections) loop
    case section
      when 'server' then return query select * from libsql_sync.doctor_server();
      when 'extensions' then return query select * from libsql_sync.doctor_extensions();
      when 'queues' then return query select * from libsql_sync.doctor_queues();
      when 'tables' then return query select * from libsql_sync.doctor_tables();
      when 'triggers' then return query select * from libsql_sync.doctor_triggers();
      when 'leftovers' then return query select * from libsql_sync.doctor_leftovers();
      when 'grants' then return query select * from libsql_sync.doctor_grants();
      when 'worker role' then return query select * from libsql_sync.doctor_worker_role();
      when 'secrets' then return query select * from libsql_sync.doctor_secrets();
      when 'cron' then return query select * from libsql_sync.doctor_cron(c);
      when 'pg_net' then return query select * from libsql_sync.doctor_pg_net();
      when 'queue' then return query select * from libsql_sync.doctor_queue();
      when 'archive' then return query select * from libsql_sync.doctor_archive(c);
      when 'replica' then return query select * from libsql_sync.doctor_replica(c);
      else return query select * from libsql_sync.doctor_failed(section, '20000');
    end case;
  end loop;
end
$$;
comment on function libsql_sync.doctor(text[]) is
  'What a deployment needs, one row a finding: name, level (ok, warning, error), what was found, and the advice that repairs it. All sections, or those named: server, extensions, queues, tables, triggers, leftovers, grants, worker role, secrets, cron, pg_net, queue, archive, replica. It changes nothing.';

create or replace function libsql_sync.doctor_server()
returns table (name text, level text, found text, advice text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  what text;
  r record;
begin
  what := current_setting('server_version') || ', ' || current_setting('server_encoding');
  level := 'ok';
  if current_setting('server_version_num')::integer < 150000 then
    level := 'error';
    advice := 'upgrade to PostgreSQL 15 or later';
  elsif current_setting('server_encoding') <> 'UTF8' then
    level := 'error';
    advice := 'use a database of encoding UTF8';
  end if;
  return query values ('PostgreSQL', level, what, advice);

  what := current_setting('default_transaction_isolation');
  if what = 'read committed' then
    return query values ('isolation', 'ok', what, null);
  else
    return query values ('isolation', 'error', what,
      format('alter role %I set default_transaction_isolation to ''read committed'';', current_user));
  end if;

  for r in
    select coalesce(s.setrole::regrole::text, '') as role
    from pg_db_role_setting s
    where (s.setdatabase = 0 or s.setdatabase = (
        select d.oid from pg_database d where d.datname = current_database()))
      and 'session_replication_role=replica' = any (s.setconfig)
  loop
    return query values ('session_replication_role', 'error',
      'replica' || case when r.role in ('', '-') then ' for every role' else ' for role ' || r.role end
        || ': rows written in this mode bypass the triggers',
      'reset it where it was set (alter role or alter database ... reset session_replication_role), then: deno task verify --repair');
  end loop;
exception when others then
  return query select * from libsql_sync.doctor_failed('server', sqlstate);
end
$$;
comment on function libsql_sync.doctor_server() is
  'The doctor on PostgreSQL''s version, its encoding, and settings that would break capture or claims.';

create or replace function libsql_sync.doctor_extensions()
returns table (name text, level text, found text, advice text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  what text;
  r record;
begin
  for r in
    select w.name, w.since, w.instead, x.extversion as version
    from (values
      ('pgmq', '1.4.4', null),
      ('pg_cron', null, 'cron.schedule(text,text,text)'),
      ('pg_net', null, 'net.http_post(text,jsonb,jsonb,jsonb,integer)'),
      ('supabase_vault', null, 'vault.create_secret(text,text,text,uuid)')
    ) w (name, since, instead)
    left join pg_extension x on x.extname = w.name
  loop
    level := 'ok';
    what := r.version;
    advice := null;
    if r.version is null and to_regprocedure(r.instead) is not null then
      what := 'its functions, without the extension';
    elsif r.version is null then
      level := 'error';
      what := 'not installed';
      advice := format('create extension %I; (or enable it on the dashboard), then run the migration in supabase/migrations again', r.name);
    elsif r.since is not null and string_to_array(substring(r.version, '^[0-9]+(?:\.[0-9]+)*'), '.')::integer[]
      < string_to_array(r.since, '.')::integer[] then
      level := 'error';
      what := what || ', expected ' || r.since || ' or later';
      advice := format('alter extension %I update;', r.name);
    end if;
    return query values (r.name, level, what, advice);
  end loop;
exception when others then
  return query select * from libsql_sync.doctor_failed('extensions', sqlstate);
end
$$;
comment on function libsql_sync.doctor_extensions() is
  'The doctor on the extensions pgmq, pg_cron, pg_net and supabase_vault, or functions that take their place.';
