-- Dead letters: one for each row that could not be applied, with its reason. They are
-- filed when a batch settles (54_ack), closed by the row's next whole change or a walk, and
-- listed, tried again or discarded by an operator (60_operate).

create or replace function libsql_sync.dead_letter(b libsql_sync.batches, changes jsonb)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  -- One open letter a row: the newest reason stands.
  delete from pgmq.q_replicate_data_libsql_dlq d
  using jsonb_array_elements(changes) p
  where jsonb_typeof(p -> 'key') = 'array'
    and d.message -> 'table' = p -> 'table' and d.message -> 'key' = p -> 'key';
  insert into pgmq.q_replicate_data_libsql_dlq (vt, message)
  select clock_timestamp(), p.change - 'open' || jsonb_build_object(
    'epoch', b.epoch, 'position', b.position, 'batch', b.batch,
    'parked_at', clock_timestamp())
    -- A change without a key is a whole message: kept as it came.
    || case when p.is_whole then jsonb_build_object('message', m.kept) else '{}' end
  from (
    select c.change, c.n, coalesce(c.change -> 'key' = 'null', true) as is_whole
    from jsonb_array_elements(changes) with ordinality c (change, n)
  ) p
  left join pgmq.q_replicate_data_libsql q on p.is_whole and q.msg_id = (p.change ->> 'msg_id')::bigint
  left join pgmq.a_replicate_data_libsql a on p.is_whole and a.msg_id = (p.change ->> 'msg_id')::bigint
  -- What was too large or too deep for the worker may be so for a letter.
  left join lateral (
    select case when e.envelope ->> 'failed' = '54000' then e.envelope else coalesce(q.message, a.message) end
    from (select libsql_sync.envelope(coalesce(q.message, a.message))::jsonb where p.is_whole) e (envelope)
  ) m (kept) on true
  order by p.n
$$;
comment on function libsql_sync.dead_letter(libsql_sync.batches, jsonb) is
  'Files parked changes of a batch as dead letters. In: the batch, and [{"msg_id", "table", "key", "reason"}, ...].';

create or replace function libsql_sync.letters_touched(msg_ids int8multirange)
returns table (letter bigint, table_name text, key jsonb, reason text, whole boolean, msg_id bigint)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (
    select from pgmq.q_replicate_data_libsql_dlq d where jsonb_typeof(d.message -> 'key') = 'array'
  ) then
    return;
  end if;
  return query
  with envelopes as (
    select m.msg_id, libsql_sync.envelope(m.message)::jsonb as e
    from unnest(letters_touched.msg_ids) r
    join pgmq.q_replicate_data_libsql m on m.msg_id >= lower(r) and m.msg_id < upper(r)
  ), touched as (
    select e.msg_id, e.e ->> 'table' as name, d.value as key, true as whole
    from envelopes e
    cross join lateral jsonb_array_elements(
      case when jsonb_typeof(e.e -> 'deletes') = 'array' then e.e -> 'deletes' else '[]' end) d
    union all
    select e.msg_id, t.name, (
      select jsonb_agg(row_cells.value -> (c.n - 1)::integer order by k.n)
      from unnest(t.key) with ordinality k (name, n)
      join jsonb_array_elements_text(e.e -> 'columns') with ordinality c (name, n) on c.name = k.name
    ), f.name = 'rows'
    from envelopes e
    join libsql_sync.tables t on t.name = e.e ->> 'table'
    cross join (values ('rows'), ('updates')) f (name)
    cross join lateral jsonb_array_elements(
      case when jsonb_typeof(e.e -> f.name) = 'array'
        and jsonb_typeof(e.e -> 'columns') = 'array' then e.e -> f.name else '[]' end) row_cells
    union all
    -- A truncate takes every row there was.
    select e.msg_id, e.e ->> 'table', null, true from envelopes e where e.e -> 'truncate' = 'true'
  )
  select d.msg_id, d.message ->> 'table', d.message -> 'key', d.message ->> 'reason',
    bool_or(c.whole), min(c.msg_id)
  from (
    -- Many may have letters: each of these can be a hash join.
    select d.msg_id as letter, t.whole, t.msg_id from pgmq.q_replicate_data_libsql_dlq d
    join touched t on d.message ->> 'table' = t.name and d.message -> 'key' = t.key
    union all
    select d.msg_id, true, t.msg_id from pgmq.q_replicate_data_libsql_dlq d
    join touched t on d.message ->> 'table' = t.name and t.key is null
  ) c
  join pgmq.q_replicate_data_libsql_dlq d on d.msg_id = c.letter
  where jsonb_typeof(d.message -> 'key') = 'array'
  group by d.msg_id;
end
$$;
comment on function libsql_sync.letters_touched(int8multirange) is
  'The open dead letters whose row is in some messages of the queue, and whether the row comes whole or only what changed of it.';

-- The replica has these rows as they were before, or not at all: with some columns newer
-- they would be rows that never were.
create or replace function libsql_sync.still_aside(msg_ids int8multirange)
returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_agg(jsonb_build_object(
    'msg_id', l.msg_id::text, 'table', l.table_name, 'key', l.key, 'reason', l.reason, 'open', true) order by l.letter), '[]')
  from libsql_sync.letters_touched(still_aside.msg_ids) l
  where not l.whole
$$;
comment on function libsql_sync.still_aside(int8multirange) is
  'What a batch of these messages leaves out from the start, in the form of batches.parked: rows with an open dead letter of which only changed columns come.';

create or replace function libsql_sync.heal(b libsql_sync.batches)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  delete from pgmq.q_replicate_data_libsql_dlq d
  using libsql_sync.letters_touched(b.msg_ids) l
  where d.msg_id = l.letter and l.whole and not exists (
    select from jsonb_array_elements(b.parked) p
    where p -> 'table' = d.message -> 'table' and p -> 'key' = d.message -> 'key'
  )
$$;
comment on function libsql_sync.heal(libsql_sync.batches) is
  'Closes the dead letters whose whole row came with a batch, and was not parked again.';

-- The walk reads the rows later than this batch; one that has not begun serves as well.
create or replace function libsql_sync.try_updated(b libsql_sync.batches)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  asked record;
begin
  for asked in
    select p ->> 'table' as table_name, jsonb_agg(distinct p -> 'key') as keys
    from jsonb_array_elements(b.parked) p
    where p ? 'open'
    group by p ->> 'table'
    order by p ->> 'table'
  loop
    update libsql_sync.walks w set letters_until = libsql_sync.newest_letter()
    from libsql_sync.chain c
    where w.kind = 'redrive' and w.walk_gen > (c.seen ->> 'walk_gen')::bigint
      and w.tables = array[asked.table_name] and w.keys = asked.keys;
    if not found then
      insert into libsql_sync.walks (kind, tables, keys, repair, closes, reason, letters_until)
      values ('redrive', array[asked.table_name], asked.keys, true, false, 'a parked row was updated',
        libsql_sync.newest_letter());
    end if;
  end loop;
end
$$;
comment on function libsql_sync.try_updated(libsql_sync.batches) is
  'Asks for a walk of rows with a dead letter of which only changed columns came with a batch: they are tried again, whole.';
