-- Which walk is next. A walk reads tables page by page; a page rides on a drained batch
-- and is read in its snapshot (42_read_page). Its progress is in the replica's row, never
-- here: a batch that is lost takes its progress along.

-- Ids say what came first, as a clock may go back. Letters are filed under the chain's
-- lock, so none with a smaller id appears late.
create or replace function libsql_sync.newest_letter()
returns bigint
language sql stable
set search_path = pg_catalog, pg_temp
as $$ select coalesce(max(d.msg_id), 0) from pgmq.q_replicate_data_libsql_dlq d $$;
comment on function libsql_sync.newest_letter() is
  'The newest dead letter''s id, or 0.';

create or replace function libsql_sync.next_walk(c libsql_sync.chain, at jsonb, may_scrub boolean)
returns libsql_sync.walks
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  w libsql_sync.walks;
  everything text[];
begin
  select * into w from libsql_sync.walks v
  where v.walk_gen = (at ->> 'walk_gen')::bigint and at ->> 'walk_at' is not null;
  -- A scrub gives way to every walk that was asked for, begun or not.
  if w.walk_gen is null or w.kind = 'scrub' then
    select * into w from (
      select v.* from libsql_sync.walks v
      where v.walk_gen > (at ->> 'walk_gen')::bigint
        and (v.kind <> 'scrub' or may_scrub and c.scrub_rows > 0)
        -- A scrub that the replica forgot would walk it at a scrub's pace.
        and (v.kind <> 'scrub' or (at ->> 'walk_done')::integer = 1)
      order by v.walk_gen limit 1
    ) v
    union all select w.* where w.walk_gen is not null
    limit 1;
  end if;
  if w.walk_gen is null then
    everything := array(select t.name from libsql_sync.tables t order by t.name);
    if (at ->> 'walk_done')::integer = 0 and c.refill and not exists (
      -- One that ended and left it so found a table it could not read: not at once again.
      select from libsql_sync.walks v
      where v.kind = 'backfill' and v.ended_at > clock_timestamp() - interval '15 minutes'
        and v.walk_gen = (at ->> 'walk_gen')::bigint and v.tables = everything
        and exists (select from jsonb_each(v.found) f where f.value ->> 'failed' <> '42P01')
    ) then
      insert into libsql_sync.walks (kind, tables, repair, closes, reason, letters_until)
      values ('backfill', everything, true, true, 'the replica was not walked yet', libsql_sync.newest_letter())
      returning * into w;
    elsif (at ->> 'walk_done')::integer = 1 and c.scrub_rows > 0 and may_scrub then
      insert into libsql_sync.walks (kind, tables, repair, closes, reason, letters_until)
      values ('scrub', everything, true, true, 'the background check', libsql_sync.newest_letter())
      returning * into w;
    end if;
  end if;
  if w.kind = 'scrub' and (not may_scrub or c.scrub_rows = 0) then
    return null;
  end if;
  return w;
end
$$;
comment on function libsql_sync.next_walk(libsql_sync.chain, jsonb, boolean) is
  'The walk that a replica takes next, or null: the one it is in, the next that was asked for, a backfill if it was not walked yet, or the scrub if that may run now. In: the chain, the replica''s row, whether a scrub may run.';

create or replace function libsql_sync.held_walk(c libsql_sync.chain, at jsonb, may_scrub boolean)
returns libsql_sync.walks
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  w libsql_sync.walks := libsql_sync.next_walk(c, at, may_scrub);
begin
  if w.walk_gen is not null and libsql_sync.hold_page(w, at) then
    return w;
  end if;
  return null;
end
$$;
comment on function libsql_sync.held_walk(libsql_sync.chain, jsonb, boolean) is
  'The walk whose page may ride on the next batch, with the page''s table locked; null if there is no walk, or another transaction holds the table.';
