-- Uninstalling. It waits 3 s at most for a lock; then nothing is gone, and it may be tried
-- again. Undo: run the migration again; a new epoch begins.

create or replace function libsql_sync.uninstall(confirm text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '3s'
as $$
declare
  job record;
  queue text;
  left_over text;
begin
  if confirm is distinct from 'uninstall' then
    raise exception 'Cannot uninstall: expected the word ''uninstall'', found another'
      using hint = 'select libsql_sync.uninstall(''uninstall'') drops the queue with every change in it.';
  end if;
  perform pg_advisory_xact_lock(hashtext('libsql_sync install'));

  if to_regclass('cron.job') is not null then
    for job in
      select j.jobid from cron.job j
      where j.database = current_database()
        and (j.jobname in ('process_libsql_replication', 'libsql_sync_realtime')
          or j.command like '%process_libsql_replication_batch%')
    loop
      perform cron.unschedule(job.jobid::bigint);
      begin
        delete from cron.job_run_details d where d.jobid = job.jobid;
      exception when insufficient_privilege or undefined_table then
        raise notice 'The past runs of cron job % stay in cron.job_run_details: this role may not delete them', job.jobid;
      end;
    end loop;
  end if;

  -- Cascade takes the triggers with it, also from tables of another owner.
  drop function if exists public.trigger_http_queue_post_to_function_libsql() cascade;
  drop function if exists public.process_libsql_replication_batch();
  drop function if exists public.get_libsql_sync_url();
  drop function if exists public.get_libsql_webhook_signature();

  foreach queue in array array['replicate_data_libsql', 'replicate_data_libsql_dlq'] loop
    if to_regclass('pgmq.q_' || queue) is not null then
      perform pgmq.drop_queue(queue::text);
    end if;
  end loop;

  if to_regclass('vault.decrypted_secrets') is not null then
    begin
      select string_agg(s.name, ', ' order by s.name) into left_over from vault.decrypted_secrets s
      where s.name in ('libsql_sync_url', 'libsql_webhook_signature');
    exception when insufficient_privilege then
      left_over := 'libsql_sync_url, libsql_webhook_signature';
    end;
    if left_over is not null then
      raise notice 'These Vault secrets stay: %. delete from vault.secrets where name = ''<name>'' takes them out', left_over;
    end if;
  end if;

  drop schema libsql_sync cascade;

  -- It may be another database's as well, and login roles may be in it.
  begin
    select string_agg(m.member::regrole::text, ', ') into left_over
    from pg_auth_members m
    where m.roleid = to_regrole('libsql_sync_worker')
      and m.member <> (select o.oid from pg_roles o where o.rolname = current_user);
    if left_over is null then
      drop role if exists libsql_sync_worker;
    else
      raise notice 'Role libsql_sync_worker stays, as it has members: %', left_over;
    end if;
  exception
    when dependent_objects_still_exist then
      raise notice 'Role libsql_sync_worker stays, as it has rights elsewhere: another database may use it';
    when insufficient_privilege then
      raise notice 'Role libsql_sync_worker stays, as % may not drop it', current_user;
  end;
end
$$;
comment on function libsql_sync.uninstall(text) is
  'Removes all of ours from PostgreSQL, for good: triggers, functions, the cron jobs, the queues with what waits in them, the schema libsql_sync, and the worker''s role unless it is still needed. Your tables, extensions and the replica stay as they are. In: the word "uninstall".';
