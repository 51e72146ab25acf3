-- Which rows the head of the queue is about, as they are: what claim() hands out of changes.
-- The messages come from head_keys() (31_queue_head), the rows from read_rows()
-- (41_read_rows).

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
  covered bigint[] := '{}';
  unread bigint;
  -- The number of the first message that is not covered.
  reach bigint;
begin
  pieces := '{}';
  unusable := '[]';
  truncated := '{}';
  opens := false;
  for t in select * from libsql_sync.head_keys(lowest, ahead, busy, keys_max) loop
    -- A cold cache makes 50,000 rows slow. Some are read however long the head took.
    until := coalesce(until, clock_timestamp() + interval '1500 milliseconds');
    unread := null;
    is_empty := false;
    relation := case when t.is_listed then to_regclass(format('public.%I', t.table_name)) end;
    select l.key into key_columns from libsql_sync.tables l where l.name = t.table_name;
    begin
      if relation is null or libsql_sync.usable_key(relation, key_columns) is null then
        -- It cannot be compared, and is left alone: the walk says so by name.
        opens := opens or t.is_listed;
      else
        if t.truncate_at is distinct from null then
          execute format('select not exists (select from %s)', relation::regclass) into is_empty;
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
            unread := t.places[r.n + 1];
            pieces := pieces || libsql_sync.changes_piece(pieces = '{}', relation, t.table_name, false, r.rows, r.gone, r.broken);
          end if;
        end if;
      end if;
    exception when others then
      if libsql_sync.fault_of(sqlstate) = 'call' then raise; end if;
      opens := true;
      unread := null;
    end;
    -- Covered are those that come before the first key that was not read. A message that
    -- has too many keys is the last of the head.
    if t.cut_count is distinct from null then
      unread := coalesce(unread, t.numbers[cardinality(t.numbers)] * 1000000 + t.cut_count + 1
        + case when t.ids[cardinality(t.ids)] = ahead.cut_id then ahead.cut_count else 0 end);
    end if;
    reach := coalesce(unread / 1000000, t.numbers[cardinality(t.numbers)] + 1);
    if t.unusable_at < reach then
      unusable := unusable || jsonb_build_object(
        'table', case when t.is_listed then t.table_name end,
        'reason', case when t.is_listed then 'malformed message: expected {"v": 2, "table", "keys": [[text, ...], ...]}, found another'
          when t.table_name is null then 'malformed message: expected a table''s name in "table", found none'
          else format('table %s is not in schema.json', to_json(left(t.table_name, 63))) end);
    end if;
    -- If rows are there again after a TRUNCATE, to empty the table would show one that
    -- never was: the walk takes out what is gone.
    opens := opens or t.is_listed and (
      coalesce(t.walk_at < reach, false) or coalesce(t.truncate_at < reach and not is_empty, false));
    if unread is null then
      covered := covered || t.ids;
    elsif cut_id is null and covered = '{}' and reach = t.numbers[1] then
      cut_id := t.ids[1];
      cut_count := unread % 1000000 - 1
        - case when t.ids[1] = ahead.cut_id then ahead.cut_count else 0 end;
    else
      covered := covered || array(
        select u.id from unnest(t.ids, t.numbers) u (id, number) where u.number < reach);
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
