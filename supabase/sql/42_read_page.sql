-- The page that rides on a batch, read in the batch's own snapshot like every other row.
-- A table is walked in two halves: forward in the source's
-- order, then back over the replica's keys, to find rows that the source does not have.

create or replace function libsql_sync.next_place(w libsql_sync.walks, at jsonb, place jsonb)
returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    -- A table that this epoch created empty can hold no row that the source lacks.
    when place ->> 'half' = 'forward' and not coalesce((at ->> 'fresh')::jsonb ? (place ->> 'table'), false)
      then jsonb_build_object('table', place -> 'table', 'half', 'back')
    else (
      select jsonb_build_object('table', t.name, 'half', 'forward')
      from unnest(w.tables) with ordinality t (name, n)
      where t.n > array_position(w.tables, place ->> 'table')
      order by t.n limit 1
    )
  end
$$;
comment on function libsql_sync.next_place(libsql_sync.walks, jsonb, jsonb) is
  'Where a walk continues after a half of a table, or null at its end. In: the walk, the replica''s row, the place.';

-- What the replica itself refused would make the walk stand still there. A redrive tries
-- what was refused before it.
create or replace function libsql_sync.open_keys(w libsql_sync.walks, table_name text)
returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_agg(jsonb_build_object(
    'key', d.message -> 'key',
    'skip', d.message ->> 'reason' like 'libSQL refused%'
      and (w.kind <> 'redrive' or d.msg_id > w.letters_until))), '[]')
  from (
    select m.msg_id, m.message, sum(octet_length((m.message -> 'key')::text)) over (order by m.msg_id) as bytes
    from (
      select m.msg_id, m.message from pgmq.q_replicate_data_libsql_dlq m
      where m.message ->> 'table' = table_name and jsonb_typeof(m.message -> 'key') = 'array'
      order by m.msg_id
      limit 10000
    ) m
  ) d
  where d.bytes <= 1000000
$$;
comment on function libsql_sync.open_keys(libsql_sync.walks, text) is
  'The keys of a table that have an open dead letter, [{"key", "skip"}, ...]: with "skip" the walk leaves the row out.';

create or replace function libsql_sync.is_large(relation oid)
returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(sum(greatest(c.reltuples, 0)) > 800000
    or sum(pg_table_size(c.oid)) > 400 * 1024 * 1024, false)
  from pg_class c
  where c.oid = relation and c.relkind = 'r'
    or c.oid in (select t.relid from pg_partition_tree(relation) t where t.isleaf)
$$;
comment on function libsql_sync.is_large(oid) is
  'Whether a table is too large for its indexes to be built in one transaction of the replica: then they stay on while it is filled.';

-- A place that was edited by hand would end the walk early, and so would a key with other
-- columns than the page before had: both start over.
create or replace function libsql_sync.place_of(w libsql_sync.walks, at jsonb)
returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce((
    select p.place
    from (select (at ->> 'walk_at')::jsonb) p (place)
    left join libsql_sync.tables t on t.name = p.place ->> 'table'
    where (at ->> 'walk_gen')::bigint = w.walk_gen
      and p.place ->> 'table' = any (w.tables)
      and (p.place ->> 'half' = 'keys') = (w.keys is not null)
      -- A table that is listed no more has no place, and is passed over.
      and (t.name is null or jsonb_typeof(p.place -> 'after') is distinct from 'array'
        or jsonb_array_length(p.place -> 'after') = case p.place ->> 'half'
          when 'keys' then 1
          when 'back' then cardinality(t.key)
          else (
            select i.indnkeyatts from pg_index i
            where i.indexrelid = libsql_sync.usable_key(to_regclass(format('public.%I', t.name)), t.key)
          ) end)
  ), jsonb_build_object('table', w.tables[1],
    'half', case when w.keys is null then 'forward' else 'keys' end))
$$;
comment on function libsql_sync.place_of(libsql_sync.walks, jsonb) is
  'Where a walk stands: the place in the replica''s row, or the walk''s start if the row has none of this walk.';

-- A TRUNCATE, or an ALTER TABLE that rewrites, leaves older snapshots an empty table: a
-- page of one that began before it, and read after it, would take every row for gone.
create or replace function libsql_sync.hold_page(w libsql_sync.walks, at jsonb)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
-- The chain must not wait for another transaction's lock on a table, nor that one for
-- the chain.
set lock_timeout = '200ms'
as $$
begin
  execute format('lock table public.%I in access share mode',
    libsql_sync.place_of(w, at) ->> 'table');
  return true;
exception
  when lock_not_available then
    return false;
  when others then
    if sqlstate like '40%' then raise; end if;
    -- read_page() reports what is wrong with the table.
    return true;
end
$$;
comment on function libsql_sync.hold_page(libsql_sync.walks, jsonb) is
  'Locks the table of the next page, before the snapshot that reads it is taken. Returns false if another transaction has the table locked.';

create or replace function libsql_sync.count_differs(relation oid, table_name text, replica_count bigint, is_level boolean)
returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  here bigint;
begin
  -- Every row that is here is there as well, by the half before: if there are as many,
  -- there are no others. Not so if a row was parked, and may be missing; nor if there
  -- are messages, as the replica's count is of another time then.
  if is_level and not libsql_sync.is_large(relation) and not exists (
    -- A message that names no table may have been of this one; a letter that was
    -- discarded left its row missing as well.
    select from pgmq.q_replicate_data_libsql_dlq d
    where coalesce(d.message ->> 'table', table_name) = table_name
    union all
    select from pgmq.a_replicate_data_libsql_dlq d
    where coalesce(d.message ->> 'table', table_name) = table_name
  ) then
    execute format('select count(*) from %s', relation::regclass) into here;
  end if;
  return here is distinct from replica_count;
end
$$;
comment on function libsql_sync.count_differs(oid, text, bigint, boolean) is
  'Whether the replica may have rows of a table that are not here: false if counting shows that it has none, so that its keys need not be compared.';

create or replace function libsql_sync.page_answer(
  w libsql_sync.walks, at jsonb, place jsonb, relation oid, listed libsql_sync.tables, columns text[],
  n integer, ghosts jsonb, broken jsonb, last boolean, after jsonb, counted boolean, failed text
)
returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  upto jsonb;
  -- Tables of this walk that could not be read. A table that does not exist does not
  -- count.
  unread constant integer := coalesce((place ->> 'unread')::integer, 0)
    + case when failed <> '42P01' then 1 else 0 end;
begin
  upto := case when last then libsql_sync.next_place(w, at, case when failed is null then place
      -- What cannot be compared is left alone, both ways.
      else jsonb_build_object('table', place -> 'table', 'half', 'back') end)
    else jsonb_build_object('table', place -> 'table', 'half', place -> 'half', 'after', after) end
    || jsonb_build_object('unread', unread)
    || case when counted then '{"counted": true}'::jsonb else '{}' end
    || case when w.kind = 'scrub' then jsonb_build_object('rows', (select c.scrub_rows from libsql_sync.chain c)) else '{}' end;
  return jsonb_build_object(
    'walk_gen', w.walk_gen, 'kind', w.kind, 'repair', w.repair,
    'table', place -> 'table', 'half', place -> 'half', 'starts', not place ? 'after' and place ->> 'half' <> 'back',
    'rows', n, 'last', last, 'large', libsql_sync.is_large(relation),
    'columns', coalesce(columns, '{}'),
    'ghosts', ghosts, 'broken', broken,
    'open', libsql_sync.open_keys(w, listed.name),
    -- The tables may be others since the walk was asked for.
    'upto', upto::text, 'closes', upto is null and w.closes and unread = 0
      and w.tables @> array(select t.name from libsql_sync.tables t))
    || case when failed is null then '{}' else jsonb_build_object('failed', failed) end;
end
$$;
comment on function libsql_sync.page_answer(libsql_sync.walks, jsonb, jsonb, oid, libsql_sync.tables, text[], integer, jsonb, jsonb, boolean, jsonb, boolean, text) is
  'A page''s answer but for its cells: what was read, and "upto", where the page leaves the walk.';

create or replace function libsql_sync.read_page(w libsql_sync.walks, at jsonb, request jsonb, is_level boolean)
returns text[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
set timezone = 'UTC' set datestyle = 'ISO, YMD' set intervalstyle = 'postgres'
set bytea_output = 'hex' set extra_float_digits = 1 set lc_monetary = 'C'
set row_security = off
-- No statistics, or stale ones, may turn a page into a sort of the whole table.
set enable_sort = off set enable_seqscan = off set jit = off
-- The chain must not wait for another transaction's lock on a table, nor that one for
-- the chain.
set lock_timeout = '200ms'
as $$
declare
  until constant timestamptz := clock_timestamp() + interval '1500 milliseconds';
  place jsonb := libsql_sync.place_of(w, at);
  listed libsql_sync.tables;
  relation oid;
  r record;
  rows_max integer := case when w.kind = 'scrub' then least((request ->> 'rows')::integer, (select c.scrub_rows from libsql_sync.chain c))
    else (request ->> 'rows')::integer end;
  bytes_max bigint := request ->> 'bytes';
  columns text[];
  place_after text[];
  keys jsonb[];
  places jsonb[];
  done integer;
  pieces text[] := '{}';
  ghosts jsonb := '[]';
  broken jsonb := '[]';
  after jsonb;
  -- Whether the replica has another number of rows, so that its keys are needed.
  counted boolean := false;
  n integer := 0;
  last boolean := true;
  failed text;
begin
  select * into listed from libsql_sync.tables t where t.name = place ->> 'table';
  -- A table may be listed no more since the walk was asked for.
  relation := case when listed.name is not null then to_regclass(format('public.%I', listed.name)) end;
  begin
    if relation is null then
      failed := '42P01';
    elsif libsql_sync.usable_key(relation, listed.key) is null then
      failed := '42703';
    elsif place ->> 'half' = 'back' then
      if request #>> '{keys,at}' is distinct from at ->> 'walk_at' then
        return null;
      end if;
      if request #> '{keys,count}' is not null then
        counted := libsql_sync.count_differs(relation, listed.name, (request #>> '{keys,count}')::bigint, is_level);
        last := not counted;
      else
        keys := array(select k.value from jsonb_array_elements(request #> '{keys,keys}') k);
        select * into r from libsql_sync.read_rows(relation, listed.name, keys, false, 1000000000, 'infinity');
        n := r.n;
        ghosts := r.gone;
        last := (request #>> '{keys,last}')::boolean;
        after := request #> '{keys,after}';
      end if;
    else
      columns := array(select p.name from libsql_sync.present_columns(relation, listed.name) p);
      if place ->> 'half' = 'keys' then
        -- Its place is how many of the keys are done.
        done := coalesce((place #>> '{after,0}')::integer, 0);
        keys := array(
          select k.value from jsonb_array_elements(w.keys) with ordinality k (value, i) where k.i > done order by k.i limit rows_max);
        select * into r from libsql_sync.read_rows(relation, listed.name, keys, true, bytes_max, until);
        last := done + r.n >= jsonb_array_length(w.keys);
        after := jsonb_build_array((done + r.n)::text);
      else
        place_after := (
          select array_agg(v order by i) from jsonb_array_elements_text(place -> 'after') with ordinality e (v, i));
        begin
          select * into r from libsql_sync.read_range(relation, listed.name, place_after, rows_max, bytes_max);
          last := r.is_last;
          after := to_jsonb(r.reached);
        exception when others then
          if libsql_sync.fault_of(sqlstate) <> 'row' then raise; end if;
          -- One row of them cannot be read: by their keys, the others can.
          execute format('select array_agg(coalesce(q.text::jsonb, to_jsonb(q.cells))), array_agg(to_jsonb(q.place)) from (%s) q',
            libsql_sync.rows_sql(relation, listed.name, false))
          into keys, places using place_after, rows_max + 1;
          select * into r from libsql_sync.read_rows(relation, listed.name, keys[1 : rows_max], true, bytes_max, until);
          last := r.n = cardinality(keys);
          after := places[r.n];
        end;
      end if;
      n := r.n;
      pieces := r.rows;
      ghosts := r.gone;
      broken := r.broken;
    end if;
  exception when others then
    -- One table that cannot be read must not stop the others, nor the queue.
    if sqlstate like '40%' then raise; end if;
    -- Another transaction has it locked: a page of it comes later.
    if sqlstate = '55P03' then return null; end if;
    failed := sqlstate;
    last := true;
  end;
  if failed is not null then
    pieces := '{}';
    ghosts := '[]';
    broken := '[]';
    n := 0;
  end if;
  return array['{"cells":['] || pieces || array['],' || substr(libsql_sync.page_answer(
    w, at, place, relation, listed, columns, n, ghosts, broken, last, after, counted, failed)::text, 2)];
end
$$;
comment on function libsql_sync.read_page(libsql_sync.walks, jsonb, jsonb, boolean) is
$$The page that a walk reads next, in pieces of one JSON text. STABLE: it sees the snapshot of the claim that reads the queue.
In: the walk; the replica's row; {"rows", "bytes", "keys": {"at", "keys", "after", "last"} | {"at", "count"}?}; whether the replica stands at this very snapshot but for the page.
Out: {"cells": [[text, ...], ...], "walk_gen", "kind", "repair", "table", "half", "starts", "rows", "last", "large", "columns", "ghosts", "broken", "open", "upto", "closes", "failed"?}, or null: no page now.$$;
