-- The tree of versions. Each version names the one before it; the head is the one that was
-- settled last; the replica stands on some version. move_head() takes the head there: what
-- the replica has leaves the queue for the archive, what it lost comes back. Third step of
-- claim() (55_claim).

create or replace function libsql_sync.settle(b libsql_sync.batches)
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  letters jsonb := libsql_sync.close_letters(b);
  filed bigint[] := libsql_sync.file_letters(b);
  first_keys jsonb;
  moved integer;
begin
  -- Copied and then deleted: faster than a DELETE that returns what it took.
  -- An id is in the archive already only if the numbering was restarted.
  delete from pgmq.a_replicate_data_libsql a
  using unnest(b.msg_ids) r
  where a.msg_id >= lower(r) and a.msg_id < upper(r);
  insert into pgmq.a_replicate_data_libsql (msg_id, read_ct, enqueued_at, vt, message)
  select m.msg_id, m.read_ct, m.enqueued_at, m.vt, m.message
  from unnest(b.msg_ids) r
  join pgmq.q_replicate_data_libsql m on m.msg_id >= lower(r) and m.msg_id < upper(r);
  get diagnostics moved = row_count;
  delete from pgmq.q_replicate_data_libsql m
  using unnest(b.msg_ids) r
  where m.msg_id >= lower(r) and m.msg_id < upper(r);
  if b.cut_id is not null then
    first_keys := libsql_sync.cut(b.cut_id, b.cut_count);
  end if;

  update libsql_sync.batches v set state = 'settled', settled_at = clock_timestamp(),
    closed = letters, opened = filed, cut_keys = first_keys
  where v.epoch = b.epoch and v.position = b.position and v.batch = b.batch;
  update libsql_sync.chain set position = b.position, batch = b.batch,
    walk_opened = greatest(walk_opened, b.opens)
  where id = 1;
  return moved;
end
$$;
comment on function libsql_sync.settle(libsql_sync.batches) is
  'Settles a version that the replica has: its messages move to the archive, its parked rows to the dead letters, and it is the head. Returns how many messages left the queue.';

create or replace function libsql_sync.cut(id bigint, keys_taken integer)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  keys jsonb;
begin
  select libsql_sync.message_keys(m.message) into keys
  from pgmq.q_replicate_data_libsql m where m.msg_id = cut.id;
  update pgmq.q_replicate_data_libsql m set message = jsonb_build_object('v', 2, 'table', m.message -> 'table', 'keys', (
    select coalesce(jsonb_agg(k.key order by k.n), '[]') from jsonb_array_elements(keys) with ordinality k (key, n) where k.n > keys_taken))
  where m.msg_id = cut.id;
  return (
    select coalesce(jsonb_agg(k.key order by k.n), '[]') from jsonb_array_elements(keys) with ordinality k (key, n) where k.n <= keys_taken);
end
$$;
comment on function libsql_sync.cut(bigint, integer) is
  'Takes the first keys from a message, which stays queued with the others. Returns those taken.';

create or replace function libsql_sync.is_kept(b libsql_sync.batches)
returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select b.state = 'settled'
    and b.messages = (
      select count(*) from unnest(b.msg_ids) r
      join pgmq.a_replicate_data_libsql a on a.msg_id >= lower(r) and a.msg_id < upper(r)
      where not exists (select from pgmq.q_replicate_data_libsql q where q.msg_id = a.msg_id))
    and (b.cut_id is null
      or exists (select from pgmq.q_replicate_data_libsql q where q.msg_id = b.cut_id)
      or exists (select from pgmq.a_replicate_data_libsql a where a.msg_id = b.cut_id))
$$;
comment on function libsql_sync.is_kept(libsql_sync.batches) is
  'Whether a settled version can be put back: all its messages are in the archive, and their numbers free in the queue.';

-- Under their old ids, so that what was recorded of them stays true.
create or replace function libsql_sync.put_back(b libsql_sync.batches)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into pgmq.q_replicate_data_libsql (msg_id, read_ct, enqueued_at, vt, message)
  overriding system value
  select a.msg_id, a.read_ct, a.enqueued_at, a.vt, a.message
  from unnest(b.msg_ids) r
  join pgmq.a_replicate_data_libsql a on a.msg_id >= lower(r) and a.msg_id < upper(r);
  delete from pgmq.a_replicate_data_libsql a
  using unnest(b.msg_ids) r
  where a.msg_id >= lower(r) and a.msg_id < upper(r);
  -- A later version that covered the rest of it was put back before.
  update pgmq.q_replicate_data_libsql m
  set message = jsonb_set(m.message, '{keys}', b.cut_keys || (m.message -> 'keys'))
  where m.msg_id = b.cut_id;
  perform libsql_sync.undo_letters(b);

  update libsql_sync.batches v set state = 'handed', settled_at = null, closed = '[]', opened = '{}', cut_keys = null
  where v.epoch = b.epoch and v.position = b.position and v.batch = b.batch;
  update libsql_sync.chain set position = b.position - 1, batch = b.prev,
    floor = least(floor, lower(b.msg_ids)),
    walk_opened = least(walk_opened, b.opens - 1),
    -- A page that repaired what was parked is lost: the walk comes through again.
    walk_wanted = walk_wanted + case when b.position <= letters_closed then 1 else 0 end,
    totals = jsonb_set(totals, '{replays}', to_jsonb(coalesce((totals ->> 'replays')::bigint, 0) + 1))
  where id = 1;
end
$$;
comment on function libsql_sync.put_back(libsql_sync.batches) is
  'Takes back the head, which the replica has lost: its messages return to the queue, and the version before it is the head.';

create or replace function libsql_sync.version_at(epoch_of text, at_position bigint, id text)
returns libsql_sync.batches
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select b.* from libsql_sync.batches b
  where b.epoch = epoch_of and b.position = at_position and b.batch = id
$$;
comment on function libsql_sync.version_at(text, bigint, text) is
  'The version on record with this epoch, position and id, or null.';

-- Step 3 of claim(). The nearest common ancestor of head and replica is found by prev.
create or replace function libsql_sync.move_head(
  c libsql_sync.chain, at jsonb,
  out moved libsql_sync.chain, out acked integer, out put_back integer, out answer text
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  here bigint := at ->> 'position';
  here_batch text := at ->> 'batch';
  head bigint := c.position;
  head_batch text := c.batch;
  b libsql_sync.batches;
  back libsql_sync.batches[] := '{}';
  forward libsql_sync.batches[] := '{}';
begin
  moved := c;
  acked := 0;
  put_back := 0;
  if here > c.handed then
    answer := '{"do": "stop", "acked": 0, "put_back": 0, "error": "replica_ahead"}';
    return;
  end if;
  while (here, here_batch) <> (head, head_batch) loop
    if here >= head then
      b := libsql_sync.version_at(c.epoch, here, here_batch);
      forward := b || forward;
      here := here - 1;
      here_batch := b.prev;
    else
      b := libsql_sync.version_at(c.epoch, head, head_batch);
      back := back || b;
      head := head - 1;
      head_batch := b.prev;
    end if;
    if b.batch is null then
      answer := libsql_sync.begin_again(at, format('the replica at position %s holds a batch that is not on record, or whose past is not', at ->> 'position'));
      return;
    end if;
  end loop;

  foreach b in array back loop
    if not libsql_sync.is_kept(b) then
      answer := libsql_sync.begin_again(at, format('messages of position %s, which the replica lost, are gone', b.position));
      return;
    end if;
  end loop;
  foreach b in array back loop
    perform libsql_sync.put_back(b);
  end loop;
  put_back := cardinality(back);
  foreach b in array forward loop
    acked := acked + libsql_sync.settle(b);
  end loop;
  -- More was parked than is on record: the source was restored to a time before that.
  -- The walk finds it again.
  if forward <> '{}' and (at ->> 'dead_letters')::bigint > b.dead_letters + jsonb_array_length(b.parked) then
    update libsql_sync.chain set walk_wanted = walk_wanted + 1 where id = 1;
  end if;
  perform libsql_sync.trim_versions();
  select * into moved from libsql_sync.chain where id = 1;
end
$$;
comment on function libsql_sync.move_head(libsql_sync.chain, jsonb) is
  'Moves the head to where the replica stands: the chain after it, how many messages left the queue, how many positions were put back, and the answer of the claim if it ends here.';

-- Oldest first, a few each time: more than one sync adds. What is above the head may still
-- land: it is kept for a day, as each sync adds one while a replica takes nothing. If a
-- request lands later than that, the replica begins a new epoch without a wipe.
create or replace function libsql_sync.trim_versions(versions_max integer default 8)
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  b libsql_sync.batches;
  trimmed integer := 0;
begin
  for b in
    select v.* from libsql_sync.batches v, libsql_sync.chain c
    where (v.epoch <> c.epoch or v.position <= c.position and v.batch <> c.batch
        or v.position > c.position and v.handed_at < clock_timestamp() - interval '1 day')
      and coalesce(v.settled_at, v.handed_at) < clock_timestamp() - c.replay_window
    order by v.epoch = c.epoch, v.position
    limit versions_max
  loop
    if b.state = 'settled' then
      delete from pgmq.a_replicate_data_libsql a
      using unnest(b.msg_ids) r
      where a.msg_id >= lower(r) and a.msg_id < upper(r);
    end if;
    delete from libsql_sync.batches v
    where v.epoch = b.epoch and v.position = b.position and v.batch = b.batch;
    trimmed := trimmed + 1;
  end loop;
  return trimmed;
end
$$;
comment on function libsql_sync.trim_versions(integer) is
  'Forgets versions that are older than the replay window, with their archived messages. In: how many at most. Returns how many.';
