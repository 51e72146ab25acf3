-- A short text that names this transaction, "xid:seconds:epoch"; lib/reader.ts
-- tells whether a replica contains it, and with it all that it could see. Call it
-- where you write, or after the COMMIT. It takes a transaction id, no lock.
--
-- A source put back to an earlier time numbers its transactions anew while the
-- replica still has the old ones: no batch taken before "seconds" contains this
-- one. That is 2 s before it began, as a claim tells its time before its snapshot.
create or replace function libsql_sync.bookmark()
returns text
language sql volatile
security definer -- whoever writes may call this and touch no table of ours
set search_path = pg_catalog, pg_temp
as $$
  select pg_current_xact_id()::text || ':'
    || (floor(extract(epoch from now()))::bigint - 2) || ':' || c.epoch
  from libsql_sync.chain c
$$;
