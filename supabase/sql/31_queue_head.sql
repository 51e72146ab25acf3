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

create or replace function libsql_sync.head_tables(lowest bigint, messages_max integer)
returns text[]
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select array(
    select distinct t.name
    from (
      select m.message ->> 'table' as name from pgmq.q_replicate_data_libsql m
      where m.msg_id >= lowest order by m.msg_id limit messages_max
    ) h
    join libsql_sync.tables t on t.name = h.name
    order by t.name)
$$;
comment on function libsql_sync.head_tables(bigint, integer) is
  'The listed tables that the head of the queue is about.';

-- pgmq.read is not used: it promises no order. A message that a version ahead stands on
-- has given away its first keys.
create or replace function libsql_sync.head_keys(
  lowest bigint, ahead libsql_sync.batches, busy text[], keys_max integer
)
returns table (
  table_name text, is_listed boolean, ids bigint[], numbers bigint[], truncated boolean, walk boolean,
  keys jsonb[], places bigint[], cut_count integer, unusable boolean
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
      select t.*, n.n, row_number() over w as number, sum(n.n) over w as upto
      from told t
      cross join lateral (
        select case when jsonb_typeof(t.keys) = 'array' then jsonb_array_length(t.keys) - t.taken else 0 end) n (n)
      window w as (order by t.msg_id rows unbounded preceding)
    ) c
    left join libsql_sync.tables l on l.name collate "C" = c.table_name
    where c.upto <= keys_max or c.upto = c.n
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
  select c.table_name, c.is_listed, c.ids, c.numbers, c.truncated, c.walk, k.keys, k.places, c.cut_count,
    not c.is_listed or c.is_empty or coalesce(k.unusable, false)
  from (
    select c.table_name, c.is_listed, array_agg(c.msg_id order by c.number) as ids,
      array_agg(c.number order by c.number) as numbers, bool_or(c.kind = 'truncate') as truncated,
      bool_or(c.kind = 'walk') as walk, bool_or(c.kind = 'keys' and c.n = 0) as is_empty, max(c.cut_count) as cut_count
    from chosen c group by c.table_name, c.is_listed
  ) c
  left join (
    select k.table_name, bool_or(not k.usable) as unusable,
      array_agg(k.key order by k.place) filter (where k.usable) as keys,
      array_agg(k.place order by k.place) filter (where k.usable) as places
    from keyed k group by k.table_name
  ) k on k.table_name = c.table_name
  order by c.numbers[1]
$$;
comment on function libsql_sync.head_keys(bigint, libsql_sync.batches, text[], integer) is
$$What the head of the queue is about, in msg_id order from the floor, besides what the version "ahead" covers, and but for tables that are "busy". One row a table, by its first message:
"ids" of its messages, and their "numbers" in the head; whether one empties the table, or could not name rows ("walk"); the distinct "keys", each with the "place" where it came first (number * 1,000,000 + place in the message); "cut_count", if the head is one message that has more keys than may be taken; and whether a message is "unusable".$$;

create or replace function libsql_sync.changes_piece(
  is_first boolean, relation oid, table_name text, truncated boolean, rows text[], gone jsonb, broken jsonb
)
returns text[]
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select array[concat(case when not is_first then ',' end, '{"table":', to_json(table_name), ',"truncate":', to_json(truncated), ',"columns":',
      (select coalesce(json_agg(p.name), '[]') from libsql_sync.present_columns(relation, changes_piece.table_name) p), ',"rows":[')]
    || rows
    || array[concat('],"gone":', gone, ',"broken":', broken, '}')]
$$;
comment on function libsql_sync.changes_piece(boolean, oid, text, boolean, text[], jsonb, jsonb) is
  'What a version does to one table, as pieces of JSON: {"table", "truncate", "columns", "rows", "gone", "broken"}.';

-- STABLE: every query of it sees the caller's one snapshot. So a key that comes in many
-- messages is read once, and the order of messages means nothing.
create or replace function libsql_sync.read_changes(
  lowest bigint, ahead libsql_sync.batches, busy text[], keys_max integer, bytes_max bigint,
  out pieces text[], out unusable jsonb, out msg_ids int8multirange, out messages integer,
  out cut_id bigint, out cut_count integer, out truncated text[], out drained boolean, out opens boolean,
  out first bigint
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set timezone = 'UTC' set datestyle = 'ISO, YMD' set intervalstyle = 'postgres'
set bytea_output = 'hex' set extra_float_digits = 1 set lc_monetary = 'C'
set row_security = off set enable_seqscan = off set jit = off
as $$
declare
  until timestamptz;
  t record;
  r record;
  relation oid;
  key_columns text[];
  is_empty boolean;
  taken integer;
  covered bigint[] := '{}';
  unread bigint;
begin
  pieces := '{}';
  unusable := '[]';
  truncated := '{}';
  opens := false;
  for t in select * from libsql_sync.head_keys(lowest, ahead, busy, keys_max) loop
    -- A cold cache makes 50,000 rows slow. Some are read however long the head took.
    until := coalesce(until, clock_timestamp() + interval '1500 milliseconds');
    if t.unusable then
      unusable := unusable || jsonb_build_object(
        'table', case when t.is_listed then t.table_name end,
        'reason', case when t.is_listed then 'malformed message: expected {"v": 2, "table", "keys": [[text, ...], ...]}, found another'
          when t.table_name is null then 'malformed message: expected a table''s name in "table", found none'
          else format('table %s is not in schema.json', to_json(left(t.table_name, 63))) end);
    end if;
    opens := opens or t.walk;
    unread := null;
    taken := 0;
    relation := case when t.is_listed then to_regclass(format('public.%I', t.table_name)) end;
    select l.key into key_columns from libsql_sync.tables l where l.name = t.table_name;
    begin
      if relation is null or libsql_sync.usable_key(relation, key_columns) is null then
        -- It cannot be compared, and is left alone: the walk says so by name.
        opens := opens or t.is_listed;
      else
        is_empty := false;
        if t.truncated then
          execute format('select not exists (select from %s)', relation::regclass) into is_empty;
          -- If rows are there again, to empty the table would show one that never was:
          -- the walk takes out what is gone.
          opens := opens or not is_empty;
        end if;
        if is_empty then
          truncated := truncated || t.table_name;
          pieces := pieces || libsql_sync.changes_piece(pieces = '{}', relation, t.table_name, true, '{}', '[]', '[]');
        elsif t.keys is not null then
          if bytes_max <= 0 or clock_timestamp() > until then
            unread := t.places[1];
          else
            select * into r from libsql_sync.read_rows(relation, t.table_name, t.keys, true, bytes_max, until);
            bytes_max := bytes_max - r.bytes;
            taken := r.n;
            unread := t.places[taken + 1];
            pieces := pieces || libsql_sync.changes_piece(pieces = '{}', relation, t.table_name, false, r.rows, r.gone, r.broken);
          end if;
        end if;
      end if;
    exception when others then
      if libsql_sync.fault_of(sqlstate) = 'call' then raise; end if;
      opens := true;
      unread := null;
    end;
    -- Covered are those that come before the first key that was not read.
    if unread is null and t.cut_count is null then
      covered := covered || t.ids;
    elsif cut_id is null and covered = '{}' and (t.cut_count is not null or unread / 1000000 = t.numbers[1]) then
      cut_id := t.ids[1];
      cut_count := case when unread is null then t.cut_count else unread % 1000000 - 1
        - case when t.ids[1] = ahead.cut_id then ahead.cut_count else 0 end end;
    else
      covered := covered || array(
        select u.id from unnest(t.ids, t.numbers) u (id, number) where u.number < unread / 1000000);
    end if;
  end loop;
  messages := cardinality(covered);
  if messages > 0 then
    cut_id := null;
    cut_count := null;
  end if;
  msg_ids := coalesce((
    select range_agg(i.ids) from (
      select int8range(min(u.id), max(u.id) + 1) as ids
      from (select c.id, row_number() over (order by c.id) as n from unnest(covered) c (id)) u
      group by u.id - u.n
    ) i), '{}');
  -- What is busy counts as well.
  first := (
    select m.msg_id from pgmq.q_replicate_data_libsql m where m.msg_id >= lowest order by m.msg_id limit 1);
  -- None is left: those that it covers are all there are.
  drained := messages = (
    select count(*) from (
      select from pgmq.q_replicate_data_libsql m
      where m.msg_id >= lowest and not m.msg_id <@ coalesce(ahead.msg_ids, '{}')
      order by m.msg_id limit messages + 1) v);
end
$$;
comment on function libsql_sync.read_changes(bigint, libsql_sync.batches, text[], integer, bigint) is
$$The rows that the head of the queue is about, as they are in the caller's snapshot, as far as the bounds on keys, bytes and time go.
"pieces" are JSON texts {"table", "truncate", "columns", "rows", "gone", "broken"}, joined by commas as they are; "gone" are keys that have no row. It covers the messages "msg_ids", or the first "cut_count" keys of the message "cut_id".
"drained": no other message is to be seen. "opens": what keys cannot say makes the walk start over. "first" is the smallest id in the queue.$$;
