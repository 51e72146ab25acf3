-- How things stand: for operators, and for the worker's /status, /metrics and page.

-- If nothing else is to do, the cron calls the worker after 15 minutes all the same; the
-- worker writes to the replica's primary (probed_at) and claims: that is the whole way.
-- 25 minutes are two calls of the cron later.
create or replace function libsql_sync.heartbeat(c libsql_sync.chain)
returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'at', c.seen_at, 'ticked_at', c.ticked_at, 'stale', h.stale,
    'silent', case when not h.stale then null
      when c.ticked_at > h.now - interval '11 minutes' then 'worker' else 'cron' end)
  from (
    select t.now, not c.paused and t.now - interval '25 minutes' > coalesce(
      c.seen_at, (select min(e.begun_at) from libsql_sync.epochs e)) as stale
    from clock_timestamp() t (now)
  ) h
$$;
comment on function libsql_sync.heartbeat(libsql_sync.chain) is
  'When the whole way from cron to replica last worked: {"at", "ticked_at", "stale", "silent"}. Stale after 25 minutes, unless paused; "silent" says where it ends: at the "cron", whose job last ran at "ticked_at", or behind it, at pg_net or the "worker".';

-- Cheap: no count over a large queue.
create or replace function libsql_sync.status()
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'epoch', c.epoch,
    'position', c.position,
    'paused', c.paused,
    'realtime', c.realtime,
    'heartbeat', libsql_sync.heartbeat(c),
    'refill', c.refill,
    'scrub_rows', c.scrub_rows,
    'oldest_change', (
      select m.enqueued_at from pgmq.q_replicate_data_libsql m
      where m.msg_id >= c.floor order by m.msg_id limit 1),
    'dead_letters', (select count(*) from (select from pgmq.q_replicate_data_libsql_dlq limit 10001) d),
    'last_sync', c.seen_at,
    'syncing', coalesce(c.lease_until > clock_timestamp(), false),
    'replica', c.seen,
    'schema', (select s.hash from libsql_sync.schemas s order by s.generation desc limit 1),
    'walk', (
      select to_jsonb(w) - 'keys' from libsql_sync.walks w
      where w.walk_gen = (c.seen ->> 'walk_gen')::bigint and c.seen ->> 'walk_at' is not null
    ),
    'waiting_walks', (
      select coalesce(jsonb_agg(to_jsonb(w) - 'keys' order by w.walk_gen), '[]')
      from libsql_sync.walks w where w.walk_gen > coalesce((c.seen ->> 'walk_gen')::bigint, 0)
    ),
    'last_full_pass', (
      select to_jsonb(w) - 'keys' from libsql_sync.walks w
      where w.ended_at is not null and w.tables = array(select t.name from libsql_sync.tables t order by t.name)
      order by w.ended_at desc limit 1
    ),
    -- What the catalog shows: triggers that are gone or off, columns and tables.
    'catalog', (
      select coalesce(jsonb_agg(to_jsonb(d)), '[]')
      from libsql_sync.doctor(array['tables', 'triggers']) d where d.level <> 'ok'
    ),
    'last_epoch', (select to_jsonb(e) from libsql_sync.epochs e order by e.generation desc limit 1)
  ) || libsql_sync.queued()
  from libsql_sync.chain c
$$;
comment on function libsql_sync.status() is
  'How things stand, as JSON: epoch, position, pause, heartbeat, lag, dead letters, the replica''s row as last seen, walks, and the doctor''s findings on tables and triggers.';

-- The keys of dead letters are those of rows: they are sent only if asked for.
create or replace function libsql_sync.report(request json)
returns json
language sql
security definer -- the worker's role may call this and touch no table
set search_path = pg_catalog, pg_temp
as $$
  select (libsql_sync.status()
    || case when (request ->> 'alerts')::boolean then libsql_sync.alerts_due(c) else '{}' end
    || jsonb_build_object(
      'now', clock_timestamp(),
      'totals', c.totals,
      'tables', (
        select coalesce(jsonb_agg(jsonb_build_object(
          'name', t.name, 'rows', coalesce(e.rows, 0), 'applied', coalesce(o.applied, 0),
          'drift', coalesce(o.drift, 0), 'verified_at', o.verified_at) order by t.name), '[]')
        from libsql_sync.tables t
        left join libsql_sync.counts o on o.table_name = t.name
        -- The planner's estimate; a partitioned table's is that of its leaves.
        left join lateral (
          select sum(greatest(l.reltuples, 0))::bigint as rows
          from pg_partition_tree(to_regclass(format('public.%I', t.name))) p
          join pg_class l on l.oid = p.relid
          where p.isleaf) e on true),
      'syncs', (
        select coalesce(jsonb_agg(to_jsonb(s) - 'slot' order by s.n desc), '[]')
        from libsql_sync.syncs s),
      'minutes', (
        select coalesce(jsonb_agg(to_jsonb(m) - 'slot' order by m.minute), '[]')
        from libsql_sync.minutes m
        where m.minute > extract(epoch from clock_timestamp()) / 60 - 180),
      'letters', case when (request ->> 'letters')::boolean then (
        select coalesce(jsonb_agg(jsonb_build_object(
          'id', m.msg_id, 'table', m.message -> 'table', 'key', m.message -> 'key',
          'reason', m.message -> 'reason', 'parked_at', m.message -> 'parked_at') order by m.msg_id desc), '[]')
        from (select d.msg_id, d.message from pgmq.q_replicate_data_libsql_dlq d order by d.msg_id desc limit 50) m) end))::json
  from libsql_sync.chain c
$$;
comment on function libsql_sync.report(json) is
$$All that the worker's /status, /metrics and page show.
In: {"letters": boolean?, "alerts": boolean?}
Out: what status() returns, and "now", "totals", "tables", "syncs", "minutes"; with "letters" the newest 50 dead letters; with "alerts" what alerts_due() returns.$$;

create or replace function libsql_sync.request_redrive(request json)
returns json
language sql
security definer -- the worker's role may call this and touch no table
set search_path = pg_catalog, pg_temp
as $$
  select json_build_object('tried', libsql_sync.redrive(
    case when request -> 'ids' is not null then array(
      select i.id::bigint from json_array_elements_text(request -> 'ids') i (id)) end))
$$;
comment on function libsql_sync.request_redrive(json) is
$$Tries dead letters again, for the worker's page.
In: {"ids": [number, ...]?}
Out: {"tried": n}.$$;
