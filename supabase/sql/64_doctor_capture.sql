-- The doctor on capture: are the queues, tables and triggers as attach() leaves them?

create or replace function libsql_sync.doctor_queues()
returns table (name text, level text, found text, advice text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  r record;
  well boolean := true;
begin
  for r in
    select q.name, a.name as missing
    from (values ('q_replicate_data_libsql'), ('a_replicate_data_libsql'),
      ('q_replicate_data_libsql_dlq'), ('a_replicate_data_libsql_dlq')) q (name)
    left join lateral (
      select string_agg(k.name, ', ') as name
      from (values ('msg_id'), ('read_ct'), ('enqueued_at'), ('vt'), ('message')) k (name)
      where not exists (
        select from pg_attribute a
        where a.attrelid = to_regclass('pgmq.' || q.name) and a.attname = k.name and not a.attisdropped)
    ) a on true
    where a.name is not null
  loop
    well := false;
    if to_regclass('pgmq.' || r.name) is null then
      return query values ('queue', 'error', 'pgmq.' || r.name || ' is not there: changes are not queued',
        format('select pgmq.create(%L); then select libsql_sync.lock_down(); The next sync then walks every table', substr(r.name, 3)));
    else
      return query values ('queue', 'error', 'pgmq.' || r.name || ' lacks ' || r.missing, 'alter extension pgmq update;');
    end if;
  end loop;
  if well then
    return query values ('queues', 'ok', 'replicate_data_libsql, replicate_data_libsql_dlq', null);
  end if;
exception when others then
  return query select * from libsql_sync.doctor_failed('queues', sqlstate);
end
$$;
comment on function libsql_sync.doctor_queues() is
  'The doctor on PGMQ''s tables of our two queues, and the columns that we use of them.';

create or replace function libsql_sync.doctor_tables()
returns table (name text, level text, found text, advice text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  attach constant text := 'select libsql_sync.attach();';
  r record;
  tables integer := 0;
  well boolean := true;
begin
  for r in
    select t.name, q.oid as relation, libsql_sync.attach_problem(q.oid, t.key) as problem, m.missing
    from libsql_sync.tables t
    cross join lateral to_regclass(format('public.%I', t.name)) q (oid)
    left join lateral (
      select string_agg(k.value ->> 'name', ', ') as missing
      from jsonb_array_elements(t.columns) k
      where k.value ->> 'name' not in (select p.name from libsql_sync.present_columns(q.oid, t.name) p)
    ) m on true
    order by t.name
  loop
    tables := tables + 1;
    well := well and r.relation is not null and r.problem is null and r.missing is null;
    if r.relation is null then
      return query values ('table ' || r.name, 'error', 'does not exist',
        'create it, then ' || attach || ' or take it out of schema.json');
    elsif r.problem is not null then
      return query values ('table ' || r.name, 'error', r.problem,
        'repair the table, then ' || attach || ' or take it out of schema.json');
    elsif r.missing is not null then
      return query values ('table ' || r.name, 'warning',
        'lacks listed column(s) ' || r.missing || ': they stay as they are in the replica',
        'put the new names into schema.json (or take them out), run deno task schema and the migration, then deploy');
    end if;
  end loop;
  if well then
    return query values ('tables', 'ok', tables || ', each with its key and columns', null);
  end if;
exception when others then
  return query select * from libsql_sync.doctor_failed('tables', sqlstate);
end
$$;
comment on function libsql_sync.doctor_tables() is
  'The doctor on the listed tables: whether each exists, can be replicated, and has its columns.';

create or replace function libsql_sync.doctor_triggers()
returns table (name text, level text, found text, advice text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  r record;
  triggers integer := 0;
  well boolean := true;
begin
  for r in
    select case when w.is_partition then 'partition ' || w.relation::regclass
        else 'table ' || w.table_name end as place,
      w.name,
      case
        when g.oid is null then 'is missing'
        when g.tgenabled = 'D' then 'is disabled'
        when g.tgenabled = 'R' then 'fires for replicas only'
        when g.tgfoid is distinct from to_regprocedure(w.function || '()') or g.tgtype <> w.type
          or g.tgargs <> convert_to(w.table_name, 'UTF8') || '\x00'::bytea then 'is another one'
      end as problem
    from libsql_sync.wanted_triggers() w
    left join pg_trigger g on g.tgrelid = w.relation and g.tgname = w.name and not g.tgisinternal
    order by w.table_name, w.relation::regclass::text, w.type
  loop
    triggers := triggers + 1;
    if r.problem is not null then
      well := false;
      return query values (r.place, 'error', 'trigger ' || r.name || ' ' || r.problem,
        'select libsql_sync.attach(); The replica is then walked by itself');
    end if;
  end loop;
  if well then
    return query values ('triggers', 'ok', triggers || ', all enabled', null);
  end if;
  return query select * from libsql_sync.doctor_trigger_functions();
exception when others then
  return query select * from libsql_sync.doctor_failed('triggers', sqlstate);
end
$$;
comment on function libsql_sync.doctor_triggers() is
  'The doctor on the triggers of each listed table and partition, and on the functions that they run.';

create or replace function libsql_sync.doctor_trigger_functions()
returns table (name text, level text, found text, advice text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  attach constant text := 'select libsql_sync.attach();';
  invoker constant text := (select min(p.oid::regprocedure::text) from pg_proc p where p.oid in (select libsql_sync.trigger_functions()) and not p.prosecdef);
  stale text;
begin
  if invoker is not null then
    return query values ('trigger functions', 'error', invoker || ' runs with the rights of the writer, which may not write to the queue',
      'alter function ' || invoker || ' security definer;');
    return;
  end if;
  stale := (select string_agg(f.name, ', ' order by f.name) from libsql_sync.stale_functions() f);
  if stale is null then
    return query values ('trigger functions', 'ok', 'have today''s columns', null);
  else
    return query values ('trigger functions', 'warning',
      'missing, or made before a change of the tables, so that writes may open the walk: ' || stale, attach);
  end if;
exception when others then
  -- A table without its key, which doctor_tables() reports.
  return query values ('trigger functions', 'error', 'cannot be made anew while a table lacks its key', 'see that table, then ' || attach);
end
$$;
comment on function libsql_sync.doctor_trigger_functions() is
  'The doctor on the trigger functions: that they run with their owner''s rights, and are the ones that attach() would make today.';

create or replace function libsql_sync.doctor_leftovers()
returns table (name text, level text, found text, advice text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  r record;
  well boolean := true;
begin
  for r in
    with wanted as materialized (
      select w.relation, w.name::name as name from libsql_sync.wanted_triggers() w
    ), away as materialized (
      -- A table that was renamed is reported as missing, by doctor_tables().
      select convert_to(t.name, 'UTF8') || '\x00'::bytea as args
      from libsql_sync.tables t where to_regclass(format('public.%I', t.name)) is not distinct from null
    )
    select g.name, g.relation, g.is_ours
    from (
      select g.tgname as name, g.tgrelid, g.tgrelid::regclass::text as relation, g.tgargs, p.prosrc,
        g.tgfoid in (select libsql_sync.trigger_functions()) as is_ours
      from pg_trigger g join pg_proc p on p.oid = g.tgfoid
      where not g.tgisinternal
    ) g
    where case when g.is_ours
      then (g.tgrelid, g.name) not in (select w.relation, w.name from wanted w)
        and g.tgargs not in (select a.args from away a)
      else g.prosrc ~ 'replicate_data_libsql' end
    order by g.relation, g.name
  loop
    well := false;
    return query values ('leftover', 'warning',
      'trigger ' || r.name || ' on ' || r.relation
        || case when r.is_ours then ', which is not listed so' else ' sends messages of its own' end,
      format('drop trigger %I on %s;', r.name, r.relation));
  end loop;
  if to_regclass('cron.job') is not null then
    for r in execute
      'select j.jobid, coalesce(j.jobname, '''') as jobname from cron.job j
       where j.jobname is distinct from ''process_libsql_replication''
         and j.command ~ ''process_libsql_replication_batch|replicate_data_libsql|get_libsql_sync_url'''
    loop
      well := false;
      return query values ('leftover', 'warning',
        format('cron job %s %s calls the worker as well', r.jobid, r.jobname),
        format('select cron.unschedule(%s);', r.jobid));
    end loop;
  end if;
  if well then
    return query values ('leftovers', 'ok', 'none', null);
  end if;
exception when others then
  return query select * from libsql_sync.doctor_failed('leftovers', sqlstate);
end
$$;
comment on function libsql_sync.doctor_leftovers() is
  'The doctor on triggers and cron jobs of other versions or other solutions that write to our queue or call the worker.';
