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
    -- Of numbers that are not drawn in order, none is below any floor for good. Another
    -- queue has begun another epoch: is_other_queue().
    case when known.floor then c.floor else 0 end,
    case when known.floor and not exists (
      select from libsql_sync.queue_writers() w
      -- A transaction that was prepared gave up the name it had.
      where w = any (c.floor_awaits) or w like '-1/%') then c.floor_next end
  from (select num_nulls(c.floor_queue, libsql_sync.drawn()) = 0) known (floor)
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
  update libsql_sync.chain set walk_wanted = walk_wanted + 1, unqueued = counted, unqueued_until = case
    when counted <> c.unqueued then pg_snapshot_xmax(pg_current_snapshot())
    when pg_snapshot_xmin(pg_current_snapshot()) < c.unqueued_until then c.unqueued_until end
  where id = 1;
  return true;
end
$$;
comment on function libsql_sync.note_unqueued(libsql_sync.chain) is
  'Whether capture counted changes that it could not queue, so that the walk starts over.';

-- TRUNCATE, and ALTER TABLE where it rewrites, leave older snapshots an empty table: each
-- table is locked before the snapshot that reads it is taken. Nobody waits for it.
create or replace function libsql_sync.lock_tables(names text[])
returns text[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  name text;
  held text[] := '{}';
begin
  foreach name in array names loop
    begin
      execute format('lock table public.%I in access share mode nowait', name);
      held := held || name;
    exception
      when lock_not_available then
        null;
      when others then
        if sqlstate like '40%' then raise; end if;
        -- read_changes() finds out what is wrong with the table.
        held := held || name;
    end;
  end loop;
  return held;
end
$$;
comment on function libsql_sync.lock_tables(text[]) is
  'Locks listed tables against being emptied or rewritten, until the transaction ends. Returns those that another transaction does not have locked.';

create or replace function libsql_sync.head_tables(lowest bigint, busy text[], messages_max integer)
returns text[]
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select array(
    select distinct t.name
    from (
      select m.message ->> 'table' as name from pgmq.q_replicate_data_libsql m
      where m.msg_id >= lowest and coalesce(m.message ->> 'table' <> all (busy), true)
      order by m.msg_id limit messages_max
    ) h
    join libsql_sync.tables t on t.name = h.name
    order by t.name)
$$;
comment on function libsql_sync.head_tables(bigint, text[], integer) is
  'The listed tables that the head of the queue is about, but for those that are "busy".';

-- pgmq.read is not used: it promises no order. A message that a version ahead stands on
-- has given away its first keys.
create or replace function libsql_sync.head_keys(
  lowest bigint, ahead libsql_sync.batches, busy text[], keys_max integer
)
returns table (
  table_name text, is_listed boolean, ids bigint[], numbers bigint[], truncate_at bigint, walk_at bigint,
  keys jsonb[], places bigint[], cut_count integer, unusable_at bigint
)
language sql stable
set search_path = pg_catalog, pg_temp
set work_mem = '32MB'
as $$
  with sized as (
    select m.msg_id, m.message,
      -- A key has 16 bytes at least, before it is compressed: messages that could not be
      -- taken are not decompressed.
      greatest(1, coalesce(pg_column_size(m.message), 0)
        * case when pg_column_compression(m.message) is null then 1 else 3 end / 100) as least_keys
    from pgmq.q_replicate_data_libsql m
    where m.msg_id >= lowest and not m.msg_id <@ coalesce(ahead.msg_ids, '{}')
      and coalesce(m.message ->> 'table' <> all (busy), true)
    order by m.msg_id limit keys_max
  ), told as (
    -- A function that is called for each message takes longer than all else; with
    -- "offset 0", each of these is computed once.
    select q.msg_id, (q.message ->> 'table') collate "C" as table_name,
      case when q.message ? 'keys' then 'keys' else libsql_sync.message_kind(q.message) end as kind,
      case when q.message -> 'v' = '2' then q.message -> 'keys' else libsql_sync.message_keys(q.message) end as keys,
      case when q.msg_id = ahead.cut_id then ahead.cut_count else 0 end as taken
    from (
      select s.msg_id, s.message, sum(s.least_keys) over w - s.least_keys as before
      from sized s window w as (order by s.msg_id rows unbounded preceding)
    ) q
    where q.before < keys_max
    offset 0
  ), chosen as materialized (
    select c.*, l.name is not null as is_listed, cardinality(l.key) as key_length,
      -- One message at least; of that one the first keys, if it has more.
      case when c.n > keys_max then keys_max end as cut_count
    from (
      select t.*, n.n, row_number() over w as number, sum(greatest(n.n, 1)) over w as upto
      from told t
      cross join lateral (
        select case when jsonb_typeof(t.keys) = 'array' then jsonb_array_length(t.keys) - t.taken else 0 end) n (n)
      window w as (order by t.msg_id rows unbounded preceding)
    ) c
    left join libsql_sync.tables l on l.name collate "C" = c.table_name
    where c.upto <= keys_max or c.number = 1
  ), keyed as (
    select k.*, k.key_length = jsonb_array_length(case when jsonb_typeof(k.key) = 'array' then k.key else '[]' end)
      and not k.key @? 'strict $[*] ? (@.type() != "string")' as usable
    from (
      select c.table_name, c.key_length, k.key, min(c.number * 1000000 + k.n) as place
      from chosen c
      cross join lateral jsonb_array_elements(
        case when jsonb_typeof(c.keys) = 'array' then c.keys else '[]' end) with ordinality k (key, n)
      where c.is_listed and c.kind = 'keys' and k.n > c.taken and k.n <= c.taken + coalesce(c.cut_count, c.n)
      group by c.table_name, c.key_length, k.key
    ) k
  )
  select c.table_name, c.is_listed, c.ids, c.numbers, c.truncate_at, c.walk_at, k.keys, k.places, c.cut_count,
    case when c.is_listed then least(c.empty_at, k.unusable_at) else c.numbers[1] end
  from (
    select c.table_name, c.is_listed, array_agg(c.msg_id order by c.number) as ids,
      array_agg(c.number order by c.number) as numbers, min(c.number) filter (where c.kind = 'truncate') as truncate_at,
      min(c.number) filter (where c.kind = 'walk') as walk_at,
      min(c.number) filter (where c.kind = 'keys' and c.n = 0) as empty_at, max(c.cut_count) as cut_count
    from chosen c group by c.table_name, c.is_listed
  ) c
  left join (
    select k.table_name, min(k.place / 1000000) filter (where not k.usable) as unusable_at,
      array_agg(k.key order by k.place) filter (where k.usable) as keys,
      array_agg(k.place order by k.place) filter (where k.usable) as places
    from keyed k group by k.table_name
  ) k on k.table_name = c.table_name
  order by c.numbers[1]
$$;
comment on function libsql_sync.head_keys(bigint, libsql_sync.batches, text[], integer) is
$$What the head of the queue is about, in msg_id order from the floor, besides what the version "ahead" covers, and but for tables that are "busy". One row a table, by its first message:
"ids" of its messages, and their "numbers" in the head; the number of the first that empties the table ("truncate_at"), that could not name rows ("walk_at"), and that is "unusable"; the distinct "keys", each with the "place" where it came first (number * 1,000,000 + place in the message); "cut_count", if the last message of the head has more keys than may be taken.$$;
