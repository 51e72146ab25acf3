-- Settling: what the replica proves applied leaves the queue. Last step of the data's
-- way, and the first thing the next claim does.

create or replace function libsql_sync.ack(b libsql_sync.batches)
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  settled integer;
begin
  perform libsql_sync.heal(b);
  perform libsql_sync.dead_letter(b, b.parked);
  perform libsql_sync.try_updated(b);

  -- Copied and then deleted: faster than a DELETE that returns what it took.
  -- An id is in the archive already only if the numbering was restarted.
  delete from pgmq.a_replicate_data_libsql a
  using unnest(b.msg_ids) r
  where a.msg_id >= lower(r) and a.msg_id < upper(r);
  insert into pgmq.a_replicate_data_libsql (msg_id, read_ct, enqueued_at, vt, message)
  select m.msg_id, m.read_ct, m.enqueued_at, m.vt, m.message
  from unnest(b.msg_ids) r
  join pgmq.q_replicate_data_libsql m on m.msg_id >= lower(r) and m.msg_id < upper(r);
  get diagnostics settled = row_count;
  delete from pgmq.q_replicate_data_libsql m
  using unnest(b.msg_ids) r
  where m.msg_id >= lower(r) and m.msg_id < upper(r);

  -- A version on top of another one than this can never be applied.
  delete from libsql_sync.batches v
  where v.epoch = b.epoch and (v.position = b.position and v.batch <> b.batch
    or v.position = b.position + 1 and v.prev <> b.batch);
  update libsql_sync.batches v set state = 'acked', acked_at = clock_timestamp()
  where v.epoch = b.epoch and v.position = b.position and v.batch = b.batch;
  update libsql_sync.chain set position = b.position, batch = b.batch where id = 1;
  return settled;
end
$$;
comment on function libsql_sync.ack(libsql_sync.batches) is
  'Settles a batch that the replica has: its messages move to the archive, its parked changes to the dead letters. Returns how many messages left the queue.';

-- Oldest first, a few each time: more than one sync adds. Ids stay, so that a replica's
-- past is known.
create or replace function libsql_sync.trim()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  b libsql_sync.batches;
begin
  for b in
    select t.* from libsql_sync.batches t, libsql_sync.chain c
    where t.state = 'acked' and t.acked_at < clock_timestamp() - c.replay_window
    order by t.acked_at
    limit 4
  loop
    delete from pgmq.a_replicate_data_libsql a
    using unnest(b.msg_ids) r
    where a.msg_id >= lower(r) and a.msg_id < upper(r);
    update libsql_sync.batches t set state = 'trimmed', msg_ids = '{}', parked = '[]'
    where t.epoch = b.epoch and t.position = b.position and t.batch = b.batch;
  end loop;
  perform libsql_sync.forget();
end
$$;
comment on function libsql_sync.trim() is
  'Trims the archive by whole positions that are older than the replay window.';

-- '3:3:' is a snapshot that sees no transaction.
create or replace function libsql_sync.snapshot_at(chain_epoch text, chain_position bigint)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce((
    select b.snapshot from libsql_sync.batches b
    where b.epoch = chain_epoch and b.position <= chain_position and b.drained
    order by b.position desc limit 1), '3:3:')
$$;
comment on function libsql_sync.snapshot_at(text, bigint) is
  'The snapshot whose every change is in a replica that stands at this position: that of the last drained batch. In: the epoch, and the position.';

-- Step 3 of claim().
create or replace function libsql_sync.prove(
  c libsql_sync.chain, at jsonb,
  out moved libsql_sync.chain, out acked integer, out answer text
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  at_position constant bigint := at ->> 'position';
  ahead constant text := '{"do": "stop", "acked": 0, "error": "replica_ahead"}';
  b libsql_sync.batches;
  proved libsql_sync.batches;
  known text;
begin
  moved := c;
  acked := 0;
  if at_position = c.position + 1 then
    select * into proved from libsql_sync.batches v
    where v.epoch = c.epoch and v.position = at_position and v.batch = at ->> 'batch';
    if not found then
      answer := ahead;
      return;
    end if;
    acked := libsql_sync.ack(proved);
  elsif at_position = c.position + 2 then
    -- It was handed out ahead: what it stands on was applied before it.
    select * into proved from libsql_sync.batches v
    where v.epoch = c.epoch and v.position = at_position and v.batch = at ->> 'batch';
    select * into b from libsql_sync.batches v
    where v.epoch = c.epoch and v.position = c.position + 1 and v.batch = proved.prev and v.prev = c.batch;
    if not found then
      answer := ahead;
      return;
    end if;
    acked := libsql_sync.ack(b) + libsql_sync.ack(proved);
  elsif at_position > c.position then
    answer := ahead;
    return;
  else
    if at_position = 0 then
      known := c.epoch;
    else
      select v.batch into known from libsql_sync.batches v
      where v.epoch = c.epoch and v.position = at_position and v.state <> 'pending';
    end if;
    if known is distinct from at ->> 'batch' then
      answer := libsql_sync.begin_again(at,
        'the replica at position ' || at_position || ' holds a batch that is not on record', 0);
      return;
    end if;
  end if;
  if proved.batch is not null then
    perform libsql_sync.trim();
    moved.position := proved.position;
    moved.batch := proved.batch;
  end if;
  -- More was parked than is on record: the source was restored to a time before
  -- that. The walk finds it again.
  if (at ->> 'dead_letters')::bigint > proved.dead_letters + jsonb_array_length(proved.parked) then
    update libsql_sync.chain set reopen = true where id = 1;
    moved.reopen := true;
  end if;
end
$$;
comment on function libsql_sync.prove(libsql_sync.chain, jsonb) is
  'Settles the one or two batches that the replica''s row proves applied: the chain after it, how many messages left the queue, and the answer of the claim if it ends here.';
