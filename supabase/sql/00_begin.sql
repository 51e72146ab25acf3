-- LibSQL Sync Worker: everything the source needs, in the order of the files.
--
-- What:  the queue replicate_data_libsql, statement triggers that fill it, the
--        private schema libsql_sync whose functions hand out one chain of
--        batches, the role libsql_sync_worker that may call those and nothing
--        else, and a cron job that calls the worker.
-- Locks: SHARE ROW EXCLUSIVE on a listed table while its triggers are made or
--        what they send changes, 3 s at most; no lock if they are as they should be.
-- Again: safe to run again, and twice at the same time.
-- Undo:  select libsql_sync.uninstall('uninstall')
--
-- It needs no superuser (Supabase's postgres will do), PostgreSQL 15 or later and
-- PGMQ 1.4.4 or later: of PGMQ's tables it uses only msg_id, read_ct, enqueued_at,
-- vt and message, by name.
--
-- Names without a schema. Every function here sets search_path to pg_catalog,
-- pg_temp. So a name without a schema is PostgreSQL's own: functions and operators
-- are never looked up in pg_temp, and a type or table of that name in pg_temp comes
-- after pg_catalog's. What is not PostgreSQL's is always written with its schema.
-- '' would not do: then pg_temp comes first for types, and a writer's own type
-- "text", with the writer's function in its check, would run with the owner's rights
-- in the trigger. SQL that runs in other sessions (the cron job of realtime) names
-- pg_catalog, and so do generated texts where an operator stands in the place of
-- one of the key's index, which may be an extension's.

set client_min_messages = notice;
-- Until the end of the file: an operator or function that another role created in
-- public for just our types would run here, with the owner's rights.
set search_path = pg_catalog, pg_temp;
select pg_advisory_xact_lock(hashtext('libsql_sync install'));
