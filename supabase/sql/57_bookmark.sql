-- Reading your own write: a writer takes a bookmark, and lib/reader.ts reports whether a
-- replica contains it.

-- A source that is restored to an earlier time numbers its transactions anew, while the
-- replica still has the old ones: no batch taken before "seconds" contains this one. It is
-- 2 s before the transaction began, as a claim reads its time before its snapshot.
create or replace function libsql_sync.bookmark()
returns text
language sql volatile
security definer -- roles that write may call this and touch no table of ours
set search_path = pg_catalog, pg_temp
as $$
  select pg_current_xact_id()::text || ':'
    || (floor(extract(epoch from now()))::bigint - 2) || ':' || c.epoch
  from libsql_sync.chain c
$$;
comment on function libsql_sync.bookmark() is
  'A short text that names this transaction, "xid:seconds:epoch". A reader of the replica can ask whether the replica contains it, and with it all that it could see. Call it in the transaction that writes, or after its COMMIT. It takes a transaction id and no lock.';
