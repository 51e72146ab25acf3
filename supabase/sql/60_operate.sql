-- What an operator calls in SQL; deno task dlq, backfill, verify do the same from outside.
-- doctor() is in 63, status() in 67, realtime() in 71, uninstall() in 62.

create or replace function libsql_sync.pause()
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$ update libsql_sync.chain set paused = true where id = 1 $$;
comment on function libsql_sync.pause() is
  'Holds the worker off; changes stay queued. A sync that is running ends first.';

create or replace function libsql_sync.resume()
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$ update libsql_sync.chain set paused = false where id = 1 $$;
comment on function libsql_sync.resume() is
  'Lets the worker go on after pause().';

create or replace function libsql_sync.scrub(rows_per_sync integer)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if rows_per_sync is null or rows_per_sync not between 0 and 20000 then
    raise exception 'Cannot set the scrub: expected 0 to 20000 rows a sync, found %', rows_per_sync;
  end if;
  update libsql_sync.chain set scrub_rows = rows_per_sync where id = 1;
end
$$;
comment on function libsql_sync.scrub(integer) is
  'Sets how many rows the background check compares in one sync, 0 to 20000; 0 turns it off.';

create or replace function libsql_sync.backfill(table_name text default null)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  answer json := libsql_sync.request_walk(json_build_object('kind', 'backfill', 'table', table_name));
begin
  if answer ->> 'walk_gen' is null then
    raise exception 'Cannot backfill table %: expected one of schema.json', table_name;
  end if;
  return (answer ->> 'walk_gen')::bigint;
end
$$;
comment on function libsql_sync.backfill(text) is
  'Asks for a walk that compares every cell and repairs what differs: of one table, or of all. Returns its walk_gen; the next syncs do it.';

create or replace function libsql_sync.verify(repair boolean default false, table_name text default null)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  answer json := libsql_sync.request_walk(json_build_object(
    'kind', 'verify', 'table', table_name, 'repair', repair));
begin
  if answer ->> 'walk_gen' is null then
    raise exception 'Cannot verify table %: expected one of schema.json', table_name;
  end if;
  return (answer ->> 'walk_gen')::bigint;
end
$$;
comment on function libsql_sync.verify(boolean, text) is
  'Asks for a walk that compares every cell and counts what differs; with repair it repairs as well. Of one table, or of all. Returns its walk_gen.';

create or replace function libsql_sync.dead_letters()
returns table (id bigint, parked_at timestamptz, table_name text, key jsonb, reason text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select m.msg_id, (m.message ->> 'parked_at')::timestamptz, m.message ->> 'table',
    nullif(m.message -> 'key', 'null'), m.message ->> 'reason'
  from pgmq.q_replicate_data_libsql_dlq m
  order by m.msg_id
$$;
comment on function libsql_sync.dead_letters() is
  'The open dead letters: the rows that the replica lacks, or has as they were before, and why.';

create or replace function libsql_sync.row_of_letter(letter bigint)
returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
set timezone = 'UTC' set datestyle = 'ISO, YMD' set intervalstyle = 'postgres'
set bytea_output = 'hex' set extra_float_digits = 1 set lc_monetary = 'C'
set row_security = off
as $$
declare
  d record;
  relation oid;
  r record;
begin
  select l.table_name, l.key into d from libsql_sync.dead_letters() l where l.id = letter;
  select to_regclass(format('public.%I', t.name)) into relation from libsql_sync.tables t where t.name = d.table_name;
  if relation is null or d.key is null then
    return null;
  end if;
  select * into r from libsql_sync.read_rows(relation, d.table_name, array[d.key], true, 1, 'infinity');
  if r.broken <> '[]' then
    return jsonb_build_object('unreadable', r.broken #> '{0,reason}');
  end if;
  return (
    select jsonb_object_agg(c.name, v.value)
    from (select p.name, row_number() over () as n from libsql_sync.present_columns(relation, d.table_name) p) c
    join jsonb_array_elements(r.rows[1]::jsonb) with ordinality v (value, n) on v.n = c.n);
end
$$;
comment on function libsql_sync.row_of_letter(bigint) is
  'The row of an open dead letter as it is now, {column: text, ...}, or {"unreadable": reason}, or null if there is none. It is read for whoever asks, and stored nowhere.';

-- A letter without a key brings its whole table.
create or replace function libsql_sync.redrive(ids bigint[] default null)
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  tried integer := 0;
  r record;
begin
  for r in
    select d.table_name, count(*) as letters,
      jsonb_agg(distinct d.key) filter (where d.key is not null) as keys,
      bool_or(d.key is null) as whole
    from libsql_sync.dead_letters() d
    join libsql_sync.tables t on t.name = d.table_name
    where ids is null or d.id = any (ids)
    group by d.table_name
  loop
    tried := tried + r.letters;
    if r.keys is not null then
      insert into libsql_sync.walks (kind, tables, keys, repair, closes, reason, letters_until)
      values ('redrive', array[r.table_name], r.keys, true, false, 'asked for', libsql_sync.newest_letter());
    end if;
    if r.whole then
      perform libsql_sync.backfill(r.table_name);
    end if;
  end loop;
  return tried;
end
$$;
comment on function libsql_sync.redrive(bigint[]) is
  'Tries dead letters again, those named or all: the row as it is now. Returns how many are tried; those of tables that are not listed cannot be.';

create or replace function libsql_sync.discard(ids bigint[] default null)
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  gone integer;
begin
  with d as (
    delete from pgmq.q_replicate_data_libsql_dlq q
    where ids is null or q.msg_id = any (ids)
    returning q.msg_id, q.read_ct, q.enqueued_at, q.vt, q.message
  )
  insert into pgmq.a_replicate_data_libsql_dlq (msg_id, read_ct, enqueued_at, vt, message)
  select * from d;
  get diagnostics gone = row_count;
  return gone;
end
$$;
comment on function libsql_sync.discard(bigint[]) is
  'Discards dead letters, those named or all; the rows stay as they are in the replica until their next change or the next walk. Returns how many. The letters stay in the archive for 30 days.';
