-- Reading the queue. Second step of the data's way: claim() takes the head of the queue in
-- msg_id order, from the floor on. The floor is an id below which no message is or can
-- appear: without it each claim would read the dead rows of all that was ever queued, for
-- as long as an old snapshot keeps VACUUM from them.

-- An id is drawn under the lock that an INSERT takes on the queue first and keeps until
-- its transaction ends.
create or replace function libsql_sync.queue_writers()
returns setof text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select l.virtualtransaction from pg_locks l
  where l.locktype = 'relation' and l.mode = 'RowExclusiveLock' and l.granted
    and l.database = (select d.oid from pg_database d where d.datname = current_database())
    and l.relation = 'pgmq.q_replicate_data_libsql'::regclass
    and l.pid is distinct from pg_backend_pid()
$$;
comment on function libsql_sync.queue_writers() is
  'The transactions that may have put a message into the queue and are still open.';

-- Null if lower ids may still be undrawn: a session that draws many at once keeps some
-- for later.
create or replace function libsql_sync.drawn()
returns bigint
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select pg_sequence_last_value(s.seqrelid) from pg_sequence s
  where s.seqrelid = pg_get_serial_sequence('pgmq.q_replicate_data_libsql', 'msg_id')::regclass
    and s.seqcache = 1 and s.seqincrement = 1 and not s.seqcycle
$$;
comment on function libsql_sync.drawn() is
  'The highest msg_id that the queue has drawn, or null if that does not mean that all lower ones are drawn as well.';

create or replace function libsql_sync.floor(c libsql_sync.chain, out lowest bigint, out settled bigint)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select
    -- The numbers of another queue, or of one that began again, are below any floor.
    case when known.is_ours then c.floor else 0 end,
    case when known.is_ours and not exists (
      select from libsql_sync.queue_writers() w
      -- A transaction that was prepared gave up the name it had.
      where w = any (c.floor_awaits) or w like '-1/%') then c.floor_next end
  from (
    select coalesce(c.floor_queue = 'pgmq.q_replicate_data_libsql'::regclass and libsql_sync.drawn() + 1 >= c.floor, false)
  ) known (is_ours)
$$;
comment on function libsql_sync.floor(libsql_sync.chain) is
  'Where the queue is read from, and how far that may rise: "settled" is what was recorded before, once all transactions have ended that could still reveal a smaller id.';

-- The ids drawn are read before the transactions that may hold them.
create or replace function libsql_sync.keep_floor(lowest bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  next bigint := libsql_sync.drawn() + 1;
  awaits text[] := array(select w from libsql_sync.queue_writers() w);
begin
  update libsql_sync.chain set floor = lowest, floor_next = next, floor_awaits = awaits,
    floor_queue = 'pgmq.q_replicate_data_libsql'::regclass
  where id = 1;
end
$$;
comment on function libsql_sync.keep_floor(bigint) is
  'Records the floor, and how far it may rise next.';

-- pgmq.read is not used: it promises no order. Texts of some MB take long to copy: each
-- step hands on as few as it can.
create or replace function libsql_sync.queue_head(
  lowest bigint, besides int8multirange, messages_max integer, bytes_max integer,
  out envelopes text, out msg_ids int8multirange, out messages integer, out drained boolean, out uncaptured boolean
)
language sql stable
set search_path = pg_catalog, pg_temp
set work_mem = '32MB'
as $$
  with rendered as materialized (
    select * from (
      select r.*, row_number() over w as n, sum(octet_length(r.text)) over w as bytes
      from (
        select m.msg_id, m.field, (m.message ->> 'table') collate "C" as table_name,
          m.field is null and m.message ? 'failed' as uncaptured,
          case when m.field is not null then m.message -> 'columns' end as columns,
          case when m.field is not null then (m.message -> m.field -> 0)::text
            else libsql_sync.envelope(m.message) end as text
        from (
          select q.msg_id, q.message,
            -- Where its one row lies, if it has no more than that.
            case when pg_column_size(q.message) <= 3000 and pg_column_compression(q.message) is null
              and q.message -> 'v' = '1'
              and jsonb_typeof(q.message -> 'table') = 'string'
              and not q.message ?| '{deletes,oversize,truncate,failed}'
              and jsonb_typeof(q.message -> 'columns') = 'array'
            then case
              when jsonb_typeof(q.message -> 'updates' -> 0) = 'array'
                and q.message #> '{updates,1}' is null and not q.message ? 'rows' then 'updates'
              when jsonb_typeof(q.message -> 'rows' -> 0) = 'array'
                and q.message #> '{rows,1}' is null and not q.message ? 'updates' then 'rows'
            end end as field
          from (
            select l.msg_id, l.message, sum(l.bytes) over w - l.bytes as bytes_before
            from (
              -- Nothing is decompressed to be left: three is what JSON is compressed to.
              select m.msg_id, m.message, coalesce(pg_column_size(m.message), 0)
                * case when pg_column_compression(m.message) is null then 1 else 3 end as bytes
              from pgmq.q_replicate_data_libsql m
              where m.msg_id >= lowest and not m.msg_id <@ besides
              order by m.msg_id limit messages_max
            ) l
            window w as (order by l.msg_id rows unbounded preceding)
          ) q
          where q.bytes_before <= 2 * bytes_max::bigint
          order by q.msg_id
          offset 0
        ) m
        order by m.msg_id
        offset 0
      ) r
      window w as (order by r.msg_id rows unbounded preceding)
    ) r
    where r.bytes <= bytes_max or r.n = 1
  ), kinds as materialized (
    select r.table_name, r.columns, r.field, min(r.msg_id) as first,
      count(*) over t as of_table, row_number() over t - 1 as n,
      string_agg(r.msg_id::text, '","' order by r.msg_id) as ids,
      string_agg(r.text, ',' order by r.msg_id) as texts
    from rendered r
    where r.field is not null
    group by r.table_name, r.columns, r.field
    window t as (partition by r.table_name order by min(r.msg_id) rows between unbounded preceding and unbounded following)
  ), mixed as materialized (
    -- Tables that have other messages as well.
    select distinct r.table_name from rendered r
    where r.field is null and r.table_name is not null
  ), parts as (
    select k.first, concat('[["', k.ids, '"],{"v":1,"table":', to_json(k.table_name),
      ',"columns":', k.columns, ',"', k.field, '":[', k.texts, ']}]') as part
    from kinds k
    where k.of_table = 1 and k.table_name not in (select m.table_name from mixed m)
    union all
    select o.first, concat('[["', o.ids, '"],{"v":1,"table":', to_json(o.table_name),
      ',"kinds":', o.kinds, ',"of":[', o.places, '],"rows":[', o.texts, ']}]')
    from (
      select r.table_name, min(r.msg_id) as first,
        (select json_agg(json_build_object('columns', l.columns, 'field', l.field) order by l.n)
         from kinds l where l.table_name = r.table_name) as kinds,
        string_agg(k.n::text, ',' order by r.msg_id) as places,
        string_agg(r.msg_id::text, '","' order by r.msg_id) as ids,
        string_agg(r.text, ',' order by r.msg_id) as texts
      from rendered r
      join kinds k on k.table_name = r.table_name and k.columns = r.columns and k.field = r.field
      where k.of_table > 1 and k.table_name not in (select m.table_name from mixed m)
      group by r.table_name
    ) o
    union all
    select r.msg_id, case when r.field is null then concat('["', r.msg_id, '",', r.text, ']')
      else concat('["', r.msg_id, '",{"v":1,"table":', to_json(r.table_name),
        ',"columns":', r.columns, ',"', r.field, '":[', r.text, ']}]') end
    from rendered r
    where r.field is null or r.table_name in (select m.table_name from mixed m)
  )
  select
    (select string_agg(p.part, ',' order by p.first) from parts p),
    coalesce((
      select range_agg(s.ids) from (
        select int8range(min(r.msg_id), max(r.msg_id) + 1) as ids
        from rendered r group by r.msg_id - r.n
      ) s
    ), '{}'),
    (select count(*)::integer from rendered r),
    (
      select m.msg_id from pgmq.q_replicate_data_libsql m
      where m.msg_id >= coalesce((select max(r.msg_id) + 1 from rendered r), lowest)
        and not m.msg_id <@ besides
      order by m.msg_id limit 1
    ) is null,
    -- Capture could not render what a statement changed.
    (select coalesce(bool_or(r.uncaptured), false) from rendered r)
$$;
comment on function libsql_sync.queue_head(bigint, int8multirange, integer, integer) is
$$The head of the queue from the floor on in msg_id order, besides what is handed out, as far as the bounds on messages and bytes go (one message at least), and whether that was all. STABLE: it sees the caller's one snapshot. "uncaptured" says whether one of them reports that capture failed.
"envelopes" are JSON texts [id, message], joined by commas. If all that a table has in them are messages of one row each, they come as one, [[id, ...], message], with a row for each id: their columns are named once. If these differ, "kinds" lists them, and "of" says which each row has.$$;

-- Until the transactions that may have made such a change have ended, its rows are not to
-- be seen: the walk starts over with each batch until then. Called after the batch's
-- snapshot was taken: what that snapshot sees was counted before.
create or replace function libsql_sync.note_unqueued(c libsql_sync.chain)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  counted bigint := coalesce(pg_sequence_last_value('libsql_sync.unqueued'), 0);
begin
  if counted = c.unqueued and c.unqueued_until is null then
    return false;
  end if;
  update libsql_sync.chain set reopen = true, unqueued = counted, unqueued_until = case
    when counted <> c.unqueued then pg_snapshot_xmax(pg_current_snapshot())
    when pg_snapshot_xmin(pg_current_snapshot()) < c.unqueued_until then c.unqueued_until end
  where id = 1;
  return true;
end
$$;
comment on function libsql_sync.note_unqueued(libsql_sync.chain) is
  'Whether capture counted changes that it could not queue, so that the walk starts over.';

-- The join by bounds uses the index; "msg_id <@ multirange" would scan.
create or replace function libsql_sync.recorded(
  b libsql_sync.batches, out envelopes text, out messages integer
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if b.state = 'pending' then
    select string_agg('["' || m.msg_id || '",' || libsql_sync.envelope(m.message) || ']', ',' order by m.msg_id),
      count(*)
    into envelopes, messages
    from unnest(b.msg_ids) r
    join pgmq.q_replicate_data_libsql m on m.msg_id >= lower(r) and m.msg_id < upper(r);
  else
    select string_agg('["' || m.msg_id || '",' || libsql_sync.envelope(m.message) || ']', ',' order by m.msg_id),
      count(*)
    into envelopes, messages
    from unnest(b.msg_ids) r
    join pgmq.a_replicate_data_libsql m on m.msg_id >= lower(r) and m.msg_id < upper(r);
  end if;
end
$$;
comment on function libsql_sync.recorded(libsql_sync.batches) is
  'The messages of a recorded batch again: pending ones are in the queue, acked ones in the archive.';
