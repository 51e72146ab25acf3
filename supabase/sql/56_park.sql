-- Parking: rows that the replica cannot take are recorded before the version is applied
-- without them, so that the rest can go on.

-- A version that can land next, or after the one that is being applied. One that cannot is
-- not applied either: what it lacked would close a letter, or open one, for nothing.
create or replace function libsql_sync.park(request json)
returns json
language plpgsql
security definer -- the worker's role may call this and touch no table
set search_path = pg_catalog, pg_temp
set lock_timeout = '5s'
as $$
declare
  c libsql_sync.chain;
  b libsql_sync.batches;
begin
  select * into c from libsql_sync.chain where id = 1 for update;
  b := libsql_sync.version_at(request ->> 'epoch', (request ->> 'position')::bigint, request ->> 'batch');
  if b.state is distinct from 'handed' or b.epoch <> c.epoch or not (
    b.position = c.position + 1 and b.prev = c.batch
    or b.position = c.position + 2 and (libsql_sync.version_at(c.epoch, c.position + 1, b.prev)).prev = c.batch)
  then
    return '{"do": "gone"}';
  end if;
  update libsql_sync.batches v set parked = v.parked || (
    select coalesce(jsonb_agg(n.parked order by n.n), '[]')
    from jsonb_array_elements((request -> 'rows')::jsonb) with ordinality n (parked, n)
    where not exists (
      select from jsonb_array_elements(v.parked) p where p - 'reason' = n.parked - 'reason'))
  where v.epoch = b.epoch and v.position = b.position and v.batch = b.batch;
  return '{"do": "parked"}';
end
$$;
comment on function libsql_sync.park(json) is
$$Records that rows are left out of a version.
In: {"epoch", "position", "batch", "rows": [{"table", "key", "reason"}]}; the key is null for a message that names none.
Out: {"do": "parked" | "gone"}; "gone" if the version cannot be the next one any more.$$;
