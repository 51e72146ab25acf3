-- Parking: changes that the replica cannot take are recorded before the batch is applied
-- without them, so that the rest can go on.

-- The set only grows. Changes of a batch that is replayed are dead letters at once, as
-- it was settled long ago.
create or replace function libsql_sync.park(request json)
returns json
language plpgsql
security definer -- the worker's role may call this and touch no table
set search_path = pg_catalog, pg_temp
set lock_timeout = '5s'
as $$
declare
  b libsql_sync.batches;
  fresh jsonb;
begin
  perform from libsql_sync.chain where id = 1 for update;
  select * into b from libsql_sync.batches v
  where v.epoch = request ->> 'epoch' and v.position = (request ->> 'position')::bigint
    and v.batch = request ->> 'batch'
    and v.state = case when request ->> 'kind' = 'replay' then 'acked' else 'pending' end;
  if not found then
    return '{"do": "gone"}';
  end if;
  select coalesce(jsonb_agg(n.change order by n.n), '[]') into fresh
  from jsonb_array_elements((request -> 'changes')::jsonb) with ordinality n (change, n)
  where not exists (
    select from jsonb_array_elements(b.parked) p
    where p - 'reason' = n.change - 'reason'
  );
  update libsql_sync.batches v set parked = v.parked || fresh
  where v.epoch = b.epoch and v.position = b.position and v.batch = b.batch;
  if b.state = 'acked' then
    perform libsql_sync.dead_letter(b, fresh);
  end if;
  return '{"do": "parked"}';
end
$$;
comment on function libsql_sync.park(json) is
$$Records that changes of a pending batch are left out of it.
In: {"epoch", "position", "batch", "kind", "changes": [{"msg_id", "table", "key", "reason"}]}
Out: {"do": "parked" | "gone"}; "gone" if the batch is not pending any more.$$;
