-- The worker's one call: settle what the replica proves, and hand out the next batch.
--
-- Its steps: 1. whose replica is it, 2. does it have the schema, 3. what
-- does it prove, 4. what did it lose, 5. what is pending, 6. the next version from one
-- snapshot, 7. the answer. The chain's row is locked first; the steps are VOLATILE, so
-- that each later statement takes a new snapshot. admit() is in 52_epoch, prove() in
-- 54_ack, held_walk() in 40_walk, read_page() in 42_read_page, queue_head() in 31_queue_head.

create or replace function libsql_sync.require_read_committed()
returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'Cannot claim: expected isolation read committed, found %', current_setting('transaction_isolation')
      using hint = 'Set default_transaction_isolation of the worker''s role to read committed.';
  end if;
end
$$;
comment on function libsql_sync.require_read_committed() is
  'Refuses a claim in a transaction whose later statements would not see what was committed before the chain''s lock was got.';

-- The answer comes in pieces of a text: some MB in one piece would be copied a dozen
-- times on their way, and as json parsed for nothing. A batch that was handed out ahead
-- is never issued again, but may be settled: a worker that lost it gets another.
create or replace function libsql_sync.claim(request json)
returns text[]
language plpgsql
security definer -- the worker's role may call this and touch no table
set search_path = pg_catalog, pg_temp
set lock_timeout = '5s'
as $$
declare
  at jsonb := nullif((request -> 'row')::jsonb, 'null');
  c libsql_sync.chain;
  b libsql_sync.batches;
  ahead libsql_sync.batches;
  w libsql_sync.walks;
  answer text;
  proof record;
  choice record;
  f record;
  source_time timestamptz;
  h record;
  parked jsonb;
  pieces text[];
begin
  perform libsql_sync.require_read_committed();
  -- The lock comes first, by a statement of its own: a snapshot taken before it
  -- would hand out messages that another claim settled meanwhile. It waits: a call
  -- that only asks for the lease holds the row as well, and must not end a running
  -- sync.
  select * into c from libsql_sync.chain where id = 1 for update;
  if c.lease is null or c.lease is distinct from request ->> 'lease' then
    return array['{"do": "busy", "acked": 0}'];
  end if;
  update libsql_sync.chain set
    lease_until = clock_timestamp() + make_interval(secs => (request ->> 'seconds')::float8),
    seen = at, seen_at = clock_timestamp()
  where id = 1;
  if request ->> 'walked' <> '[]' then
    perform libsql_sync.note_walked((request -> 'walked')::jsonb, at);
  end if;

  -- The messages of a queue that is gone went with it, and the new one may give their
  -- numbers again.
  if c.floor_queue <> 'pgmq.q_replicate_data_libsql'::regclass then
    update libsql_sync.chain set floor_queue = null where id = 1;
    perform libsql_sync.begin_epoch('the queue is another one: it was dropped, or restored without its messages', false);
    select * into c from libsql_sync.chain where id = 1;
  end if;

  -- 1. and 2. Whose replica is it, and does it have the schema?
  answer := libsql_sync.admit(c, at, request);
  if answer is not null then
    return array[answer];
  end if;
  -- 3. What does it prove?
  select * into proof from libsql_sync.prove(c, at);
  if proof.answer is not null then
    return array[proof.answer];
  end if;
  c := proof.moved;

  -- 4. and 5. Which batch: a recorded one again, or a new one?
  select * into choice from libsql_sync.choose(c, at, request);
  b := choice.recorded;
  ahead := choice.ahead;
  if choice.kind = 'none' then
    return array[json_build_object('do', 'none', 'acked', proof.acked)::text];
  end if;
  if ahead.batch is not null then
    -- Where its page leaves the walk: the replica refuses another page there.
    at := at || coalesce((request -> 'upto')::jsonb, '{}');
  end if;
  if (request ->> 'messages_max')::integer = 0 then
    return array[(jsonb_build_object('do', 'settled', 'acked', proof.acked, 'behind', c.position - (at ->> 'position')::bigint)
      || libsql_sync.end_sync(request, proof.acked))::text];
  end if;

  if choice.kind <> 'new' then
    select r.*, null::text[] as page into h from libsql_sync.recorded(b) r;
    -- No batch: it was trimmed.
    if h.messages is distinct from b.messages then
      return array[libsql_sync.begin_again(at,
        'position ' || (at ->> 'position')::bigint + 1 || ' cannot be repeated: messages of it are gone', proof.acked)];
    end if;
    -- The page that repaired what was parked is lost: the replica is not complete
    -- before the walk came through again.
    b.reopen := b.reopen or choice.kind = 'replay' and b.position <= c.letters_closed;
  else
    -- 6. The next one, from one snapshot, recorded before it is answered. A page
    -- rides only if the batch takes every message its snapshot could see.
    select * into f from libsql_sync.floor(c);
    source_time := clock_timestamp();
    if request -> 'page' is not null and not c.reopen then
      w := libsql_sync.held_walk(c, at, (request #>> '{page,scrub}')::boolean);
    end if;
    select d.*, pg_current_snapshot()::text as snapshot,
      case when d.drained and w.walk_gen is not null
        then libsql_sync.read_page(w, at, (request -> 'page')::jsonb, d.messages) end as page
    into h
    from libsql_sync.queue_head(f.lowest, coalesce(ahead.msg_ids, '{}'),
      (request ->> 'messages_max')::integer, (request ->> 'bytes_max')::integer) d;
    if libsql_sync.note_unqueued(c) or h.uncaptured then
      -- Left to the next claim, which begins a walk and not a page.
      if ahead.batch is not null then
        return array[json_build_object('do', 'none', 'acked', proof.acked)::text];
      end if;
      c.reopen := true;
      h.page := null;
    end if;
    if f.settled is not null or f.lowest <> c.floor or c.floor_next is null then
      perform libsql_sync.keep_floor(case when f.settled is null then f.lowest
        else greatest(f.lowest, least(f.settled, lower(h.msg_ids), lower(ahead.msg_ids))) end);
    end if;
    parked := case when h.messages > 0 then libsql_sync.still_aside(h.msg_ids) else '[]' end;
    -- Or the one before may bring whole what this one would leave out.
    if ahead.batch is not null and (h.messages = 0 and h.page is null or parked <> '[]') then
      return array[json_build_object('do', 'none', 'acked', proof.acked)::text];
    end if;
    if h.messages = 0 and (at ->> 'drained')::integer = 1 and h.page is null and not c.reopen then
      return array[(jsonb_build_object('do', 'idle', 'acked', proof.acked, 'behind', 0)
        || libsql_sync.end_sync(request, proof.acked))::text];
    end if;
    b := libsql_sync.record_next(c, ahead, h.msg_ids, h.messages, h.drained, h.snapshot, source_time, parked);
  end if;

  -- 7. Hand it out. "dead_letters" are those open when it was first claimed; what it
  -- parks comes on top.
  pieces := array_prepend('{"page": '::text, coalesce(h.page, array['null']));
  pieces := pieces || ', "messages": ['::text;
  pieces := pieces || coalesce(h.envelopes, '');
  pieces := pieces || ('], ' || substr(json_build_object(
    'do', 'batch', 'kind', choice.kind, 'acked', proof.acked,
    'epoch', b.epoch, 'position', b.position, 'batch', b.batch, 'prev', b.prev,
    'drained', b.drained, 'snapshot', b.snapshot, 'source_time', b.source_time,
    'dead_letters', b.dead_letters, 'parked', b.parked, 'reopen', b.reopen)::text, 2));
  return pieces;
end
$$;
comment on function libsql_sync.claim(json) is
$$The next batch for a replica that stands at "row", after settling what the row proves applied.
In: {"lease": token, "seconds": n, "schema": hash, "row": {...} | null, "messages_max": n, "bytes_max": n, "page": {"rows", "bytes", "scrub", "keys"}?, "walked": [...], "split": {"batch", "messages"}?, "ahead": batch?, "upto": {"walk_gen", "walk_at"}?, "take_over": boolean?}
Out: one JSON text in pieces, to be joined: {"do": "bootstrap" | "adopt" | "alter" | "batch" | "none" | "idle" | "settled" | "busy" | "stop", "acked": n, ...}; of a batch {"page", "messages", "kind", "epoch", "position", "batch", "prev", "drained", "snapshot", "source_time", "dead_letters", "parked", "reopen"}.
"ahead" names the batch that is being applied on top of "row": the answer is the one after it, or none; "upto" is where that batch's page leaves the walk. "split" takes the first messages only of a pending batch. "take_over" makes the replica of another source ours, emptied. With "messages_max" 0 it settles and hands out nothing. When settled or idle it gives the lease back and adds what release() answers.$$;

-- Steps 4 and 5.
create or replace function libsql_sync.choose(
  c libsql_sync.chain, at jsonb, request json,
  out kind text, out recorded libsql_sync.batches, out ahead libsql_sync.batches
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  at_position constant bigint := at ->> 'position';
begin
  if at_position < c.position then
    -- It lost batches: the same again, from the archive.
    select * into recorded from libsql_sync.batches v
    where v.epoch = c.epoch and v.position = at_position + 1 and v.state = 'acked';
    kind := 'replay';
  else
    -- A batch is pending: the same again, its newest version.
    select * into recorded from libsql_sync.batches v
    where v.epoch = c.epoch and v.position = c.position + 1
      and (not v.ahead or v.batch = request ->> 'ahead')
    order by v.version desc limit 1;
    kind := case when recorded.batch is null then 'new' else 'again' end;
  end if;

  if request ->> 'ahead' is not null then
    -- The one before leaves something: messages, or what its page does not reach.
    if recorded.batch is distinct from request ->> 'ahead' or kind <> 'again' or c.reopen
      or recorded.drained and request -> 'upto' is null then
      kind := 'none';
      return;
    end if;
    ahead := recorded;
    kind := 'new';
  elsif kind = 'again' and recorded.batch = request #>> '{split,batch}'
    and recorded.messages > (request #>> '{split,messages}')::integer then
    recorded := libsql_sync.split_batch(c, recorded, (request #>> '{split,messages}')::integer);
  end if;
end
$$;
comment on function libsql_sync.choose(libsql_sync.chain, jsonb, json) is
  'Which batch a claim answers: kind "replay" or "again" with the recorded batch, "new" (on top of "ahead", if the claim is ahead), or "none".';

create or replace function libsql_sync.split_batch(c libsql_sync.chain, b libsql_sync.batches, messages_max integer)
returns libsql_sync.batches
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  select range_agg(int8range(i.msg_id, i.msg_id + 1)) into b.msg_ids
  from (
    select i from unnest(b.msg_ids) r
    cross join lateral generate_series(lower(r), upper(r) - 1) i
    order by i limit messages_max
  ) i (msg_id);
  b.batch := gen_random_uuid();
  b.version := b.version + 1;
  b.messages := messages_max;
  b.drained := false;
  b.snapshot := libsql_sync.snapshot_at(c.epoch, c.position);
  b.parked := (
    select coalesce(jsonb_agg(p order by n), '[]')
    from jsonb_array_elements(b.parked) with ordinality p (p, n)
    where b.msg_ids @> (p ->> 'msg_id')::bigint and not p ? 'open'
  ) || libsql_sync.still_aside(b.msg_ids);
  insert into libsql_sync.batches select b.*;
  update libsql_sync.chain set reopen = reopen or b.reopen where id = 1;
  return b;
end
$$;
comment on function libsql_sync.split_batch(libsql_sync.chain, libsql_sync.batches, integer) is
  'A version of a pending batch with its first messages only, for a replica that finds it too large for one transaction. The version before may still be settled, as it may be on its way.';

-- The record of step 6.
create or replace function libsql_sync.record_next(
  c libsql_sync.chain, ahead libsql_sync.batches, msg_ids int8multirange, messages integer,
  drained boolean, snapshot text, source_time timestamptz, parked jsonb
)
returns libsql_sync.batches
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  b libsql_sync.batches;
begin
  b.epoch := c.epoch;
  b.position := coalesce(ahead.position, c.position) + 1;
  b.batch := gen_random_uuid();
  b.prev := coalesce(ahead.batch, c.batch);
  b.version := 1 + (
    select coalesce(max(v.version), 0) from libsql_sync.batches v
    where v.epoch = b.epoch and v.position = b.position);
  b.msg_ids := record_next.msg_ids;
  b.messages := record_next.messages;
  b.drained := record_next.drained;
  -- Of what a batch leaves in the queue its snapshot would promise too much.
  b.snapshot := case when record_next.drained then record_next.snapshot
    else libsql_sync.snapshot_at(c.epoch, c.position) end;
  b.source_time := record_next.source_time;
  b.dead_letters := (select count(*) from (select from pgmq.q_replicate_data_libsql_dlq limit 10000) d)
    + jsonb_array_length(coalesce(ahead.parked, '[]')) - jsonb_array_length(record_next.parked);
  b.parked := record_next.parked;
  b.state := 'pending';
  b.reopen := c.reopen;
  b.ahead := ahead.batch is not null;
  insert into libsql_sync.batches select b.*;
  -- What remains in the queue may be older than what bypassed it.
  update libsql_sync.chain set reopen = c.reopen and not record_next.drained where id = 1;
  return b;
end
$$;
comment on function libsql_sync.record_next(libsql_sync.chain, libsql_sync.batches, int8multirange, integer, boolean, text, timestamptz, jsonb) is
  'Records a new version of the next position, before it is handed out.';
