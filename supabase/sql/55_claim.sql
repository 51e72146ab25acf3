-- The next batch for a replica that stands at "row", and the ack of what the
-- row proves applied:
-- {"lease", "seconds", "schema", "row": {...} | null, "messages_max", "bytes_max",
--  "page": {"rows", "bytes", "scrub", "keys"}?, "walked": [...], "split": {"batch", "messages"}?} -> {"do": bootstrap | adopt | alter | batch |
--  idle | settled | busy | stop, "acked", ...}
-- With "ahead": a batch that is being applied on top of "row", it hands out the one
-- after that: batch | none. It is never issued again, but may be acked: whoever
-- does not hold it gets another for its position. "upto": {"walk_gen", "walk_at"} is
-- where the page of the one being applied leaves the walk, for a page to go on from.
-- With "take_over": true a replica of another source becomes ours, emptied.
-- With "messages_max": 0 it settles, splits and hands out nothing; then and when idle it
-- gives the lease back and counts the queue.
-- Returned is one JSON text in pieces, to be put together by who reads them: some MB in
-- one piece would be copied a dozen times on their way, and as json parsed for nothing.
create or replace function libsql_sync.claim(request json)
returns text[]
language plpgsql
security definer -- the worker's role may call this and touch no table
set search_path = pg_catalog, pg_temp
set lock_timeout = '5s'
as $$
declare
  c libsql_sync.chain;
  b libsql_sync.batches;
  ahead libsql_sync.batches;
  proved libsql_sync.batches;
  h record;
  mine bigint;
  theirs bigint;
  newest bigint;
  at jsonb := nullif((request -> 'row')::jsonb, 'null');
  at_position bigint := (at ->> 'position')::bigint;
  known text;
  acked integer := 0;
  kind text;
  w libsql_sync.walks;
  f record;
  pieces text[];
begin
  -- A later statement must see what was committed before the lock was got.
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'Cannot claim: expected isolation read committed, found %', current_setting('transaction_isolation')
      using hint = 'Set default_transaction_isolation of the worker''s role to read committed.';
  end if;

  -- The lock comes first, by a statement of its own: a snapshot taken before it
  -- would hand out messages that somebody acked meanwhile. It waits: who only
  -- asks for the lease holds the row as well, and must not end a running sync.
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

  select max(s.generation) into newest from libsql_sync.schemas s;
  select s.generation into mine from libsql_sync.schemas s where s.hash = request ->> 'schema';
  if mine is null or mine < newest then
    return array[json_build_object('do', 'stop', 'acked', 0,
      'error', case when mine is null then 'schema_unknown' else 'schema_outdated' end)::text];
  end if;

  -- 1. Whose replica is it?
  if at is null then
    return array[json_build_object('do', 'bootstrap', 'acked', 0, 'epoch', c.epoch,
      'wipe', c.position = 0 and (select e.wipe from libsql_sync.epochs e where e.epoch = c.epoch))::text];
  end if;
  if at ->> 'epoch' <> c.epoch then
    if not exists (select from libsql_sync.epochs e where e.epoch = at ->> 'epoch') then
      if (request ->> 'take_over')::boolean is not true then
        return array['{"do": "stop", "acked": 0, "error": "replica_foreign"}'];
      end if;
      -- An ancestor from now on, and older than the epoch that wipes.
      insert into libsql_sync.epochs (epoch, wipe, reason) values (at ->> 'epoch', false, 'taken over from another source');
      perform libsql_sync.begin_epoch('the replica of another source was taken over', true);
    end if;
    return array[(libsql_sync.adopt_answer(at ->> 'epoch') || '{"acked": 0}')::text];
  end if;

  -- 2. Does it have the schema?
  if at ->> 'schema_hash' <> request ->> 'schema' then
    select s.generation into theirs from libsql_sync.schemas s where s.hash = at ->> 'schema_hash';
    if theirs is null then
      return array['{"do": "stop", "acked": 0, "error": "schema_outdated"}'];
    end if;
    return array[json_build_object('do', 'alter', 'acked', 0, 'from', at ->> 'schema_hash')::text];
  end if;

  -- 3. What does it prove?
  if at_position = c.position + 1 then
    select * into b from libsql_sync.batches v
    where v.epoch = c.epoch and v.position = at_position and v.batch = at ->> 'batch';
    if not found then
      return array['{"do": "stop", "acked": 0, "error": "replica_ahead"}'];
    end if;
    proved := b;
    acked := libsql_sync.ack(b);
    perform libsql_sync.trim();
    c.position := b.position;
    c.batch := b.batch;
  elsif at_position = c.position + 2 then
    -- It was handed out ahead: what it stands on was applied before it.
    select * into proved from libsql_sync.batches v
    where v.epoch = c.epoch and v.position = at_position and v.batch = at ->> 'batch';
    select * into b from libsql_sync.batches v
    where v.epoch = c.epoch and v.position = c.position + 1 and v.batch = proved.prev and v.prev = c.batch;
    if not found then
      return array['{"do": "stop", "acked": 0, "error": "replica_ahead"}'];
    end if;
    acked := libsql_sync.ack(b) + libsql_sync.ack(proved);
    perform libsql_sync.trim();
    c.position := proved.position;
    c.batch := proved.batch;
  elsif at_position > c.position then
    return array['{"do": "stop", "acked": 0, "error": "replica_ahead"}'];
  else
    if at_position = 0 then
      known := c.epoch;
    else
      select v.batch into known from libsql_sync.batches v
      where v.epoch = c.epoch and v.position = at_position and v.state <> 'pending';
    end if;
    if known is distinct from at ->> 'batch' then
      perform libsql_sync.begin_epoch('the replica at position ' || at_position || ' holds a batch that is not on record', false);
      return array[(libsql_sync.adopt_answer(at ->> 'epoch') || '{"acked": 0}')::text];
    end if;
  end if;
  -- More was set aside than is on record: we were restored to before that. The
  -- walk finds it again.
  if (at ->> 'dead_letters')::bigint > proved.dead_letters + jsonb_array_length(proved.parked) then
    update libsql_sync.chain set reopen = true where id = 1;
    c.reopen := true;
  end if;

  -- 4. It lost batches: the same again, from the archive.
  if at_position < c.position then
    select * into b from libsql_sync.batches v
    where v.epoch = c.epoch and v.position = at_position + 1 and v.state = 'acked';
    kind := 'replay';
  else
    -- 5. A batch is pending: the same again, its newest version.
    select * into b from libsql_sync.batches v
    where v.epoch = c.epoch and v.position = c.position + 1
      and (not v.ahead or v.batch = request ->> 'ahead')
    order by v.version desc limit 1;
    kind := case when b.batch is null then 'new' else 'again' end;
  end if;

  if request ->> 'ahead' is not null then
    -- The one before leaves something: messages, or what its page does not reach.
    if b.batch is distinct from request ->> 'ahead' or kind <> 'again' or c.reopen
      or b.drained and request -> 'upto' is null then
      return array[json_build_object('do', 'none', 'acked', acked)::text];
    end if;
    ahead := b;
    kind := 'new';
    -- Where its page leaves the walk: the replica refuses another page there.
    at := at || coalesce((request -> 'upto')::jsonb, '{}');
  end if;

  if kind = 'again' and b.batch = request #>> '{split,batch}'
    and b.messages > (request #>> '{split,messages}')::integer then
    -- Too much for one transaction of the replica: the first few of it under a
    -- fresh id. The version before stays ackable, as it may be in flight.
    select range_agg(int8range(i.msg_id, i.msg_id + 1)) into b.msg_ids
    from (
      select i from unnest(b.msg_ids) r
      cross join lateral generate_series(lower(r), upper(r) - 1) i
      order by i limit (request #>> '{split,messages}')::integer
    ) i (msg_id);
    b.batch := gen_random_uuid();
    b.version := b.version + 1;
    b.messages := (request #>> '{split,messages}')::integer;
    b.drained := false;
    b.snapshot := libsql_sync.snapshot_at(c.epoch, c.position);
    b.parked := (
      select coalesce(jsonb_agg(p order by n), '[]')
      from jsonb_array_elements(b.parked) with ordinality p (p, n)
      where b.msg_ids @> (p ->> 'msg_id')::bigint and not p ? 'open'
    ) || libsql_sync.still_aside(b.msg_ids);
    insert into libsql_sync.batches select b.*;
    update libsql_sync.chain set reopen = reopen or b.reopen where id = 1;
  end if;

  if (request ->> 'messages_max')::integer = 0 then
    return array[(jsonb_build_object('do', 'settled', 'acked', acked, 'behind', c.position - at_position)
      || libsql_sync.end_sync(request, acked))::text];
  end if;

  if kind <> 'new' then
    select r.*, null::text[] as page into h from libsql_sync.recorded(b) r;
    -- No batch: it was trimmed.
    if h.messages is distinct from b.messages then
      perform libsql_sync.begin_epoch('position ' || at_position + 1 || ' cannot be repeated: messages of it are gone', false);
      return array[(libsql_sync.adopt_answer(at ->> 'epoch') || jsonb_build_object('acked', acked))::text];
    end if;
    -- The page that mended what was set aside is lost: nothing is called equal
    -- before the walk came through again.
    b.reopen := b.reopen or kind = 'replay' and b.position <= c.letters_closed;
  else
    -- 6. The next one, from one snapshot, recorded before it is answered. A page
    -- rides only where the batch takes every message its snapshot could see.
    select * into f from libsql_sync.floor(c);
    b.source_time := clock_timestamp();
    if request -> 'page' is not null and not c.reopen then
      w := libsql_sync.next_walk(c, at, (request #>> '{page,scrub}')::boolean);
      if w.walk_gen is not null and not libsql_sync.hold_page(w, at) then
        w := null;
      end if;
    end if;
    select d.*, pg_current_snapshot()::text as snapshot,
      case when d.drained and w.walk_gen is not null
        then libsql_sync.read_page(w, at, (request -> 'page')::jsonb, d.messages) end as page
    into h
    from libsql_sync.head(f.lowest, coalesce(ahead.msg_ids, '{}'),
      (request ->> 'messages_max')::integer, (request ->> 'bytes_max')::integer) d;
    if f.settled is not null or f.lowest <> c.floor or c.floor_next is null then
      perform libsql_sync.keep_floor(case when f.settled is null then f.lowest
        else greatest(f.lowest, least(f.settled, lower(h.msg_ids), lower(ahead.msg_ids))) end);
    end if;
    if h.messages = 0 and h.page is null and ahead.batch is not null then
      return array[json_build_object('do', 'none', 'acked', acked)::text];
    end if;
    if h.messages = 0 and (at ->> 'drained')::integer = 1 and h.page is null and not c.reopen then
      return array[(jsonb_build_object('do', 'idle', 'acked', acked, 'behind', 0)
        || libsql_sync.end_sync(request, acked))::text];
    end if;
    b.parked := libsql_sync.still_aside(h.msg_ids);
    -- The one before may bring whole what this one would leave aside.
    if b.parked <> '[]' and ahead.batch is not null then
      return array[json_build_object('do', 'none', 'acked', acked)::text];
    end if;
    b.epoch := c.epoch;
    b.position := coalesce(ahead.position, c.position) + 1;
    b.batch := gen_random_uuid();
    b.prev := coalesce(ahead.batch, c.batch);
    b.version := 1 + (
      select coalesce(max(v.version), 0) from libsql_sync.batches v
      where v.epoch = b.epoch and v.position = b.position);
    b.ahead := ahead.batch is not null;
    b.msg_ids := h.msg_ids;
    b.messages := h.messages;
    b.drained := h.drained;
    -- Of what a batch leaves in the queue its snapshot would promise too much.
    b.snapshot := case when h.drained then h.snapshot else libsql_sync.snapshot_at(c.epoch, c.position) end;
    b.dead_letters := (select count(*) from (select from pgmq.q_replicate_data_libsql_dlq limit 10000) d)
      + jsonb_array_length(coalesce(ahead.parked, '[]')) - jsonb_array_length(b.parked);
    b.state := 'pending';
    b.acked_at := null;
    b.reopen := c.reopen;
    insert into libsql_sync.batches select b.*;
    -- What is left in the queue may be older than what went past it.
    update libsql_sync.chain set reopen = reopen and not h.drained where id = 1;
  end if;

  -- 7. Hand it out. "dead_letters" are those open when it was first claimed; what it
  -- parks comes on top.
  pieces := coalesce(h.page, array['null']);
  pieces := array_prepend('{"page": '::text, pieces);
  pieces := pieces || ', "messages": ['::text;
  pieces := pieces || coalesce(h.envelopes, '');
  pieces := pieces || ('], ' || substr(json_build_object(
    'do', 'batch', 'kind', kind, 'acked', acked,
    'epoch', b.epoch, 'position', b.position, 'batch', b.batch, 'prev', b.prev,
    'drained', b.drained, 'snapshot', b.snapshot, 'source_time', b.source_time,
    'dead_letters', b.dead_letters, 'parked', b.parked, 'reopen', b.reopen)::text, 2));
  return pieces;
end
$$;
