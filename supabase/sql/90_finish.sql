-- The end of the migration: functions that an older version had are dropped, the
-- schema.json of this project is put in force, and the cron job is scheduled.

-- Over an older version: functions that are not in these files any more are dropped.
-- What was made in this transaction stays. If a tool runs statement by statement,
-- nothing is dropped.
do $$
declare
  routine regprocedure;
begin
  if not exists (
    select from pg_proc where oid = 'libsql_sync.lock_down()'::regprocedure
      and xmin = pg_current_xact_id()::xid
  ) then
    return;
  end if;
  for routine in
    select oid from pg_proc
    where pronamespace = 'libsql_sync'::regnamespace and xmin <> pg_current_xact_id()::xid
      -- The trigger functions are attach()'s.
      and prorettype <> 'trigger'::regtype
  loop
    execute format('drop function %s', routine);
  end loop;
end
$$;

-- schema.json begins
-- schema.json ends

do $$
declare
  extension text;
begin
  foreach extension in array array['pg_net', 'pg_cron'] loop
    if exists (select from pg_available_extensions where name = extension) then
      execute format('create extension if not exists %I', extension);
    end if;
  end loop;
  if to_regprocedure('cron.schedule(text,text,text)') is null then
    raise notice 'pg_cron is not here: call select public.process_libsql_replication_batch() every 5 minutes by other means';
  else
    perform cron.schedule('process_libsql_replication', '*/5 * * * *',
      'select public.process_libsql_replication_batch()');
    if (select realtime from libsql_sync.chain) then
      perform libsql_sync.realtime(true);
    end if;
  end if;
end
$$;

reset search_path;
