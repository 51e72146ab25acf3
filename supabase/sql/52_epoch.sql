-- A new epoch: the old one is an ancestor, its pending batch is dropped (its
-- messages stay queued). The caller holds the chain's row lock.
create or replace function libsql_sync.begin_epoch(reason text, wipe boolean)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  genesis text := gen_random_uuid();
begin
  insert into libsql_sync.epochs (epoch, wipe, reason) values (genesis, begin_epoch.wipe, begin_epoch.reason);
  -- Tables that are created empty are not searched for ghosts, and the queue may
  -- still bring rows that went past it: only what reopens looks for them.
  update libsql_sync.chain set epoch = genesis, position = 0, batch = genesis, letters_closed = 0,
    reopen = reopen or exists (select from libsql_sync.batches b where b.state = 'pending' and b.reopen)
  where id = 1;
  delete from libsql_sync.batches where state = 'pending';
  -- A replica that follows starts with walk 0: whatever is asked for comes after.
  delete from libsql_sync.walks where true;
  return genesis;
end
$$;

-- The answer that makes a replica of an ancestor follow us.
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

-- A new epoch, if the one expected is still ours:
-- {"expected": epoch, "wipe": boolean, "reason"} -> {"do": "begun" | "moved", "epoch"}.
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
