-- What walks found, for status and for dead letters that a walk has repaired; and how a
-- walk is asked for.

create or replace function libsql_sync.note_walked(walked jsonb, at jsonb)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  -- Not what a backfill finds: it writes what is not there yet.
  with noted as (
    select t.name, w.repair, f.value ->> 'failed' is null and (f.value ->> 'ended')::boolean as ended,
      (f.value ->> 'differing')::bigint + (f.value ->> 'ghosts')::bigint as found,
      case when w.kind in ('verify', 'scrub') then
        (f.value ->> 'differing')::bigint + (f.value ->> 'ghosts')::bigint
        - coalesce((w.found -> t.name ->> 'differing')::bigint + (w.found -> t.name ->> 'ghosts')::bigint, 0)
      else 0 end as more
    from jsonb_array_elements(walked) f
    join libsql_sync.walks w on w.walk_gen = (f.value ->> 'walk_gen')::bigint and w.kind <> 'redrive'
    join libsql_sync.tables t on t.name = f.value ->> 'table'
  )
  insert into libsql_sync.counts as c (table_name, drift, drifted, verified_at)
  select n.name, greatest(n.more, 0), case when n.ended then n.found > 0 and not n.repair else n.more > 0 end,
    case when n.ended then clock_timestamp() end
  from noted n
  where n.more > 0 or n.ended
  on conflict (table_name) do update set
    drift = c.drift + excluded.drift,
    drifted = case when excluded.verified_at is null then c.drifted or excluded.drifted else excluded.drifted end,
    verified_at = coalesce(excluded.verified_at, c.verified_at);
  update libsql_sync.walks w set
    found = w.found || jsonb_build_object(f.value ->> 'table', f.value - 'walk_gen' - 'table'),
    ended_at = case when (f.value ->> 'ended')::boolean and f.value ->> 'table' = w.tables[cardinality(w.tables)]
      then clock_timestamp() else w.ended_at end
  from jsonb_array_elements(walked) f
  where w.walk_gen = (f.value ->> 'walk_gen')::bigint;
  -- What was parked before the walk, and not again by it, is repaired, if the replica's
  -- row still says that the walk came through.
  with closed as (
    delete from pgmq.q_replicate_data_libsql_dlq d
    using jsonb_array_elements(walked) f
    join libsql_sync.walks w on w.walk_gen = (f.value ->> 'walk_gen')::bigint
    where (f.value ->> 'ended')::boolean and w.repair and f.value ->> 'failed' is null
      and d.message ->> 'table' = f.value ->> 'table'
      and d.msg_id <= w.letters_until
      and (w.kind = 'redrive' or d.message ->> 'reason' not like 'libSQL refused%')
      and (w.keys is null or w.keys @> jsonb_build_array(d.message -> 'key'))
      and ((at ->> 'walk_gen')::bigint > w.walk_gen or (at ->> 'walk_gen')::bigint = w.walk_gen and (
        at ->> 'walk_at' is null
        or array_position(w.tables, (at ->> 'walk_at')::jsonb ->> 'table')
          > array_position(w.tables, f.value ->> 'table')))
    returning d.msg_id
  )
  update libsql_sync.chain set letters_closed = greatest(letters_closed, (at ->> 'position')::bigint)
  where id = 1 and exists (select from closed)
$$;
comment on function libsql_sync.note_walked(jsonb, jsonb) is
  'Records what walks found, and closes the dead letters that they repaired. In: [{"walk_gen", "table", "rows", "differing", "ghosts", "ended", "failed"?}, ...] as the replica counted it, and the replica''s row.';

create or replace function libsql_sync.request_walk(request json)
returns json
language plpgsql
security definer -- the worker's role may call this and touch no table
set search_path = pg_catalog, pg_temp
set lock_timeout = '5s'
as $$
declare
  c libsql_sync.chain;
  w libsql_sync.walks;
  everything text[] := array(select t.name from libsql_sync.tables t order by t.name);
  asked text[] := case when request ->> 'table' is null then everything else array[request ->> 'table'] end;
  repairs boolean := request ->> 'kind' = 'backfill' or coalesce((request ->> 'repair')::boolean, false);
begin
  if not asked <@ everything then
    return json_build_object('do', 'unknown_table');
  end if;
  select * into strict c from libsql_sync.chain where id = 1 for update;
  if request ->> 'kind' = 'backfill' then
    update libsql_sync.chain set refill = true where id = 1;
  end if;
  select * into w from libsql_sync.walks v
  where v.kind = request ->> 'kind' and v.tables = asked and v.repair = repairs and v.keys is null
    and v.walk_gen > coalesce((c.seen ->> 'walk_gen')::bigint, 0)
      - case when c.seen ->> 'walk_at' is null then 0 else 1 end
  order by v.walk_gen limit 1;
  if not found then
    insert into libsql_sync.walks (kind, tables, repair, closes, reason, letters_until)
    values (request ->> 'kind', asked, repairs, repairs and asked = everything, 'asked for', libsql_sync.newest_letter())
    returning * into w;
  end if;
  return json_build_object('do', 'requested', 'walk_gen', w.walk_gen, 'tables', w.tables);
end
$$;
comment on function libsql_sync.request_walk(json) is
$$Asks for a walk.
In: {"kind": "backfill" | "verify", "table": name?, "repair": boolean?}
Out: {"do": "requested", "walk_gen", "tables"} or {"do": "unknown_table"}. If one of the same kind has not ended, it is answered again.$$;
