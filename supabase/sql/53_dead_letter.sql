-- Dead letters: one for each row that could not be applied, {"table", "key", "reason", ...},
-- and never a value. They are filed and closed when a version settles (54_settle), which
-- is undone when it is put back; a walk that repaired a row closes its letter
-- (44_walk_results), and an operator lists, tries again or discards them (60_operate).

create or replace function libsql_sync.covered_keys(b libsql_sync.batches)
returns table (table_name text, key jsonb)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select m.message ->> 'table', k.key
  from (
    select m.message, null::integer as keys_max
    from unnest(b.msg_ids) r
    join pgmq.q_replicate_data_libsql m on m.msg_id >= lower(r) and m.msg_id < upper(r)
    union all
    select m.message, b.cut_count from pgmq.q_replicate_data_libsql m where m.msg_id = b.cut_id
  ) m
  cross join lateral libsql_sync.message_keys(m.message) l (keys)
  cross join lateral jsonb_array_elements(
    case when jsonb_typeof(l.keys) = 'array' then l.keys else '[]' end) with ordinality k (key, n)
  where m.keys_max is null or k.n <= m.keys_max
$$;
comment on function libsql_sync.covered_keys(libsql_sync.batches) is
  'The keys that a version covers, whose messages are in the queue.';

create or replace function libsql_sync.letters_held(b libsql_sync.batches)
returns setof bigint
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select d.msg_id from pgmq.q_replicate_data_libsql_dlq d
  join (
    -- Nearly always there is no letter: then no key is looked at.
    select k.table_name, k.key, null as reason from libsql_sync.covered_keys(b) k
    where exists (select from pgmq.q_replicate_data_libsql_dlq)
    union
    -- Of messages that name no row there is one letter for each reason.
    select p ->> 'table', p -> 'key', case when p -> 'key' = 'null' then p ->> 'reason' end
    from jsonb_array_elements(b.parked) p
  ) h on h.key = d.message -> 'key' and h.table_name is not distinct from d.message ->> 'table'
    and coalesce(h.reason = d.message ->> 'reason', true)
  union
  select d.msg_id from pgmq.q_replicate_data_libsql_dlq d
  where d.message ->> 'table' = any (b.truncated) and d.message -> 'key' <> 'null'
$$;
comment on function libsql_sync.letters_held(libsql_sync.batches) is
  'The open dead letters of rows that a version brings, or parks again.';

create or replace function libsql_sync.letters_left(b libsql_sync.batches)
returns integer
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select count(*)::integer from (
    select from pgmq.q_replicate_data_libsql_dlq d
    where d.msg_id not in (select libsql_sync.letters_held(b)) limit 10000) l
$$;
comment on function libsql_sync.letters_left(libsql_sync.batches) is
  'How many dead letters stay open when a version is applied, 10,000 at most.';

-- One open letter a row: a new reason stands in its place.
create or replace function libsql_sync.close_letters(b libsql_sync.batches)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  with gone as (
    delete from pgmq.q_replicate_data_libsql_dlq d
    where d.msg_id in (select libsql_sync.letters_held(b))
    returning d.msg_id, d.enqueued_at, d.message
  )
  select coalesce(jsonb_agg(jsonb_build_object('id', g.msg_id, 'at', g.enqueued_at, 'message', g.message)), '[]')
  from gone g
$$;
comment on function libsql_sync.close_letters(libsql_sync.batches) is
  'Closes the dead letters of the rows that a version brings, or parks again. Returns them, [{"id", "at", "message"}, ...].';

create or replace function libsql_sync.file_letters(b libsql_sync.batches)
returns bigint[]
language sql
set search_path = pg_catalog, pg_temp
as $$
  with filed as (
    insert into pgmq.q_replicate_data_libsql_dlq (vt, message)
    select clock_timestamp(), p.parked || jsonb_build_object(
      'epoch', b.epoch, 'position', b.position, 'batch', b.batch, 'parked_at', clock_timestamp())
    from jsonb_array_elements(b.parked) with ordinality p (parked, n)
    order by p.n
    returning msg_id
  )
  select coalesce(array_agg(f.msg_id), '{}') from filed f
$$;
comment on function libsql_sync.file_letters(libsql_sync.batches) is
  'Files what a version parked as dead letters. Returns their ids.';

create or replace function libsql_sync.undo_letters(b libsql_sync.batches)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  delete from pgmq.q_replicate_data_libsql_dlq d where d.msg_id = any (b.opened);
  insert into pgmq.q_replicate_data_libsql_dlq (msg_id, enqueued_at, vt, message)
  overriding system value
  select (l ->> 'id')::bigint, (l ->> 'at')::timestamptz, (l ->> 'at')::timestamptz, l -> 'message'
  from jsonb_array_elements(b.closed) l
  -- Another version may have filed one of the same row.
  where not exists (
    select from pgmq.q_replicate_data_libsql_dlq d
    where d.message -> 'table' = l #> '{message,table}' and d.message -> 'key' = l #> '{message,key}')
  on conflict do nothing
$$;
comment on function libsql_sync.undo_letters(libsql_sync.batches) is
  'Undoes what settling a version did to dead letters.';
