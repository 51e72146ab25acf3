-- LibSQL Sync Worker: everything the source needs.
--
-- What:  the queue replicate_data_libsql, statement triggers that fill it, the
--        private schema libsql_sync whose functions hand out one chain of
--        batches, role libsql_sync_worker which may call those and nothing
--        else, and a cron job that calls the worker.
-- Locks: SHARE ROW EXCLUSIVE on each listed table while its triggers are made, or
--        what they send is changed, 3 s at most; only where they are missing or
--        differ.
-- Again: safe to run again, and twice at once.
-- Undo:  select libsql_sync.uninstall('uninstall')
--
-- It runs as a role that is no superuser (Supabase's postgres), on PostgreSQL 15
-- and later, on PGMQ 1.4.4 and later: of PGMQ's tables only msg_id, read_ct,
-- enqueued_at, vt and message are used, by name.

set client_min_messages = notice;
-- Where somebody else may create in public, his function or operator for just our
-- types would run here, as the owner. It ends with the file.
set search_path = pg_catalog, pg_temp;
select pg_advisory_xact_lock(hashtext('libsql_sync install'));
