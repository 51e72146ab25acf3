-- Realtime: a second cron job looks all the time, so that changes arrive within a second.
-- No writer does anything more for it, and none waits.

-- It writes only when it calls, and once after. A call is over when the chain has moved
-- since, or nothing remains to be done. One that had no effect (pg_net or the worker is
-- slow, or fails) is repeated after 5 seconds, then after twice that, up to 5 minutes.
create or replace function libsql_sync.watch(closely boolean default true)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
-- The queue's index leads to what lives in it, past what is dead.
set enable_seqscan = off
as $$
declare
  c libsql_sync.chain;
  place text;
  is_queued boolean;
begin
  select * into c from libsql_sync.chain where id = 1;
  -- What comes during a sync is seen when it has ended.
  if not c.realtime or c.lease_until > clock_timestamp() then
    return c.realtime;
  end if;
  place := c.epoch || ' ' || c.position;
  is_queued := not c.paused and exists (select from pgmq.q_replicate_data_libsql m where m.msg_id >= c.floor);
  if not is_queued and not (closely and libsql_sync.has_work()) then
    if closely and c.wake_place is not null then
      update libsql_sync.chain set wake_place = null, wake_misses = 0
      where id = (select h.id from libsql_sync.chain h where h.id = 1 for update skip locked);
    end if;
  elsif place is distinct from c.wake_place
    or clock_timestamp() > c.wake_at + least(interval '5 seconds' * 2 ^ c.wake_misses, interval '5 minutes')
  then
    update libsql_sync.chain set wake_at = clock_timestamp(), wake_place = place,
      wake_misses = case when place is distinct from c.wake_place then 0 else least(c.wake_misses + 1, 6) end
    where id = (select h.id from libsql_sync.chain h where h.id = 1 for update skip locked);
    if found then
      begin
        perform libsql_sync.call_worker();
      exception when others then
        -- The cron job reports it, every 5 minutes.
        null;
      end;
    end if;
  end if;
  return true;
end
$$;
comment on function libsql_sync.watch(boolean) is
  'One look of realtime: calls the worker if there is something to do and no sync is running or called. "closely" looks for more than queued changes, at ten times the cost. Returns whether to look again.';

-- The cron job looks every 50 ms whether something is queued, and every second whether
-- there is anything else to do, and calls the worker once however many writes there are.
-- A run ends after 55 seconds, and the next one starts within a second or two.
create or replace function libsql_sync.realtime(enabled boolean)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  job record;
begin
  if enabled is null then
    raise exception 'Cannot turn realtime on or off: expected true or false, found null';
  end if;
  if enabled and to_regprocedure('cron.schedule(text,text,text)') is null then
    raise exception 'Cannot turn realtime on: expected pg_cron, found none'
      using hint = 'create extension pg_cron; (or enable it on the dashboard)';
  end if;
  update libsql_sync.chain set realtime = enabled, wake_place = null, wake_misses = 0 where id = 1;
  if enabled then
    -- Each look is a transaction: what it asks of pg_net goes out with its COMMIT.
    perform cron.schedule('libsql_sync_realtime', '1 seconds', $job$do $do$
declare
  ends constant timestamptz := pg_catalog.clock_timestamp() + interval '55 seconds';
  looks integer := 0;
begin
  while libsql_sync.watch(looks % 20 = 0) and pg_catalog.clock_timestamp() < ends loop
    commit;
    looks := looks + 1;
    perform pg_catalog.pg_sleep(0.05);
  end loop;
end
$do$
$job$);
  elsif to_regclass('cron.job') is not null then
    for job in
      select j.jobid from cron.job j
      where j.jobname = 'libsql_sync_realtime' and j.database = current_database()
    loop
      perform cron.unschedule(job.jobid::bigint);
    end loop;
  end if;
  return enabled;
end
$$;
comment on function libsql_sync.realtime(boolean) is
  'Turns realtime on (changes arrive well within a second) or off (every 5 minutes). On, it costs one connection and 20 looks into an index a second; an idle worker is not called. Returns whether it is on.';
