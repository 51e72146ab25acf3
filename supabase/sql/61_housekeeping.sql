-- Keeping the source small: the cap on the queue, and trimming of what was recorded. All
-- of it runs with the cron job, every 5 minutes, in bounded steps.

-- Nothing is lost: the lock lets every transaction that queued a change end first, so
-- what is dropped was committed before any page of the new epoch is read. The lease is
-- ignored, or a worker that is always busy would keep the cap from acting; a running sync
-- finds the new epoch at its next claim. No writer waits longer than 500 ms; what could not
-- be locked is left to the next call.
create or replace function libsql_sync.cap_queue()
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '500ms'
as $$
declare
  mb_max integer := (select c.queue_mb_max from libsql_sync.chain c);
  mb bigint := pg_total_relation_size('pgmq.q_replicate_data_libsql') / 1048576;
begin
  if mb_max is null or mb < mb_max
    -- By the index, as the pages of a queue that was long are mostly empty.
    or (select count(*) from (
      select from pgmq.q_replicate_data_libsql m
      where m.msg_id >= (select h.floor from libsql_sync.chain h) order by m.msg_id limit 10001) q) <= 10000
  then
    return false;
  end if;
  begin
    perform from libsql_sync.chain where id = 1 for update;
    perform libsql_sync.begin_epoch(format(
      'the queue of %s MB was over its cap of %s MB: what it held was dropped, every table is walked', mb, mb_max), false);
    truncate pgmq.q_replicate_data_libsql;
    -- Even if the replica was to stay empty: dropped changes come no other way.
    update libsql_sync.chain set refill = true where id = 1 and not refill;
  exception when lock_not_available then
    raise warning 'The queue of % MB is over its cap of % MB, and could not be locked within 500 ms: the next call tries again', mb, mb_max;
    return false;
  end;
  raise warning 'The queue of % MB was over its cap of % MB: what it held was dropped, and every table is walked', mb, mb_max;
  return true;
end
$$;
comment on function libsql_sync.cap_queue() is
  'If the queue has outgrown its cap (libsql_sync.chain.queue_mb_max; null: no cap), drops what it holds and begins a new epoch without a wipe: the walk then brings every row as it is. Returns whether it did.';

-- chain.cron_run is how far the table was searched, so that a table full of other jobs'
-- runs is read once. Answers of pg_net are left to pg_net, which drops them after some
-- hours: nothing in net._http_response says which are ours.
create or replace function libsql_sync.trim_cron_runs()
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '500ms'
as $$
declare
  seen bigint := (select c.cron_run from libsql_sync.chain c);
  looked bigint;
  upto bigint;
  trimmed integer;
begin
  if to_regclass('cron.job_run_details') is null then
    return 0;
  end if;
  with looked as materialized (
    select d.runid, d.jobid, coalesce(d.end_time, d.start_time) as at
    from cron.job_run_details d where d.runid > seen order by d.runid limit 10000
  ), old as materialized (
    select l.runid, l.jobid, l.at from looked l
    where l.runid <= (
      select max(l.runid) from looked l where l.at < now() - interval '1 day')
  ), ours as materialized (
    select o.runid from old o
    where o.jobid in (select j.jobid from cron.job j where j.jobname in ('process_libsql_replication', 'libsql_sync_realtime'))
      -- A run that never began has no time.
      and coalesce(o.at < now() - interval '1 day', true)
    order by o.runid limit 1000
  ), gone as (
    delete from cron.job_run_details d using ours o where d.runid = o.runid returning d.runid
  )
  select (select count(*) from looked),
    case when (select count(*) from ours) = 1000 then (select max(o.runid) from ours o)
      else (select max(o.runid) from old o) end,
    (select count(*) from gone)
  into looked, upto, trimmed;
  -- A few runs are read again rather than recorded; a sequence that began again at 1
  -- leaves none to search.
  if looked = 10000 and upto is not null then
    update libsql_sync.chain set cron_run = upto where id = 1;
  elsif looked = 0 and seen > 0 then
    update libsql_sync.chain set cron_run = 0 where id = 1;
  end if;
  return trimmed;
exception when insufficient_privilege or undefined_table or undefined_column or lock_not_available then
  return 0;
end
$$;
comment on function libsql_sync.trim_cron_runs() is
  'Deletes the runs of our own cron jobs that are a day old and older, 1,000 at most. Returns how many.';

create or replace function libsql_sync.tidy()
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  c libsql_sync.chain;
  rows_max constant integer := 1000;
  started constant timestamptz := clock_timestamp();
  gone integer;
  total integer;
begin
  -- A claim may be reading what would be trimmed.
  select * into c from libsql_sync.chain where id = 1 for update skip locked;
  if not found then
    return 0;
  end if;
  update libsql_sync.chain set ticked_at = started where id = 1;
  total := libsql_sync.trim_cron_runs();
  for i in 1..25 loop
    gone := libsql_sync.trim_versions();
    total := total + gone;
    exit when gone = 0 or clock_timestamp() > started + interval '200 milliseconds';
  end loop;

  -- Messages that were put back by hand, under the ids they had.
  update libsql_sync.chain h set floor = 0
  where h.id = 1 and exists (select from pgmq.q_replicate_data_libsql m where m.msg_id < h.floor);

  -- What is in the archive and belongs to no batch: archived before the oldest batch. A
  -- batch's own messages are archived with it, by one transaction, which takes less than
  -- a minute.
  delete from pgmq.a_replicate_data_libsql a where a.msg_id in (
    select v.msg_id from pgmq.a_replicate_data_libsql v
    where v.archived_at < least(
      clock_timestamp() - c.replay_window,
      (select min(b.settled_at) from libsql_sync.batches b)) - interval '1 minute'
    order by v.archived_at limit rows_max);
  get diagnostics gone = row_count;
  total := total + gone;

  -- Dead letters that were discarded.
  delete from pgmq.a_replicate_data_libsql_dlq a where a.msg_id in (
    select v.msg_id from pgmq.a_replicate_data_libsql_dlq v
    where v.archived_at < clock_timestamp() - interval '30 days'
    order by v.archived_at limit rows_max);
  get diagnostics gone = row_count;
  total := total + gone;

  -- Walks the replica has behind it, but for the newest 100, and the last one
  -- that went through everything.
  delete from libsql_sync.walks w where w.walk_gen in (
    select v.walk_gen from libsql_sync.walks v
    where v.walk_gen < (c.seen ->> 'walk_gen')::bigint
      and v.walk_gen <= (select n.walk_gen from libsql_sync.walks n order by n.walk_gen desc offset 100 limit 1)
      and v.walk_gen is distinct from (
        select f.walk_gen from libsql_sync.walks f
        where f.ended_at is not null and f.tables = array(select t.name from libsql_sync.tables t order by t.name)
        order by f.ended_at desc limit 1)
    order by v.walk_gen limit rows_max);
  get diagnostics gone = row_count;
  return total + gone;
end
$$;
comment on function libsql_sync.tidy() is
  'Keeps what is recorded bounded, in bounded steps: batches, archives, walks, runs of cron jobs. Every call of process_libsql_replication_batch() does it. Returns how many rows were deleted.';
