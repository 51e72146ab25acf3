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

-- Or a sync that ends while it looks for what is refused would have looked for nothing.
-- A row that changed since is tried again.
create or replace function libsql_sync.parked_before(b libsql_sync.batches)
returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  last libsql_sync.batches;
  newer libsql_sync.batches := b;
begin
  select * into last from libsql_sync.batches v
  where v.epoch = b.epoch and v.position = b.position and v.prev = b.prev and v.parked <> '[]'
  order by v.handed_at desc limit 1;
  if not found then
    return '[]';
  end if;
  newer.msg_ids := b.msg_ids - last.msg_ids;
  return (
    select coalesce(jsonb_agg(p.parked order by p.n), '[]')
    from jsonb_array_elements(last.parked) with ordinality p (parked, n)
    where p.parked -> 'key' <> 'null' and (p.parked ->> 'table', p.parked -> 'key') not in (
      select k.table_name, k.key from libsql_sync.covered_keys(newer) k where k.table_name is distinct from null));
end
$$;
comment on function libsql_sync.parked_before(libsql_sync.batches) is
  'The rows that a version leaves out from the start: those that the last version of its position parked, if no message of them has come since.';
