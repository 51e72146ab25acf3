-- The doctor on what happens behind the queue: cron, pg_net, the queue's age, the
-- archive and the replica as it was last seen.

create or replace function libsql_sync.doctor_cron(c libsql_sync.chain)
returns table (name text, level text, found text, advice text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  migrate constant text := 'run the migration in supabase/migrations again';
  what text;
  job record;
  -- Null without pg_cron.
  jobs integer;
begin
  if to_regclass('cron.job') is not null then
    execute 'select j.jobid, j.schedule, j.active, j.username::text, j.database::text, j.command
      from cron.job j where j.jobname = ''process_libsql_replication'' order by j.active desc limit 1' into job;
    get diagnostics jobs = row_count;
  end if;
  level := 'error';
  if jobs is null then
    what := 'pg_cron is not here';
    advice := 'enable pg_cron and ' || migrate || '; or call select public.process_libsql_replication_batch(); every 5 minutes by other means';
  elsif jobs = 0 then
    what := 'process_libsql_replication is not scheduled';
    advice := 'select cron.schedule(''process_libsql_replication'', ''*/5 * * * *'', ''select public.process_libsql_replication_batch()'');';
  elsif not job.active then
    what := 'process_libsql_replication is not active';
    advice := format('select cron.alter_job(%s, active := true);', job.jobid);
  elsif job.command !~ 'process_libsql_replication_batch' or job.database <> current_database() then
    what := 'process_libsql_replication runs something else, or in another database';
    advice := migrate;
  else
    level := 'ok';
    what := job.schedule || ' as ' || job.username;
  end if;
  return query values ('cron job', level, what, advice);
  if c.realtime then
    return query select * from libsql_sync.doctor_realtime(c, jobs is not null);
  end if;
  if jobs = 1 then
    return query select * from libsql_sync.doctor_cron_runs(job.jobid);
  end if;
exception when others then
  return query select * from libsql_sync.doctor_failed('cron', sqlstate);
end
$$;
comment on function libsql_sync.doctor_cron(libsql_sync.chain) is
  'The doctor on the cron job that calls the worker, on realtime''s when that is on, and on their last runs.';

create or replace function libsql_sync.doctor_realtime(c libsql_sync.chain, has_cron boolean)
returns table (name text, level text, found text, advice text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  what text := 'on';
  missing boolean := true;
  run record;
begin
  level := 'ok';
  if has_cron then
    missing := not exists (
      select from cron.job j where j.jobname = 'libsql_sync_realtime' and j.active
        and j.database = current_database() and j.command ~ 'libsql_sync\.watch');
  end if;
  if missing then
    level := 'error';
    what := 'on, but cron job libsql_sync_realtime is missing or not active';
    advice := 'select libsql_sync.realtime(true);';
  elsif c.wake_misses > 0 then
    level := 'error';
    what := format('%s calls of the worker in a row had no effect', c.wake_misses);
    advice := 'see the secrets, pg_net''s answers here, and the worker''s log';
  else
    execute 'select d.status, d.return_message from cron.job_run_details d join cron.job j using (jobid)
      where j.jobname = ''libsql_sync_realtime'' order by d.runid desc limit 1' into run;
    if run.status = 'failed' then
      level := 'error';
      what := 'on, and its last run failed: ' || left(split_part(run.return_message, E'\n', 1), 160);
      advice := 'select libsql_sync.realtime(true);';
    end if;
  end if;
  return query values ('realtime', level, what, advice);
end
$$;
comment on function libsql_sync.doctor_realtime(libsql_sync.chain, boolean) is
  'The doctor on realtime, when it is on: its cron job, its last run, and whether its calls have an effect.';

create or replace function libsql_sync.doctor_cron_runs(job bigint)
returns table (name text, level text, found text, advice text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  what text;
  run record;
begin
  execute 'select count(*) as runs, count(*) filter (where d.status = ''failed'') as failed,
      max(d.start_time) as latest,
      (array_agg(d.status order by d.start_time desc))[1] as status,
      (array_agg(d.return_message order by d.start_time desc) filter (where d.status = ''failed''))[1] as message
    from (select * from cron.job_run_details d where d.jobid = $1 order by d.runid desc limit 10) d'
  into run using job;
  if run.runs = 0 then
    return query values ('cron runs', 'warning', 'none yet',
      'wait for the next one; if none comes, see whether pg_cron''s worker runs: select * from pg_stat_activity where application_name ~ ''cron'';');
    return;
  end if;
  level := 'ok';
  what := format('%s of the last %s failed, latest %s ago', run.failed, run.runs,
    date_trunc('second', clock_timestamp() - run.latest));
  if run.status = 'failed' then
    level := 'error';
    what := what || ': ' || left(split_part(run.message, E'\n', 1), 160);
    advice := 'select * from cron.job_run_details where jobid = ' || job || ' order by runid desc limit 5;';
  elsif run.failed > 0 then
    level := 'warning';
    advice := 'the latest went well; watch it';
  end if;
  return query values ('cron runs', level, what, advice);
end
$$;
comment on function libsql_sync.doctor_cron_runs(bigint) is
  'The doctor on the last ten runs of a cron job, by its id.';

create or replace function libsql_sync.doctor_pg_net()
returns table (name text, level text, found text, advice text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  what text;
  run record;
begin
  if to_regclass('net._http_response') is null then
    return query values ('pg_net answers', 'error', 'pg_net is not here', 'enable pg_net, or call the worker by other means');
    return;
  end if;
  -- Answers to all requests of this database: they do not say which are ours.
  execute 'select count(*) as answers, bool_and(a.status_code between 200 and 299) as good,
      (array_agg(a.status_code order by a.id desc))[1] as latest,
      string_agg(distinct case when a.timed_out then ''timeout'' else coalesce(a.status_code::text, ''no answer'') end, '', '') as codes
    from (select * from net._http_response a order by a.id desc limit 20) a'
  into run;
  level := 'ok';
  what := case when run.answers = 0 then 'none kept'
    else format('the last %s of all requests: %s', run.answers, run.codes) end;
  if run.good is not true and run.answers > 0 then
    level := 'warning';
    advice := 'if they are the worker''s: 401 is a wrong secret, 404 a wrong libsql_sync_url, 409 and 5xx are explained in the worker''s answer (select status_code, content from net._http_response order by id desc limit 20)';
  end if;
  return query values ('pg_net answers', level, what, advice);
exception when others then
  return query select * from libsql_sync.doctor_failed('pg_net', sqlstate);
end
$$;
comment on function libsql_sync.doctor_pg_net() is
  'The doctor on the last answers that pg_net has kept.';

create or replace function libsql_sync.doctor_queue()
returns table (name text, level text, found text, advice text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  what text;
  oldest timestamptz;
  letters bigint;
begin
  select m.enqueued_at into oldest from pgmq.q_replicate_data_libsql m
  where m.msg_id >= (select h.floor from libsql_sync.chain h) order by m.msg_id limit 1;
  level := 'ok';
  what := format('%s%s, %s on disk', libsql_sync.queued() ->> 'queued',
    case when libsql_sync.queued() ->> 'queued_exact' = 'true' then '' else ' or more' end,
    pg_size_pretty(pg_total_relation_size('pgmq.q_replicate_data_libsql')));
  if oldest < clock_timestamp() - interval '30 minutes' then
    level := 'error';
    what := what || ', the oldest waits for ' || date_trunc('second', clock_timestamp() - oldest);
    advice := 'see the cron job, the worker and its answers here; deno task status reports the rest';
  end if;
  return query values ('queue', level, what, advice);

  select count(*) into letters from (select from pgmq.q_replicate_data_libsql_dlq limit 10001) d;
  return query values ('dead letters', case when letters = 0 then 'ok' else 'warning' end,
    case when letters > 10000 then 'more than 10000' else letters::text end,
    case when letters > 0 then 'deno task dlq list' end);
exception when others then
  return query select * from libsql_sync.doctor_failed('queue', sqlstate);
end
$$;
comment on function libsql_sync.doctor_queue() is
  'The doctor on how much is queued, how long the oldest change has waited, and how many dead letters are open.';

create or replace function libsql_sync.doctor_archive(c libsql_sync.chain)
returns table (name text, level text, found text, advice text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  what text;
  oldest constant timestamptz := (select min(b.settled_at) from libsql_sync.batches b);
  bytes constant bigint := pg_total_relation_size('pgmq.a_replicate_data_libsql');
begin
  level := 'ok';
  what := pg_size_pretty(bytes) || case when oldest is null then ', nothing to replay'
    else ', replays the last ' || date_trunc('second', clock_timestamp() - oldest) end;
  if oldest < clock_timestamp() - c.replay_window - interval '1 day'
    and exists (
      select from pgmq.q_replicate_data_libsql m
      where m.msg_id >= (select h.floor from libsql_sync.chain h)) then
    level := 'warning';
    what := what || ', kept for ' || c.replay_window;
    advice := 'each sync trims some of it: see why no sync runs';
  elsif bytes > 5368709120 then
    level := 'warning';
    advice := 'shorten chain.replay_window, or vacuum full pgmq.a_replicate_data_libsql; in a quiet hour (it locks the archive)';
  end if;
  return query values ('archive', level, what, advice);
exception when others then
  return query select * from libsql_sync.doctor_failed('archive', sqlstate);
end
$$;
comment on function libsql_sync.doctor_archive(libsql_sync.chain) is
  'The doctor on the archive: its size, and how far back a replica could be served again.';

create or replace function libsql_sync.doctor_replica(c libsql_sync.chain)
returns table (name text, level text, found text, advice text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  newest constant text := (select s.hash from libsql_sync.schemas s order by s.generation desc limit 1);
  what text;
begin
  level := 'ok';
  if c.seen_at is null then
    level := 'warning';
    what := 'no worker has called yet';
    advice := 'deploy it, put its address into the Vault, and wait for the next tick';
  elsif c.seen is null then
    level := 'warning';
    what := 'empty when last seen, ' || date_trunc('second', clock_timestamp() - c.seen_at) || ' ago';
    advice := 'the next sync starts it: deno task status';
  else
    what := format('at position %s of %s, seen %s ago', c.seen ->> 'position', c.position,
      date_trunc('second', clock_timestamp() - c.seen_at));
    if c.seen ->> 'epoch' <> c.epoch then
      level := 'warning';
      what := what || ', in another epoch';
      advice := 'the next sync follows, or says why not: deno task status';
    elsif (libsql_sync.heartbeat(c) ->> 'stale')::boolean then
      level := 'error';
      advice := 'a worker looks every 15 minutes even when nothing is queued: see the cron job, the secrets and pg_net''s answers here';
    end if;
  end if;
  return query values ('replica', level, what, advice);

  what := case when (c.seen ->> 'walk_done')::integer = 1 then 'every table was walked' else 'not every table was walked yet' end;
  if (c.seen ->> 'walk_done')::integer = 0 and not c.refill then
    return query values ('walk', 'warning', what || ', and no walk was asked for', 'deno task backfill');
  else
    return query values ('walk', 'ok', what, null);
  end if;

  if newest is null then
    return query values ('schema in force', 'error', 'none', 'deno task schema, then run the migration in supabase/migrations again');
  elsif c.seen ->> 'schema_hash' <> newest then
    return query values ('schema in force', 'warning', newest || ', the replica has ' || (c.seen ->> 'schema_hash'),
      'deploy the worker with the schema.json in force; its next sync alters the replica');
  else
    return query values ('schema in force', 'ok', newest, null);
  end if;

  if c.paused then
    return query values ('paused', 'warning', 'the worker is paused', 'select libsql_sync.resume();');
  end if;
exception when others then
  return query select * from libsql_sync.doctor_failed('replica', sqlstate);
end
$$;
comment on function libsql_sync.doctor_replica(libsql_sync.chain) is
  'The doctor on the replica as the last claim showed it, its walk, the schema in force, and a pause.';
