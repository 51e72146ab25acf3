-- The end of a sync: what it did is recorded for status, the lease is given back, and
-- the alerts that are due are handed to the worker.

create or replace function libsql_sync.lag_ms(c libsql_sync.chain)
returns bigint
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce((
    select greatest(0, extract(epoch from clock_timestamp() - m.enqueued_at) * 1000)::bigint
    from (
      select q.enqueued_at from pgmq.q_replicate_data_libsql q
      where q.msg_id >= c.floor order by q.msg_id limit 1) m), 0)
$$;
comment on function libsql_sync.lag_ms(libsql_sync.chain) is
  'How long the oldest queued change has waited, in milliseconds; 0 if none is queued.';

create or replace function libsql_sync.note_sync(c libsql_sync.chain, sync jsonb, queued integer)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  n bigint := (c.totals ->> 'syncs')::bigint;
  minute bigint := floor(extract(epoch from clock_timestamp()) / 60);
begin
  insert into libsql_sync.syncs as s (slot, n, ended_at, ms, processed, parked, batches, queued, lag_ms, error)
  values (n % 20, n, clock_timestamp(), (sync ->> 'ms')::integer, (sync ->> 'processed')::integer,
    (sync ->> 'parked')::integer, (sync ->> 'batches')::integer, note_sync.queued, c.lag_ms, sync ->> 'error')
  on conflict (slot) do update set
    n = excluded.n, ended_at = excluded.ended_at, ms = excluded.ms, processed = excluded.processed,
    parked = excluded.parked, batches = excluded.batches, queued = excluded.queued,
    lag_ms = excluded.lag_ms, error = excluded.error;
  insert into libsql_sync.minutes as m (slot, minute, syncs, failed, processed, lag_ms)
  values (minute % 180, minute, 1, (sync ->> 'failed')::integer, (sync ->> 'processed')::bigint, c.lag_ms)
  on conflict (slot) do update set
    minute = excluded.minute,
    syncs = excluded.syncs + case when m.minute = excluded.minute then m.syncs else 0 end,
    failed = excluded.failed + case when m.minute = excluded.minute then m.failed else 0 end,
    processed = excluded.processed + case when m.minute = excluded.minute then m.processed else 0 end,
    lag_ms = greatest(excluded.lag_ms, case when m.minute = excluded.minute then m.lag_ms else 0 end);
  insert into libsql_sync.counts as o (table_name, applied)
  select t.name, (sync -> 'tables' ->> t.name)::bigint
  from libsql_sync.tables t where sync -> 'tables' ? t.name
  on conflict (table_name) do update set applied = o.applied + excluded.applied;
end
$$;
comment on function libsql_sync.note_sync(libsql_sync.chain, jsonb, integer) is
  'Records a sync in syncs, minutes and counts. In: the chain, {"processed", "parked", "batches", "ms", "failed", "error"?, "tables": {name: rows}}, and how many messages are queued.';

create or replace function libsql_sync.alerts_due(c libsql_sync.chain)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  sent jsonb := coalesce(c.alerted -> 'open', '{}');
  seen jsonb := coalesce(c.alerted -> 'seen', '{}');
  open jsonb := '{}';
  parked bigint := (select count(*) from (select from pgmq.q_replicate_data_libsql_dlq limit 10000) d);
  drift bigint;
  drifted boolean;
  replays bigint := coalesce((c.totals ->> 'replays')::bigint, 0);
  heartbeat jsonb := libsql_sync.heartbeat(c);
  newest libsql_sync.epochs;
  error text := (select s.error from libsql_sync.syncs s order by s.n desc limit 1);
  due jsonb;
begin
  if parked > 0 then
    open := open || jsonb_build_object('parked', parked::text);
  end if;
  -- Drift that was repaired at once is an alert as well, and over the next time.
  select coalesce(sum(o.drift), 0), coalesce(bool_or(o.drifted), false)
  into drift, drifted from libsql_sync.counts o;
  if drifted or drift > coalesce((seen ->> 'drift')::bigint, 0) and not sent ? 'drift' then
    open := open || jsonb_build_object('drift', (drift - coalesce((seen ->> 'drift')::bigint, 0))::text);
  end if;
  if (heartbeat ->> 'stale')::boolean then
    open := open || jsonb_build_object('stale', date_trunc('second',
      clock_timestamp() - coalesce(c.seen_at,
        (select min(e.begun_at) from libsql_sync.epochs e)))::text || case heartbeat ->> 'silent'
        when 'cron' then ': the cron is silent' else ': nothing behind the cron answers' end);
  end if;
  if c.seen ->> 'epoch' = c.epoch and (c.seen ->> 'position')::bigint < c.position
    or replays > coalesce((seen ->> 'replays')::bigint, 0) and not sent ? 'rewind'
  then
    open := open || jsonb_build_object('rewind', (replays - coalesce((seen ->> 'replays')::bigint, 0))::text);
  end if;
  select * into newest from libsql_sync.epochs e order by e.generation desc limit 1;
  if error in ('replica_foreign', 'replica_ahead') then
    open := open || jsonb_build_object('epoch', error);
  elsif newest.reason not in ('installed', 'nuke') and newest.begun_at > clock_timestamp() - interval '1 day'
    and (newest.generation > coalesce((seen ->> 'epoch')::bigint, 0) and not sent ? 'epoch'
      or c.seen ->> 'epoch' is distinct from c.epoch)
  then
    open := open || jsonb_build_object('epoch', newest.reason);
  end if;
  select jsonb_agg(jsonb_build_object('name', coalesce(o.key, t.key), 'detail', o.value)
    order by coalesce(o.key, t.key))
  into due
  from jsonb_each_text(open) o full join jsonb_each_text(sent) t on t.key = o.key
  where o.key is null or t.key is null;
  if due is null then
    return '{}';
  end if;
  return jsonb_build_object('alerts', due, 'alerted', jsonb_build_object('open', open,
    'seen', jsonb_build_object('drift', drift, 'replays', replays, 'epoch', newest.generation)));
end
$$;
comment on function libsql_sync.alerts_due(libsql_sync.chain) is
  'What the alert webhook is to be sent: {"alerts": [{"name", "detail"}], "alerted": state}, or {}. "alerts" are those that began since the last time, and with a null detail those that are over. The state comes back by release() when the webhook has taken it.';

create or replace function libsql_sync.end_sync(request json, acked integer)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  c libsql_sync.chain;
  queue jsonb := libsql_sync.queued();
  sync jsonb := (request -> 'sync')::jsonb;
begin
  if sync is not null then
    sync := sync || jsonb_build_object('syncs', 1, 'processed', (sync ->> 'processed')::integer + acked,
      'failed', case when sync ->> 'error' is null then 0 else 1 end);
  end if;
  update libsql_sync.chain h set lease = null, lease_until = null,
    totals = case when sync is null then h.totals else h.totals || (
      select jsonb_object_agg(k.name,
        coalesce((h.totals ->> k.name)::bigint, 0) + coalesce((sync ->> k.name)::bigint, 0))
      from unnest(array['syncs', 'failed', 'processed', 'parked', 'batches', 'ms']) k (name)) end
  where h.id = 1 and h.lease = request ->> 'lease' returning * into c;
  if found and sync is not null then
    perform libsql_sync.note_sync(c, sync, (queue ->> 'queued')::integer);
    if (request ->> 'alerts')::boolean then
      return queue || libsql_sync.alerts_due(c);
    end if;
  end if;
  return queue;
end
$$;
comment on function libsql_sync.end_sync(json, integer) is
  'Gives the lease back and records the sync. In: the request of claim() or release(), and how many messages its claim settled. Out: what release() answers.';

create or replace function libsql_sync.release(request json)
returns json
language plpgsql
security definer -- the worker's role may call this and touch no table
set search_path = pg_catalog, pg_temp
as $$
begin
  if request -> 'alerted' is not null then
    update libsql_sync.chain set alerted = (request -> 'alerted')::jsonb where id = 1;
  end if;
  return libsql_sync.end_sync(request, 0);
end
$$;
comment on function libsql_sync.release(json) is
$$Gives the lease back.
In: {"lease": token, "sync": {...}?, "alerts": boolean?, "alerted": state?}; "sync" as for note_sync(), without "failed".
Out: {"queued", "queued_exact", "alerts"?, "alerted"?}.$$;
