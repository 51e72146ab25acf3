-- Epochs. A chain of batches belongs to one; when it cannot go on (a restored source, a
-- nuke, a queue over its cap) a new one begins, and the replica adopts it. First question
-- of a claim: is the replica of our epoch, and does it have the schema?

-- The caller holds the chain's row lock.
create or replace function libsql_sync.begin_epoch(reason text, wipe boolean)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  genesis text := gen_random_uuid();
begin
  insert into libsql_sync.epochs (epoch, wipe, reason) values (genesis, begin_epoch.wipe, begin_epoch.reason);
  update libsql_sync.chain set epoch = genesis, position = 0, batch = genesis, handed = 0, letters_closed = 0
  where id = 1;
  -- What is settled goes with its archived messages (trim).
  delete from libsql_sync.batches where state = 'handed';
  -- A replica that follows starts with walk 0: each walk that is asked for comes after.
  delete from libsql_sync.walks where true;
  return genesis;
end
$$;
comment on function libsql_sync.begin_epoch(text, boolean) is
  'Begins a new epoch and returns its id. The old one is an ancestor; the versions it handed out are dropped, and their messages stay queued. In: the reason, and whether a replica that follows is emptied.';

create or replace function libsql_sync.adopt_answer(from_epoch text)
returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'do', 'adopt', 'epoch', c.epoch, 'from', from_epoch,
    'reason', (select e.reason from libsql_sync.epochs e where e.epoch = c.epoch),
    'wipe', exists (
      select from libsql_sync.epochs e
      join libsql_sync.epochs f on f.epoch = from_epoch
      where e.generation > f.generation and e.wipe
    ))
  from libsql_sync.chain c
$$;
comment on function libsql_sync.adopt_answer(text) is
  'The answer that makes a replica of an older epoch follow: {"do": "adopt", "epoch", "from", "reason", "wipe"}.';

create or replace function libsql_sync.reset(request json)
returns json
language plpgsql
security definer -- the worker's role may call this and touch no table
set search_path = pg_catalog, pg_temp
set lock_timeout = '5s'
as $$
declare
  c libsql_sync.chain;
begin
  select * into strict c from libsql_sync.chain where id = 1 for update;
  if c.epoch <> request ->> 'expected' then
    return json_build_object('do', 'moved', 'epoch', c.epoch);
  end if;
  update libsql_sync.chain set refill = coalesce((request ->> 'refill')::boolean, refill) where id = 1;
  return json_build_object('do', 'begun', 'epoch',
    libsql_sync.begin_epoch(request ->> 'reason', (request ->> 'wipe')::boolean));
end
$$;
comment on function libsql_sync.reset(json) is
$$Begins a new epoch, if the expected one is still in force.
In: {"expected": epoch, "wipe": boolean, "reason": text, "refill": boolean?}
Out: {"do": "begun" | "moved", "epoch"}.$$;

create or replace function libsql_sync.begin_again(at jsonb, reason text)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform libsql_sync.begin_epoch(reason, false);
  return libsql_sync.adopt_answer(at ->> 'epoch') || '{"acked": 0, "put_back": 0}';
end
$$;
comment on function libsql_sync.begin_again(jsonb, text) is
  'A new epoch without a wipe, and the answer of the claim that makes the replica follow.';

-- Steps 1 and 2 of claim().
create or replace function libsql_sync.admit(c libsql_sync.chain, at jsonb, request json)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  newest bigint := (select max(s.generation) from libsql_sync.schemas s);
  mine bigint := (select s.generation from libsql_sync.schemas s where s.hash = request ->> 'schema');
begin
  if mine is null or mine < newest then
    return json_build_object('do', 'stop', 'acked', 0, 'put_back', 0,
      'error', case when mine is null then 'schema_unknown' else 'schema_outdated' end);
  end if;

  if at is null then
    return json_build_object('do', 'bootstrap', 'acked', 0, 'put_back', 0, 'epoch', c.epoch,
      'wipe', c.position = 0 and (select e.wipe from libsql_sync.epochs e where e.epoch = c.epoch));
  end if;
  if at ->> 'epoch' <> c.epoch then
    if not exists (select from libsql_sync.epochs e where e.epoch = at ->> 'epoch') then
      if (request ->> 'take_over')::boolean is not true then
        return '{"do": "stop", "acked": 0, "put_back": 0, "error": "replica_foreign"}';
      end if;
      -- An ancestor from now on, and older than the epoch that wipes.
      insert into libsql_sync.epochs (epoch, wipe, reason) values (at ->> 'epoch', false, 'taken over from another source');
      perform libsql_sync.begin_epoch('the replica of another source was taken over', true);
    end if;
    return libsql_sync.adopt_answer(at ->> 'epoch') || '{"acked": 0, "put_back": 0}';
  end if;

  if at ->> 'schema_hash' <> request ->> 'schema' then
    if not exists (select from libsql_sync.schemas s where s.hash = at ->> 'schema_hash') then
      return '{"do": "stop", "acked": 0, "put_back": 0, "error": "schema_outdated"}';
    end if;
    return json_build_object('do', 'alter', 'acked', 0, 'put_back', 0, 'from', at ->> 'schema_hash');
  end if;
  return null;
end
$$;
comment on function libsql_sync.admit(libsql_sync.chain, jsonb, json) is
  'Whether worker and replica agree with us on schema and epoch: null, or the answer of the claim that says what to do first (stop, bootstrap, adopt, alter).';
