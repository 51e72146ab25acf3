-- The worker's one call: move the head to where the replica stands, and hand out the next
-- version.
--
-- Its steps: 1. whose replica is it, 2. does it have the schema, 3. where does it stand,
-- 4. the next version from one snapshot, recorded before 5. the answer. The chain's row is
-- locked first; the steps are VOLATILE, so that each later statement takes a new snapshot.
-- admit() is in 52_epoch, move_head() in 54_settle, held_walk() in 40_walk, read_page() in
-- 42_read_page, read_changes() in 43_read_changes.

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
-- times on their way, and as json parsed for nothing. Nothing is ever handed out again:
-- what was lost is claimed anew, and whichever version lands is on record.
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
  head record;
  bound record;
  f record;
  asked text[];
  held text[];
  busy text[];
  source_time timestamptz;
  h record;
begin
  perform libsql_sync.require_read_committed();
  -- The lock comes first, by a statement of its own: a snapshot taken before it
  -- would hand out messages that another claim settled meanwhile. It waits: a call
  -- that only asks for the lease holds the row as well, and must not end a running
  -- sync.
  select * into c from libsql_sync.chain where id = 1 for update;
  if c.lease is null or c.lease is distinct from request ->> 'lease' then
    return array['{"do": "busy", "acked": 0, "put_back": 0}'];
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
  if libsql_sync.is_other_queue(c) then
    update libsql_sync.chain set floor_queue = null, floor = 0 where id = 1;
    perform libsql_sync.begin_epoch('the queue is another one: it was dropped, or restored without its messages', false);
  end if;
  select * into c from libsql_sync.chain where id = 1;

  -- 1. and 2.
  answer := libsql_sync.admit(c, at, request);
  if answer is not null then
    return array[answer];
  end if;
  -- 3.
  select * into head from libsql_sync.move_head(c, at);
  if head.answer is not null then
    return array[head.answer];
  end if;
  c := head.moved;
  if (request ->> 'rows_max')::integer = 0 then
    return array[(jsonb_build_object('do', 'settled', 'acked', head.acked, 'put_back', head.put_back)
      || libsql_sync.end_sync(request, head.acked))::text];
  end if;

  -- 4. On top of the head, or of a version that is being applied on top of that.
  answer := json_build_object('do', 'none', 'acked', head.acked, 'put_back', head.put_back);
  if request ->> 'ahead' is not null then
    ahead := libsql_sync.version_at(c.epoch, c.position + 1, request ->> 'ahead');
    if ahead.prev is distinct from c.batch or c.walk_wanted > c.walk_opened or ahead.drained and ahead.upto is null then
      return array[answer];
    end if;
    at := at || coalesce(ahead.upto, '{}');
  end if;
  bound := libsql_sync.bound_of(c, ahead, request);
  select * into f from libsql_sync.floor(c);
  if request -> 'page' is not null and c.walk_wanted = c.walk_opened and (ahead.batch is null or ahead.upto is not null) then
    w := libsql_sync.held_walk(c, at, (request #>> '{page,scrub}')::boolean);
  end if;
  -- Changes of a table that another transaction has locked may fill the head: the other
  -- tables do not wait for it.
  asked := libsql_sync.head_tables(f.lowest, '{}', bound.keys_max);
  held := libsql_sync.lock_tables(asked);
  if cardinality(held) < cardinality(asked) then
    busy := array(select a from unnest(asked) a where a <> all (held));
    held := held || libsql_sync.lock_tables(libsql_sync.head_tables(f.lowest, busy, bound.keys_max));
  end if;
  busy := array(select t.name from libsql_sync.tables t where t.name <> all (held));
  source_time := clock_timestamp();
  select d.*, pg_current_snapshot()::text as snapshot,
    case when w.walk_gen is not null and not d.opens
      then libsql_sync.read_page(w, at, bound.page, d.drained and d.messages = 0) end as page
  into h
  from libsql_sync.read_changes(f.lowest, ahead, busy, bound.keys_max, bound.bytes_max) d;
  -- These look later than the version's snapshot, and so at all that it saw.
  h.opens := libsql_sync.note_unqueued(c) or libsql_sync.note_shapes() or h.opens;
  if h.opens then
    if ahead.batch is not null then
      return array[answer];
    end if;
    -- A page that was read beside it is not handed out: the walk begins anew.
    h.page := null;
    update libsql_sync.chain set walk_wanted = walk_wanted + 1 where id = 1 returning * into c;
  end if;
  if f.settled is not null or f.lowest <> c.floor or c.floor_next is null then
    perform libsql_sync.keep_floor(case when f.settled is null then f.lowest
      else greatest(f.lowest, least(f.settled, h.first)) end);
  end if;
  if h.messages = 0 and h.cut_id is null and h.page is null and c.walk_wanted = c.walk_opened then
    if ahead.batch is not null then
      return array[answer];
    elsif (at ->> 'drained')::integer = 1 or not h.drained then
      return array[(jsonb_build_object('do', 'idle', 'acked', head.acked, 'put_back', head.put_back)
        || libsql_sync.end_sync(request, head.acked))::text];
    end if;
  end if;
  b := libsql_sync.record_next(c, ahead, h.msg_ids, h.messages, h.cut_id, h.cut_count, h.truncated,
    h.drained, h.snapshot, source_time, h.unusable, h.page);

  -- 5. "dead_letters" are those it leaves open; what it parks comes on top.
  return array['{"page": '] || coalesce(h.page, array['null']) || array[', "tables": [']
    || h.pieces || array[concat('], ', substr(json_build_object(
      'do', 'batch', 'acked', head.acked, 'put_back', head.put_back,
      'epoch', b.epoch, 'position', b.position, 'batch', b.batch, 'prev', b.prev,
      'drained', b.drained, 'snapshot', b.snapshot, 'source_time', b.source_time,
      'dead_letters', b.dead_letters, 'reopen', b.opens is not null,
      'messages', b.messages, 'unusable', h.unusable, 'parked', b.parked)::text, 2))];
end
$$;
comment on function libsql_sync.claim(json) is
$$The next version for a replica that stands at "row", after the head was moved there.
In: {"lease": token, "seconds": n, "schema": hash, "row": {...} | null, "rows_max": n, "bytes_max": n, "page": {"rows", "bytes", "scrub", "keys"}?, "walked": [...], "ahead": batch?, "take_over": boolean?}
Out: one JSON text in pieces, to be joined: {"do": "bootstrap" | "adopt" | "alter" | "batch" | "none" | "idle" | "settled" | "busy" | "stop", "acked": n, "put_back": n, ...}; of a batch {"page", "tables", "unusable", "parked", "messages", "epoch", "position", "batch", "prev", "drained", "snapshot", "source_time", "dead_letters", "reopen"}.
"ahead" names the version that is being applied on top of "row": the answer is one after it, or none. "take_over" makes the replica of another source ours, emptied. With "rows_max" 0 it hands out nothing. When settled or idle it gives the lease back and adds what release() answers.$$;

-- If two versions of a position did not land, they may have been too much: the third is
-- half as large, and so on. A worker remembers a size only as long as it lives.
create or replace function libsql_sync.bound_of(
  c libsql_sync.chain, ahead libsql_sync.batches, request json,
  out keys_max integer, out bytes_max bigint, out page jsonb
)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select greatest(1, (request ->> 'rows_max')::integer / t.share), greatest(1, (request ->> 'bytes_max')::bigint / t.share),
    (request -> 'page')::jsonb || jsonb_build_object(
      'rows', greatest(1, (request #>> '{page,rows}')::integer / t.share),
      'bytes', greatest(1, (request #>> '{page,bytes}')::bigint / t.share))
  from (
    select (2 ^ least(greatest(count(*) - 1, 0), 16))::integer as share
    from libsql_sync.batches v
    where v.epoch = c.epoch and v.position = coalesce(ahead.position, c.position) + 1
      and v.prev = coalesce(ahead.batch, c.batch)
  ) t
$$;
comment on function libsql_sync.bound_of(libsql_sync.chain, libsql_sync.batches, json) is
  'How many keys and bytes a version may have, and the request for its page: what the worker asks for, less if versions of the same position did not land.';

create or replace function libsql_sync.is_other_queue(c libsql_sync.chain)
returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(c.floor_queue <> 'pgmq.q_replicate_data_libsql'::regclass
    -- Its numbering began again.
    or libsql_sync.drawn() + 1 < c.floor, false)
$$;
comment on function libsql_sync.is_other_queue(libsql_sync.chain) is
  'Whether the queue is not the one that the last claim has read.';

-- The record of step 4.
create or replace function libsql_sync.record_next(
  c libsql_sync.chain, ahead libsql_sync.batches, msg_ids int8multirange, messages integer,
  cut_id bigint, cut_count integer, truncated text[], drained boolean, snapshot text, source_time timestamptz,
  unusable jsonb, page text[]
)
returns libsql_sync.batches
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  b libsql_sync.batches;
  page_head jsonb;
  inherited jsonb;
begin
  b.epoch := c.epoch;
  b.position := coalesce(ahead.position, c.position) + 1;
  b.batch := gen_random_uuid();
  b.prev := coalesce(ahead.batch, c.batch);
  b.msg_ids := record_next.msg_ids;
  b.messages := record_next.messages;
  b.cut_id := record_next.cut_id;
  b.cut_count := record_next.cut_count;
  b.truncated := record_next.truncated;
  b.drained := record_next.drained;
  -- Of what a version leaves in the queue its own snapshot would promise too much.
  -- '3:3:' sees no transaction.
  b.snapshot := case when record_next.drained then record_next.snapshot
    else coalesce(ahead.snapshot, (libsql_sync.version_at(c.epoch, c.position, c.batch)).snapshot, '3:3:') end;
  b.source_time := record_next.source_time;
  inherited := libsql_sync.parked_before(b);
  -- The worker parks the unusable in any case, and their letters are filed anew.
  b.parked := inherited || (select coalesce(jsonb_agg(u.said || '{"key": null}'), '[]') from jsonb_array_elements(record_next.unusable) u (said));
  b.dead_letters := coalesce(ahead.dead_letters + jsonb_array_length(ahead.parked), libsql_sync.letters_left(b));
  b.parked := inherited;
  b.opens := case when c.walk_wanted > c.walk_opened then c.walk_wanted end;
  -- The last piece of a page is its answer without cells.
  page_head := ('{' || substr(page[cardinality(page)], 3))::jsonb;
  b.upto := case when page_head ->> 'kind' <> 'scrub' and page_head ->> 'half' = 'forward'
      and (page_head ->> 'upto')::jsonb ->> 'table' = page_head ->> 'table'
      and (page_head ->> 'upto')::jsonb ->> 'half' = 'forward'
    then jsonb_build_object('walk_gen', page_head -> 'walk_gen', 'walk_at', page_head -> 'upto') end;
  b.handed_at := clock_timestamp();
  b.state := 'handed';
  b.closed := '[]';
  b.opened := '{}';
  insert into libsql_sync.batches select b.*;
  update libsql_sync.chain set handed = greatest(handed, b.position) where id = 1;
  return b;
end
$$;
comment on function libsql_sync.record_next(libsql_sync.chain, libsql_sync.batches, int8multirange, integer, bigint, integer, text[], boolean, text, timestamptz, jsonb, text[]) is
  'Records a version, before it is handed out.';
