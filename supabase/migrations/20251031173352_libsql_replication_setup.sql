-- LibSQL Sync Worker 0.1.0, the source's side.
--
-- Built by `deno task migration` from supabase/sql/ and schema.json: change
-- those and not this file.

-- supabase/sql/00_begin.sql

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

-- supabase/sql/01_queues.sql

-- The two queues, made by PGMQ: changes wait in replicate_data_libsql, dead letters in
-- replicate_data_libsql_dlq. Triggers write to the first (21_capture), claim() takes from
-- it (55_claim); settled messages lie in its archive for the replay window (54_settle).

create extension if not exists pgmq;

do $$
begin
  if to_regclass('pgmq.q_replicate_data_libsql') is null then
    perform pgmq.create('replicate_data_libsql');
  end if;
  if to_regclass('pgmq.q_replicate_data_libsql_dlq') is null then
    perform pgmq.create('replicate_data_libsql_dlq');
  end if;
end
$$;

-- supabase/sql/02_roles.sql

-- Who may do what: the role libsql_sync_worker, and lock_down(), which revokes all that
-- the default privileges of PostgreSQL, Supabase and PGMQ would grant. attach() calls it,
-- so every run of the migration ends with these rights.

create schema if not exists libsql_sync;

-- The role that may call the worker's functions. It has no login; a login role is its
-- member. Roles belong to the whole server, so another database may have made it.
do $$
begin
  if not exists (select from pg_roles where rolname = 'libsql_sync_worker') then
    create role libsql_sync_worker nologin;
  end if;
exception
  when duplicate_object or unique_violation then null;
  when insufficient_privilege then
    raise notice 'Role libsql_sync_worker is not here, and % may not create roles: have an administrator run create role libsql_sync_worker nologin; then run select libsql_sync.lock_down(). Until then the worker connects as %',
      current_user, current_user;
end
$$;

-- PostgreSQL grants EXECUTE to PUBLIC, Supabase's default privileges grant it to the
-- roles of its API, and PGMQ lets pg_monitor read its tables.
create or replace function libsql_sync.lock_down()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  grantee text;
  routine regprocedure;
begin
  for grantee in
    select 'public' union all
    select quote_ident(r.rolname) from pg_roles r
    where r.rolname in ('anon', 'authenticated', 'service_role', 'pg_monitor', 'libsql_sync_worker')
  loop
    execute 'revoke all on schema libsql_sync from ' || grantee;
    execute 'revoke all on all tables in schema libsql_sync from ' || grantee;
    execute 'revoke all on all sequences in schema libsql_sync from ' || grantee;
    execute 'revoke all on all functions in schema libsql_sync from ' || grantee;
    execute 'revoke all on table pgmq.q_replicate_data_libsql, pgmq.a_replicate_data_libsql,'
      || ' pgmq.q_replicate_data_libsql_dlq, pgmq.a_replicate_data_libsql_dlq from ' || grantee;
    for routine in
      select p.oid from pg_proc p
      where p.pronamespace = 'public'::regnamespace and p.proname in (
        'get_libsql_sync_url', 'get_libsql_webhook_signature',
        'process_libsql_replication_batch', 'trigger_http_queue_post_to_function_libsql')
    loop
      execute format('revoke all on function %s from %s', routine, grantee);
    end loop;
  end loop;
  if exists (select from pg_roles r where r.rolname = 'libsql_sync_worker') then
    grant usage on schema libsql_sync to libsql_sync_worker;
    for routine in
      select p.oid from pg_proc p
      where p.pronamespace = 'libsql_sync'::regnamespace
        and p.proname in ('claim', 'lease', 'park', 'release', 'report', 'request_redrive', 'request_walk', 'reset')
    loop
      execute format('grant execute on function %s to libsql_sync_worker', routine);
    end loop;
  end if;
  -- Roles that write may ask for a bookmark; grant another role of yours the same.
  for grantee in
    select quote_ident(r.rolname) from pg_roles r
    where r.rolname in ('authenticated', 'service_role')
  loop
    execute 'grant usage on schema libsql_sync to ' || grantee;
    for routine in
      select p.oid from pg_proc p
      where p.pronamespace = 'libsql_sync'::regnamespace and p.proname = 'bookmark'
    loop
      execute format('grant execute on function %s to %s', routine, grantee);
    end loop;
  end loop;
end
$$;
comment on function libsql_sync.lock_down() is
  'Revokes from other roles all rights on our functions, tables and queues, and grants the worker''s role its eight calls and the roles that write bookmark(). Safe at any time. Returns nothing.';

-- supabase/sql/09_upgrade.sql

-- What tables of an older release lack. A fresh install has no such table yet, and
-- makes all of it in 10_tables.

-- Since 0.1.0: changes that capture could not queue, and a tree of versions in place of
-- recorded batches. A batch that the older worker was given may still land, and one that
-- it settled may be lost: both are versions like others, as old messages have keys too.
do $$
begin
  if not exists (
    select from pg_attribute a
    where a.attrelid = to_regclass('libsql_sync.batches') and a.attname = 'acked_at' and not a.attisdropped
  ) then
    return;
  end if;
  alter table libsql_sync.chain
    add column if not exists unqueued bigint not null default 0,
    add column if not exists unqueued_until xid8,
    add column handed bigint not null default 0,
    add column walk_wanted bigint not null default 0,
    add column walk_opened bigint not null default 0;
  update libsql_sync.chain c set
    walk_wanted = case when c.reopen or exists (
      select from libsql_sync.batches b where b.epoch = c.epoch and b.state = 'pending' and b.reopen) then 1 else 0 end,
    handed = greatest(c.position, (
      select max(b.position) from libsql_sync.batches b where b.epoch = c.epoch));
  alter table libsql_sync.chain drop column reopen;
  drop index libsql_sync.batches_acked;
  alter table libsql_sync.batches drop constraint batches_state_check;
  delete from libsql_sync.batches b using libsql_sync.chain c
  where b.state = 'trimmed' and (b.epoch, b.position, b.batch) <> (c.epoch, c.position, c.batch);
  update libsql_sync.batches set state = case state when 'pending' then 'handed' else 'settled' end;
  alter table libsql_sync.batches rename column acked_at to settled_at;
  alter table libsql_sync.batches
    drop column version, drop column reopen, drop column ahead,
    alter column state set default 'handed',
    add constraint batches_state_check check (state in ('handed', 'settled')),
    add column cut_id bigint,
    add column cut_count integer,
    add column cut_keys jsonb,
    add column truncated text[] not null default '{}',
    add column opens bigint,
    add column upto jsonb,
    add column handed_at timestamptz not null default clock_timestamp(),
    add column closed jsonb not null default '[]',
    add column opened bigint[] not null default '{}';
  -- A row is parked by its key, and a letter keeps no message.
  update libsql_sync.batches b set parked = (
    select jsonb_agg(p.parked - '{msg_id,open}'::text[] order by p.n)
    from jsonb_array_elements(b.parked) with ordinality p (parked, n))
  where b.parked <> '[]';
  update pgmq.q_replicate_data_libsql_dlq set message = message - '{msg_id,message}'::text[];
  update pgmq.a_replicate_data_libsql_dlq set message = message - '{msg_id,message}'::text[];
  -- Functions whose arguments have the same types, and other names or another answer.
  drop function libsql_sync.dead_letters();
  drop function libsql_sync.page_answer(
    libsql_sync.walks, jsonb, jsonb, oid, libsql_sync.tables, text[], integer, jsonb, jsonb, boolean, jsonb, boolean, text);
end
$$;

-- supabase/sql/10_tables.sql

-- Every table of libsql_sync, once, each column with its comment (\d+ shows them);
-- then row level security on them and on the queues, and the first epoch.
--
-- None holds a value of a replicated row; keys name rows, in chain.seen, batches and
-- walks.keys, and in the messages of PGMQ's queues.
-- A column that a later version adds stands in its table, and in an
-- "alter table ... add column if not exists" below it for databases that have the
-- table already.

create table if not exists libsql_sync.schemas (
  generation bigint generated always as identity primary key,
  hash text not null unique,
  spec jsonb not null
);
comment on table libsql_sync.schemas is 'Every schema.json ever installed. The newest generation is the one in force.';
comment on column libsql_sync.schemas.generation is 'The order in which they were installed.';
comment on column libsql_sync.schemas.hash is 'How the worker and the replica name this schema.';
comment on column libsql_sync.schemas.spec is 'The schema itself: tables with their key, columns and indexes.';

create table if not exists libsql_sync.tables (
  name text primary key,
  key text[] not null,
  columns jsonb not null
);
comment on table libsql_sync.tables is 'The tables of the schema in force.';
comment on column libsql_sync.tables.name is 'The table''s name in schema public.';
comment on column libsql_sync.tables.key is 'The columns of its key, in the order of schema.json.';
comment on column libsql_sync.tables.columns is 'Its listed columns, [{"name", "type"}, ...], in the order of schema.json.';

create table if not exists libsql_sync.captures (
  name text primary key,
  digest text not null
);
comment on table libsql_sync.captures is 'What the trigger functions of each table were made of when attach() made them.';
comment on column libsql_sync.captures.name is 'The table.';
comment on column libsql_sync.captures.digest is 'A digest of these functions and of what they are made of.';

create table if not exists libsql_sync.shapes (
  name text primary key,
  shape text not null
);
comment on table libsql_sync.shapes is 'What the catalog showed of each listed table when the last claim looked.';
comment on column libsql_sync.shapes.name is 'The table.';
comment on column libsql_sync.shapes.shape is 'A digest of its columns and their types, and of its partitions.';

create table if not exists libsql_sync.epochs (
  generation bigint generated always as identity primary key,
  epoch text not null unique,
  wipe boolean not null,
  reason text not null,
  begun_at timestamptz not null default clock_timestamp()
);
comment on table libsql_sync.epochs is 'Every chain of batches there was. The newest is in force, the others are its ancestors.';
comment on column libsql_sync.epochs.generation is 'The order in which they began.';
comment on column libsql_sync.epochs.epoch is 'Its random id, which the replica''s row holds as well.';
comment on column libsql_sync.epochs.wipe is 'Whether a replica that follows from an older epoch is emptied first.';
comment on column libsql_sync.epochs.reason is 'Why it began, for operators.';
comment on column libsql_sync.epochs.begun_at is 'When it began.';

create table if not exists libsql_sync.chain (
  id integer primary key default 1 check (id = 1),
  epoch text not null references libsql_sync.epochs (epoch),
  position bigint not null default 0,
  batch text not null,
  lease text,
  lease_until timestamptz,
  replay_window interval not null default '1 hour',
  seen jsonb,
  seen_at timestamptz,
  scrub_rows integer not null default 1000,
  refill boolean not null default true,
  handed bigint not null default 0,
  walk_wanted bigint not null default 0,
  walk_opened bigint not null default 0,
  paused boolean not null default false,
  queue_mb_max integer default 1024,
  cron_run bigint not null default 0,
  floor bigint not null default 0,
  floor_next bigint,
  floor_awaits text[],
  floor_queue oid,
  unqueued bigint not null default 0,
  unqueued_until xid8,
  letters_closed bigint not null default 0,
  realtime boolean not null default false,
  wake_at timestamptz,
  wake_place text,
  wake_misses integer not null default 0,
  scrubbed_at timestamptz,
  ticked_at timestamptz,
  lag_ms bigint not null default 0,
  totals jsonb not null default '{}',
  alerted jsonb not null default '{}'
);
comment on table libsql_sync.chain is 'One row: the position up to which the replica has proved its batches. Its row lock serialises every move.';
comment on column libsql_sync.chain.id is 'Always 1.';
comment on column libsql_sync.chain.epoch is 'The epoch in force.';
comment on column libsql_sync.chain.position is 'The position of the head: the version that was settled last.';
comment on column libsql_sync.chain.batch is 'The head''s id; at position 0 the epoch''s own.';
comment on column libsql_sync.chain.lease is 'The token of the sync that is running. It saves work; no safety rests on it.';
comment on column libsql_sync.chain.lease_until is 'When the lease ends by itself.';
comment on column libsql_sync.chain.replay_window is 'How long the archive keeps what was settled, for a replica that loses its latest commits.';
comment on column libsql_sync.chain.seen is 'The replica''s row as the last claim showed it. Null: no replica yet.';
comment on column libsql_sync.chain.seen_at is 'When the last claim was.';
comment on column libsql_sync.chain.scrub_rows is 'How many rows the background check compares in one sync. 0: none. Set by scrub().';
comment on column libsql_sync.chain.refill is 'Whether a replica that was not walked yet is filled without being asked.';
comment on column libsql_sync.chain.handed is 'The highest position of the epoch that was handed out.';
comment on column libsql_sync.chain.walk_wanted is 'How often something may have bypassed the queue, so that the replica must walk everything again.';
comment on column libsql_sync.chain.walk_opened is 'Up to which of those times a settled version has opened the walk.';
comment on column libsql_sync.chain.paused is 'Whether the worker is paused. Set by pause() and resume().';
comment on column libsql_sync.chain.queue_mb_max is 'The cap on the queue''s size on disk. Past it the queue is dropped and every table walked. Null: no cap.';
comment on column libsql_sync.chain.cron_run is 'How far cron.job_run_details was searched for runs of our jobs to trim.';
comment on column libsql_sync.chain.floor is 'No message with a smaller msg_id is in the queue, or can appear there.';
comment on column libsql_sync.chain.floor_next is 'How far the floor may rise when the transactions of floor_awaits have ended.';
comment on column libsql_sync.chain.floor_awaits is 'The transactions that were writing to the queue when floor_next was recorded.';
comment on column libsql_sync.chain.floor_queue is 'The queue table that the floor is of. Another queue begins a new epoch.';
comment on column libsql_sync.chain.unqueued is 'How many changes capture could not queue, as the last claim counted them.';
comment on column libsql_sync.chain.unqueued_until is 'The transactions that may have made those changes are all before this one. Null: all of them have ended.';
comment on column libsql_sync.chain.letters_closed is 'Up to this position walks closed dead letters. A replica that lost one of those positions walks again.';
comment on column libsql_sync.chain.realtime is 'Whether a second cron job looks for changes all the time. Set by realtime().';
comment on column libsql_sync.chain.wake_at is 'When realtime called the worker last.';
comment on column libsql_sync.chain.wake_place is 'Where the chain stood then, until the call had an effect.';
comment on column libsql_sync.chain.wake_misses is 'How many calls in a row had no effect.';
comment on column libsql_sync.chain.scrubbed_at is 'When a sync was last allowed to scrub.';
comment on column libsql_sync.chain.ticked_at is 'When the cron job last ran through.';
comment on column libsql_sync.chain.lag_ms is 'How long the oldest change had waited when the last sync began.';
comment on column libsql_sync.chain.totals is 'Sums over all syncs: syncs, failed, processed, parked, batches, ms; and replays, the positions that were put back.';
comment on column libsql_sync.chain.alerted is 'Which alerts the alert webhook has been sent, and the counts at that time.';

-- A sequence: no writer waits for it, and it grows nothing.
create sequence if not exists libsql_sync.unqueued;
comment on sequence libsql_sync.unqueued is 'Counts the changes that capture could not queue: see note_unqueued().';

create table if not exists libsql_sync.batches (
  epoch text not null,
  position bigint not null,
  batch text not null,
  prev text not null,
  msg_ids int8multirange not null,
  messages integer not null,
  cut_id bigint,
  cut_count integer,
  cut_keys jsonb,
  truncated text[] not null default '{}',
  drained boolean not null,
  snapshot text not null,
  source_time timestamptz not null,
  dead_letters integer not null,
  parked jsonb not null default '[]',
  opens bigint,
  upto jsonb,
  handed_at timestamptz not null default clock_timestamp(),
  state text not null default 'handed' check (state in ('handed', 'settled')),
  settled_at timestamptz,
  closed jsonb not null default '[]',
  opened bigint[] not null default '{}',
  primary key (epoch, position, batch)
);
comment on table libsql_sync.batches is 'Every version of every position that was handed out inside the replay window: a tree, as each names the one before it.';
comment on column libsql_sync.batches.epoch is 'Its epoch.';
comment on column libsql_sync.batches.position is 'Its position in the chain, from 1.';
comment on column libsql_sync.batches.batch is 'The random id of this version.';
comment on column libsql_sync.batches.prev is 'The id of the version before it. The replica applies it on top of that one only.';
comment on column libsql_sync.batches.msg_ids is 'The messages that it covers whole.';
comment on column libsql_sync.batches.messages is 'How many messages that is.';
comment on column libsql_sync.batches.cut_id is 'The message of which it covers the first keys only, or null.';
comment on column libsql_sync.batches.cut_count is 'How many keys of that message it covers.';
comment on column libsql_sync.batches.cut_keys is 'Those keys, while it is settled.';
comment on column libsql_sync.batches.truncated is 'The tables that it empties, as its snapshot had no row of them.';
comment on column libsql_sync.batches.drained is 'Whether it and those before it cover every message that its snapshot could see.';
comment on column libsql_sync.batches.snapshot is 'The snapshot whose every change is in the replica after it (pg_snapshot as text).';
comment on column libsql_sync.batches.source_time is 'A time just before its own snapshot.';
comment on column libsql_sync.batches.dead_letters is 'How many dead letters were open when it was claimed.';
comment on column libsql_sync.batches.parked is 'The rows it is applied without: [{"table", "key", "reason"}, ...].';
comment on column libsql_sync.batches.opens is 'If it makes the replica start a walk over everything: chain.walk_wanted at that time.';
comment on column libsql_sync.batches.upto is 'Where its page leaves the walk, {"walk_gen", "walk_at"}, if a version on top of it may go on from there.';
comment on column libsql_sync.batches.handed_at is 'When it was handed out.';
comment on column libsql_sync.batches.state is 'handed: handed out. settled: the replica has it, and its messages are in the archive.';
comment on column libsql_sync.batches.settled_at is 'When it was settled.';
comment on column libsql_sync.batches.closed is 'The dead letters that it closed when it was settled: [{"id", "at", "message"}, ...].';
comment on column libsql_sync.batches.opened is 'The dead letters that it filed when it was settled.';

create table if not exists libsql_sync.walks (
  walk_gen bigint generated always as identity primary key,
  kind text not null check (kind in ('backfill', 'verify', 'scrub', 'redrive')),
  tables text[] not null,
  keys jsonb,
  repair boolean not null,
  closes boolean not null,
  reason text not null,
  requested_at timestamptz not null default clock_timestamp(),
  ended_at timestamptz,
  found jsonb not null default '{}',
  letters_until bigint not null default 0
);
comment on table libsql_sync.walks is 'Walks that were asked for. Their progress is in the replica''s row alone: what a replica loses, it walks again.';
comment on column libsql_sync.walks.walk_gen is 'The walk''s number. A replica takes walks in this order.';
comment on column libsql_sync.walks.kind is 'backfill, verify, scrub (the background check) or redrive (some keys of one table).';
comment on column libsql_sync.walks.tables is 'The tables it walks, in this order.';
comment on column libsql_sync.walks.keys is 'Of a redrive: the keys it reads.';
comment on column libsql_sync.walks.repair is 'Whether it repairs what differs, or only counts it.';
comment on column libsql_sync.walks.closes is 'Whether the replica is complete (walk_done) when it has ended.';
comment on column libsql_sync.walks.reason is 'Why it was asked for, for operators.';
comment on column libsql_sync.walks.requested_at is 'When it was asked for.';
comment on column libsql_sync.walks.ended_at is 'When its last table was walked.';
comment on column libsql_sync.walks.found is 'What it found in each table: {table: {"rows", "differing", "ghosts", "failed"?, "ended"}}.';
comment on column libsql_sync.walks.letters_until is 'The newest dead letter when it was asked for. It may close those up to this one.';

-- The next three are for status alone. syncs and minutes are rings of fixed size: a
-- row is written over when its turn comes, so they never grow and need no trimming.
create table if not exists libsql_sync.syncs (
  slot integer primary key,
  n bigint not null,
  ended_at timestamptz not null,
  ms integer not null,
  processed integer not null,
  parked integer not null,
  batches integer not null,
  queued integer not null,
  lag_ms bigint not null,
  error text
);
comment on table libsql_sync.syncs is 'The last 20 syncs.';
comment on column libsql_sync.syncs.slot is 'n modulo 20.';
comment on column libsql_sync.syncs.n is 'The number of the sync, from 1.';
comment on column libsql_sync.syncs.ended_at is 'When it ended.';
comment on column libsql_sync.syncs.ms is 'How long it took.';
comment on column libsql_sync.syncs.processed is 'How many messages it settled.';
comment on column libsql_sync.syncs.parked is 'How many changes it parked.';
comment on column libsql_sync.syncs.batches is 'How many batches it applied.';
comment on column libsql_sync.syncs.queued is 'How many messages were queued at its end, 10,000 at most.';
comment on column libsql_sync.syncs.lag_ms is 'How long the oldest change had waited when it began.';
comment on column libsql_sync.syncs.error is 'The code of its error, or null.';

create table if not exists libsql_sync.minutes (
  slot integer primary key,
  minute bigint not null,
  syncs integer not null,
  failed integer not null,
  processed bigint not null,
  lag_ms bigint not null
);
comment on table libsql_sync.minutes is 'The last three hours, by minute.';
comment on column libsql_sync.minutes.slot is 'minute modulo 180.';
comment on column libsql_sync.minutes.minute is 'Minutes since 1970.';
comment on column libsql_sync.minutes.syncs is 'How many syncs ended in it.';
comment on column libsql_sync.minutes.failed is 'How many of those ended with an error.';
comment on column libsql_sync.minutes.processed is 'How many messages they settled.';
comment on column libsql_sync.minutes.lag_ms is 'The largest lag of them.';

create table if not exists libsql_sync.counts (
  table_name text primary key,
  applied bigint not null default 0,
  drift bigint not null default 0,
  drifted boolean not null default false,
  verified_at timestamptz
);
comment on table libsql_sync.counts is 'Counts by table.';
comment on column libsql_sync.counts.table_name is 'The table.';
comment on column libsql_sync.counts.applied is 'How many rows changes wrote or removed in the replica.';
comment on column libsql_sync.counts.drift is 'How many differences walks have found.';
comment on column libsql_sync.counts.drifted is 'Whether some of those may remain.';
comment on column libsql_sync.counts.verified_at is 'When a walk was last through with the table.';

-- Row level security without a policy: the owner alone reads. Altered only where it
-- is off: the lock waits for every open transaction that wrote to the queue, and
-- every later writer waits behind it.
do $$
declare
  unguarded regclass;
begin
  perform set_config('lock_timeout', '3s', true);
  for unguarded in
    select c.oid from pg_class c
    where c.relkind = 'r' and not c.relrowsecurity and (
      c.relnamespace = 'libsql_sync'::regnamespace
      or c.relnamespace = 'pgmq'::regnamespace and c.relname in (
        'q_replicate_data_libsql', 'a_replicate_data_libsql',
        'q_replicate_data_libsql_dlq', 'a_replicate_data_libsql_dlq'))
  loop
    execute format('alter table %s enable row level security', unguarded);
  end loop;
end
$$;

do $$
declare
  genesis text := gen_random_uuid();
begin
  if not exists (select from libsql_sync.chain) then
    insert into libsql_sync.epochs (epoch, wipe, reason) values (genesis, false, 'installed');
    insert into libsql_sync.chain (epoch, batch) values (genesis, genesis);
  end if;
end
$$;

-- supabase/sql/20_render.sql

-- How a cell and a key become text. Capture, claim and walk share these texts of SQL: the
-- same value is always the same text, or the replica would have two rows for one key. The
-- settings that rendering depends on (time zone, date style, ...) are pinned by the
-- functions that run the SQL: trigger functions, read_changes() and read_page().

create or replace function libsql_sync.base_type(type oid)
returns oid
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with recursive base (oid, typtype, typbasetype) as (
    select t.oid, t.typtype, t.typbasetype from pg_type t where t.oid = type
    union all
    select t.oid, t.typtype, t.typbasetype
    from base b join pg_type t on t.oid = b.typbasetype
    where b.typtype = 'd'
  )
  select b.oid from base b where b.typtype <> 'd'
$$;
comment on function libsql_sync.base_type(oid) is
  'The type that a domain rests on; any other type itself.';

create or replace function libsql_sync.cell_sql(declared text, type oid, expression text)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    -- to_json, not to_jsonb: that one raises for a json value holding \u0000.
    when declared = 'JSON' then format('to_json(%s)::text', expression)
    when declared in ('INTEGER', 'BOOLEAN')
      or b.oid in (
        'text'::regtype, 'varchar'::regtype, 'uuid'::regtype, 'bool'::regtype,
        'int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'numeric'::regtype,
        'float4'::regtype, 'float8'::regtype, 'json'::regtype, 'jsonb'::regtype
      )
      or b.typtype = 'e'
      then format('%s::text', expression)
    when b.typtype = 'c' or b.typcategory = 'A'
      then format('to_json(%s)::text', expression)
    -- As JSON has it: times by ISO 8601, char(n) with its blanks.
    when b.oid in ('date'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype, 'bpchar'::regtype)
      then format('to_json(%s) #>> ''{}''', expression)
    -- As the type itself writes it. Its casts are others' ideas of the value: PostGIS'
    -- cast to json rounds, and inet's cast to text adds a netmask.
    else format('case when %1$s is not null then format(''%%s'', %1$s) end', expression)
  end
  from pg_type b
  where b.oid = libsql_sync.base_type(type)
$$;
comment on function libsql_sync.cell_sql(text, oid, text) is
  'The SQL that renders one cell as text. In: the type that schema.json declares, the column''s type, and the SQL of the value.';

-- "=" is cheaper than comparing images, but true to them for few types only: json has
-- none, and numeric's calls 1.0 and 1.00 equal, which are two texts in the replica.
create or replace function libsql_sync.differs_sql(type oid, one text, other text)
returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
  select format(case
    when type in ('text'::regtype, 'varchar'::regtype)
      then '%s collate "C" is distinct from %s collate "C"'
    when type in (
      'bool'::regtype, 'int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'uuid'::regtype,
      'date'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype
    -- The type may have been changed since attach().
    ) then '(%1$s is distinct from %2$s or pg_typeof(%1$s) <> %3$L::regtype'
      || ' and row(%1$s)::record *<> row(%2$s)::record)'
    else 'row(%s)::record *<> row(%s)::record'
  end, one, other, type::regtype)
$$;
comment on function libsql_sync.differs_sql(oid, text, text) is
  'The SQL that is true if two values of a type have different images. In: the type, and the SQL of both.';

-- Always in quotes: words that PL/pgSQL reserves are free in SQL.
create or replace function libsql_sync.quoted(name text)
returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $$ select '"' || replace(name, '"', '""') || '"' $$;
comment on function libsql_sync.quoted(text) is
  'A name as a quoted identifier.';

create or replace function libsql_sync.present_columns(relation oid, table_name text)
returns table (name text, declared text, type oid, quoted text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select c.value ->> 'name', c.value ->> 'type', a.atttypid, libsql_sync.quoted(a.attname)
  from libsql_sync.tables t
  cross join lateral jsonb_array_elements(t.columns) with ordinality c (value, n)
  join pg_attribute a
    on a.attrelid = relation and a.attname = c.value ->> 'name'
   and a.attnum > 0 and not a.attisdropped
  where t.name = table_name
  order by c.n
$$;
comment on function libsql_sync.present_columns(oid, text) is
  'The listed columns of a table that exist today, in the order of schema.json: name, declared type, column type, quoted name.';

create or replace function libsql_sync.usable_key(relation oid, key_columns text[])
returns oid
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Planned once in a session: the plan takes ten times as long as the answer.
  return (
    select i.indexrelid
    from pg_index i
    where i.indrelid = relation and i.indisunique and i.indisvalid
      and i.indpred is null and i.indexprs is null
      and not exists (
        select from generate_series(0, i.indnkeyatts - 1) n
        join pg_attribute a on a.attrelid = relation and a.attnum = i.indkey[n]
        where a.attname <> all (key_columns) or not a.attnotnull
      )
      -- The rest of the key only has to be there and not null.
      and (
        select count(*) from pg_attribute a
        where a.attrelid = relation and a.attname = any (key_columns)
          and a.attnotnull and not a.attisdropped
      ) = cardinality(key_columns)
    order by i.indisprimary desc, i.indnkeyatts desc, i.indexrelid
    limit 1
  );
end
$$;
comment on function libsql_sync.usable_key(oid, text[]) is
  'The unique index that makes the listed key usable, or null. It may be deferrable; it must cover every row and have no nullable column.';

-- By the very operators of the key's index, so that types of an extension (citext)
-- compare as their index does, and use it.
create or replace function libsql_sync.key_match_sql(
  relation oid, key_columns text[], left_alias text, right_alias text
)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  index_oid oid := libsql_sync.usable_key(relation, key_columns);
  matches text[] := '{}';
  column_name text;
  equal text;
begin
  foreach column_name in array key_columns loop
    select format('operator(%I.%s)', n.nspname, o.oprname) into equal
    from pg_index i
    cross join lateral generate_series(0, i.indnkeyatts - 1) k
    join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[k]
    join pg_opclass c on c.oid = i.indclass[k]
    join pg_amop s
      on s.amopfamily = c.opcfamily and s.amopstrategy = 3
     and s.amoplefttype = c.opcintype and s.amoprighttype = c.opcintype
    join pg_operator o on o.oid = s.amopopr
    join pg_namespace n on n.oid = o.oprnamespace
    where i.indexrelid = index_oid and a.attname = column_name;
    matches := matches || format(
      '%s.%s %s %s.%s', left_alias, libsql_sync.quoted(column_name),
      coalesce(equal, 'operator(pg_catalog.=)'), right_alias, libsql_sync.quoted(column_name)
    );
    equal := null;
  end loop;
  return array_to_string(matches, ' and ');
end
$$;
comment on function libsql_sync.key_match_sql(oid, text[], text, text) is
  'The SQL "a.k1 = b.k1 and ..." for two aliases of a table''s rows.';

-- supabase/sql/21_capture.sql

-- Capture: what a statement that wrote to a listed table sends to the queue. These
-- functions generate the SQL of the trigger functions (22_triggers), once per table and
-- kind of statement, when attach() runs. First step of the data's way.
--
-- A message says which rows may have changed, and claim() reads them. So capture looks
-- nothing up: it reads the rows that the statement itself brings, and no other.

create or replace function libsql_sync.key_sql(relation oid, table_name text, alias text)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select format('array[%s]::text[]', string_agg(
    libsql_sync.cell_sql(c.declared, c.type, alias || '.' || c.quoted), ', ' order by k.n))
  from libsql_sync.tables t
  cross join lateral unnest(t.key) with ordinality k (name, n)
  join lateral libsql_sync.present_columns(relation, table_name) c on c.name = k.name
  where t.name = table_name
$$;
comment on function libsql_sync.key_sql(oid, text, text) is
  'The SQL of a row''s key as an array of texts, in the order of the listed key. In: the table, its name in schema.json, the alias of its row.';

-- These types write the same text under any setting.
create or replace function libsql_sync.needs_settings(relation oid, table_name text)
returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select from libsql_sync.tables t
    join libsql_sync.present_columns(relation, table_name) c on c.name = any (t.key)
    join pg_type b on b.oid = libsql_sync.base_type(c.type)
    where t.name = table_name and b.typtype <> 'e' and b.oid not in (
      'bool'::regtype, 'int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'numeric'::regtype,
      'text'::regtype, 'varchar'::regtype, 'bpchar'::regtype, 'uuid'::regtype))
$$;
comment on function libsql_sync.needs_settings(oid, text) is
  'Whether the text of a table''s keys depends on settings, which then must be pinned: each costs time in every call.';

create or replace function libsql_sync.touched_sql(relation oid, table_name text, operation text)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select case operation
    when 'INSERT' then format('select %s from new_rows n', k.new_key)
    when 'DELETE' then format('select %s from old_rows o', k.old_key)
    when 'UPDATE' then format('select %s from new_rows n union all select %s from old_rows o', k.new_key, k.old_key)
  end
  from (values (
    libsql_sync.key_sql(relation, table_name, 'n'), libsql_sync.key_sql(relation, table_name, 'o')
  )) k (new_key, old_key)
$$;
comment on function libsql_sync.touched_sql(oid, text, text) is
  'The query of the keys that a statement touched, old and new. In: the table, its name in schema.json, INSERT, UPDATE or DELETE.';

-- Not merely equal: json has no "=", and citext calls different texts equal.
create or replace function libsql_sync.any_differs_sql(relation oid, table_name text, names text[])
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select string_agg(libsql_sync.differs_sql(c.type, 'o.' || c.quoted, 'n.' || c.quoted), ' or ')
  from libsql_sync.present_columns(relation, table_name) c
  where names is null or c.name = any (names)
$$;
comment on function libsql_sync.any_differs_sql(oid, text, text[]) is
  'The SQL that is true if some of the listed columns (null: any) differ between the rows o and n of a table.';

-- What keeps its key under another spelling (citext) is another row in the replica.
create or replace function libsql_sync.changed_sql(relation oid, table_name text)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    'select case when s.is_old then %s else %s end'
    || ' from old_rows o full join new_rows n on %s cross join (values (false), (true)) s (is_old)'
    || ' where (%s) and case when s.is_old'
    || ' then o.%5$s is distinct from null and (n.%5$s is not distinct from null or %6$s)'
    || ' else n.%5$s is distinct from null end',
    libsql_sync.key_sql(relation, table_name, 'o'), libsql_sync.key_sql(relation, table_name, 'n'),
    libsql_sync.key_match_sql(relation, t.key, 'o', 'n'),
    libsql_sync.any_differs_sql(relation, table_name, null),
    libsql_sync.quoted(t.key[1]), libsql_sync.any_differs_sql(relation, table_name, t.key))
  from libsql_sync.tables t where t.name = table_name
$$;
comment on function libsql_sync.changed_sql(oid, text) is
  'The query of the keys, old and new, of the rows in which an UPDATE changed a listed column. In: the table, its name in schema.json.';

-- The most frequent statement touches one row: no keys need to be compared. Its new row
-- is missing if a trigger kept it from a partition.
create or replace function libsql_sync.changed_row_sql(relation oid, table_name text)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    'select case when n.%1$s is not distinct from null then array[%2$s]'
    || ' when %3$s then array[%2$s, %4$s] else array[%4$s] end'
    || ' from old_rows o left join new_rows n on true where %5$s',
    libsql_sync.quoted(t.key[1]), libsql_sync.key_sql(relation, table_name, 'o'),
    libsql_sync.any_differs_sql(relation, table_name, t.key), libsql_sync.key_sql(relation, table_name, 'n'),
    libsql_sync.any_differs_sql(relation, table_name, null))
  from libsql_sync.tables t where t.name = table_name
$$;
comment on function libsql_sync.changed_row_sql(oid, text) is
  'The same as changed_sql() for an UPDATE of one row: all keys in one array.';

-- supabase/sql/22_triggers.sql

-- The trigger functions: one for each listed table and kind of statement, made of the
-- texts of 21_capture, and one for TRUNCATE of every table. The first step of the data's
-- way: they run in each writer's transaction, with their owner's rights.
--
-- Messages: {"v": 2, "table", "keys": [[text, ...], ...]}, 1,000 keys at most, old and new;
-- {"v": 2, "table", "truncate": true}; and {"v": 2, "table", "walk": reason} if keys cannot
-- say what changed: the walk opens.

create or replace function libsql_sync.trigger_name(table_name text, suffix text)
returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
  select 'replicate_'
    || case when octet_length(table_name) + octet_length(suffix) <= 46
         then table_name else md5(table_name) end
    || '_libsql' || suffix
$$;
comment on function libsql_sync.trigger_name(text, text) is
  'The name of a trigger, and of the function it runs, inside PostgreSQL''s 63 bytes. In: the listed table, and what tells its triggers apart.';

-- A queue that was restored without its sequence draws numbers that it holds.
create or replace function libsql_sync.queue_again(message jsonb)
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  sequence regclass := pg_get_serial_sequence('pgmq.q_replicate_data_libsql', 'msg_id');
  queued integer := 0;
begin
  if has_sequence_privilege(sequence, 'usage') then
    for try in 1 .. 3 loop
      -- Forward only: a sequence that is set back draws a number twice. Bounded, so that
      -- no writer waits long; the walk brings what is not queued then.
      perform nextval(sequence) from generate_series(1, (
        select least(max(q.msg_id) - pg_sequence_last_value(sequence), 100000) from pgmq.q_replicate_data_libsql q));
      insert into pgmq.q_replicate_data_libsql (vt, message)
      values (now(), queue_again.message)
      on conflict do nothing;
      get diagnostics queued = row_count;
      exit when queued = 1;
    end loop;
  end if;
  return queued;
end
$$;
comment on function libsql_sync.queue_again(jsonb) is
  'Queues a message if the queue''s next number is taken. Returns how many went in: 1 or 0.';

-- The user's write never fails because of it. What can fail stands in blocks: the table
-- may have changed since attach(). The queue is looked for before it is written to, and
-- no block stands around the INSERT of one message, as it would burn a transaction id per
-- statement. A message that cannot be queued is counted by a sequence, which no writer
-- waits for and which grows nothing: the claim opens the walk when the count has changed.
create or replace function libsql_sync.trigger_body(table_sql text, variables text, telling text, bulk text)
returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $outer$
  select format($body$
-- Written by libsql_sync.attach(): do not edit.
declare
%s  message jsonb;
  failed text;
  queue oid;
  queued integer := 0;
begin
  begin
%s  exception when others then
    -- A lost race is the transaction's to retry.
    if sqlstate like '40%%' then raise; end if;
    failed := sqlstate;
  end;
  if has_schema_privilege(to_regnamespace('pgmq'), 'usage') then
    queue := to_regclass('pgmq.q_replicate_data_libsql');
  end if;
  if has_table_privilege(queue, 'insert') and not row_security_active(queue) then
    if message is null then
      queued := 1;
%s      if failed is not null then
        message := jsonb_build_object('v', 2, 'table', %s, 'walk', failed);
      end if;
    end if;
    if message is not null then
      insert into pgmq.q_replicate_data_libsql (vt, message) values (now(), message)
      on conflict do nothing;
      get diagnostics queued = row_count;
      if queued = 0 then
        queued := libsql_sync.queue_again(message);
      end if;
    end if;
  end if;
  if queued = 0 then
    perform nextval('libsql_sync.unqueued');
  end if;
  return null;
end
$body$, variables, telling, bulk, table_sql)
$outer$;
comment on function libsql_sync.trigger_body(text, text, text, text) is
  'The body of a trigger function. In: the SQL of the table''s name; its variables; the code that tells what the statement did in one message; and the code that queues what does not fit into one ("failed" says why no message could be made).';

-- Messages of 1,000 keys each, which go from the statement's rows into the queue one by
-- one. An aggregate in an order is never hashed, which would hold all keys in memory.
create or replace function libsql_sync.bulk_sql(table_name text, keys_sql text)
returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $outer$
  select format($block$      begin
        insert into pgmq.q_replicate_data_libsql (vt, message)
        select now(), jsonb_build_object('v', 2, 'table', %L::text, 'keys', array_agg(k.key order by k.n))
        from (select t.key, row_number() over () as n from (%s) t (key)) k
        group by (k.n - 1) / 1000;
        failed := null;
      exception when others then
        if sqlstate like '40%%' then raise; end if;
        failed := coalesce(failed, sqlstate);
      end;
$block$, table_name, keys_sql)
$outer$;
comment on function libsql_sync.bulk_sql(text, text) is
  'The code that queues the keys of a statement over many rows, all or none; "failed" says why none. In: the table''s name, and the query of the keys.';

create or replace function libsql_sync.truncate_function()
returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
  select libsql_sync.trigger_body('tg_argv[0]',
$variables$  ours oid := coalesce(pg_partition_root(tg_relid), tg_relid);
  -- Another table may have the name now: what this one loses is not lost there.
  listed oid := coalesce(to_regclass(format('public.%I', tg_argv[0])), ours);
  emptied text := format('%s in %s', listed, pg_current_xact_id());
$variables$,
$telling$    if tg_op <> 'TRUNCATE' then
      raise exception 'not a TRUNCATE';
    elsif listed <> ours then
      return null;
    elsif listed = tg_relid then
      message := jsonb_build_object('v', 2, 'table', tg_argv[0], 'truncate', true);
      -- Its partitions' triggers come next. All that is in them later in this
      -- transaction was written after it, and told by its keys.
      perform set_config('libsql_sync.emptied', emptied, true);
    elsif current_setting('libsql_sync.emptied', true) = emptied then
      return null;
    else
      -- Which keys a partition had is not known any more.
      message := jsonb_build_object('v', 2, 'table', tg_argv[0], 'walk', 'truncate of one partition');
    end if;
$telling$, '')
$$;
comment on function libsql_sync.truncate_function() is
  'The body of the function that queues what keys cannot say: a TRUNCATE of any listed table.';

create or replace function libsql_sync.captured()
returns table (operation text, suffix text, fires text, referencing text, type integer)
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
  values
    ('INSERT', '', 'after insert', 'referencing new table as new_rows', 4),
    ('UPDATE', '_update', 'after update', 'referencing old table as old_rows new table as new_rows', 16),
    ('DELETE', '_delete', 'after delete', 'referencing old table as old_rows', 8)
$$;
comment on function libsql_sync.captured() is
  'The kinds of statements for which each table has a function of its own, and their triggers.';

-- The rows are counted first: statements of one row, of some and of many have plans of
-- their own. An UPDATE may have two keys a row.
create or replace function libsql_sync.capture_body(relation oid, table_name text, operation text)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $outer$
declare
  key_columns text[] := (select t.key from libsql_sync.tables t where t.name = table_name);
  touched_sql text := libsql_sync.touched_sql(relation, table_name, operation);
begin
  if libsql_sync.usable_key(relation, key_columns) is null then
    raise exception 'Cannot capture table %: expected a unique, not null key (%), found none',
      table_name, array_to_string(key_columns, ', ')
      using hint = 'Restore the key, or take the table out of schema.json.';
  end if;
  return libsql_sync.trigger_body(format('%L::text', table_name),
$variables$  touched integer;
$variables$, format(
    case operation when 'UPDATE' then
$telling$    perform from old_rows limit 501;
    get diagnostics touched = row_count;
    if touched = 1 then
      select jsonb_build_object('v', 2, 'table', %1$L::text, 'keys', k.keys) into message
      from (%3$s) k (keys);
    elsif touched <= 500 then
      select jsonb_build_object('v', 2, 'table', %1$L::text, 'keys', array_agg(k.key)) into message
      from (%4$s) k (key) having count(*) > 0;
    end if;
    if message is null and touched <= 500 then
      return null;
    end if;
$telling$ else
$telling$    select count(*), jsonb_build_object('v', 2, 'table', %1$L::text, 'keys', array_agg(k.key)) into touched, message
    from (%2$s limit 1001) k (key);
    if touched = 0 then
      return null;
    elsif touched > 1000 then
      message := null;
    end if;
$telling$ end, table_name, touched_sql,
    libsql_sync.changed_row_sql(relation, table_name), libsql_sync.changed_sql(relation, table_name)),
    case operation when 'UPDATE' then
      '      if failed is null then
' || libsql_sync.bulk_sql(table_name, libsql_sync.changed_sql(relation, table_name)) || '      end if;
      -- A column that is compared may be gone since attach(): then all keys are sent.
      if failed is not null then
' || libsql_sync.bulk_sql(table_name, touched_sql) || '      end if;
' else libsql_sync.bulk_sql(table_name, touched_sql) end);
end
$outer$;
comment on function libsql_sync.capture_body(oid, text, text) is
  'The body of the function that captures one kind of statement. In: the table, its name in schema.json, INSERT, UPDATE or DELETE.';

-- JIT would compile a plan that looks expensive once, in every statement that follows.
create or replace function libsql_sync.function_settings(pins_texts boolean)
returns text[]
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
  select array['search_path=pg_catalog, pg_temp', 'jit=off'] || case when pins_texts then array[
    'TimeZone=UTC', 'DateStyle=ISO, YMD', 'IntervalStyle=postgres', 'bytea_output=hex',
    'extra_float_digits=1', 'lc_monetary=C', 'quote_all_identifiers=off'] else '{}' end
$$;
comment on function libsql_sync.function_settings(boolean) is
  'The settings of a trigger function, as pg_proc.proconfig has them; "pins_texts": also those that texts depend on.';

-- One function for each table and kind of statement. PL/pgSQL compiles a function once for
-- each trigger that runs it: were it one function for all tables, each trigger would cost
-- a session the code of all.
create or replace function libsql_sync.capture_functions(table_name text)
returns table (relation oid, operation text, name text, settings text[], body text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select r.oid, o.operation, libsql_sync.trigger_name(t.name, o.suffix),
    libsql_sync.function_settings(libsql_sync.needs_settings(r.oid, t.name)),
    libsql_sync.capture_body(r.oid, t.name, o.operation)
  from libsql_sync.tables t
  cross join lateral to_regclass(format('public.%I', t.name)) r (oid)
  cross join libsql_sync.captured() o
  where t.name = capture_functions.table_name and r.oid is not null
$$;
comment on function libsql_sync.capture_functions(text) is
  'The functions that capture the rows of a listed table, as the table is today. In: the table''s name.';

-- Their texts take some 30 ms a table to make: they are made anew only if what they are
-- made of has changed, or what is there.
create or replace function libsql_sync.capture_digests()
returns table (table_name text, digest text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select t.name, md5(concat_ws('|', r.oid::regclass, t.key, t.columns, libsql_sync.usable_key(r.oid, t.key),
    (select string_agg(concat_ws(' ', p.name, p.type), ',') from libsql_sync.present_columns(r.oid, t.name) p),
    (select string_agg(concat_ws(' ', p.proname, md5(p.prosrc), p.proconfig), ',' order by p.proname)
     from libsql_sync.captured() o
     join pg_proc p on p.oid = to_regprocedure(format('libsql_sync.%I()', libsql_sync.trigger_name(t.name, o.suffix)))),
    made.by))
  from libsql_sync.tables t
  cross join lateral to_regclass(format('public.%I', t.name)) r (oid)
  cross join (
    select md5(string_agg(md5(p.prosrc), ',' order by p.oid::regprocedure::text)) as by
    from pg_proc p where p.pronamespace = 'libsql_sync'::regnamespace and p.prorettype <> 'trigger'::regtype
  ) made
  where r.oid is distinct from null
$$;
comment on function libsql_sync.capture_digests() is
  'For each listed table that exists, a digest of its trigger functions and of all that they are made of.';

create or replace function libsql_sync.stale_functions()
returns table (relation oid, name text, settings text[], body text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select f.* from (
    select null::oid, 'public.trigger_http_queue_post_to_function_libsql',
      libsql_sync.function_settings(false), libsql_sync.truncate_function()
    union all
    select c.relation, format('libsql_sync.%I', c.name), c.settings, c.body
    from libsql_sync.capture_digests() d
    cross join lateral libsql_sync.capture_functions(d.table_name) c
    where d.digest is distinct from (select k.digest from libsql_sync.captures k where k.name = d.table_name)
  ) f (relation, name, settings, body)
  where not exists (
    select from pg_proc p
    where p.oid = to_regprocedure(f.name || '()') and p.prosrc = f.body and p.proconfig = f.settings)
$$;
comment on function libsql_sync.stale_functions() is
  'The trigger functions that are missing, or not what they would be today. The one for TRUNCATE belongs to no table.';

create or replace function libsql_sync.wanted_triggers()
returns table (table_name text, relation oid, is_partition boolean, name text, fires text, referencing text, type integer, function text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select t.name, f.relation, f.is_partition, libsql_sync.trigger_name(t.name, e.suffix), e.fires, e.referencing, e.type,
    coalesce(e.function, format('libsql_sync.%I', libsql_sync.trigger_name(t.name, e.suffix)))
  from libsql_sync.tables t
  cross join lateral to_regclass(format('public.%I', t.name)) r (oid)
  cross join lateral (
    select r.oid as relation, false as is_partition where r.oid is not null
    union all
    select p.relid, true from pg_partition_tree(r.oid) p where p.relid <> r.oid
  ) f
  cross join (
    select o.suffix, o.fires, o.referencing, o.type, null as function from libsql_sync.captured() o
    union all
    select '_truncate', 'after truncate', '', 32, 'public.trigger_http_queue_post_to_function_libsql'
  ) e
$$;
comment on function libsql_sync.wanted_triggers() is
  'The triggers that each listed table and each of its partitions should have: a statement fires the triggers of the one table it names.';

create or replace function libsql_sync.trigger_functions()
returns setof oid
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select p.oid from pg_proc p
  where p.prorettype = 'trigger'::regtype and (
    p.pronamespace = 'libsql_sync'::regnamespace
    or p.pronamespace = 'public'::regnamespace and p.proname = 'trigger_http_queue_post_to_function_libsql')
$$;
comment on function libsql_sync.trigger_functions() is
  'The functions that our triggers run.';

-- supabase/sql/23_attach.sql

-- attach(): triggers on every listed table, and none elsewhere. It compares what is there
-- with what should be, and changes only what differs: so a second run takes no lock on a
-- user's table. If rows may have bypassed the queue, it marks the chain to be walked.

create or replace function libsql_sync.attach_problem(relation oid, key_columns text[])
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when c.relkind = 'v' then 'is a view'
    when c.relkind = 'm' then 'is a materialized view'
    when c.relkind = 'f' then 'is a foreign table'
    when c.relkind not in ('r', 'p') then 'is not a table'
    when exists (
      select from pg_inherits h join pg_class p on p.oid = h.inhparent
      where relation in (h.inhparent, h.inhrelid) and p.relkind = 'r'
    ) then 'takes part in table inheritance'
    when c.relispartition then 'is a partition: list the partitioned table'
    when libsql_sync.usable_key(relation, key_columns) is null
      then 'has no unique, not null key (' || array_to_string(key_columns, ', ') || ')'
    -- '5' and '5.00' are two texts and one integer: two rows would become one.
    when exists (
      select from libsql_sync.tables t
      cross join lateral jsonb_array_elements(t.columns) d
      join pg_attribute a on a.attrelid = relation and a.attname = d.value ->> 'name'
      join pg_type y on y.oid = a.atttypid
      where to_regclass(format('public.%I', t.name)) = relation
        and d.value ->> 'name' = any (key_columns)
        and (d.value ->> 'type' = 'INTEGER' and y.typcategory <> 'N'
          or d.value ->> 'type' = 'BOOLEAN' and y.typcategory not in ('B', 'N'))
    ) then 'has a key column that schema.json declares as a number or boolean and that is neither: declare it TEXT'
    when row_security_active(relation)
      then 'hides rows from ' || current_user || ' by row level security'
  end
  from pg_class c where c.oid = relation
$$;
comment on function libsql_sync.attach_problem(oid, text[]) is
  'Why a table cannot be replicated, or null. In: the table, and its key''s columns.';

-- The first step of attach().
create or replace function libsql_sync.check_tables()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  listed record;
  problems text[] := '{}';
  missing text;
begin
  for listed in
    select t.*, r.oid as relation, libsql_sync.attach_problem(r.oid, t.key) as problem
    from libsql_sync.tables t
    cross join lateral to_regclass(format('public.%I', t.name)) r (oid)
    order by t.name
  loop
    if listed.relation is null then
      raise notice 'Table public.% does not exist yet: create it, then run select libsql_sync.attach()', listed.name;
    elsif listed.problem is not null then
      problems := problems || ('public.' || listed.name || ' ' || listed.problem);
    else
      select string_agg(c.value ->> 'name', ', ') into missing
      from jsonb_array_elements(listed.columns) c
      where c.value ->> 'name' not in (select p.name from libsql_sync.present_columns(listed.relation, listed.name) p);
      if missing is not null then
        raise warning 'Table public.% lacks the listed column(s) %: they stay as they are in the replica', listed.name, missing;
      end if;
    end if;
  end loop;
  if problems <> '{}' then
    raise exception 'Cannot attach: %', array_to_string(problems, '; ')
      using hint = 'Only tables with a unique, not null key can be replicated. Repair the table, or take it out of schema.json.';
  end if;
end
$$;
comment on function libsql_sync.check_tables() is
  'Refuses listed tables that cannot be replicated, all in one error; notices those that do not exist yet, and warns of missing columns.';

create or replace function libsql_sync.locked_elsewhere(relation regclass)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'Cannot attach to %: expected its lock within 3 s, found another transaction holding it', relation
    using errcode = 'lock_not_available', hint = 'Nothing was changed. Run it again when no long transaction writes to the table.';
end
$$;
comment on function libsql_sync.locked_elsewhere(regclass) is
  'The error of attach() for a table that another transaction holds.';

-- A writer may hold one of these tables and wait for another. So attach() waits for a table
-- only while it holds none: else the two could wait for each other, and PostgreSQL would
-- end the writer. What cannot be had at once is given back with all others, and waited for
-- first.
create or replace function libsql_sync.lock_to_change(relations oid[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  until constant timestamptz := clock_timestamp() + interval '3 seconds';
  first oid := relations[1];
  next oid;
begin
  while first is distinct from null loop
    begin
      next := first;
      perform set_config('lock_timeout', greatest(1, (extract(epoch from until - clock_timestamp()) * 1000)::integer)::text, true);
      execute format('lock table only %s in share row exclusive mode', first::regclass);
      foreach next in array relations loop
        execute format('lock table only %s in share row exclusive mode nowait', next::regclass);
      end loop;
      perform set_config('lock_timeout', '3s', true);
      return;
    exception when lock_not_available then
      if next = first or clock_timestamp() > until then
        perform libsql_sync.locked_elsewhere(next);
      end if;
      first := next;
    end;
  end loop;
end
$$;
comment on function libsql_sync.lock_to_change(oid[]) is
  'Locks tables against writers until the transaction ends, all or none, in 3 s at most. Raises lock_not_available with the name of the table that another transaction holds.';

-- The second step of attach().
create or replace function libsql_sync.make_trigger_functions()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  stale record;
  of_rows boolean := false;
begin
  -- By the old text a change of a column that is listed now is not sent, and may be
  -- committed after everything was walked: so the writer ends first, then all is walked.
  for stale in select f.* from libsql_sync.stale_functions() f order by f.name loop
    of_rows := of_rows or stale.relation is distinct from null;
    -- Definer: the writing user may neither read the queue nor write to it.
    execute format(
      'create or replace function %s() returns trigger language plpgsql security definer'
      || ' set search_path = pg_catalog, pg_temp %s as %L',
      stale.name,
      (select string_agg(format('set %s = %L', split_part(s, '=', 1), split_part(s, '=', 2)), ' ')
       from unnest(stale.settings) s where s not like 'search_path=%'),
      stale.body);
    execute format('comment on function %s() is %L', stale.name,
      case when stale.relation is null
        then 'Queues a TRUNCATE of any listed table. Written by libsql_sync.attach().'
        else 'Queues the keys of the rows of one listed table that a statement has changed. Written by libsql_sync.attach().' end);
  end loop;
  insert into libsql_sync.captures as c (name, digest)
  select d.table_name, d.digest from libsql_sync.capture_digests() d
  on conflict (name) do update set digest = excluded.digest where c.digest <> excluded.digest;
  if of_rows then
    update libsql_sync.chain set walk_wanted = walk_wanted + 1 where id = 1;
  end if;
end
$$;
comment on function libsql_sync.make_trigger_functions() is
  'Makes the trigger functions that are missing, and anew those that would send something else today: their tables, which the caller has locked, are walked later.';

create or replace function libsql_sync.missing_triggers()
returns table (table_name text, relation oid, name text, fires text, referencing text, function text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with functions as materialized (
    select f.function, to_regprocedure(f.function || '()') as oid
    from (select distinct w.function from libsql_sync.wanted_triggers() w) f
  )
  select w.table_name, w.relation, w.name, w.fires, w.referencing, w.function
  from libsql_sync.wanted_triggers() w
  join functions f on f.function = w.function
  left join pg_trigger g
    on g.tgrelid = w.relation and g.tgname = w.name::name and g.tgfoid = f.oid
   and g.tgtype = w.type and g.tgenabled in ('O', 'A')
   and g.tgargs = convert_to(w.table_name, 'UTF8') || '\x00'::bytea
  where g.oid is null
$$;
comment on function libsql_sync.missing_triggers() is
  'The triggers of wanted_triggers() that are missing, disabled or different.';

-- The third step of attach().
create or replace function libsql_sync.make_triggers()
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  wanted record;
  made integer := 0;
begin
  for wanted in select * from libsql_sync.missing_triggers() loop
    execute format(
      'create or replace trigger %I %s on %s %s for each statement execute function %s(%L)',
      wanted.name, wanted.fires, wanted.relation::regclass, wanted.referencing, wanted.function, wanted.table_name);
    execute format('alter table only %s enable trigger %I', wanted.relation::regclass, wanted.name);
    made := made + 1;
  end loop;
  -- Until now their writes bypassed the queue. So also before the replica was ever seen:
  -- the queue may hold rows that are gone.
  if made > 0 then
    update libsql_sync.chain set walk_wanted = walk_wanted + 1 where id = 1;
  end if;
  return made;
end
$$;
comment on function libsql_sync.make_triggers() is
  'Makes the triggers that are missing, disabled or different, on each listed table and partition. Returns how many.';

-- The last step of attach().
create or replace function libsql_sync.drop_stale_triggers()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  stale record;
begin
  for stale in
    with listed as materialized (
      select convert_to(t.name, 'UTF8') || '\x00'::bytea as args, r.oid as relation
      from libsql_sync.tables t
      cross join lateral to_regclass(format('public.%I', t.name)) r (oid)
    ), attached as materialized (
      select l.args, l.relation from listed l
      union
      select l.args, p.relid from listed l cross join lateral pg_partition_tree(l.relation) p
    )
    select g.tgrelid::regclass as relation, g.tgname as name
    from pg_trigger g
    where g.tgfoid in (select libsql_sync.trigger_functions())
      and (g.tgargs, g.tgrelid) not in (select a.args, a.relation from attached a where a.relation is distinct from null)
      -- A table that was renamed is followed until another one has the name.
      and g.tgargs not in (select l.args from listed l where l.relation is not distinct from null)
  loop
    execute format('drop trigger %I on %s', stale.name, stale.relation);
    -- A partition that was detached took its rows along.
    update libsql_sync.chain set walk_wanted = walk_wanted + 1 where id = 1;
  end loop;
  -- Functions of tables that are not listed any more: none of them has a trigger now.
  for stale in
    select p.oid::regprocedure as name from pg_proc p
    where p.pronamespace = 'libsql_sync'::regnamespace and p.oid in (select libsql_sync.trigger_functions())
      and p.proname not in (
        select libsql_sync.trigger_name(t.name, o.suffix) from libsql_sync.tables t cross join libsql_sync.captured() o)
  loop
    execute format('drop function %s', stale.name);
  end loop;
end
$$;
comment on function libsql_sync.drop_stale_triggers() is
  'Drops our triggers from tables that are not listed any more, and from detached partitions, and the functions that none of them runs now.';

create or replace function libsql_sync.attach()
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '3s'
as $$
declare
  made integer;
begin
  perform pg_advisory_xact_lock(hashtext('libsql_sync install'));
  perform libsql_sync.check_tables();
  perform libsql_sync.lock_to_change(array(
    with stale as materialized (
      select distinct f.relation from libsql_sync.stale_functions() f where f.relation is distinct from null
    )
    select s.relation from stale s
    union
    -- Who writes to a partition holds no lock on its table.
    select p.relid from stale s cross join lateral pg_partition_tree(s.relation) p
    union
    select m.relation from libsql_sync.missing_triggers() m));
  perform libsql_sync.make_trigger_functions();
  perform libsql_sync.lock_down();
  made := libsql_sync.make_triggers();
  perform libsql_sync.drop_stale_triggers();
  return made;
end
$$;
comment on function libsql_sync.attach() is
  'Puts the triggers on every listed table that exists, and takes them from others. What is as it should be is not touched or locked. Returns how many triggers were made.';

-- supabase/sql/24_configure.sql

-- Puts a schema.json in force. The call with the project's schema.json is in 90_finish.

create or replace function libsql_sync.configure(schema_hash text, spec jsonb)
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pg_advisory_xact_lock(hashtext('libsql_sync install'));
  if schema_hash is distinct from (select s.hash from libsql_sync.schemas s order by s.generation desc limit 1) then
    delete from libsql_sync.schemas s where s.hash = schema_hash;
    insert into libsql_sync.schemas (hash, spec) values (schema_hash, configure.spec);
  end if;
  delete from libsql_sync.tables where true;
  insert into libsql_sync.tables (name, key, columns)
  select t.value ->> 'name',
    array(select jsonb_array_elements_text(t.value -> 'key')),
    t.value -> 'columns'
  from jsonb_array_elements(configure.spec -> 'tables') t;
  return libsql_sync.attach();
end
$$;
comment on function libsql_sync.configure(text, jsonb) is
  'Puts a schema.json in force and attaches. In: its hash, by which worker and replica name it, and {"tables": [{"name", "key", "columns", "indexes"}, ...]}. Returns how many triggers were made. deno task schema writes the call.';

-- supabase/sql/25_shapes.sql

-- What changes rows without a write: a column retyped, dropped and added again, or given
-- another one's name; a table that has another one's name; a partition attached, detached
-- or dropped; an enum's value renamed. No trigger fires for these. Each claim compares what
-- the catalog shows with what it showed before, and walks if it differs.

create or replace function libsql_sync.type_shape(type oid)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with recursive part (oid) as (
    select type
    union
    select d.refobjid from (
      select t.typbasetype, t.typelem, t.typrelid, t.oid from part p join pg_type t on t.oid = p.oid
    ) t
    cross join lateral (
      select t.typbasetype union all select t.typelem
      union all select r.rngsubtype from pg_range r where r.rngtypid = t.oid
      union all select a.atttypid from pg_attribute a where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
    ) d (refobjid)
    where d.refobjid >= 16384
  )
  select string_agg(concat_ws(':', p.oid,
    (select string_agg(e.enumlabel, ',' order by e.enumsortorder) from pg_enum e where e.enumtypid = p.oid),
    (select string_agg(concat_ws(' ', a.attname, a.atttypid, a.atttypmod), ',' order by a.attnum)
     from pg_type t join pg_attribute a on a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
     where t.oid = p.oid)), ';' order by p.oid)
  from part p
$$;
comment on function libsql_sync.type_shape(oid) is
  'What the text of a type''s values depends on in the catalog: labels of enums, fields of composite types, also of those it is made of.';

create or replace function libsql_sync.shapes_now()
returns table (name text, shape text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select t.name, md5(concat_ws('|', r.oid,
    -- xmin: the column was altered, also if it has the same type again.
    (select string_agg(concat_ws(' ', a.attname, a.attnum, a.atttypid, a.atttypmod, a.xmin,
       case when a.atttypid >= 16384 then libsql_sync.type_shape(a.atttypid) end), ',' order by a.attnum)
     from jsonb_array_elements(t.columns) c
     join pg_attribute a on a.attrelid = r.oid and a.attname = c.value ->> 'name' and a.attnum > 0 and not a.attisdropped),
    (select string_agg(concat_ws(' ', i.inhrelid, i.xmin), ',' order by i.inhrelid)
     from pg_partition_tree(r.oid) p join pg_inherits i on i.inhrelid = p.relid)))
  from libsql_sync.tables t
  cross join lateral to_regclass(format('public.%I', t.name)) r (oid)
$$;
comment on function libsql_sync.shapes_now() is
  'Each listed table, and a digest of what its rows'' texts depend on in the catalog.';

create or replace function libsql_sync.note_shapes()
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  changed boolean;
begin
  with noted as (
    insert into libsql_sync.shapes as s (name, shape)
    select n.name, n.shape from libsql_sync.shapes_now() n
    where n.shape is distinct from (select k.shape from libsql_sync.shapes k where k.name = n.name)
    on conflict (name) do update set shape = excluded.shape
    -- A table that was not known is walked anyway, as it is new in schema.json.
    returning xmax <> 0 as was_known
  )
  select coalesce(bool_or(n.was_known), false) into changed from noted n;
  if changed then
    update libsql_sync.chain set walk_wanted = walk_wanted + 1 where id = 1;
  end if;
  return changed;
end
$$;
comment on function libsql_sync.note_shapes() is
  'Whether a listed table changed in a way that triggers do not see, so that the walk starts over.';

-- supabase/sql/30_message_keys.sql

-- Which rows a message is about. Ours say it themselves, {"v": 2, "table", "keys"}; this is
-- for those of an older release and of row triggers of other solutions. Their values are
-- never read. Used by read_changes() (43_read_changes) and settle() (54_settle).

create or replace function libsql_sync.message_keys(message jsonb)
returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when message -> 'v' = '2' then message -> 'keys'
    when message -> 'truncate' = 'true' or upper(message ->> 'type') = 'TRUNCATE' or message ? 'failed' then null
    else (
      select jsonb_agg(k.key)
      from libsql_sync.tables t
      cross join lateral (
        -- 0.1.0: {"v": 1, "table", "columns", "rows" | "updates", "key", "deletes" | "oversize"}
        select (
          select jsonb_agg(r.value -> (c.n - 1)::integer order by k.n)
          from unnest(t.key) with ordinality k (name, n)
          left join jsonb_array_elements_text(f.names) with ordinality c (name, n) on c.name = k.name) as key
        from (values
          (message -> 'key', message -> 'deletes'), (message -> 'key', message -> 'oversize'),
          (message -> 'columns', message -> 'rows'), (message -> 'columns', message -> 'updates')
        ) f (names, listed)
        cross join lateral jsonb_array_elements(
          case when jsonb_typeof(f.names) = 'array' and jsonb_typeof(f.listed) = 'array' then f.listed else '[]' end) r
        where message -> 'v' = '1'
        union all
        -- A row trigger's: {"type", "table", "record", "old_record"}
        select (
          select jsonb_agg(to_jsonb(i.image ->> k.name) order by k.n)
          from unnest(t.key) with ordinality k (name, n))
        from (values (message -> 'record'), (message -> 'old_record')) i (image)
        where message -> 'v' is null and jsonb_typeof(i.image) = 'object'
      ) k
      where t.name = message ->> 'table'
    )
  end
$$;
comment on function libsql_sync.message_keys(jsonb) is
  'The keys of the rows that a message is about, [[text, ...], ...], or null if it names none. What stands in it is not checked.';

-- What stands for all rows of a table, or for rows that cannot be named.
create or replace function libsql_sync.message_kind(message jsonb)
returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when message -> 'truncate' = 'true' or message -> 'v' is null and upper(message ->> 'type') = 'TRUNCATE' then 'truncate'
    when message ?| '{walk,failed}' then 'walk'
    else 'keys'
  end
$$;
comment on function libsql_sync.message_kind(jsonb) is
  'What a message says: "keys", "truncate", or "walk" if capture could not name the rows.';

-- supabase/sql/31_queue_head.sql

-- Reading the queue. Second step of the data's way: claim() takes the head of the queue in
-- msg_id order, from the floor on. The floor is an id below which no message is or can
-- appear: without it each claim would read the dead rows of all that was ever queued, for
-- as long as an old snapshot keeps VACUUM from them.

-- An id is drawn under the lock that an INSERT takes on the queue first and keeps until
-- its transaction ends.
create or replace function libsql_sync.queue_writers()
returns setof text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select l.virtualtransaction from pg_locks l
  where l.locktype = 'relation' and l.mode = 'RowExclusiveLock' and l.granted
    and l.database = (select d.oid from pg_database d where d.datname = current_database())
    and l.relation = 'pgmq.q_replicate_data_libsql'::regclass
    and l.pid is distinct from pg_backend_pid()
$$;
comment on function libsql_sync.queue_writers() is
  'The transactions that may have put a message into the queue and are still open.';

-- Null if lower ids may still be undrawn: a session that draws many at once keeps some
-- for later.
create or replace function libsql_sync.drawn()
returns bigint
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select pg_sequence_last_value(s.seqrelid) from pg_sequence s
  where s.seqrelid = pg_get_serial_sequence('pgmq.q_replicate_data_libsql', 'msg_id')::regclass
    and s.seqcache = 1 and s.seqincrement = 1 and not s.seqcycle
$$;
comment on function libsql_sync.drawn() is
  'The highest msg_id that the queue has drawn, or null if that does not mean that all lower ones are drawn as well.';

create or replace function libsql_sync.floor(c libsql_sync.chain, out lowest bigint, out settled bigint)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select
    -- Of numbers that are not drawn in order, none is below any floor for good. Another
    -- queue has begun another epoch: is_other_queue().
    case when known.floor then c.floor else 0 end,
    case when known.floor and not exists (
      select from libsql_sync.queue_writers() w
      -- A transaction that was prepared gave up the name it had.
      where w = any (c.floor_awaits) or w like '-1/%') then c.floor_next end
  from (select num_nulls(c.floor_queue, libsql_sync.drawn()) = 0) known (floor)
$$;
comment on function libsql_sync.floor(libsql_sync.chain) is
  'Where the queue is read from, and how far that may rise: "settled" is what was recorded before, once all transactions have ended that could still reveal a smaller id.';

-- The ids drawn are read before the transactions that may hold them.
create or replace function libsql_sync.keep_floor(lowest bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  next bigint := libsql_sync.drawn() + 1;
  awaits text[] := array(select w from libsql_sync.queue_writers() w);
begin
  update libsql_sync.chain set floor = lowest, floor_next = next, floor_awaits = awaits,
    floor_queue = 'pgmq.q_replicate_data_libsql'::regclass
  where id = 1;
end
$$;
comment on function libsql_sync.keep_floor(bigint) is
  'Records the floor, and how far it may rise next.';

-- Until the transactions that may have made such a change have ended, its rows are not to
-- be seen: the walk starts over with each batch until then. Called after the batch's
-- snapshot was taken: what that snapshot sees was counted before.
create or replace function libsql_sync.note_unqueued(c libsql_sync.chain)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  counted bigint := coalesce(pg_sequence_last_value('libsql_sync.unqueued'), 0);
begin
  if counted = c.unqueued and c.unqueued_until is null then
    return false;
  end if;
  update libsql_sync.chain set walk_wanted = walk_wanted + 1, unqueued = counted, unqueued_until = case
    when counted <> c.unqueued then pg_snapshot_xmax(pg_current_snapshot())
    when pg_snapshot_xmin(pg_current_snapshot()) < c.unqueued_until then c.unqueued_until end
  where id = 1;
  return true;
end
$$;
comment on function libsql_sync.note_unqueued(libsql_sync.chain) is
  'Whether capture counted changes that it could not queue, so that the walk starts over.';

-- TRUNCATE, and ALTER TABLE where it rewrites, leave older snapshots an empty table: each
-- table is locked before the snapshot that reads it is taken. Nobody waits for it.
create or replace function libsql_sync.lock_tables(names text[])
returns text[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  name text;
  held text[] := '{}';
begin
  foreach name in array names loop
    begin
      execute format('lock table public.%I in access share mode nowait', name);
      held := held || name;
    exception
      when lock_not_available then
        null;
      when others then
        if sqlstate like '40%' then raise; end if;
        -- read_changes() finds out what is wrong with the table.
        held := held || name;
    end;
  end loop;
  return held;
end
$$;
comment on function libsql_sync.lock_tables(text[]) is
  'Locks listed tables against being emptied or rewritten, until the transaction ends. Returns those that another transaction does not have locked.';

create or replace function libsql_sync.head_tables(lowest bigint, busy text[], messages_max integer)
returns text[]
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select array(
    select distinct t.name
    from (
      select m.message ->> 'table' as name from pgmq.q_replicate_data_libsql m
      where m.msg_id >= lowest and coalesce(m.message ->> 'table' <> all (busy), true)
      order by m.msg_id limit messages_max
    ) h
    join libsql_sync.tables t on t.name = h.name
    order by t.name)
$$;
comment on function libsql_sync.head_tables(bigint, text[], integer) is
  'The listed tables that the head of the queue is about, but for those that are "busy".';

-- pgmq.read is not used: it promises no order. A message that a version ahead stands on
-- has given away its first keys.
create or replace function libsql_sync.head_keys(
  lowest bigint, ahead libsql_sync.batches, busy text[], keys_max integer
)
returns table (
  table_name text, is_listed boolean, ids bigint[], numbers bigint[], truncate_at bigint, walk_at bigint,
  keys jsonb[], places bigint[], cut_count integer, unusable_at bigint
)
language sql stable
set search_path = pg_catalog, pg_temp
set work_mem = '32MB'
as $$
  with sized as (
    select m.msg_id, m.message,
      -- A key has 16 bytes at least, before it is compressed: messages that could not be
      -- taken are not decompressed.
      greatest(1, coalesce(pg_column_size(m.message), 0)
        * case when pg_column_compression(m.message) is null then 1 else 3 end / 100) as least_keys
    from pgmq.q_replicate_data_libsql m
    where m.msg_id >= lowest and not m.msg_id <@ coalesce(ahead.msg_ids, '{}')
      and coalesce(m.message ->> 'table' <> all (busy), true)
    order by m.msg_id limit keys_max
  ), told as (
    -- A function that is called for each message takes longer than all else; with
    -- "offset 0", each of these is computed once.
    select q.msg_id, (q.message ->> 'table') collate "C" as table_name,
      case when q.message ? 'keys' then 'keys' else libsql_sync.message_kind(q.message) end as kind,
      case when q.message -> 'v' = '2' then q.message -> 'keys' else libsql_sync.message_keys(q.message) end as keys,
      case when q.msg_id = ahead.cut_id then ahead.cut_count else 0 end as taken
    from (
      select s.msg_id, s.message, sum(s.least_keys) over w - s.least_keys as before
      from sized s window w as (order by s.msg_id rows unbounded preceding)
    ) q
    where q.before < keys_max
    offset 0
  ), chosen as materialized (
    select c.*, l.name is not null as is_listed, cardinality(l.key) as key_length,
      -- One message at least; of that one the first keys, if it has more.
      case when c.n > keys_max then keys_max end as cut_count
    from (
      select t.*, n.n, row_number() over w as number, sum(greatest(n.n, 1)) over w as upto
      from told t
      cross join lateral (
        select case when jsonb_typeof(t.keys) = 'array' then jsonb_array_length(t.keys) - t.taken else 0 end) n (n)
      window w as (order by t.msg_id rows unbounded preceding)
    ) c
    left join libsql_sync.tables l on l.name collate "C" = c.table_name
    where c.upto <= keys_max or c.number = 1
  ), keyed as (
    select k.*, k.key_length = jsonb_array_length(case when jsonb_typeof(k.key) = 'array' then k.key else '[]' end)
      and not k.key @? 'strict $[*] ? (@.type() != "string")' as usable
    from (
      select c.table_name, c.key_length, k.key, min(c.number * 1000000 + k.n) as place
      from chosen c
      cross join lateral jsonb_array_elements(
        case when jsonb_typeof(c.keys) = 'array' then c.keys else '[]' end) with ordinality k (key, n)
      where c.is_listed and c.kind = 'keys' and k.n > c.taken and k.n <= c.taken + coalesce(c.cut_count, c.n)
      group by c.table_name, c.key_length, k.key
    ) k
  )
  select c.table_name, c.is_listed, c.ids, c.numbers, c.truncate_at, c.walk_at, k.keys, k.places, c.cut_count,
    case when c.is_listed then least(c.empty_at, k.unusable_at) else c.numbers[1] end
  from (
    select c.table_name, c.is_listed, array_agg(c.msg_id order by c.number) as ids,
      array_agg(c.number order by c.number) as numbers, min(c.number) filter (where c.kind = 'truncate') as truncate_at,
      min(c.number) filter (where c.kind = 'walk') as walk_at,
      min(c.number) filter (where c.kind = 'keys' and c.n = 0) as empty_at, max(c.cut_count) as cut_count
    from chosen c group by c.table_name, c.is_listed
  ) c
  left join (
    select k.table_name, min(k.place / 1000000) filter (where not k.usable) as unusable_at,
      array_agg(k.key order by k.place) filter (where k.usable) as keys,
      array_agg(k.place order by k.place) filter (where k.usable) as places
    from keyed k group by k.table_name
  ) k on k.table_name = c.table_name
  order by c.numbers[1]
$$;
comment on function libsql_sync.head_keys(bigint, libsql_sync.batches, text[], integer) is
$$What the head of the queue is about, in msg_id order from the floor, besides what the version "ahead" covers, and but for tables that are "busy". One row a table, by its first message:
"ids" of its messages, and their "numbers" in the head; the number of the first that empties the table ("truncate_at"), that could not name rows ("walk_at"), and that is "unusable"; the distinct "keys", each with the "place" where it came first (number * 1,000,000 + place in the message); "cut_count", if the last message of the head has more keys than may be taken.$$;

-- supabase/sql/40_walk.sql

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

-- supabase/sql/41_read_rows.sql

-- Reading rows: those after a place in the order of the key's index, for pages, and those
-- of some keys, for changes. Texts of SQL again, as in 20_render: every row is rendered
-- by the same.

create or replace function libsql_sync.walk_columns(relation oid, key_columns text[])
returns table (n bigint, name text, quoted text, type_oid oid, type text, less text, equal text, at_least text, greater text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  walked constant oid := libsql_sync.usable_key(relation, key_columns);
begin
  -- Planned once in a session, too.
  return query select (k + 1)::bigint, a.attname::text,
    quote_ident(a.attname) || coalesce((
      select format(' collate %I.%I', n.nspname, l.collname)
      from pg_collation l join pg_namespace n on n.oid = l.collnamespace
      where l.oid = i.indcollation[k] and l.oid <> a.attcollation), ''),
    a.atttypid,
    -- Not null for the modifier: "character" and "bit" would be of length 1. Not a
    -- domain: what its check refuses today may be in the table since before.
    format_type(libsql_sync.base_type(a.atttypid), -1),
    s.less, s.equal, s.at_least, s.greater
  from pg_index i
  cross join lateral generate_series(0, i.indnkeyatts - 1) k
  join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[k]
  join pg_opclass c on c.oid = i.indclass[k]
  cross join lateral (
    select max(o.name) filter (where o.strategy = 1) as less,
      max(o.name) filter (where o.strategy = 3) as equal,
      max(o.name) filter (where o.strategy = 4) as at_least,
      max(o.name) filter (where o.strategy = 5) as greater
    from (
      select m.amopstrategy, format('operator(%I.%s)', n.nspname, o.oprname)
      from pg_amop m
      join pg_operator o on o.oid = m.amopopr
      join pg_namespace n on n.oid = o.oprnamespace
      where m.amopfamily = c.opcfamily and m.amopstrategy in (1, 3, 4, 5)
        and m.amoplefttype = c.opcintype and m.amoprighttype = c.opcintype
    ) o (strategy, name)
  ) s
  where i.indexrelid = walked
  order by k;
end
$$;
comment on function libsql_sync.walk_columns(oid, text[]) is
  'The columns of the index that is walked, which may be fewer than the listed key, in its order, with the operators and the collation that the index has.';

-- It follows the index, so that no page costs a sort. Cells of few bytes come as JSON
-- text: rendered in the query they take half as long as in PL/pgSQL, which however fetches
-- up to 50 rows that it may not need.
create or replace function libsql_sync.rows_sql(relation oid, table_name text, whole boolean)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    'select r.bytes, case when r.bytes <= 65536 then array_to_json(r.cells)::text end as text,'
    || ' case when r.bytes > 65536 then r.cells end as cells, array[%s]::text[] as place from %s t'
    || ' cross join lateral (select c.cells, pg_column_size(c.cells) as bytes from (select array[%s]::text[] as cells offset 0) c offset 0) r'
    || ' where $1 is null or (%s) order by %s limit $2',
    -- As the type itself writes it: what a cast reads again.
    string_agg(format('t.%I::text', w.name), ', ' order by w.n),
    relation::regclass,
    (select string_agg(libsql_sync.cell_sql(p.declared, p.type, 't.' || p.quoted), ', '
       order by case when not whole then array_position(t.key, p.name) end)
     from libsql_sync.present_columns(relation, table_name) p where whole or p.name = any (t.key)),
    case when bool_and(w.greater = 'operator(pg_catalog.>)') and count(*) > 1
      then format('row(%s) operator(pg_catalog.>) row(%s)',
        string_agg('t.' || w.quoted, ', ' order by w.n),
        string_agg('($1)[' || w.n || ']::' || w.type, ', ' order by w.n))
      -- The same written out, for operators that a row comparison cannot name.
      else min(case when w.n = 1 then format('t.%s %s ($1)[1]::%s and ', w.quoted, w.at_least, w.type) end)
        || '(' || string_agg(
          coalesce((
            select string_agg(format('t.%s %s ($1)[%s]::%s and ', b.quoted, b.equal, b.n, b.type), '' order by b.n)
            from libsql_sync.walk_columns(relation, t.key) b where b.n < w.n), '')
          || format('t.%s %s ($1)[%s]::%s', w.quoted, w.greater, w.n, w.type), ' or ' order by w.n) || ')'
    end,
    string_agg('t.' || w.quoted || ' using ' || w.less, ', ' order by w.n))
  from libsql_sync.tables t
  cross join lateral libsql_sync.walk_columns(relation, t.key) w
  where t.name = table_name
  group by t.key
$$;
comment on function libsql_sync.rows_sql(oid, text, boolean) is
  'The query of a page: $1 the walked key that it starts after (null: the start), $2 rows at most. For each row its bytes, its cells (those of the key alone, unless "whole") as JSON text if they are few bytes or else as an array, and its place.';

create or replace function libsql_sync.read_range(
  relation oid, table_name text, place_after text[], rows_max integer, bytes_max bigint,
  out n integer, out rows text[], out gone jsonb, out broken jsonb, out is_last boolean, out reached text[]
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  columns constant text[] := array(select p.name from libsql_sync.present_columns(relation, table_name) p);
  key_columns constant text[] := (select t.key from libsql_sync.tables t where t.name = table_name);
  r record;
  bytes bigint := 0;
  piece text := '';
  comma text := '';
begin
  n := 0;
  rows := '{}';
  gone := '[]';
  broken := '[]';
  is_last := true;
  for r in execute libsql_sync.rows_sql(relation, table_name, true) using place_after, rows_max + 1 loop
    if n >= rows_max or n > 0 and bytes + r.bytes > bytes_max then
      is_last := false;
      exit;
    end if;
    n := n + 1;
    bytes := bytes + r.bytes;
    if r.bytes > 5000000 then
      broken := broken || jsonb_build_array(jsonb_build_object(
        'key', (select jsonb_agg(r.cells[array_position(columns, k.name)] order by k.i)
          from unnest(key_columns) with ordinality k (name, i)),
        'reason', libsql_sync.too_large()));
    else
      piece := piece || comma || coalesce(r.text, array_to_json(r.cells)::text);
      comma := ',';
      if octet_length(piece) > 16384 then
        rows := rows || piece;
        piece := '';
      end if;
    end if;
    reached := r.place;
  end loop;
  rows := rows || piece;
end
$$;
comment on function libsql_sync.read_range(oid, text, text[], integer, bigint) is
$$The rows after a place in the order of the key's index, in the caller's snapshot, as far as the bounds on rows and bytes go.
Out: how many; their cells as JSON texts, [text, ...] joined by commas; no key that is gone; rows over 5 MB, [{"key", "reason"}, ...]; whether they are the last; and the place they reach.$$;

create or replace function libsql_sync.too_large()
returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $$ select 'row too large: expected at most 5,000,000 bytes, libSQL''s limit of a row' $$;
comment on function libsql_sync.too_large() is
  'Why a row is parked that no libSQL database can hold.';

-- What is in the way of a row alone must not stop the others; of what is in the way of
-- the call, each row would be to blame.
create or replace function libsql_sync.fault_of(state text)
returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
  select case
    -- A lost race, a lack of memory or disk, a lock, a cancelled query.
    when state ~ '^(40|53|55|57)' then 'call'
    -- A column or a right that is gone.
    when state ~ '^42' then 'table'
    -- Data: a cast that raises, damage, a limit.
    else 'row'
  end
$$;
comment on function libsql_sync.fault_of(text) is
  'Whose fault an error of reading rows is, by its SQLSTATE: the "call", the "table", or the "row".';

create or replace function libsql_sync.match_sql(relation oid, table_name text)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select string_agg(
    format('t.%s %s ', p.quoted, coalesce(w.equal, 'operator(pg_catalog.=)'))
    -- What was rendered as JSON is read as JSON again. Not as a record of the table: that
    -- asks the domains of all its columns.
    || format(case when libsql_sync.cell_sql(p.declared, p.type, 't') = 'to_json(t)::text'
         then '(select j.v from json_to_record(json_build_object(''v'', (k.key ->> %s)::json)) j (v %s))'
         else '(k.key ->> %s)::%s' end,
         k.n - 1, format_type(libsql_sync.base_type(p.type), -1)),
    ' and ' order by k.n)
  from libsql_sync.tables t
  cross join lateral unnest(t.key) with ordinality k (name, n)
  join lateral libsql_sync.present_columns(relation, table_name) p on p.name = k.name
  left join lateral libsql_sync.walk_columns(relation, t.key) w on w.name = k.name
  where t.name = table_name
$$;
comment on function libsql_sync.match_sql(oid, text) is
  'The SQL that is true if the row t has the key k.key, a JSON array of texts in the order of the listed key.';

-- Only rows that may fit are rendered, by the size in which they are stored, for which no
-- large value is fetched: where large rows follow small ones, a slice has gigabytes.
create or replace function libsql_sync.lookup_sql(relation oid, table_name text, whole boolean)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    'with found as materialized ('
    || ' select k.n, k.key, t.*, sum(t.stored) over (order by k.n rows unbounded preceding) as upto'
    || ' from unnest($1) with ordinality k (key, n)'
    || ' left join lateral (select %s, %s as stored, true as is_there from %s t where %s offset 0) t on true'
    || '), rendered as ('
    || ' select t.n, t.key, r.*, pg_column_size(t.key) + coalesce(pg_column_size(r.cells), 0) as bytes'
    || ' from found t'
    || ' cross join lateral (select case when t.is_there then array[%s]::text[] end as cells, t.is_there and %s as same offset 0) r'
    || ' where t.upto is null or t.upto <= $2 + 1000000 or t.n = 1'
    || ') select max(t.n)::integer as n, sum(t.bytes)::bigint as bytes,'
    || ' string_agg(array_to_json(t.cells)::text, '','' order by t.n) filter (where t.bytes <= 5000000) as rows,'
    || ' coalesce(jsonb_agg(t.key order by t.n) filter (where t.same is not true), ''[]'') as gone,'
    || ' coalesce(jsonb_agg(t.key order by t.n) filter (where t.bytes > 5000000), ''[]'') as large'
    || ' from (select f.*, sum(f.bytes) over (order by f.n rows unbounded preceding) as upto from rendered f) t'
    || ' where t.upto <= $2 or t.n = 1',
    string_agg(format('t.%s as c%s', p.quoted, p.i), ', ' order by p.i),
    string_agg(format('coalesce(pg_column_size(t.%s), 0)', p.quoted), ' + ' order by p.i),
    relation::regclass, libsql_sync.match_sql(relation, table_name),
    string_agg(libsql_sync.cell_sql(p.declared, p.type, 't.c' || p.i), ', ' order by p.i) filter (where whole),
    -- Another text of the same key (citext, collations) is another row in the replica.
    coalesce(string_agg(format('%s collate "C" = t.key ->> %s',
      libsql_sync.cell_sql(p.declared, p.type, 't.c' || p.i), array_position(t.key, p.name) - 1), ' and ')
      filter (where p.name = any (t.key) and p.declared not in ('INTEGER', 'BOOLEAN')), 'true'))
  from libsql_sync.tables t
  cross join lateral (
    select c.*, row_number() over () as i
    from libsql_sync.present_columns(relation, table_name) c where whole or c.name = any (t.key)
  ) p
  where t.name = table_name
$$;
comment on function libsql_sync.lookup_sql(oid, text, boolean) is
  'The query of rows by key: $1 an array of keys, $2 bytes at most. How many keys it read, one at least; their bytes; the rows as JSON texts ("whole": of all listed columns, else empty); keys without a row, or with one whose key has another text; keys whose row is over 5 MB.';

-- A slice that fails is read again in smaller ones, down to the one row that is to blame.
create or replace function libsql_sync.read_rows(
  relation oid, table_name text, keys jsonb[], whole boolean, bytes_max bigint, until timestamptz,
  out n integer, out bytes bigint, out rows text[], out gone jsonb, out broken jsonb
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  query constant text := libsql_sync.lookup_sql(relation, table_name, whole);
  total constant integer := cardinality(keys);
  size integer := 16;
  r record;
  state text;
  is_there boolean;
begin
  n := 0;
  bytes := 0;
  rows := '{}';
  gone := '[]';
  broken := '[]';
  while n < total and bytes < bytes_max and (n = 0 or clock_timestamp() < until) loop
    begin
      execute query into r using keys[n + 1 : n + size], bytes_max - bytes;
      if n > 0 and r.n = 1 and bytes + r.bytes > bytes_max then
        exit;
      end if;
      n := n + r.n;
      bytes := bytes + r.bytes;
      if whole and r.rows is not null then
        rows := rows || (case when rows <> '{}' then ',' else '' end || r.rows);
      end if;
      gone := gone || r.gone;
      if r.large <> '[]' then
        broken := broken || (
          select jsonb_agg(jsonb_build_object('key', l.value, 'reason', libsql_sync.too_large()))
          from jsonb_array_elements(r.large) l);
      end if;
      -- As many as fit, by what rows took until now.
      size := least(size * 4, 8192, greatest(1, (bytes_max - bytes) / greatest(1, bytes / n)));
    exception when others then
      state := sqlstate;
      if libsql_sync.fault_of(state) <> 'row' then raise; end if;
      if size > 1 then
        size := greatest(1, least(size, total - n) / 4);
        continue;
      end if;
      begin
        execute format('select exists (select from %s t, (values ($1)) k (key) where %s)',
          relation::regclass, libsql_sync.match_sql(relation, table_name))
        into is_there using keys[n + 1];
      -- What cannot be a value of the key has no row.
      exception when data_exception or check_violation or not_null_violation then
        is_there := false;
      end;
      if is_there then
        broken := broken || jsonb_build_array(jsonb_build_object('key', keys[n + 1],
          'reason', 'PostgreSQL cannot read the row: ' || state));
      else
        gone := gone || jsonb_build_array(keys[n + 1]);
      end if;
      n := n + 1;
      size := 4;
    end;
  end loop;
end
$$;
comment on function libsql_sync.read_rows(oid, text, jsonb[], boolean, bigint, timestamptz) is
$$Rows by key, in the caller's snapshot, as far as the bounds on bytes and time go: one key at least.
In: the table, its name in schema.json, keys, whether the cells are wanted.
Out: how many keys were read; bytes; the rows' cells as JSON texts, [text, ...] joined by commas; keys that have no row; and rows that cannot be read or are over 5 MB, [{"key", "reason"}, ...].$$;

-- supabase/sql/42_read_page.sql

-- The page that rides on a batch, read in the batch's own snapshot like every other row.
-- A table is walked in two halves: forward in the source's
-- order, then back over the replica's keys, to find rows that the source does not have.

create or replace function libsql_sync.next_place(w libsql_sync.walks, at jsonb, place jsonb)
returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    -- A table that this epoch created empty can hold no row that the source lacks.
    when place ->> 'half' = 'forward' and not coalesce((at ->> 'fresh')::jsonb ? (place ->> 'table'), false)
      then jsonb_build_object('table', place -> 'table', 'half', 'back')
    else (
      select jsonb_build_object('table', t.name, 'half', 'forward')
      from unnest(w.tables) with ordinality t (name, n)
      where t.n > array_position(w.tables, place ->> 'table')
      order by t.n limit 1
    )
  end
$$;
comment on function libsql_sync.next_place(libsql_sync.walks, jsonb, jsonb) is
  'Where a walk continues after a half of a table, or null at its end. In: the walk, the replica''s row, the place.';

-- What the replica itself refused would make the walk stand still there. A redrive tries
-- what was refused before it.
create or replace function libsql_sync.open_keys(w libsql_sync.walks, table_name text)
returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_agg(jsonb_build_object(
    'key', d.message -> 'key',
    'skip', d.message ->> 'reason' like 'libSQL refused%'
      and (w.kind <> 'redrive' or d.msg_id > w.letters_until))), '[]')
  from (
    select m.msg_id, m.message, sum(octet_length((m.message -> 'key')::text)) over (order by m.msg_id) as bytes
    from (
      select m.msg_id, m.message from pgmq.q_replicate_data_libsql_dlq m
      where m.message ->> 'table' = table_name and jsonb_typeof(m.message -> 'key') = 'array'
      order by m.msg_id
      limit 10000
    ) m
  ) d
  where d.bytes <= 1000000
$$;
comment on function libsql_sync.open_keys(libsql_sync.walks, text) is
  'The keys of a table that have an open dead letter, [{"key", "skip"}, ...]: with "skip" the walk leaves the row out.';

create or replace function libsql_sync.is_large(relation oid)
returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(sum(greatest(c.reltuples, 0)) > 800000
    or sum(pg_table_size(c.oid)) > 400 * 1024 * 1024, false)
  from pg_class c
  where c.oid = relation and c.relkind = 'r'
    or c.oid in (select t.relid from pg_partition_tree(relation) t where t.isleaf)
$$;
comment on function libsql_sync.is_large(oid) is
  'Whether a table is too large for its indexes to be built in one transaction of the replica: then they stay on while it is filled.';

-- A place that was edited by hand would end the walk early, and so would a key with other
-- columns than the page before had: both start over.
create or replace function libsql_sync.place_of(w libsql_sync.walks, at jsonb)
returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce((
    select p.place
    from (select (at ->> 'walk_at')::jsonb) p (place)
    left join libsql_sync.tables t on t.name = p.place ->> 'table'
    where (at ->> 'walk_gen')::bigint = w.walk_gen
      and p.place ->> 'table' = any (w.tables)
      and (p.place ->> 'half' = 'keys') = (w.keys is not null)
      -- A table that is listed no more has no place, and is passed over.
      and (t.name is null or jsonb_typeof(p.place -> 'after') is distinct from 'array'
        or jsonb_array_length(p.place -> 'after') = case p.place ->> 'half'
          when 'keys' then 1
          when 'back' then cardinality(t.key)
          else (
            select i.indnkeyatts from pg_index i
            where i.indexrelid = libsql_sync.usable_key(to_regclass(format('public.%I', t.name)), t.key)
          ) end)
  ), jsonb_build_object('table', w.tables[1],
    'half', case when w.keys is null then 'forward' else 'keys' end))
$$;
comment on function libsql_sync.place_of(libsql_sync.walks, jsonb) is
  'Where a walk stands: the place in the replica''s row, or the walk''s start if the row has none of this walk.';

-- A TRUNCATE, or an ALTER TABLE that rewrites, leaves older snapshots an empty table: a
-- page of one that began before it, and read after it, would take every row for gone.
create or replace function libsql_sync.hold_page(w libsql_sync.walks, at jsonb)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
-- The chain must not wait for another transaction's lock on a table, nor that one for
-- the chain.
set lock_timeout = '200ms'
as $$
begin
  execute format('lock table public.%I in access share mode',
    libsql_sync.place_of(w, at) ->> 'table');
  return true;
exception
  when lock_not_available then
    return false;
  when others then
    if sqlstate like '40%' then raise; end if;
    -- read_page() reports what is wrong with the table.
    return true;
end
$$;
comment on function libsql_sync.hold_page(libsql_sync.walks, jsonb) is
  'Locks the table of the next page, before the snapshot that reads it is taken. Returns false if another transaction has the table locked.';

create or replace function libsql_sync.count_differs(relation oid, table_name text, replica_count bigint, is_level boolean)
returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  here bigint;
begin
  -- Every row that is here is there as well, by the half before: if there are as many,
  -- there are no others. Not so if a row was parked, and may be missing; nor if there
  -- are messages, as the replica's count is of another time then.
  if is_level and not libsql_sync.is_large(relation) and not exists (
    -- A message that names no table may have been of this one; a letter that was
    -- discarded left its row missing as well.
    select from pgmq.q_replicate_data_libsql_dlq d
    where coalesce(d.message ->> 'table', table_name) = table_name
    union all
    select from pgmq.a_replicate_data_libsql_dlq d
    where coalesce(d.message ->> 'table', table_name) = table_name
  ) then
    execute format('select count(*) from %s', relation::regclass) into here;
  end if;
  return here is distinct from replica_count;
end
$$;
comment on function libsql_sync.count_differs(oid, text, bigint, boolean) is
  'Whether the replica may have rows of a table that are not here: false if counting shows that it has none, so that its keys need not be compared.';

create or replace function libsql_sync.page_answer(
  w libsql_sync.walks, at jsonb, place jsonb, relation oid, listed libsql_sync.tables, columns text[],
  n integer, ghosts jsonb, broken jsonb, last boolean, after jsonb, counted boolean, failed text
)
returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  upto jsonb;
  -- Tables of this walk that could not be read. A table that does not exist does not
  -- count.
  unread constant integer := coalesce((place ->> 'unread')::integer, 0)
    + case when failed <> '42P01' then 1 else 0 end;
begin
  upto := case when last then libsql_sync.next_place(w, at, case when failed is null then place
      -- What cannot be compared is left alone, both ways.
      else jsonb_build_object('table', place -> 'table', 'half', 'back') end)
    else jsonb_build_object('table', place -> 'table', 'half', place -> 'half', 'after', after) end
    || jsonb_build_object('unread', unread)
    || case when counted then '{"counted": true}'::jsonb else '{}' end
    || case when w.kind = 'scrub' then jsonb_build_object('rows', (select c.scrub_rows from libsql_sync.chain c)) else '{}' end;
  return jsonb_build_object(
    'walk_gen', w.walk_gen, 'kind', w.kind, 'repair', w.repair,
    'table', place -> 'table', 'half', place -> 'half', 'starts', not place ? 'after' and place ->> 'half' <> 'back',
    'rows', n, 'last', last, 'large', libsql_sync.is_large(relation),
    'columns', coalesce(columns, '{}'),
    'ghosts', ghosts, 'broken', broken,
    'open', libsql_sync.open_keys(w, listed.name),
    -- The tables may be others since the walk was asked for.
    'upto', upto::text, 'closes', upto is null and w.closes and unread = 0
      and w.tables @> array(select t.name from libsql_sync.tables t))
    || case when failed is null then '{}' else jsonb_build_object('failed', failed) end;
end
$$;
comment on function libsql_sync.page_answer(libsql_sync.walks, jsonb, jsonb, oid, libsql_sync.tables, text[], integer, jsonb, jsonb, boolean, jsonb, boolean, text) is
  'A page''s answer but for its cells: what was read, and "upto", where the page leaves the walk.';

create or replace function libsql_sync.read_page(w libsql_sync.walks, at jsonb, request jsonb, is_level boolean)
returns text[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
set timezone = 'UTC' set datestyle = 'ISO, YMD' set intervalstyle = 'postgres'
set bytea_output = 'hex' set extra_float_digits = 1 set lc_monetary = 'C'
set row_security = off
-- No statistics, or stale ones, may turn a page into a sort of the whole table.
set enable_sort = off set enable_seqscan = off set jit = off
-- The chain must not wait for another transaction's lock on a table, nor that one for
-- the chain.
set lock_timeout = '200ms'
as $$
declare
  until constant timestamptz := clock_timestamp() + interval '1500 milliseconds';
  place jsonb := libsql_sync.place_of(w, at);
  listed libsql_sync.tables;
  relation oid;
  r record;
  rows_max integer := case when w.kind = 'scrub' then least((request ->> 'rows')::integer, (select c.scrub_rows from libsql_sync.chain c))
    else (request ->> 'rows')::integer end;
  bytes_max bigint := request ->> 'bytes';
  columns text[];
  place_after text[];
  keys jsonb[];
  places jsonb[];
  done integer;
  pieces text[] := '{}';
  ghosts jsonb := '[]';
  broken jsonb := '[]';
  after jsonb;
  -- Whether the replica has another number of rows, so that its keys are needed.
  counted boolean := false;
  n integer := 0;
  last boolean := true;
  failed text;
begin
  select * into listed from libsql_sync.tables t where t.name = place ->> 'table';
  -- A table may be listed no more since the walk was asked for.
  relation := case when listed.name is not null then to_regclass(format('public.%I', listed.name)) end;
  begin
    if relation is null then
      failed := '42P01';
    elsif libsql_sync.usable_key(relation, listed.key) is null then
      failed := '42703';
    elsif place ->> 'half' = 'back' then
      if request #>> '{keys,at}' is distinct from at ->> 'walk_at' then
        return null;
      end if;
      if request #> '{keys,count}' is not null then
        counted := libsql_sync.count_differs(relation, listed.name, (request #>> '{keys,count}')::bigint, is_level);
        last := not counted;
      else
        keys := array(select k.value from jsonb_array_elements(request #> '{keys,keys}') k);
        select * into r from libsql_sync.read_rows(relation, listed.name, keys, false, 1000000000, 'infinity');
        n := r.n;
        ghosts := r.gone;
        last := (request #>> '{keys,last}')::boolean;
        after := request #> '{keys,after}';
      end if;
    else
      columns := array(select p.name from libsql_sync.present_columns(relation, listed.name) p);
      if place ->> 'half' = 'keys' then
        -- Its place is how many of the keys are done.
        done := coalesce((place #>> '{after,0}')::integer, 0);
        keys := array(
          select k.value from jsonb_array_elements(w.keys) with ordinality k (value, i) where k.i > done order by k.i limit rows_max);
        select * into r from libsql_sync.read_rows(relation, listed.name, keys, true, bytes_max, until);
        last := done + r.n >= jsonb_array_length(w.keys);
        after := jsonb_build_array((done + r.n)::text);
      else
        place_after := (
          select array_agg(v order by i) from jsonb_array_elements_text(place -> 'after') with ordinality e (v, i));
        begin
          select * into r from libsql_sync.read_range(relation, listed.name, place_after, rows_max, bytes_max);
          last := r.is_last;
          after := to_jsonb(r.reached);
        exception when others then
          if libsql_sync.fault_of(sqlstate) <> 'row' then raise; end if;
          -- One row of them cannot be read: by their keys, the others can.
          execute format('select array_agg(coalesce(q.text::jsonb, to_jsonb(q.cells))), array_agg(to_jsonb(q.place)) from (%s) q',
            libsql_sync.rows_sql(relation, listed.name, false))
          into keys, places using place_after, rows_max + 1;
          select * into r from libsql_sync.read_rows(relation, listed.name, keys[1 : rows_max], true, bytes_max, until);
          last := r.n = cardinality(keys);
          after := places[r.n];
        end;
      end if;
      n := r.n;
      pieces := r.rows;
      ghosts := r.gone;
      broken := r.broken;
    end if;
  exception when others then
    -- One table that cannot be read must not stop the others, nor the queue.
    if sqlstate like '40%' then raise; end if;
    -- Another transaction has it locked: a page of it comes later.
    if sqlstate = '55P03' then return null; end if;
    failed := sqlstate;
    last := true;
  end;
  if failed is not null then
    pieces := '{}';
    ghosts := '[]';
    broken := '[]';
    n := 0;
  end if;
  return array['{"cells":['] || pieces || array['],' || substr(libsql_sync.page_answer(
    w, at, place, relation, listed, columns, n, ghosts, broken, last, after, counted, failed)::text, 2)];
end
$$;
comment on function libsql_sync.read_page(libsql_sync.walks, jsonb, jsonb, boolean) is
$$The page that a walk reads next, in pieces of one JSON text. STABLE: it sees the snapshot of the claim that reads the queue.
In: the walk; the replica's row; {"rows", "bytes", "keys": {"at", "keys", "after", "last"} | {"at", "count"}?}; whether the replica stands at this very snapshot but for the page.
Out: {"cells": [[text, ...], ...], "walk_gen", "kind", "repair", "table", "half", "starts", "rows", "last", "large", "columns", "ghosts", "broken", "open", "upto", "closes", "failed"?}, or null: no page now.$$;

-- supabase/sql/43_read_changes.sql

-- Which rows the head of the queue is about, as they are: what claim() hands out of changes.
-- The messages come from head_keys() (31_queue_head), the rows from read_rows()
-- (41_read_rows).

create or replace function libsql_sync.changes_piece(
  is_first boolean, relation oid, table_name text, truncated boolean, rows text[], gone jsonb, broken jsonb
)
returns text[]
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select array[concat(case when not is_first then ',' end, '{"table":', to_json(table_name), ',"truncate":', to_json(truncated), ',"columns":',
      (select coalesce(json_agg(p.name), '[]') from libsql_sync.present_columns(relation, changes_piece.table_name) p), ',"rows":[')]
    || rows
    || array[concat('],"gone":', gone, ',"broken":', broken, '}')]
$$;
comment on function libsql_sync.changes_piece(boolean, oid, text, boolean, text[], jsonb, jsonb) is
  'What a version does to one table, as pieces of JSON: {"table", "truncate", "columns", "rows", "gone", "broken"}.';

-- STABLE: every query of it sees the caller's one snapshot. So a key that comes in many
-- messages is read once, and the order of messages means nothing.
create or replace function libsql_sync.read_changes(
  lowest bigint, ahead libsql_sync.batches, busy text[], keys_max integer, bytes_max bigint,
  out pieces text[], out unusable jsonb, out msg_ids int8multirange, out messages integer,
  out cut_id bigint, out cut_count integer, out truncated text[], out drained boolean, out opens boolean,
  out first bigint
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set timezone = 'UTC' set datestyle = 'ISO, YMD' set intervalstyle = 'postgres'
set bytea_output = 'hex' set extra_float_digits = 1 set lc_monetary = 'C'
set row_security = off set enable_seqscan = off set jit = off
as $$
declare
  until timestamptz;
  t record;
  r record;
  relation oid;
  key_columns text[];
  is_empty boolean;
  covered bigint[] := '{}';
  unread bigint;
  -- The number of the first message that is not covered.
  reach bigint;
begin
  pieces := '{}';
  unusable := '[]';
  truncated := '{}';
  opens := false;
  for t in select * from libsql_sync.head_keys(lowest, ahead, busy, keys_max) loop
    -- A cold cache makes 50,000 rows slow. Some are read however long the head took.
    until := coalesce(until, clock_timestamp() + interval '1500 milliseconds');
    unread := null;
    is_empty := false;
    relation := case when t.is_listed then to_regclass(format('public.%I', t.table_name)) end;
    select l.key into key_columns from libsql_sync.tables l where l.name = t.table_name;
    begin
      if relation is null or libsql_sync.usable_key(relation, key_columns) is null then
        -- It cannot be compared, and is left alone: the walk says so by name.
        opens := opens or t.is_listed;
      else
        if t.truncate_at is distinct from null then
          execute format('select not exists (select from %s)', relation::regclass) into is_empty;
        end if;
        if is_empty then
          truncated := truncated || t.table_name;
          pieces := pieces || libsql_sync.changes_piece(pieces = '{}', relation, t.table_name, true, '{}', '[]', '[]');
        elsif t.keys is not null then
          if bytes_max <= 0 or clock_timestamp() > until then
            unread := t.places[1];
          else
            select * into r from libsql_sync.read_rows(relation, t.table_name, t.keys, true, bytes_max, until);
            bytes_max := bytes_max - r.bytes;
            unread := t.places[r.n + 1];
            pieces := pieces || libsql_sync.changes_piece(pieces = '{}', relation, t.table_name, false, r.rows, r.gone, r.broken);
          end if;
        end if;
      end if;
    exception when others then
      if libsql_sync.fault_of(sqlstate) = 'call' then raise; end if;
      opens := true;
      unread := null;
    end;
    -- Covered are those that come before the first key that was not read. A message that
    -- has too many keys is the last of the head.
    if t.cut_count is distinct from null then
      unread := coalesce(unread, t.numbers[cardinality(t.numbers)] * 1000000 + t.cut_count + 1
        + case when t.ids[cardinality(t.ids)] = ahead.cut_id then ahead.cut_count else 0 end);
    end if;
    reach := coalesce(unread / 1000000, t.numbers[cardinality(t.numbers)] + 1);
    if t.unusable_at < reach then
      unusable := unusable || jsonb_build_object(
        'table', case when t.is_listed then t.table_name end,
        'reason', case when t.is_listed then 'malformed message: expected {"v": 2, "table", "keys": [[text, ...], ...]}, found another'
          when t.table_name is null then 'malformed message: expected a table''s name in "table", found none'
          else format('table %s is not in schema.json', to_json(left(t.table_name, 63))) end);
    end if;
    -- If rows are there again after a TRUNCATE, to empty the table would show one that
    -- never was: the walk takes out what is gone.
    opens := opens or t.is_listed and (
      coalesce(t.walk_at < reach, false) or coalesce(t.truncate_at < reach and not is_empty, false));
    if unread is null then
      covered := covered || t.ids;
    elsif cut_id is null and covered = '{}' and reach = t.numbers[1] then
      cut_id := t.ids[1];
      cut_count := unread % 1000000 - 1
        - case when t.ids[1] = ahead.cut_id then ahead.cut_count else 0 end;
    else
      covered := covered || array(
        select u.id from unnest(t.ids, t.numbers) u (id, number) where u.number < reach);
    end if;
  end loop;
  messages := cardinality(covered);
  if messages > 0 then
    cut_id := null;
    cut_count := null;
  end if;
  msg_ids := coalesce((
    select range_agg(i.ids) from (
      select int8range(min(u.id), max(u.id) + 1) as ids
      from (select c.id, row_number() over (order by c.id) as n from unnest(covered) c (id)) u
      group by u.id - u.n
    ) i), '{}');
  -- What is busy counts as well.
  first := (
    select m.msg_id from pgmq.q_replicate_data_libsql m where m.msg_id >= lowest order by m.msg_id limit 1);
  -- None is left: those that it covers are all there are.
  drained := messages = (
    select count(*) from (
      select from pgmq.q_replicate_data_libsql m
      where m.msg_id >= lowest and not m.msg_id <@ coalesce(ahead.msg_ids, '{}')
      order by m.msg_id limit messages + 1) v);
end
$$;
comment on function libsql_sync.read_changes(bigint, libsql_sync.batches, text[], integer, bigint) is
$$The rows that the head of the queue is about, as they are in the caller's snapshot, as far as the bounds on keys, bytes and time go.
"pieces" are JSON texts {"table", "truncate", "columns", "rows", "gone", "broken"}, joined by commas as they are; "gone" are keys that have no row. It covers the messages "msg_ids", or the first "cut_count" keys of the message "cut_id".
"drained": no other message is to be seen. "opens": what keys cannot say makes the walk start over. "first" is the smallest id in the queue.$$;

-- supabase/sql/44_walk_results.sql

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

-- supabase/sql/50_lease.sql

-- The lease: one sync at a time, so that two workers do not do the same work. No safety
-- rests on it; that is what the chain's row lock and the replica's guard are for.

create or replace function libsql_sync.queued()
returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object('queued', least(n, 10000), 'queued_exact', n <= 10000)
  from (
    select count(*) as n
    from (
      select from pgmq.q_replicate_data_libsql m
      where m.msg_id >= (select h.floor from libsql_sync.chain h) order by m.msg_id limit 10001) q
  ) c
$$;
comment on function libsql_sync.queued() is
  'How many messages are queued: {"queued", "queued_exact"}, exact up to 10,000, then a lower bound.';

-- One more whenever a call changes.
create or replace function libsql_sync.version()
returns integer
language sql immutable
set search_path = pg_catalog, pg_temp
as $$ select 5 $$;
comment on function libsql_sync.version() is
  'The version of the calls between worker and source, on which both must agree.';

create or replace function libsql_sync.lease(request json)
returns json
language plpgsql
security definer -- the worker's role may call this and touch no table
set search_path = pg_catalog, pg_temp
as $$
declare
  c libsql_sync.chain;
  may_scrub boolean;
begin
  if (request ->> 'version')::integer is distinct from libsql_sync.version() then
    return jsonb_build_object('do', 'other_version', 'version', libsql_sync.version());
  end if;
  select * into c from libsql_sync.chain where id = 1 for update skip locked;
  if not found or c.paused or (c.lease <> request ->> 'lease' and c.lease_until > clock_timestamp()) then
    return libsql_sync.queued() || (
      select jsonb_build_object('do', 'busy', 'epoch', h.epoch, 'paused', h.paused,
        'followed', coalesce(h.seen ->> 'epoch' = h.epoch, false))
      from libsql_sync.chain h);
  end if;
  may_scrub := not c.realtime or coalesce(c.scrubbed_at < clock_timestamp() - interval '1 minute', true);
  update libsql_sync.chain set
    lease = request ->> 'lease',
    lease_until = clock_timestamp() + make_interval(secs => (request ->> 'seconds')::float8),
    scrubbed_at = case when may_scrub then clock_timestamp() else scrubbed_at end,
    lag_ms = libsql_sync.lag_ms(c)
  where id = 1;
  return jsonb_build_object('do', 'granted', 'epoch', c.epoch, 'scrub', may_scrub, 'brief', c.realtime);
end
$$;
comment on function libsql_sync.lease(json) is
$$Takes the lease.
In: {"lease": token, "seconds": n, "version": n}
Out: {"do": "granted", "epoch", "scrub", "brief"}, {"do": "busy", "queued", "queued_exact", "epoch", "paused", "followed"} or {"do": "other_version", "version"}.
"followed": the replica was seen in this epoch. "scrub": a page of the scrub may ride; with realtime, once a minute. "brief": the sync need not wait for further changes, as it is called at once when there are some.$$;

-- supabase/sql/51_sync_end.sql

-- The end of a sync: what it did is recorded for status, the lease is given back, and
-- the alerts that are due are handed to the worker.

create or replace function libsql_sync.lag_ms(c libsql_sync.chain)
returns bigint
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce((
    select greatest(0, extract(epoch from clock_timestamp() - m.enqueued_at) * 1000)::bigint
    from (
      select q.enqueued_at from pgmq.q_replicate_data_libsql q
      where q.msg_id >= c.floor order by q.msg_id limit 1) m), 0)
$$;
comment on function libsql_sync.lag_ms(libsql_sync.chain) is
  'How long the oldest queued change has waited, in milliseconds; 0 if none is queued.';

create or replace function libsql_sync.note_sync(c libsql_sync.chain, sync jsonb, queued integer)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  n bigint := (c.totals ->> 'syncs')::bigint;
  minute bigint := floor(extract(epoch from clock_timestamp()) / 60);
begin
  insert into libsql_sync.syncs as s (slot, n, ended_at, ms, processed, parked, batches, queued, lag_ms, error)
  values (n % 20, n, clock_timestamp(), (sync ->> 'ms')::integer, (sync ->> 'processed')::integer,
    (sync ->> 'parked')::integer, (sync ->> 'batches')::integer, note_sync.queued, c.lag_ms, sync ->> 'error')
  on conflict (slot) do update set
    n = excluded.n, ended_at = excluded.ended_at, ms = excluded.ms, processed = excluded.processed,
    parked = excluded.parked, batches = excluded.batches, queued = excluded.queued,
    lag_ms = excluded.lag_ms, error = excluded.error;
  insert into libsql_sync.minutes as m (slot, minute, syncs, failed, processed, lag_ms)
  values (minute % 180, minute, 1, (sync ->> 'failed')::integer, (sync ->> 'processed')::bigint, c.lag_ms)
  on conflict (slot) do update set
    minute = excluded.minute,
    syncs = excluded.syncs + case when m.minute = excluded.minute then m.syncs else 0 end,
    failed = excluded.failed + case when m.minute = excluded.minute then m.failed else 0 end,
    processed = excluded.processed + case when m.minute = excluded.minute then m.processed else 0 end,
    lag_ms = greatest(excluded.lag_ms, case when m.minute = excluded.minute then m.lag_ms else 0 end);
  insert into libsql_sync.counts as o (table_name, applied)
  select t.name, (sync -> 'tables' ->> t.name)::bigint
  from libsql_sync.tables t where sync -> 'tables' ? t.name
  on conflict (table_name) do update set applied = o.applied + excluded.applied;
end
$$;
comment on function libsql_sync.note_sync(libsql_sync.chain, jsonb, integer) is
  'Records a sync in syncs, minutes and counts. In: the chain, {"processed", "parked", "batches", "ms", "failed", "error"?, "tables": {name: rows}}, and how many messages are queued.';

create or replace function libsql_sync.alerts_due(c libsql_sync.chain)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  sent jsonb := coalesce(c.alerted -> 'open', '{}');
  seen jsonb := coalesce(c.alerted -> 'seen', '{}');
  open jsonb := '{}';
  parked bigint := (select count(*) from (select from pgmq.q_replicate_data_libsql_dlq limit 10000) d);
  drift bigint;
  drifted boolean;
  replays bigint := coalesce((c.totals ->> 'replays')::bigint, 0);
  heartbeat jsonb := libsql_sync.heartbeat(c);
  newest libsql_sync.epochs;
  error text := (select s.error from libsql_sync.syncs s order by s.n desc limit 1);
  due jsonb;
begin
  if parked > 0 then
    open := open || jsonb_build_object('parked', parked::text);
  end if;
  -- Drift that was repaired at once is an alert as well, and over the next time.
  select coalesce(sum(o.drift), 0), coalesce(bool_or(o.drifted), false)
  into drift, drifted from libsql_sync.counts o;
  if drifted or drift > coalesce((seen ->> 'drift')::bigint, 0) and not sent ? 'drift' then
    open := open || jsonb_build_object('drift', (drift - coalesce((seen ->> 'drift')::bigint, 0))::text);
  end if;
  if (heartbeat ->> 'stale')::boolean then
    open := open || jsonb_build_object('stale', date_trunc('second',
      clock_timestamp() - coalesce(c.seen_at,
        (select min(e.begun_at) from libsql_sync.epochs e)))::text || case heartbeat ->> 'silent'
        when 'cron' then ': the cron is silent' else ': nothing behind the cron answers' end);
  end if;
  if c.seen ->> 'epoch' = c.epoch and (c.seen ->> 'position')::bigint < c.position
    or replays > coalesce((seen ->> 'replays')::bigint, 0) and not sent ? 'rewind'
  then
    open := open || jsonb_build_object('rewind', (replays - coalesce((seen ->> 'replays')::bigint, 0))::text);
  end if;
  select * into newest from libsql_sync.epochs e order by e.generation desc limit 1;
  if error in ('replica_foreign', 'replica_ahead') then
    open := open || jsonb_build_object('epoch', error);
  elsif newest.reason not in ('installed', 'nuke') and newest.begun_at > clock_timestamp() - interval '1 day'
    and (newest.generation > coalesce((seen ->> 'epoch')::bigint, 0) and not sent ? 'epoch'
      or c.seen ->> 'epoch' is distinct from c.epoch)
  then
    open := open || jsonb_build_object('epoch', newest.reason);
  end if;
  select jsonb_agg(jsonb_build_object('name', coalesce(o.key, t.key), 'detail', o.value)
    order by coalesce(o.key, t.key))
  into due
  from jsonb_each_text(open) o full join jsonb_each_text(sent) t on t.key = o.key
  where o.key is null or t.key is null;
  if due is null then
    return '{}';
  end if;
  return jsonb_build_object('alerts', due, 'alerted', jsonb_build_object('open', open,
    'seen', jsonb_build_object('drift', drift, 'replays', replays, 'epoch', newest.generation)));
end
$$;
comment on function libsql_sync.alerts_due(libsql_sync.chain) is
  'What the alert webhook is to be sent: {"alerts": [{"name", "detail"}], "alerted": state}, or {}. "alerts" are those that began since the last time, and with a null detail those that are over. The state comes back by release() when the webhook has taken it.';

create or replace function libsql_sync.end_sync(request json, acked integer)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  c libsql_sync.chain;
  queue jsonb := libsql_sync.queued();
  sync jsonb := (request -> 'sync')::jsonb;
begin
  if sync is not null then
    sync := sync || jsonb_build_object('syncs', 1, 'processed', (sync ->> 'processed')::integer + acked,
      'failed', case when sync ->> 'error' is null then 0 else 1 end);
  end if;
  update libsql_sync.chain h set lease = null, lease_until = null,
    totals = case when sync is null then h.totals else h.totals || (
      select jsonb_object_agg(k.name,
        coalesce((h.totals ->> k.name)::bigint, 0) + coalesce((sync ->> k.name)::bigint, 0))
      from unnest(array['syncs', 'failed', 'processed', 'parked', 'batches', 'ms']) k (name)) end
  where h.id = 1 and h.lease = request ->> 'lease' returning * into c;
  if found and sync is not null then
    perform libsql_sync.note_sync(c, sync, (queue ->> 'queued')::integer);
    if (request ->> 'alerts')::boolean then
      return queue || libsql_sync.alerts_due(c);
    end if;
  end if;
  return queue;
end
$$;
comment on function libsql_sync.end_sync(json, integer) is
  'Gives the lease back and records the sync. In: the request of claim() or release(), and how many messages its claim settled. Out: what release() answers.';

create or replace function libsql_sync.release(request json)
returns json
language plpgsql
security definer -- the worker's role may call this and touch no table
set search_path = pg_catalog, pg_temp
as $$
begin
  if request -> 'alerted' is not null then
    update libsql_sync.chain set alerted = (request -> 'alerted')::jsonb where id = 1;
  end if;
  return libsql_sync.end_sync(request, 0);
end
$$;
comment on function libsql_sync.release(json) is
$$Gives the lease back.
In: {"lease": token, "sync": {...}?, "alerts": boolean?, "alerted": state?}; "sync" as for note_sync(), without "failed".
Out: {"queued", "queued_exact", "alerts"?, "alerted"?}.$$;

-- supabase/sql/52_epoch.sql

-- Epochs. A chain of batches belongs to one; when it cannot go on (a restored source, a
-- nuke, a queue over its cap) a new one begins, and the replica adopts it. First question
-- of a claim: is the replica of our epoch, and does it have the schema?

-- The caller holds the chain's row lock.
create or replace function libsql_sync.begin_epoch(reason text, wipe boolean)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  genesis text := gen_random_uuid();
begin
  insert into libsql_sync.epochs (epoch, wipe, reason) values (genesis, begin_epoch.wipe, begin_epoch.reason);
  update libsql_sync.chain set epoch = genesis, position = 0, batch = genesis, handed = 0, letters_closed = 0
  where id = 1;
  -- What is settled goes with its archived messages (trim).
  delete from libsql_sync.batches where state = 'handed';
  -- A replica that follows starts with walk 0: each walk that is asked for comes after.
  delete from libsql_sync.walks where true;
  return genesis;
end
$$;
comment on function libsql_sync.begin_epoch(text, boolean) is
  'Begins a new epoch and returns its id. The old one is an ancestor; the versions it handed out are dropped, and their messages stay queued. In: the reason, and whether a replica that follows is emptied.';

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
comment on function libsql_sync.adopt_answer(text) is
  'The answer that makes a replica of an older epoch follow: {"do": "adopt", "epoch", "from", "reason", "wipe"}.';

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
comment on function libsql_sync.reset(json) is
$$Begins a new epoch, if the expected one is still in force.
In: {"expected": epoch, "wipe": boolean, "reason": text, "refill": boolean?}
Out: {"do": "begun" | "moved", "epoch"}.$$;

create or replace function libsql_sync.begin_again(at jsonb, reason text)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform libsql_sync.begin_epoch(reason, false);
  return libsql_sync.adopt_answer(at ->> 'epoch') || '{"acked": 0, "put_back": 0}';
end
$$;
comment on function libsql_sync.begin_again(jsonb, text) is
  'A new epoch without a wipe, and the answer of the claim that makes the replica follow.';

-- Steps 1 and 2 of claim().
create or replace function libsql_sync.admit(c libsql_sync.chain, at jsonb, request json)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  newest bigint := (select max(s.generation) from libsql_sync.schemas s);
  mine bigint := (select s.generation from libsql_sync.schemas s where s.hash = request ->> 'schema');
begin
  if mine is null or mine < newest then
    return json_build_object('do', 'stop', 'acked', 0, 'put_back', 0,
      'error', case when mine is null then 'schema_unknown' else 'schema_outdated' end);
  end if;

  if at is null then
    return json_build_object('do', 'bootstrap', 'acked', 0, 'put_back', 0, 'epoch', c.epoch,
      'wipe', c.position = 0 and (select e.wipe from libsql_sync.epochs e where e.epoch = c.epoch));
  end if;
  if at ->> 'epoch' <> c.epoch then
    if not exists (select from libsql_sync.epochs e where e.epoch = at ->> 'epoch') then
      if (request ->> 'take_over')::boolean is not true then
        return '{"do": "stop", "acked": 0, "put_back": 0, "error": "replica_foreign"}';
      end if;
      -- An ancestor from now on, and older than the epoch that wipes.
      insert into libsql_sync.epochs (epoch, wipe, reason) values (at ->> 'epoch', false, 'taken over from another source');
      perform libsql_sync.begin_epoch('the replica of another source was taken over', true);
    end if;
    return libsql_sync.adopt_answer(at ->> 'epoch') || '{"acked": 0, "put_back": 0}';
  end if;

  if at ->> 'schema_hash' <> request ->> 'schema' then
    if not exists (select from libsql_sync.schemas s where s.hash = at ->> 'schema_hash') then
      return '{"do": "stop", "acked": 0, "put_back": 0, "error": "schema_outdated"}';
    end if;
    return json_build_object('do', 'alter', 'acked', 0, 'put_back', 0, 'from', at ->> 'schema_hash');
  end if;
  return null;
end
$$;
comment on function libsql_sync.admit(libsql_sync.chain, jsonb, json) is
  'Whether worker and replica agree with us on schema and epoch: null, or the answer of the claim that says what to do first (stop, bootstrap, adopt, alter).';

-- supabase/sql/53_dead_letter.sql

-- Dead letters: one for each row that could not be applied, {"table", "key", "reason", ...},
-- and never a value. They are filed and closed when a version settles (54_settle), which
-- is undone when it is put back; a walk that repaired a row closes its letter
-- (44_walk_results), and an operator lists, tries again or discards them (60_operate).

create or replace function libsql_sync.covered_keys(b libsql_sync.batches)
returns table (table_name text, key jsonb)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select m.message ->> 'table', k.key
  from (
    select m.message, null::integer as keys_max
    from unnest(b.msg_ids) r
    join pgmq.q_replicate_data_libsql m on m.msg_id >= lower(r) and m.msg_id < upper(r)
    union all
    select m.message, b.cut_count from pgmq.q_replicate_data_libsql m where m.msg_id = b.cut_id
  ) m
  cross join lateral libsql_sync.message_keys(m.message) l (keys)
  cross join lateral jsonb_array_elements(
    case when jsonb_typeof(l.keys) = 'array' then l.keys else '[]' end) with ordinality k (key, n)
  where m.keys_max is null or k.n <= m.keys_max
$$;
comment on function libsql_sync.covered_keys(libsql_sync.batches) is
  'The keys that a version covers, whose messages are in the queue.';

create or replace function libsql_sync.letters_held(b libsql_sync.batches)
returns setof bigint
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select d.msg_id from pgmq.q_replicate_data_libsql_dlq d
  join (
    -- Nearly always there is no letter: then no key is looked at.
    select k.table_name, k.key, null as reason from libsql_sync.covered_keys(b) k
    where exists (select from pgmq.q_replicate_data_libsql_dlq)
    union
    -- Of messages that name no row there is one letter for each reason.
    select p ->> 'table', p -> 'key', case when p -> 'key' = 'null' then p ->> 'reason' end
    from jsonb_array_elements(b.parked) p
  ) h on h.key = d.message -> 'key' and h.table_name is not distinct from d.message ->> 'table'
    and coalesce(h.reason = d.message ->> 'reason', true)
  union
  select d.msg_id from pgmq.q_replicate_data_libsql_dlq d
  where d.message ->> 'table' = any (b.truncated) and d.message -> 'key' <> 'null'
$$;
comment on function libsql_sync.letters_held(libsql_sync.batches) is
  'The open dead letters of rows that a version brings, or parks again.';

create or replace function libsql_sync.letters_left(b libsql_sync.batches)
returns integer
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select count(*)::integer from (
    select from pgmq.q_replicate_data_libsql_dlq d
    where d.msg_id not in (select libsql_sync.letters_held(b)) limit 10000) l
$$;
comment on function libsql_sync.letters_left(libsql_sync.batches) is
  'How many dead letters stay open when a version is applied, 10,000 at most.';

-- One open letter a row: a new reason stands in its place.
create or replace function libsql_sync.close_letters(b libsql_sync.batches)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  with gone as (
    delete from pgmq.q_replicate_data_libsql_dlq d
    where d.msg_id in (select libsql_sync.letters_held(b))
    returning d.msg_id, d.enqueued_at, d.message
  )
  select coalesce(jsonb_agg(jsonb_build_object('id', g.msg_id, 'at', g.enqueued_at, 'message', g.message)), '[]')
  from gone g
$$;
comment on function libsql_sync.close_letters(libsql_sync.batches) is
  'Closes the dead letters of the rows that a version brings, or parks again. Returns them, [{"id", "at", "message"}, ...].';

create or replace function libsql_sync.file_letters(b libsql_sync.batches)
returns bigint[]
language sql
set search_path = pg_catalog, pg_temp
as $$
  with filed as (
    insert into pgmq.q_replicate_data_libsql_dlq (vt, message)
    select clock_timestamp(), p.parked || jsonb_build_object(
      'epoch', b.epoch, 'position', b.position, 'batch', b.batch, 'parked_at', clock_timestamp())
    from jsonb_array_elements(b.parked) with ordinality p (parked, n)
    order by p.n
    returning msg_id
  )
  select coalesce(array_agg(f.msg_id), '{}') from filed f
$$;
comment on function libsql_sync.file_letters(libsql_sync.batches) is
  'Files what a version parked as dead letters. Returns their ids.';

create or replace function libsql_sync.undo_letters(b libsql_sync.batches)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  delete from pgmq.q_replicate_data_libsql_dlq d where d.msg_id = any (b.opened);
  insert into pgmq.q_replicate_data_libsql_dlq (msg_id, enqueued_at, vt, message)
  overriding system value
  select (l ->> 'id')::bigint, (l ->> 'at')::timestamptz, (l ->> 'at')::timestamptz, l -> 'message'
  from jsonb_array_elements(b.closed) l
  -- Another version may have filed one of the same row.
  where not exists (
    select from pgmq.q_replicate_data_libsql_dlq d
    where d.message -> 'table' = l #> '{message,table}' and d.message -> 'key' = l #> '{message,key}')
  on conflict do nothing
$$;
comment on function libsql_sync.undo_letters(libsql_sync.batches) is
  'Undoes what settling a version did to dead letters.';

-- supabase/sql/54_settle.sql

-- The tree of versions. Each version names the one before it; the head is the one that was
-- settled last; the replica stands on some version. move_head() takes the head there: what
-- the replica has leaves the queue for the archive, what it lost comes back. Third step of
-- claim() (55_claim).

create or replace function libsql_sync.settle(b libsql_sync.batches)
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  letters jsonb := libsql_sync.close_letters(b);
  filed bigint[] := libsql_sync.file_letters(b);
  first_keys jsonb;
  moved integer;
begin
  -- Copied and then deleted: faster than a DELETE that returns what it took.
  -- An id is in the archive already only if the numbering was restarted.
  delete from pgmq.a_replicate_data_libsql a
  using unnest(b.msg_ids) r
  where a.msg_id >= lower(r) and a.msg_id < upper(r);
  insert into pgmq.a_replicate_data_libsql (msg_id, read_ct, enqueued_at, vt, message)
  select m.msg_id, m.read_ct, m.enqueued_at, m.vt, m.message
  from unnest(b.msg_ids) r
  join pgmq.q_replicate_data_libsql m on m.msg_id >= lower(r) and m.msg_id < upper(r);
  get diagnostics moved = row_count;
  delete from pgmq.q_replicate_data_libsql m
  using unnest(b.msg_ids) r
  where m.msg_id >= lower(r) and m.msg_id < upper(r);
  if b.cut_id is not null then
    first_keys := libsql_sync.cut(b.cut_id, b.cut_count);
  end if;

  update libsql_sync.batches v set state = 'settled', settled_at = clock_timestamp(),
    closed = letters, opened = filed, cut_keys = first_keys
  where v.epoch = b.epoch and v.position = b.position and v.batch = b.batch;
  update libsql_sync.chain set position = b.position, batch = b.batch,
    walk_opened = greatest(walk_opened, b.opens)
  where id = 1;
  return moved;
end
$$;
comment on function libsql_sync.settle(libsql_sync.batches) is
  'Settles a version that the replica has: its messages move to the archive, its parked rows to the dead letters, and it is the head. Returns how many messages left the queue.';

create or replace function libsql_sync.cut(id bigint, keys_taken integer)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  keys jsonb;
begin
  select libsql_sync.message_keys(m.message) into keys
  from pgmq.q_replicate_data_libsql m where m.msg_id = cut.id;
  update pgmq.q_replicate_data_libsql m set message = jsonb_build_object('v', 2, 'table', m.message -> 'table', 'keys', (
    select coalesce(jsonb_agg(k.key order by k.n), '[]') from jsonb_array_elements(keys) with ordinality k (key, n) where k.n > keys_taken))
  where m.msg_id = cut.id;
  return (
    select coalesce(jsonb_agg(k.key order by k.n), '[]') from jsonb_array_elements(keys) with ordinality k (key, n) where k.n <= keys_taken);
end
$$;
comment on function libsql_sync.cut(bigint, integer) is
  'Takes the first keys from a message, which stays queued with the others. Returns those taken.';

create or replace function libsql_sync.is_kept(b libsql_sync.batches)
returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select b.state = 'settled'
    and b.messages = (
      select count(*) from unnest(b.msg_ids) r
      join pgmq.a_replicate_data_libsql a on a.msg_id >= lower(r) and a.msg_id < upper(r)
      where not exists (select from pgmq.q_replicate_data_libsql q where q.msg_id = a.msg_id))
    and (b.cut_id is null
      or exists (select from pgmq.q_replicate_data_libsql q where q.msg_id = b.cut_id)
      or exists (select from pgmq.a_replicate_data_libsql a where a.msg_id = b.cut_id))
$$;
comment on function libsql_sync.is_kept(libsql_sync.batches) is
  'Whether a settled version can be put back: all its messages are in the archive, and their numbers free in the queue.';

-- Under their old ids, so that what was recorded of them stays true.
create or replace function libsql_sync.put_back(b libsql_sync.batches)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into pgmq.q_replicate_data_libsql (msg_id, read_ct, enqueued_at, vt, message)
  overriding system value
  select a.msg_id, a.read_ct, a.enqueued_at, a.vt, a.message
  from unnest(b.msg_ids) r
  join pgmq.a_replicate_data_libsql a on a.msg_id >= lower(r) and a.msg_id < upper(r);
  delete from pgmq.a_replicate_data_libsql a
  using unnest(b.msg_ids) r
  where a.msg_id >= lower(r) and a.msg_id < upper(r);
  -- A later version that covered the rest of it was put back before.
  update pgmq.q_replicate_data_libsql m
  set message = jsonb_set(m.message, '{keys}', b.cut_keys || (m.message -> 'keys'))
  where m.msg_id = b.cut_id;
  perform libsql_sync.undo_letters(b);

  update libsql_sync.batches v set state = 'handed', settled_at = null, closed = '[]', opened = '{}', cut_keys = null
  where v.epoch = b.epoch and v.position = b.position and v.batch = b.batch;
  update libsql_sync.chain set position = b.position - 1, batch = b.prev,
    floor = least(floor, lower(b.msg_ids)),
    walk_opened = least(walk_opened, b.opens - 1),
    -- A page that repaired what was parked is lost: the walk comes through again.
    walk_wanted = walk_wanted + case when b.position <= letters_closed then 1 else 0 end,
    totals = jsonb_set(totals, '{replays}', to_jsonb(coalesce((totals ->> 'replays')::bigint, 0) + 1))
  where id = 1;
end
$$;
comment on function libsql_sync.put_back(libsql_sync.batches) is
  'Takes back the head, which the replica has lost: its messages return to the queue, and the version before it is the head.';

create or replace function libsql_sync.version_at(epoch_of text, at_position bigint, id text)
returns libsql_sync.batches
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select b.* from libsql_sync.batches b
  where b.epoch = epoch_of and b.position = at_position and b.batch = id
$$;
comment on function libsql_sync.version_at(text, bigint, text) is
  'The version on record with this epoch, position and id, or null.';

-- Step 3 of claim(). The nearest common ancestor of head and replica is found by prev.
create or replace function libsql_sync.move_head(
  c libsql_sync.chain, at jsonb,
  out moved libsql_sync.chain, out acked integer, out put_back integer, out answer text
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  here bigint := at ->> 'position';
  here_batch text := at ->> 'batch';
  head bigint := c.position;
  head_batch text := c.batch;
  b libsql_sync.batches;
  back libsql_sync.batches[] := '{}';
  forward libsql_sync.batches[] := '{}';
begin
  moved := c;
  acked := 0;
  put_back := 0;
  if here > c.handed then
    answer := '{"do": "stop", "acked": 0, "put_back": 0, "error": "replica_ahead"}';
    return;
  end if;
  while (here, here_batch) <> (head, head_batch) loop
    if here >= head then
      b := libsql_sync.version_at(c.epoch, here, here_batch);
      forward := b || forward;
      here := here - 1;
      here_batch := b.prev;
    else
      b := libsql_sync.version_at(c.epoch, head, head_batch);
      back := back || b;
      head := head - 1;
      head_batch := b.prev;
    end if;
    if b.batch is null then
      answer := libsql_sync.begin_again(at, format('the replica at position %s holds a batch that is not on record, or whose past is not', at ->> 'position'));
      return;
    end if;
  end loop;

  foreach b in array back loop
    if not libsql_sync.is_kept(b) then
      answer := libsql_sync.begin_again(at, format('messages of position %s, which the replica lost, are gone', b.position));
      return;
    end if;
  end loop;
  foreach b in array back loop
    perform libsql_sync.put_back(b);
  end loop;
  put_back := cardinality(back);
  foreach b in array forward loop
    acked := acked + libsql_sync.settle(b);
  end loop;
  -- More was parked than is on record: the source was restored to a time before that.
  -- The walk finds it again.
  if forward <> '{}' and (at ->> 'dead_letters')::bigint > b.dead_letters + jsonb_array_length(b.parked) then
    update libsql_sync.chain set walk_wanted = walk_wanted + 1 where id = 1;
  end if;
  perform libsql_sync.trim_versions();
  select * into moved from libsql_sync.chain where id = 1;
end
$$;
comment on function libsql_sync.move_head(libsql_sync.chain, jsonb) is
  'Moves the head to where the replica stands: the chain after it, how many messages left the queue, how many positions were put back, and the answer of the claim if it ends here.';

-- Oldest first, a few each time: more than one sync adds. What is above the head may still
-- land: it is kept for a day, as each sync adds one while a replica takes nothing. If a
-- request lands later than that, the replica begins a new epoch without a wipe.
create or replace function libsql_sync.trim_versions(versions_max integer default 8)
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  b libsql_sync.batches;
  trimmed integer := 0;
begin
  for b in
    select v.* from libsql_sync.batches v, libsql_sync.chain c
    where (v.epoch <> c.epoch or v.position <= c.position and v.batch <> c.batch
        or v.position > c.position and v.handed_at < clock_timestamp() - interval '1 day')
      and coalesce(v.settled_at, v.handed_at) < clock_timestamp() - c.replay_window
    order by v.epoch = c.epoch, v.position
    limit versions_max
  loop
    if b.state = 'settled' then
      delete from pgmq.a_replicate_data_libsql a
      using unnest(b.msg_ids) r
      where a.msg_id >= lower(r) and a.msg_id < upper(r);
    end if;
    delete from libsql_sync.batches v
    where v.epoch = b.epoch and v.position = b.position and v.batch = b.batch;
    trimmed := trimmed + 1;
  end loop;
  return trimmed;
end
$$;
comment on function libsql_sync.trim_versions(integer) is
  'Forgets versions that are older than the replay window, with their archived messages. In: how many at most. Returns how many.';

-- supabase/sql/55_claim.sql

-- The worker's one call: move the head to where the replica stands, and hand out the next
-- version.
--
-- Its steps: 1. whose replica is it, 2. does it have the schema, 3. where does it stand,
-- 4. the next version from one snapshot, recorded before 5. the answer. The chain's row is
-- locked first; the steps are VOLATILE, so that each later statement takes a new snapshot.
-- admit() is in 52_epoch, move_head() in 54_settle, held_walk() in 40_walk, read_page() in
-- 42_read_page, read_changes() in 43_read_changes.

create or replace function libsql_sync.require_read_committed()
returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'Cannot claim: expected isolation read committed, found %', current_setting('transaction_isolation')
      using hint = 'Set default_transaction_isolation of the worker''s role to read committed.';
  end if;
end
$$;
comment on function libsql_sync.require_read_committed() is
  'Refuses a claim in a transaction whose later statements would not see what was committed before the chain''s lock was got.';

-- The answer comes in pieces of a text: some MB in one piece would be copied a dozen
-- times on their way, and as json parsed for nothing. Nothing is ever handed out again:
-- what was lost is claimed anew, and whichever version lands is on record.
create or replace function libsql_sync.claim(request json)
returns text[]
language plpgsql
security definer -- the worker's role may call this and touch no table
set search_path = pg_catalog, pg_temp
set lock_timeout = '5s'
as $$
declare
  at jsonb := nullif((request -> 'row')::jsonb, 'null');
  c libsql_sync.chain;
  b libsql_sync.batches;
  ahead libsql_sync.batches;
  w libsql_sync.walks;
  answer text;
  head record;
  bound record;
  f record;
  asked text[];
  held text[];
  busy text[];
  source_time timestamptz;
  h record;
begin
  perform libsql_sync.require_read_committed();
  -- The lock comes first, by a statement of its own: a snapshot taken before it
  -- would hand out messages that another claim settled meanwhile. It waits: a call
  -- that only asks for the lease holds the row as well, and must not end a running
  -- sync.
  select * into c from libsql_sync.chain where id = 1 for update;
  if c.lease is null or c.lease is distinct from request ->> 'lease' then
    return array['{"do": "busy", "acked": 0, "put_back": 0}'];
  end if;
  update libsql_sync.chain set
    lease_until = clock_timestamp() + make_interval(secs => (request ->> 'seconds')::float8),
    seen = at, seen_at = clock_timestamp()
  where id = 1;
  if request ->> 'walked' <> '[]' then
    perform libsql_sync.note_walked((request -> 'walked')::jsonb, at);
  end if;

  -- The messages of a queue that is gone went with it, and the new one may give their
  -- numbers again.
  if libsql_sync.is_other_queue(c) then
    update libsql_sync.chain set floor_queue = null, floor = 0 where id = 1;
    perform libsql_sync.begin_epoch('the queue is another one: it was dropped, or restored without its messages', false);
  end if;
  select * into c from libsql_sync.chain where id = 1;

  -- 1. and 2.
  answer := libsql_sync.admit(c, at, request);
  if answer is not null then
    return array[answer];
  end if;
  -- 3.
  select * into head from libsql_sync.move_head(c, at);
  if head.answer is not null then
    return array[head.answer];
  end if;
  c := head.moved;
  if (request ->> 'rows_max')::integer = 0 then
    return array[(jsonb_build_object('do', 'settled', 'acked', head.acked, 'put_back', head.put_back)
      || libsql_sync.end_sync(request, head.acked))::text];
  end if;

  -- 4. On top of the head, or of a version that is being applied on top of that.
  answer := json_build_object('do', 'none', 'acked', head.acked, 'put_back', head.put_back);
  if request ->> 'ahead' is not null then
    ahead := libsql_sync.version_at(c.epoch, c.position + 1, request ->> 'ahead');
    if ahead.prev is distinct from c.batch or c.walk_wanted > c.walk_opened or ahead.drained and ahead.upto is null then
      return array[answer];
    end if;
    at := at || coalesce(ahead.upto, '{}');
  end if;
  bound := libsql_sync.bound_of(c, ahead, request);
  select * into f from libsql_sync.floor(c);
  if request -> 'page' is not null and c.walk_wanted = c.walk_opened and (ahead.batch is null or ahead.upto is not null) then
    w := libsql_sync.held_walk(c, at, (request #>> '{page,scrub}')::boolean);
  end if;
  -- Changes of a table that another transaction has locked may fill the head: the other
  -- tables do not wait for it.
  asked := libsql_sync.head_tables(f.lowest, '{}', bound.keys_max);
  held := libsql_sync.lock_tables(asked);
  if cardinality(held) < cardinality(asked) then
    busy := array(select a from unnest(asked) a where a <> all (held));
    held := held || libsql_sync.lock_tables(libsql_sync.head_tables(f.lowest, busy, bound.keys_max));
  end if;
  busy := array(select t.name from libsql_sync.tables t where t.name <> all (held));
  source_time := clock_timestamp();
  select d.*, pg_current_snapshot()::text as snapshot,
    case when w.walk_gen is not null and not d.opens
      then libsql_sync.read_page(w, at, bound.page, d.drained and d.messages = 0) end as page
  into h
  from libsql_sync.read_changes(f.lowest, ahead, busy, bound.keys_max, bound.bytes_max) d;
  -- These look later than the version's snapshot, and so at all that it saw.
  h.opens := libsql_sync.note_unqueued(c) or libsql_sync.note_shapes() or h.opens;
  if h.opens then
    if ahead.batch is not null then
      return array[answer];
    end if;
    -- A page that was read beside it is not handed out: the walk begins anew.
    h.page := null;
    update libsql_sync.chain set walk_wanted = walk_wanted + 1 where id = 1 returning * into c;
  end if;
  if f.settled is not null or f.lowest <> c.floor or c.floor_next is null then
    perform libsql_sync.keep_floor(case when f.settled is null then f.lowest
      else greatest(f.lowest, least(f.settled, h.first)) end);
  end if;
  if h.messages = 0 and h.cut_id is null and h.page is null and c.walk_wanted = c.walk_opened then
    if ahead.batch is not null then
      return array[answer];
    elsif (at ->> 'drained')::integer = 1 or not h.drained then
      return array[(jsonb_build_object('do', 'idle', 'acked', head.acked, 'put_back', head.put_back)
        || libsql_sync.end_sync(request, head.acked))::text];
    end if;
  end if;
  b := libsql_sync.record_next(c, ahead, h.msg_ids, h.messages, h.cut_id, h.cut_count, h.truncated,
    h.drained, h.snapshot, source_time, h.unusable, h.page);

  -- 5. "dead_letters" are those it leaves open; what it parks comes on top.
  return array['{"page": '] || coalesce(h.page, array['null']) || array[', "tables": [']
    || h.pieces || array[concat('], ', substr(json_build_object(
      'do', 'batch', 'acked', head.acked, 'put_back', head.put_back,
      'epoch', b.epoch, 'position', b.position, 'batch', b.batch, 'prev', b.prev,
      'drained', b.drained, 'snapshot', b.snapshot, 'source_time', b.source_time,
      'dead_letters', b.dead_letters, 'reopen', b.opens is not null,
      'messages', b.messages, 'unusable', h.unusable, 'parked', b.parked)::text, 2))];
end
$$;
comment on function libsql_sync.claim(json) is
$$The next version for a replica that stands at "row", after the head was moved there.
In: {"lease": token, "seconds": n, "schema": hash, "row": {...} | null, "rows_max": n, "bytes_max": n, "page": {"rows", "bytes", "scrub", "keys"}?, "walked": [...], "ahead": batch?, "take_over": boolean?}
Out: one JSON text in pieces, to be joined: {"do": "bootstrap" | "adopt" | "alter" | "batch" | "none" | "idle" | "settled" | "busy" | "stop", "acked": n, "put_back": n, ...}; of a batch {"page", "tables", "unusable", "parked", "messages", "epoch", "position", "batch", "prev", "drained", "snapshot", "source_time", "dead_letters", "reopen"}.
"ahead" names the version that is being applied on top of "row": the answer is one after it, or none. "take_over" makes the replica of another source ours, emptied. With "rows_max" 0 it hands out nothing. When settled or idle it gives the lease back and adds what release() answers.$$;

-- If two versions of a position did not land, they may have been too much: the third is
-- half as large, and so on. A worker remembers a size only as long as it lives.
create or replace function libsql_sync.bound_of(
  c libsql_sync.chain, ahead libsql_sync.batches, request json,
  out keys_max integer, out bytes_max bigint, out page jsonb
)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select greatest(1, (request ->> 'rows_max')::integer / t.share), greatest(1, (request ->> 'bytes_max')::bigint / t.share),
    (request -> 'page')::jsonb || jsonb_build_object(
      'rows', greatest(1, (request #>> '{page,rows}')::integer / t.share),
      'bytes', greatest(1, (request #>> '{page,bytes}')::bigint / t.share))
  from (
    select (2 ^ least(greatest(count(*) - 1, 0), 16))::integer as share
    from libsql_sync.batches v
    where v.epoch = c.epoch and v.position = coalesce(ahead.position, c.position) + 1
      and v.prev = coalesce(ahead.batch, c.batch)
  ) t
$$;
comment on function libsql_sync.bound_of(libsql_sync.chain, libsql_sync.batches, json) is
  'How many keys and bytes a version may have, and the request for its page: what the worker asks for, less if versions of the same position did not land.';

create or replace function libsql_sync.is_other_queue(c libsql_sync.chain)
returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(c.floor_queue <> 'pgmq.q_replicate_data_libsql'::regclass
    -- Its numbering began again.
    or libsql_sync.drawn() + 1 < c.floor, false)
$$;
comment on function libsql_sync.is_other_queue(libsql_sync.chain) is
  'Whether the queue is not the one that the last claim has read.';

-- The record of step 4.
create or replace function libsql_sync.record_next(
  c libsql_sync.chain, ahead libsql_sync.batches, msg_ids int8multirange, messages integer,
  cut_id bigint, cut_count integer, truncated text[], drained boolean, snapshot text, source_time timestamptz,
  unusable jsonb, page text[]
)
returns libsql_sync.batches
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  b libsql_sync.batches;
  page_head jsonb;
  inherited jsonb;
begin
  b.epoch := c.epoch;
  b.position := coalesce(ahead.position, c.position) + 1;
  b.batch := gen_random_uuid();
  b.prev := coalesce(ahead.batch, c.batch);
  b.msg_ids := record_next.msg_ids;
  b.messages := record_next.messages;
  b.cut_id := record_next.cut_id;
  b.cut_count := record_next.cut_count;
  b.truncated := record_next.truncated;
  b.drained := record_next.drained;
  -- Of what a version leaves in the queue its own snapshot would promise too much.
  -- '3:3:' sees no transaction.
  b.snapshot := case when record_next.drained then record_next.snapshot
    else coalesce(ahead.snapshot, (libsql_sync.version_at(c.epoch, c.position, c.batch)).snapshot, '3:3:') end;
  b.source_time := record_next.source_time;
  inherited := libsql_sync.parked_before(b);
  -- The worker parks the unusable in any case, and their letters are filed anew.
  b.parked := inherited || (select coalesce(jsonb_agg(u.said || '{"key": null}'), '[]') from jsonb_array_elements(record_next.unusable) u (said));
  b.dead_letters := coalesce(ahead.dead_letters + jsonb_array_length(ahead.parked), libsql_sync.letters_left(b));
  b.parked := inherited;
  b.opens := case when c.walk_wanted > c.walk_opened then c.walk_wanted end;
  -- The last piece of a page is its answer without cells.
  page_head := ('{' || substr(page[cardinality(page)], 3))::jsonb;
  b.upto := case when page_head ->> 'kind' <> 'scrub' and page_head ->> 'half' = 'forward'
      and (page_head ->> 'upto')::jsonb ->> 'table' = page_head ->> 'table'
      and (page_head ->> 'upto')::jsonb ->> 'half' = 'forward'
    then jsonb_build_object('walk_gen', page_head -> 'walk_gen', 'walk_at', page_head -> 'upto') end;
  b.handed_at := clock_timestamp();
  b.state := 'handed';
  b.closed := '[]';
  b.opened := '{}';
  insert into libsql_sync.batches select b.*;
  update libsql_sync.chain set handed = greatest(handed, b.position) where id = 1;
  return b;
end
$$;
comment on function libsql_sync.record_next(libsql_sync.chain, libsql_sync.batches, int8multirange, integer, bigint, integer, text[], boolean, text, timestamptz, jsonb, text[]) is
  'Records a version, before it is handed out.';

-- supabase/sql/56_park.sql

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

-- supabase/sql/57_bookmark.sql

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

-- supabase/sql/60_operate.sql

-- What an operator calls in SQL; deno task dlq, backfill, verify do the same from outside.
-- doctor() is in 63, status() in 67, realtime() in 71, uninstall() in 62.

create or replace function libsql_sync.pause()
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$ update libsql_sync.chain set paused = true where id = 1 $$;
comment on function libsql_sync.pause() is
  'Holds the worker off; changes stay queued. A sync that is running ends first.';

create or replace function libsql_sync.resume()
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$ update libsql_sync.chain set paused = false where id = 1 $$;
comment on function libsql_sync.resume() is
  'Lets the worker go on after pause().';

create or replace function libsql_sync.scrub(rows_per_sync integer)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if rows_per_sync is null or rows_per_sync not between 0 and 20000 then
    raise exception 'Cannot set the scrub: expected 0 to 20000 rows a sync, found %', rows_per_sync;
  end if;
  update libsql_sync.chain set scrub_rows = rows_per_sync where id = 1;
end
$$;
comment on function libsql_sync.scrub(integer) is
  'Sets how many rows the background check compares in one sync, 0 to 20000; 0 turns it off.';

create or replace function libsql_sync.backfill(table_name text default null)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  answer json := libsql_sync.request_walk(json_build_object('kind', 'backfill', 'table', table_name));
begin
  if answer ->> 'walk_gen' is null then
    raise exception 'Cannot backfill table %: expected one of schema.json', table_name;
  end if;
  return (answer ->> 'walk_gen')::bigint;
end
$$;
comment on function libsql_sync.backfill(text) is
  'Asks for a walk that compares every cell and repairs what differs: of one table, or of all. Returns its walk_gen; the next syncs do it.';

create or replace function libsql_sync.verify(repair boolean default false, table_name text default null)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  answer json := libsql_sync.request_walk(json_build_object(
    'kind', 'verify', 'table', table_name, 'repair', repair));
begin
  if answer ->> 'walk_gen' is null then
    raise exception 'Cannot verify table %: expected one of schema.json', table_name;
  end if;
  return (answer ->> 'walk_gen')::bigint;
end
$$;
comment on function libsql_sync.verify(boolean, text) is
  'Asks for a walk that compares every cell and counts what differs; with repair it repairs as well. Of one table, or of all. Returns its walk_gen.';

create or replace function libsql_sync.dead_letters()
returns table (id bigint, parked_at timestamptz, table_name text, key jsonb, reason text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select m.msg_id, (m.message ->> 'parked_at')::timestamptz, m.message ->> 'table',
    nullif(m.message -> 'key', 'null'), m.message ->> 'reason'
  from pgmq.q_replicate_data_libsql_dlq m
  order by m.msg_id
$$;
comment on function libsql_sync.dead_letters() is
  'The open dead letters: the rows that the replica lacks, or has as they were before, and why.';

create or replace function libsql_sync.row_of_letter(letter bigint)
returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
set timezone = 'UTC' set datestyle = 'ISO, YMD' set intervalstyle = 'postgres'
set bytea_output = 'hex' set extra_float_digits = 1 set lc_monetary = 'C'
set row_security = off
as $$
declare
  d record;
  relation oid;
  r record;
begin
  select l.table_name, l.key into d from libsql_sync.dead_letters() l where l.id = letter;
  select to_regclass(format('public.%I', t.name)) into relation from libsql_sync.tables t where t.name = d.table_name;
  if relation is null or d.key is null then
    return null;
  end if;
  select * into r from libsql_sync.read_rows(relation, d.table_name, array[d.key], true, 1, 'infinity');
  if r.broken <> '[]' then
    return jsonb_build_object('unreadable', r.broken #> '{0,reason}');
  end if;
  return (
    select jsonb_object_agg(c.name, v.value)
    from (select p.name, row_number() over () as n from libsql_sync.present_columns(relation, d.table_name) p) c
    join jsonb_array_elements(r.rows[1]::jsonb) with ordinality v (value, n) on v.n = c.n);
end
$$;
comment on function libsql_sync.row_of_letter(bigint) is
  'The row of an open dead letter as it is now, {column: text, ...}, or {"unreadable": reason}, or null if there is none. It is read for whoever asks, and stored nowhere.';

-- A letter without a key brings its whole table.
create or replace function libsql_sync.redrive(ids bigint[] default null)
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  tried integer := 0;
  r record;
begin
  for r in
    select d.table_name, count(*) as letters,
      jsonb_agg(distinct d.key) filter (where d.key is not null) as keys,
      bool_or(d.key is null) as whole
    from libsql_sync.dead_letters() d
    join libsql_sync.tables t on t.name = d.table_name
    where ids is null or d.id = any (ids)
    group by d.table_name
  loop
    tried := tried + r.letters;
    if r.keys is not null then
      insert into libsql_sync.walks (kind, tables, keys, repair, closes, reason, letters_until)
      values ('redrive', array[r.table_name], r.keys, true, false, 'asked for', libsql_sync.newest_letter());
    end if;
    if r.whole then
      perform libsql_sync.backfill(r.table_name);
    end if;
  end loop;
  return tried;
end
$$;
comment on function libsql_sync.redrive(bigint[]) is
  'Tries dead letters again, those named or all: the row as it is now. Returns how many are tried; those of tables that are not listed cannot be.';

create or replace function libsql_sync.discard(ids bigint[] default null)
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  gone integer;
begin
  with d as (
    delete from pgmq.q_replicate_data_libsql_dlq q
    where ids is null or q.msg_id = any (ids)
    returning q.msg_id, q.read_ct, q.enqueued_at, q.vt, q.message
  )
  insert into pgmq.a_replicate_data_libsql_dlq (msg_id, read_ct, enqueued_at, vt, message)
  select * from d;
  get diagnostics gone = row_count;
  return gone;
end
$$;
comment on function libsql_sync.discard(bigint[]) is
  'Discards dead letters, those named or all; the rows stay as they are in the replica until their next change or the next walk. Returns how many. The letters stay in the archive for 30 days.';

-- supabase/sql/61_housekeeping.sql

-- Keeping the source small: the cap on the queue, and trimming of what was recorded. All
-- of it runs with the cron job, every 5 minutes, in bounded steps.

-- Nothing is lost: the lock lets every transaction that queued a change end first, so
-- what is dropped was committed before any page of the new epoch is read. The lease is
-- ignored, or a worker that is always busy would keep the cap from acting; a running sync
-- finds the new epoch at its next claim. No writer waits longer than 500 ms; what could not
-- be locked is left to the next call.
create or replace function libsql_sync.cap_queue()
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '500ms'
as $$
declare
  mb_max integer := (select c.queue_mb_max from libsql_sync.chain c);
  mb bigint := pg_total_relation_size('pgmq.q_replicate_data_libsql') / 1048576;
begin
  if mb_max is null or mb < mb_max
    -- By the index, as the pages of a queue that was long are mostly empty.
    or (select count(*) from (
      select from pgmq.q_replicate_data_libsql m
      where m.msg_id >= (select h.floor from libsql_sync.chain h) order by m.msg_id limit 10001) q) <= 10000
  then
    return false;
  end if;
  begin
    perform from libsql_sync.chain where id = 1 for update;
    perform libsql_sync.begin_epoch(format(
      'the queue of %s MB was over its cap of %s MB: what it held was dropped, every table is walked', mb, mb_max), false);
    truncate pgmq.q_replicate_data_libsql;
    -- Even if the replica was to stay empty: dropped changes come no other way.
    update libsql_sync.chain set refill = true where id = 1 and not refill;
  exception when lock_not_available then
    raise warning 'The queue of % MB is over its cap of % MB, and could not be locked within 500 ms: the next call tries again', mb, mb_max;
    return false;
  end;
  raise warning 'The queue of % MB was over its cap of % MB: what it held was dropped, and every table is walked', mb, mb_max;
  return true;
end
$$;
comment on function libsql_sync.cap_queue() is
  'If the queue has outgrown its cap (libsql_sync.chain.queue_mb_max; null: no cap), drops what it holds and begins a new epoch without a wipe: the walk then brings every row as it is. Returns whether it did.';

-- chain.cron_run is how far the table was searched, so that a table full of other jobs'
-- runs is read once. Answers of pg_net are left to pg_net, which drops them after some
-- hours: nothing in net._http_response says which are ours.
create or replace function libsql_sync.trim_cron_runs()
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '500ms'
as $$
declare
  seen bigint := (select c.cron_run from libsql_sync.chain c);
  looked bigint;
  upto bigint;
  trimmed integer;
begin
  if to_regclass('cron.job_run_details') is null then
    return 0;
  end if;
  with looked as materialized (
    select d.runid, d.jobid, coalesce(d.end_time, d.start_time) as at
    from cron.job_run_details d where d.runid > seen order by d.runid limit 10000
  ), old as materialized (
    select l.runid, l.jobid, l.at from looked l
    where l.runid <= (
      select max(l.runid) from looked l where l.at < now() - interval '1 day')
  ), ours as materialized (
    select o.runid from old o
    where o.jobid in (select j.jobid from cron.job j where j.jobname in ('process_libsql_replication', 'libsql_sync_realtime'))
      -- A run that never began has no time.
      and coalesce(o.at < now() - interval '1 day', true)
    order by o.runid limit 1000
  ), gone as (
    delete from cron.job_run_details d using ours o where d.runid = o.runid returning d.runid
  )
  select (select count(*) from looked),
    case when (select count(*) from ours) = 1000 then (select max(o.runid) from ours o)
      else (select max(o.runid) from old o) end,
    (select count(*) from gone)
  into looked, upto, trimmed;
  -- A few runs are read again rather than recorded; a sequence that began again at 1
  -- leaves none to search.
  if looked = 10000 and upto is not null then
    update libsql_sync.chain set cron_run = upto where id = 1;
  elsif looked = 0 and seen > 0 then
    update libsql_sync.chain set cron_run = 0 where id = 1;
  end if;
  return trimmed;
exception when insufficient_privilege or undefined_table or undefined_column or lock_not_available then
  return 0;
end
$$;
comment on function libsql_sync.trim_cron_runs() is
  'Deletes the runs of our own cron jobs that are a day old and older, 1,000 at most. Returns how many.';

create or replace function libsql_sync.tidy()
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  c libsql_sync.chain;
  rows_max constant integer := 1000;
  started constant timestamptz := clock_timestamp();
  gone integer;
  total integer;
begin
  -- A claim may be reading what would be trimmed.
  select * into c from libsql_sync.chain where id = 1 for update skip locked;
  if not found then
    return 0;
  end if;
  update libsql_sync.chain set ticked_at = started where id = 1;
  total := libsql_sync.trim_cron_runs();
  for i in 1..25 loop
    gone := libsql_sync.trim_versions();
    total := total + gone;
    exit when gone = 0 or clock_timestamp() > started + interval '200 milliseconds';
  end loop;

  -- Messages that were put back by hand, under the ids they had.
  update libsql_sync.chain h set floor = 0
  where h.id = 1 and exists (select from pgmq.q_replicate_data_libsql m where m.msg_id < h.floor);

  -- What is in the archive and belongs to no batch: archived before the oldest batch. A
  -- batch's own messages are archived with it, by one transaction, which takes less than
  -- a minute.
  delete from pgmq.a_replicate_data_libsql a where a.msg_id in (
    select v.msg_id from pgmq.a_replicate_data_libsql v
    where v.archived_at < least(
      clock_timestamp() - c.replay_window,
      (select min(b.settled_at) from libsql_sync.batches b)) - interval '1 minute'
    order by v.archived_at limit rows_max);
  get diagnostics gone = row_count;
  total := total + gone;

  -- Dead letters that were discarded.
  delete from pgmq.a_replicate_data_libsql_dlq a where a.msg_id in (
    select v.msg_id from pgmq.a_replicate_data_libsql_dlq v
    where v.archived_at < clock_timestamp() - interval '30 days'
    order by v.archived_at limit rows_max);
  get diagnostics gone = row_count;
  total := total + gone;

  -- Walks the replica has behind it, but for the newest 100, and the last one
  -- that went through everything.
  delete from libsql_sync.walks w where w.walk_gen in (
    select v.walk_gen from libsql_sync.walks v
    where v.walk_gen < (c.seen ->> 'walk_gen')::bigint
      and v.walk_gen <= (select n.walk_gen from libsql_sync.walks n order by n.walk_gen desc offset 100 limit 1)
      and v.walk_gen is distinct from (
        select f.walk_gen from libsql_sync.walks f
        where f.ended_at is not null and f.tables = array(select t.name from libsql_sync.tables t order by t.name)
        order by f.ended_at desc limit 1)
    order by v.walk_gen limit rows_max);
  get diagnostics gone = row_count;
  return total + gone;
end
$$;
comment on function libsql_sync.tidy() is
  'Keeps what is recorded bounded, in bounded steps: batches, archives, walks, runs of cron jobs. Every call of process_libsql_replication_batch() does it. Returns how many rows were deleted.';

-- supabase/sql/62_uninstall.sql

-- Uninstalling. It waits 3 s at most for a lock; then nothing is gone, and it may be tried
-- again. Undo: run the migration again; a new epoch begins.

create or replace function libsql_sync.uninstall(confirm text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '3s'
as $$
declare
  job record;
  queue text;
  left_over text;
begin
  if confirm is distinct from 'uninstall' then
    raise exception 'Cannot uninstall: expected the word ''uninstall'', found another'
      using hint = 'select libsql_sync.uninstall(''uninstall'') drops the queue with every change in it.';
  end if;
  perform pg_advisory_xact_lock(hashtext('libsql_sync install'));

  if to_regclass('cron.job') is not null then
    for job in
      select j.jobid from cron.job j
      where j.database = current_database()
        and (j.jobname in ('process_libsql_replication', 'libsql_sync_realtime')
          or j.command like '%process_libsql_replication_batch%')
    loop
      perform cron.unschedule(job.jobid::bigint);
      begin
        delete from cron.job_run_details d where d.jobid = job.jobid;
      exception when insufficient_privilege or undefined_table then
        raise notice 'The past runs of cron job % stay in cron.job_run_details: this role may not delete them', job.jobid;
      end;
    end loop;
  end if;

  -- Cascade takes the triggers with it, also from tables of another owner.
  drop function if exists public.trigger_http_queue_post_to_function_libsql() cascade;
  drop function if exists public.process_libsql_replication_batch();
  drop function if exists public.get_libsql_sync_url();
  drop function if exists public.get_libsql_webhook_signature();

  foreach queue in array array['replicate_data_libsql', 'replicate_data_libsql_dlq'] loop
    if to_regclass('pgmq.q_' || queue) is not null then
      perform pgmq.drop_queue(queue::text);
    end if;
  end loop;

  if to_regclass('vault.decrypted_secrets') is not null then
    begin
      select string_agg(s.name, ', ' order by s.name) into left_over from vault.decrypted_secrets s
      where s.name in ('libsql_sync_url', 'libsql_webhook_signature');
    exception when insufficient_privilege then
      left_over := 'libsql_sync_url, libsql_webhook_signature';
    end;
    if left_over is not null then
      raise notice 'These Vault secrets stay: %. delete from vault.secrets where name = ''<name>'' takes them out', left_over;
    end if;
  end if;

  drop schema libsql_sync cascade;

  -- It may be another database's as well, and login roles may be in it.
  begin
    select string_agg(m.member::regrole::text, ', ') into left_over
    from pg_auth_members m
    where m.roleid = to_regrole('libsql_sync_worker')
      and m.member <> (select o.oid from pg_roles o where o.rolname = current_user);
    if left_over is null then
      drop role if exists libsql_sync_worker;
    else
      raise notice 'Role libsql_sync_worker stays, as it has members: %', left_over;
    end if;
  exception
    when dependent_objects_still_exist then
      raise notice 'Role libsql_sync_worker stays, as it has rights elsewhere: another database may use it';
    when insufficient_privilege then
      raise notice 'Role libsql_sync_worker stays, as % may not drop it', current_user;
  end;
end
$$;
comment on function libsql_sync.uninstall(text) is
  'Removes all of ours from PostgreSQL, for good: triggers, functions, the cron jobs, the queues with what waits in them, the schema libsql_sync, and the worker''s role unless it is still needed. Your tables, extensions and the replica stay as they are. In: the word "uninstall".';

-- supabase/sql/63_doctor.sql

-- The doctor: what a deployment needs, as seen from the source. One function per
-- section; each row says what was found and, if it is not well, how to repair it.
-- They change nothing, and work without the schemas vault, cron and net. Vault
-- secrets are checked, never shown.
--
-- deno task doctor prints the rows, status() warns of those of tables and triggers.
--
-- In the sections a variable "what" holds the column "found": in PL/pgSQL that name
-- is a variable of its own.

-- What is ours, for the questions of rights.
create or replace function libsql_sync.our_tables()
returns oid[]
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select array(
    select r.oid from pg_class r
    where r.relkind in ('r', 'p') and (r.relnamespace = 'libsql_sync'::regnamespace
      or r.relnamespace = 'pgmq'::regnamespace and r.relname in (
        'q_replicate_data_libsql', 'a_replicate_data_libsql',
        'q_replicate_data_libsql_dlq', 'a_replicate_data_libsql_dlq')))
$$;
comment on function libsql_sync.our_tables() is
  'The tables of libsql_sync and the queues'' tables of PGMQ.';

create or replace function libsql_sync.our_functions()
returns oid[]
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select array(
    select p.oid from pg_proc p
    where p.pronamespace = 'libsql_sync'::regnamespace
      or p.pronamespace = 'public'::regnamespace and p.proname in (
        'get_libsql_sync_url', 'get_libsql_webhook_signature',
        'process_libsql_replication_batch', 'trigger_http_queue_post_to_function_libsql'))
$$;
comment on function libsql_sync.our_functions() is
  'The functions of libsql_sync and our four in public.';

create or replace function libsql_sync.doctor_failed(section text, state text)
returns table (name text, level text, found text, advice text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select section, 'error', 'cannot be examined: SQLSTATE ' || state,
    case when state = '42501' then 'ask as the role that ran the migration (postgres)'
      else 'run the migration in supabase/migrations again' end
$$;
comment on function libsql_sync.doctor_failed(text, text) is
  'The doctor''s row for a section that ended with an error; the rows before it stay.';

create or replace function libsql_sync.doctor(only_sections text[] default null)
returns table (name text, level text, found text, advice text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  sections constant text[] := array['server', 'extensions', 'queues', 'tables', 'triggers', 'leftovers',
    'grants', 'worker role', 'secrets', 'cron', 'pg_net', 'queue', 'archive', 'replica'];
  section text;
  c libsql_sync.chain;
begin
  select * into strict c from libsql_sync.chain h where h.id = 1;
  foreach section in array coalesce(only_sections, sections) loop
    case section
      when 'server' then return query select * from libsql_sync.doctor_server();
      when 'extensions' then return query select * from libsql_sync.doctor_extensions();
      when 'queues' then return query select * from libsql_sync.doctor_queues();
      when 'tables' then return query select * from libsql_sync.doctor_tables();
      when 'triggers' then return query select * from libsql_sync.doctor_triggers();
      when 'leftovers' then return query select * from libsql_sync.doctor_leftovers();
      when 'grants' then return query select * from libsql_sync.doctor_grants();
      when 'worker role' then return query select * from libsql_sync.doctor_worker_role();
      when 'secrets' then return query select * from libsql_sync.doctor_secrets();
      when 'cron' then return query select * from libsql_sync.doctor_cron(c);
      when 'pg_net' then return query select * from libsql_sync.doctor_pg_net();
      when 'queue' then return query select * from libsql_sync.doctor_queue();
      when 'archive' then return query select * from libsql_sync.doctor_archive(c);
      when 'replica' then return query select * from libsql_sync.doctor_replica(c);
      else return query select * from libsql_sync.doctor_failed(section, '20000');
    end case;
  end loop;
end
$$;
comment on function libsql_sync.doctor(text[]) is
  'What a deployment needs, one row a finding: name, level (ok, warning, error), what was found, and the advice that repairs it. All sections, or those named: server, extensions, queues, tables, triggers, leftovers, grants, worker role, secrets, cron, pg_net, queue, archive, replica. It changes nothing.';

create or replace function libsql_sync.doctor_server()
returns table (name text, level text, found text, advice text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  what text;
  r record;
begin
  what := current_setting('server_version') || ', ' || current_setting('server_encoding');
  level := 'ok';
  if current_setting('server_version_num')::integer < 150000 then
    level := 'error';
    advice := 'upgrade to PostgreSQL 15 or later';
  elsif current_setting('server_encoding') <> 'UTF8' then
    level := 'error';
    advice := 'use a database of encoding UTF8';
  end if;
  return query values ('PostgreSQL', level, what, advice);

  what := current_setting('default_transaction_isolation');
  if what = 'read committed' then
    return query values ('isolation', 'ok', what, null);
  else
    return query values ('isolation', 'error', what,
      format('alter role %I set default_transaction_isolation to ''read committed'';', current_user));
  end if;

  for r in
    select coalesce(s.setrole::regrole::text, '') as role
    from pg_db_role_setting s
    where (s.setdatabase = 0 or s.setdatabase = (
        select d.oid from pg_database d where d.datname = current_database()))
      and 'session_replication_role=replica' = any (s.setconfig)
  loop
    return query values ('session_replication_role', 'error',
      'replica' || case when r.role in ('', '-') then ' for every role' else ' for role ' || r.role end
        || ': rows written in this mode bypass the triggers',
      'reset it where it was set (alter role or alter database ... reset session_replication_role), then: deno task verify --repair');
  end loop;
exception when others then
  return query select * from libsql_sync.doctor_failed('server', sqlstate);
end
$$;
comment on function libsql_sync.doctor_server() is
  'The doctor on PostgreSQL''s version, its encoding, and settings that would break capture or claims.';

create or replace function libsql_sync.doctor_extensions()
returns table (name text, level text, found text, advice text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  what text;
  r record;
begin
  for r in
    select w.name, w.since, w.instead, x.extversion as version
    from (values
      ('pgmq', '1.4.4', null),
      ('pg_cron', null, 'cron.schedule(text,text,text)'),
      ('pg_net', null, 'net.http_post(text,jsonb,jsonb,jsonb,integer)'),
      ('supabase_vault', null, 'vault.create_secret(text,text,text,uuid)')
    ) w (name, since, instead)
    left join pg_extension x on x.extname = w.name
  loop
    level := 'ok';
    what := r.version;
    advice := null;
    if r.version is null and to_regprocedure(r.instead) is not null then
      what := 'its functions, without the extension';
    elsif r.version is null then
      level := 'error';
      what := 'not installed';
      advice := format('create extension %I; (or enable it on the dashboard), then run the migration in supabase/migrations again', r.name);
    elsif r.since is not null and string_to_array(substring(r.version, '^[0-9]+(?:\.[0-9]+)*'), '.')::integer[]
      < string_to_array(r.since, '.')::integer[] then
      level := 'error';
      what := what || ', expected ' || r.since || ' or later';
      advice := format('alter extension %I update;', r.name);
    end if;
    return query values (r.name, level, what, advice);
  end loop;
exception when others then
  return query select * from libsql_sync.doctor_failed('extensions', sqlstate);
end
$$;
comment on function libsql_sync.doctor_extensions() is
  'The doctor on the extensions pgmq, pg_cron, pg_net and supabase_vault, or functions that take their place.';

-- supabase/sql/64_doctor_capture.sql

-- The doctor on capture: are the queues, tables and triggers as attach() leaves them?

create or replace function libsql_sync.doctor_queues()
returns table (name text, level text, found text, advice text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  r record;
  well boolean := true;
begin
  for r in
    select q.name, a.name as missing
    from (values ('q_replicate_data_libsql'), ('a_replicate_data_libsql'),
      ('q_replicate_data_libsql_dlq'), ('a_replicate_data_libsql_dlq')) q (name)
    left join lateral (
      select string_agg(k.name, ', ') as name
      from (values ('msg_id'), ('read_ct'), ('enqueued_at'), ('vt'), ('message')) k (name)
      where not exists (
        select from pg_attribute a
        where a.attrelid = to_regclass('pgmq.' || q.name) and a.attname = k.name and not a.attisdropped)
    ) a on true
    where a.name is not null
  loop
    well := false;
    if to_regclass('pgmq.' || r.name) is null then
      return query values ('queue', 'error', 'pgmq.' || r.name || ' is not there: changes are not queued',
        format('select pgmq.create(%L); then select libsql_sync.lock_down(); The next sync then walks every table', substr(r.name, 3)));
    else
      return query values ('queue', 'error', 'pgmq.' || r.name || ' lacks ' || r.missing, 'alter extension pgmq update;');
    end if;
  end loop;
  if well then
    return query values ('queues', 'ok', 'replicate_data_libsql, replicate_data_libsql_dlq', null);
  end if;
exception when others then
  return query select * from libsql_sync.doctor_failed('queues', sqlstate);
end
$$;
comment on function libsql_sync.doctor_queues() is
  'The doctor on PGMQ''s tables of our two queues, and the columns that we use of them.';

create or replace function libsql_sync.doctor_tables()
returns table (name text, level text, found text, advice text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  attach constant text := 'select libsql_sync.attach();';
  r record;
  tables integer := 0;
  well boolean := true;
begin
  for r in
    select t.name, q.oid as relation, libsql_sync.attach_problem(q.oid, t.key) as problem, m.missing
    from libsql_sync.tables t
    cross join lateral to_regclass(format('public.%I', t.name)) q (oid)
    left join lateral (
      select string_agg(k.value ->> 'name', ', ') as missing
      from jsonb_array_elements(t.columns) k
      where k.value ->> 'name' not in (select p.name from libsql_sync.present_columns(q.oid, t.name) p)
    ) m on true
    order by t.name
  loop
    tables := tables + 1;
    well := well and r.relation is not null and r.problem is null and r.missing is null;
    if r.relation is null then
      return query values ('table ' || r.name, 'error', 'does not exist',
        'create it, then ' || attach || ' or take it out of schema.json');
    elsif r.problem is not null then
      return query values ('table ' || r.name, 'error', r.problem,
        'repair the table, then ' || attach || ' or take it out of schema.json');
    elsif r.missing is not null then
      return query values ('table ' || r.name, 'warning',
        'lacks listed column(s) ' || r.missing || ': they stay as they are in the replica',
        'put the new names into schema.json (or take them out), run deno task schema and the migration, then deploy');
    end if;
  end loop;
  if well then
    return query values ('tables', 'ok', tables || ', each with its key and columns', null);
  end if;
exception when others then
  return query select * from libsql_sync.doctor_failed('tables', sqlstate);
end
$$;
comment on function libsql_sync.doctor_tables() is
  'The doctor on the listed tables: whether each exists, can be replicated, and has its columns.';

create or replace function libsql_sync.doctor_triggers()
returns table (name text, level text, found text, advice text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  r record;
  triggers integer := 0;
  well boolean := true;
begin
  for r in
    select case when w.is_partition then 'partition ' || w.relation::regclass
        else 'table ' || w.table_name end as place,
      w.name,
      case
        when g.oid is null then 'is missing'
        when g.tgenabled = 'D' then 'is disabled'
        when g.tgenabled = 'R' then 'fires for replicas only'
        when g.tgfoid is distinct from to_regprocedure(w.function || '()') or g.tgtype <> w.type
          or g.tgargs <> convert_to(w.table_name, 'UTF8') || '\x00'::bytea then 'is another one'
      end as problem
    from libsql_sync.wanted_triggers() w
    left join pg_trigger g on g.tgrelid = w.relation and g.tgname = w.name and not g.tgisinternal
    order by w.table_name, w.relation::regclass::text, w.type
  loop
    triggers := triggers + 1;
    if r.problem is not null then
      well := false;
      return query values (r.place, 'error', 'trigger ' || r.name || ' ' || r.problem,
        'select libsql_sync.attach(); The replica is then walked by itself');
    end if;
  end loop;
  if well then
    return query values ('triggers', 'ok', triggers || ', all enabled', null);
  end if;
  return query select * from libsql_sync.doctor_trigger_functions();
exception when others then
  return query select * from libsql_sync.doctor_failed('triggers', sqlstate);
end
$$;
comment on function libsql_sync.doctor_triggers() is
  'The doctor on the triggers of each listed table and partition, and on the functions that they run.';

create or replace function libsql_sync.doctor_trigger_functions()
returns table (name text, level text, found text, advice text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  attach constant text := 'select libsql_sync.attach();';
  invoker constant text := (select min(p.oid::regprocedure::text) from pg_proc p where p.oid in (select libsql_sync.trigger_functions()) and not p.prosecdef);
  stale text;
begin
  if invoker is not null then
    return query values ('trigger functions', 'error', invoker || ' runs with the rights of the writer, which may not write to the queue',
      'alter function ' || invoker || ' security definer;');
    return;
  end if;
  stale := (select string_agg(f.name, ', ' order by f.name) from libsql_sync.stale_functions() f);
  if stale is null then
    return query values ('trigger functions', 'ok', 'have today''s columns', null);
  else
    return query values ('trigger functions', 'warning',
      'missing, or made before a change of the tables, so that writes may open the walk: ' || stale, attach);
  end if;
exception when others then
  -- A table without its key, which doctor_tables() reports.
  return query values ('trigger functions', 'error', 'cannot be made anew while a table lacks its key', 'see that table, then ' || attach);
end
$$;
comment on function libsql_sync.doctor_trigger_functions() is
  'The doctor on the trigger functions: that they run with their owner''s rights, and are the ones that attach() would make today.';

create or replace function libsql_sync.doctor_leftovers()
returns table (name text, level text, found text, advice text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  r record;
  well boolean := true;
begin
  for r in
    with wanted as materialized (
      select w.relation, w.name::name as name from libsql_sync.wanted_triggers() w
    ), away as materialized (
      -- A table that was renamed is reported as missing, by doctor_tables().
      select convert_to(t.name, 'UTF8') || '\x00'::bytea as args
      from libsql_sync.tables t where to_regclass(format('public.%I', t.name)) is not distinct from null
    )
    select g.name, g.relation, g.is_ours
    from (
      select g.tgname as name, g.tgrelid, g.tgrelid::regclass::text as relation, g.tgargs, p.prosrc,
        g.tgfoid in (select libsql_sync.trigger_functions()) as is_ours
      from pg_trigger g join pg_proc p on p.oid = g.tgfoid
      where not g.tgisinternal
    ) g
    where case when g.is_ours
      then (g.tgrelid, g.name) not in (select w.relation, w.name from wanted w)
        and g.tgargs not in (select a.args from away a)
      else g.prosrc ~ 'replicate_data_libsql' end
    order by g.relation, g.name
  loop
    well := false;
    return query values ('leftover', 'warning',
      'trigger ' || r.name || ' on ' || r.relation
        || case when r.is_ours then ', which is not listed so' else ' sends messages of its own' end,
      format('drop trigger %I on %s;', r.name, r.relation));
  end loop;
  if to_regclass('cron.job') is not null then
    for r in execute
      'select j.jobid, coalesce(j.jobname, '''') as jobname from cron.job j
       where j.jobname is distinct from ''process_libsql_replication''
         and j.command ~ ''process_libsql_replication_batch|replicate_data_libsql|get_libsql_sync_url'''
    loop
      well := false;
      return query values ('leftover', 'warning',
        format('cron job %s %s calls the worker as well', r.jobid, r.jobname),
        format('select cron.unschedule(%s);', r.jobid));
    end loop;
  end if;
  if well then
    return query values ('leftovers', 'ok', 'none', null);
  end if;
exception when others then
  return query select * from libsql_sync.doctor_failed('leftovers', sqlstate);
end
$$;
comment on function libsql_sync.doctor_leftovers() is
  'The doctor on triggers and cron jobs of other versions or other solutions that write to our queue or call the worker.';

-- supabase/sql/65_doctor_access.sql

-- The doctor on access: rights of other roles, the worker's role, and the secrets.

create or replace function libsql_sync.doctor_grants()
returns table (name text, level text, found text, advice text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  ours constant oid[] := libsql_sync.our_tables();
  routines constant oid[] := libsql_sync.our_functions();
  r record;
  well boolean := true;
begin
  -- What Supabase's roles of its API may do, however they got the right.
  for r in
    select s.role, 'execute ' || p.oid::regprocedure as may
    from unnest(routines) p (oid)
    cross join (
      select 'public' as role union all
      select a.rolname from pg_roles a where a.rolname in ('anon', 'authenticated', 'service_role')
    ) s
    where has_function_privilege(s.role, p.oid, 'execute')
      and not (p.oid = 'libsql_sync.bookmark()'::regprocedure
        and s.role in ('authenticated', 'service_role'))
    union all
    select s.role, 'use ' || q.oid::regclass
    from unnest(ours) q (oid)
    cross join (
      select 'public' as role union all
      select a.rolname from pg_roles a where a.rolname in ('anon', 'authenticated', 'service_role')
    ) s
    where has_table_privilege(s.role, q.oid, 'select, insert, update, delete, truncate')
      or has_any_column_privilege(s.role, q.oid, 'select, insert, update')
    order by 1, 2
    limit 20
  loop
    well := false;
    return query values ('grant', 'error', r.role || ' may ' || r.may, 'select libsql_sync.lock_down();');
  end loop;
  -- What was granted to other roles. PGMQ itself grants its tables to pg_monitor.
  for r in
    select distinct g.grantee::regrole::text as role, g.thing
    from (
      select a.grantee, p.oid::regprocedure::text as thing, p.proowner as owner
      from pg_proc p cross join lateral aclexplode(p.proacl) a
      where p.oid = any (routines)
        -- Those are for the worker's role, and for roles that write.
        and p.oid::regprocedure::text !~ '^libsql_sync\.(bookmark|claim|lease|park|release|report|reset|request_redrive|request_walk)\('
      union all
      select a.grantee, q.oid::regclass::text, q.relowner
      from pg_class q cross join lateral aclexplode(q.relacl) a
      where q.oid = any (ours)
    ) g
    join pg_roles o on o.oid = g.grantee
    where g.grantee <> g.owner and not o.rolsuper and o.rolname !~ '^pg_'
      and o.rolname not in ('anon', 'authenticated', 'service_role')
      and not pg_has_role(o.oid, g.owner, 'member')
    order by 1, 2
    limit 20
  loop
    well := false;
    return query values ('grant', 'warning', 'role ' || r.role || ' has rights on ' || r.thing,
      'revoke them, unless that role shall read every replicated row');
  end loop;
  if well then
    return query values ('grants', 'ok', 'other roles may execute and read nothing of ours', null);
  end if;

  well := true;
  for r in
    select q.oid::regclass::text as relation
    from pg_class q where q.oid = any (ours) and not q.relrowsecurity
  loop
    well := false;
    return query values ('row level security', 'error', 'off on ' || r.relation,
      format('alter table %s enable row level security;', r.relation));
  end loop;
  if well then
    return query values ('row level security', 'ok', 'on for our ' || cardinality(ours) || ' tables', null);
  end if;
exception when others then
  return query select * from libsql_sync.doctor_failed('grants', sqlstate);
end
$$;
comment on function libsql_sync.doctor_grants() is
  'The doctor on rights that roles other than the owner have on our tables and functions, and on row level security.';

create or replace function libsql_sync.doctor_worker_role()
returns table (name text, level text, found text, advice text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  members text;
  more constant text := ': the worker connects as a role that may do more than it needs';
begin
  if not exists (select from pg_roles o where o.rolname = 'libsql_sync_worker') then
    return query values ('worker role', 'warning', 'libsql_sync_worker is not here' || more,
      'create role libsql_sync_worker nologin; select libsql_sync.lock_down(); then a login role in it, as the README shows');
  elsif exists (
    select from pg_proc p
    where p.oid = any (libsql_sync.our_functions()) and p.pronamespace = 'libsql_sync'::regnamespace
      and p.proname in ('claim', 'lease', 'park', 'release', 'report', 'request_redrive', 'request_walk', 'reset')
      and not has_function_privilege('libsql_sync_worker', p.oid, 'execute')
  ) or not has_schema_privilege('libsql_sync_worker', 'libsql_sync', 'usage') then
    return query values ('worker role', 'error', 'libsql_sync_worker may not call the worker''s functions',
      'select libsql_sync.lock_down();');
  else
    select string_agg(m.member::regrole::text, ', ' order by m.member::regrole::text) into members
    from pg_auth_members m
    where m.roleid = 'libsql_sync_worker'::regrole and m.member <> (
      select s.nspowner from pg_namespace s where s.nspname = 'libsql_sync');
    if members is null then
      return query values ('worker role', 'warning', 'libsql_sync_worker has no members' || more,
        'create role libsql_sync_login login password ''...'' in role libsql_sync_worker; and name it in the worker''s PGMQ_URL');
    else
      return query values ('worker role', 'ok', 'may call the worker''s functions; in it: ' || members, null);
    end if;
  end if;
exception when others then
  return query select * from libsql_sync.doctor_failed('worker role', sqlstate);
end
$$;
comment on function libsql_sync.doctor_worker_role() is
  'The doctor on libsql_sync_worker: that the role exists, may call the worker''s functions, and has a member to log in as.';

create or replace function libsql_sync.doctor_secrets()
returns table (name text, level text, found text, advice text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  r record;
begin
  for r in
    select s.name, s.pattern, s.wanted, libsql_sync.secret(s.name) as value
    from (values
      ('libsql_sync_url', '^https?://[^/]+/sync$', 'the worker''s address with /sync at its end'),
      ('libsql_webhook_signature', '^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$', 'printable ASCII without space around it')
    ) s (name, pattern, wanted)
  loop
    if coalesce(r.value, '') = '' then
      return query values ('secret ' || r.name, 'error', 'not in the Vault: cron cannot call the worker',
        format('select vault.create_secret(''<value>'', %L);', r.name));
    elsif r.value !~ r.pattern then
      return query values ('secret ' || r.name, 'error', 'there, but not ' || r.wanted,
        format('select vault.update_secret(id, ''<value>'') from vault.secrets where name = %L;', r.name));
    else
      return query values ('secret ' || r.name, 'ok', 'there', null);
    end if;
  end loop;
  if (select p.prosrc ~ 'libsql_sync\.call_worker\(' from pg_proc p
    where p.oid = 'public.process_libsql_replication_batch()'::regprocedure)
  then
    return query values ('signature', 'ok', 'cron signs each call (HMAC-SHA-256): the secret stays in the Vault', null);
  else
    return query values ('signature', 'warning',
      'cron sends the secret itself, which every SQL role can read in net.http_request_queue',
      'run the migration in supabase/migrations again');
  end if;
exception when others then
  return query select * from libsql_sync.doctor_failed('secrets', sqlstate);
end
$$;
comment on function libsql_sync.doctor_secrets() is
  'The doctor on the two Vault secrets with which cron calls the worker. It never shows them.';

-- supabase/sql/66_doctor_worker.sql

-- The doctor on what happens behind the queue: cron, pg_net, the queue's age, the
-- archive and the replica as it was last seen.

create or replace function libsql_sync.doctor_cron(c libsql_sync.chain)
returns table (name text, level text, found text, advice text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  migrate constant text := 'run the migration in supabase/migrations again';
  what text;
  job record;
  -- Null without pg_cron.
  jobs integer;
begin
  if to_regclass('cron.job') is not null then
    execute 'select j.jobid, j.schedule, j.active, j.username::text, j.database::text, j.command
      from cron.job j where j.jobname = ''process_libsql_replication'' order by j.active desc limit 1' into job;
    get diagnostics jobs = row_count;
  end if;
  level := 'error';
  if jobs is null then
    what := 'pg_cron is not here';
    advice := 'enable pg_cron and ' || migrate || '; or call select public.process_libsql_replication_batch(); every 5 minutes by other means';
  elsif jobs = 0 then
    what := 'process_libsql_replication is not scheduled';
    advice := 'select cron.schedule(''process_libsql_replication'', ''*/5 * * * *'', ''select public.process_libsql_replication_batch()'');';
  elsif not job.active then
    what := 'process_libsql_replication is not active';
    advice := format('select cron.alter_job(%s, active := true);', job.jobid);
  elsif job.command !~ 'process_libsql_replication_batch' or job.database <> current_database() then
    what := 'process_libsql_replication runs something else, or in another database';
    advice := migrate;
  else
    level := 'ok';
    what := job.schedule || ' as ' || job.username;
  end if;
  return query values ('cron job', level, what, advice);
  if c.realtime then
    return query select * from libsql_sync.doctor_realtime(c, jobs is not null);
  end if;
  if jobs = 1 then
    return query select * from libsql_sync.doctor_cron_runs(job.jobid);
  end if;
exception when others then
  return query select * from libsql_sync.doctor_failed('cron', sqlstate);
end
$$;
comment on function libsql_sync.doctor_cron(libsql_sync.chain) is
  'The doctor on the cron job that calls the worker, on realtime''s when that is on, and on their last runs.';

create or replace function libsql_sync.doctor_realtime(c libsql_sync.chain, has_cron boolean)
returns table (name text, level text, found text, advice text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  what text := 'on';
  missing boolean := true;
  run record;
begin
  level := 'ok';
  if has_cron then
    missing := not exists (
      select from cron.job j where j.jobname = 'libsql_sync_realtime' and j.active
        and j.database = current_database() and j.command ~ 'libsql_sync\.watch');
  end if;
  if missing then
    level := 'error';
    what := 'on, but cron job libsql_sync_realtime is missing or not active';
    advice := 'select libsql_sync.realtime(true);';
  elsif c.wake_misses > 0 then
    level := 'error';
    what := format('%s calls of the worker in a row had no effect', c.wake_misses);
    advice := 'see the secrets, pg_net''s answers here, and the worker''s log';
  else
    execute 'select d.status, d.return_message from cron.job_run_details d join cron.job j using (jobid)
      where j.jobname = ''libsql_sync_realtime'' order by d.runid desc limit 1' into run;
    if run.status = 'failed' then
      level := 'error';
      what := 'on, and its last run failed: ' || left(split_part(run.return_message, E'\n', 1), 160);
      advice := 'select libsql_sync.realtime(true);';
    end if;
  end if;
  return query values ('realtime', level, what, advice);
end
$$;
comment on function libsql_sync.doctor_realtime(libsql_sync.chain, boolean) is
  'The doctor on realtime, when it is on: its cron job, its last run, and whether its calls have an effect.';

create or replace function libsql_sync.doctor_cron_runs(job bigint)
returns table (name text, level text, found text, advice text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  what text;
  run record;
begin
  execute 'select count(*) as runs, count(*) filter (where d.status = ''failed'') as failed,
      max(d.start_time) as latest,
      (array_agg(d.status order by d.start_time desc))[1] as status,
      (array_agg(d.return_message order by d.start_time desc) filter (where d.status = ''failed''))[1] as message
    from (select * from cron.job_run_details d where d.jobid = $1 order by d.runid desc limit 10) d'
  into run using job;
  if run.runs = 0 then
    return query values ('cron runs', 'warning', 'none yet',
      'wait for the next one; if none comes, see whether pg_cron''s worker runs: select * from pg_stat_activity where application_name ~ ''cron'';');
    return;
  end if;
  level := 'ok';
  what := format('%s of the last %s failed, latest %s ago', run.failed, run.runs,
    date_trunc('second', clock_timestamp() - run.latest));
  if run.status = 'failed' then
    level := 'error';
    what := what || ': ' || left(split_part(run.message, E'\n', 1), 160);
    advice := 'select * from cron.job_run_details where jobid = ' || job || ' order by runid desc limit 5;';
  elsif run.failed > 0 then
    level := 'warning';
    advice := 'the latest went well; watch it';
  end if;
  return query values ('cron runs', level, what, advice);
end
$$;
comment on function libsql_sync.doctor_cron_runs(bigint) is
  'The doctor on the last ten runs of a cron job, by its id.';

create or replace function libsql_sync.doctor_pg_net()
returns table (name text, level text, found text, advice text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  what text;
  run record;
begin
  if to_regclass('net._http_response') is null then
    return query values ('pg_net answers', 'error', 'pg_net is not here', 'enable pg_net, or call the worker by other means');
    return;
  end if;
  -- Answers to all requests of this database: they do not say which are ours.
  execute 'select count(*) as answers, bool_and(a.status_code between 200 and 299) as good,
      (array_agg(a.status_code order by a.id desc))[1] as latest,
      string_agg(distinct case when a.timed_out then ''timeout'' else coalesce(a.status_code::text, ''no answer'') end, '', '') as codes
    from (select * from net._http_response a order by a.id desc limit 20) a'
  into run;
  level := 'ok';
  what := case when run.answers = 0 then 'none kept'
    else format('the last %s of all requests: %s', run.answers, run.codes) end;
  if run.good is not true and run.answers > 0 then
    level := 'warning';
    advice := 'if they are the worker''s: 401 is a wrong secret, 404 a wrong libsql_sync_url, 409 and 5xx are explained in the worker''s answer (select status_code, content from net._http_response order by id desc limit 20)';
  end if;
  return query values ('pg_net answers', level, what, advice);
exception when others then
  return query select * from libsql_sync.doctor_failed('pg_net', sqlstate);
end
$$;
comment on function libsql_sync.doctor_pg_net() is
  'The doctor on the last answers that pg_net has kept.';

create or replace function libsql_sync.doctor_queue()
returns table (name text, level text, found text, advice text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  what text;
  oldest timestamptz;
  letters bigint;
begin
  select m.enqueued_at into oldest from pgmq.q_replicate_data_libsql m
  where m.msg_id >= (select h.floor from libsql_sync.chain h) order by m.msg_id limit 1;
  level := 'ok';
  what := format('%s%s, %s on disk', libsql_sync.queued() ->> 'queued',
    case when libsql_sync.queued() ->> 'queued_exact' = 'true' then '' else ' or more' end,
    pg_size_pretty(pg_total_relation_size('pgmq.q_replicate_data_libsql')));
  if oldest < clock_timestamp() - interval '30 minutes' then
    level := 'error';
    what := what || ', the oldest waits for ' || date_trunc('second', clock_timestamp() - oldest);
    advice := 'see the cron job, the worker and its answers here; deno task status reports the rest';
  end if;
  return query values ('queue', level, what, advice);

  select count(*) into letters from (select from pgmq.q_replicate_data_libsql_dlq limit 10001) d;
  return query values ('dead letters', case when letters = 0 then 'ok' else 'warning' end,
    case when letters > 10000 then 'more than 10000' else letters::text end,
    case when letters > 0 then 'deno task dlq list' end);
exception when others then
  return query select * from libsql_sync.doctor_failed('queue', sqlstate);
end
$$;
comment on function libsql_sync.doctor_queue() is
  'The doctor on how much is queued, how long the oldest change has waited, and how many dead letters are open.';

create or replace function libsql_sync.doctor_archive(c libsql_sync.chain)
returns table (name text, level text, found text, advice text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  what text;
  oldest constant timestamptz := (select min(b.settled_at) from libsql_sync.batches b);
  bytes constant bigint := pg_total_relation_size('pgmq.a_replicate_data_libsql');
begin
  level := 'ok';
  what := pg_size_pretty(bytes) || case when oldest is null then ', nothing to replay'
    else ', replays the last ' || date_trunc('second', clock_timestamp() - oldest) end;
  if oldest < clock_timestamp() - c.replay_window - interval '1 day'
    and exists (
      select from pgmq.q_replicate_data_libsql m
      where m.msg_id >= (select h.floor from libsql_sync.chain h)) then
    level := 'warning';
    what := what || ', kept for ' || c.replay_window;
    advice := 'each sync trims some of it: see why no sync runs';
  elsif bytes > 5368709120 then
    level := 'warning';
    advice := 'shorten chain.replay_window, or vacuum full pgmq.a_replicate_data_libsql; in a quiet hour (it locks the archive)';
  end if;
  return query values ('archive', level, what, advice);
exception when others then
  return query select * from libsql_sync.doctor_failed('archive', sqlstate);
end
$$;
comment on function libsql_sync.doctor_archive(libsql_sync.chain) is
  'The doctor on the archive: its size, and how far back a replica could be served again.';

create or replace function libsql_sync.doctor_replica(c libsql_sync.chain)
returns table (name text, level text, found text, advice text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  newest constant text := (select s.hash from libsql_sync.schemas s order by s.generation desc limit 1);
  what text;
begin
  level := 'ok';
  if c.seen_at is null then
    level := 'warning';
    what := 'no worker has called yet';
    advice := 'deploy it, put its address into the Vault, and wait for the next tick';
  elsif c.seen is null then
    level := 'warning';
    what := 'empty when last seen, ' || date_trunc('second', clock_timestamp() - c.seen_at) || ' ago';
    advice := 'the next sync starts it: deno task status';
  else
    what := format('at position %s of %s, seen %s ago', c.seen ->> 'position', c.position,
      date_trunc('second', clock_timestamp() - c.seen_at));
    if c.seen ->> 'epoch' <> c.epoch then
      level := 'warning';
      what := what || ', in another epoch';
      advice := 'the next sync follows, or says why not: deno task status';
    elsif (libsql_sync.heartbeat(c) ->> 'stale')::boolean then
      level := 'error';
      advice := 'a worker looks every 15 minutes even when nothing is queued: see the cron job, the secrets and pg_net''s answers here';
    end if;
  end if;
  return query values ('replica', level, what, advice);

  what := case when (c.seen ->> 'walk_done')::integer = 1 then 'every table was walked' else 'not every table was walked yet' end;
  if (c.seen ->> 'walk_done')::integer = 0 and not c.refill then
    return query values ('walk', 'warning', what || ', and no walk was asked for', 'deno task backfill');
  else
    return query values ('walk', 'ok', what, null);
  end if;

  if newest is null then
    return query values ('schema in force', 'error', 'none', 'deno task schema, then run the migration in supabase/migrations again');
  elsif c.seen ->> 'schema_hash' <> newest then
    return query values ('schema in force', 'warning', newest || ', the replica has ' || (c.seen ->> 'schema_hash'),
      'deploy the worker with the schema.json in force; its next sync alters the replica');
  else
    return query values ('schema in force', 'ok', newest, null);
  end if;

  if c.paused then
    return query values ('paused', 'warning', 'the worker is paused', 'select libsql_sync.resume();');
  end if;
exception when others then
  return query select * from libsql_sync.doctor_failed('replica', sqlstate);
end
$$;
comment on function libsql_sync.doctor_replica(libsql_sync.chain) is
  'The doctor on the replica as the last claim showed it, its walk, the schema in force, and a pause.';

-- supabase/sql/67_status.sql

-- How things stand: for operators, and for the worker's /status, /metrics and page.

-- If nothing else is to do, the cron calls the worker after 15 minutes all the same; the
-- worker writes to the replica's primary (probed_at) and claims: that is the whole way.
-- 25 minutes are two calls of the cron later.
create or replace function libsql_sync.heartbeat(c libsql_sync.chain)
returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'at', c.seen_at, 'ticked_at', c.ticked_at, 'stale', h.stale,
    'silent', case when not h.stale then null
      when c.ticked_at > h.now - interval '11 minutes' then 'worker' else 'cron' end)
  from (
    select t.now, not c.paused and t.now - interval '25 minutes' > coalesce(
      c.seen_at, (select min(e.begun_at) from libsql_sync.epochs e)) as stale
    from clock_timestamp() t (now)
  ) h
$$;
comment on function libsql_sync.heartbeat(libsql_sync.chain) is
  'When the whole way from cron to replica last worked: {"at", "ticked_at", "stale", "silent"}. Stale after 25 minutes, unless paused; "silent" says where it ends: at the "cron", whose job last ran at "ticked_at", or behind it, at pg_net or the "worker".';

-- Cheap: no count over a large queue.
create or replace function libsql_sync.status()
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'epoch', c.epoch,
    'position', c.position,
    'paused', c.paused,
    'realtime', c.realtime,
    'heartbeat', libsql_sync.heartbeat(c),
    'refill', c.refill,
    'scrub_rows', c.scrub_rows,
    'oldest_change', (
      select m.enqueued_at from pgmq.q_replicate_data_libsql m
      where m.msg_id >= c.floor order by m.msg_id limit 1),
    'dead_letters', (select count(*) from (select from pgmq.q_replicate_data_libsql_dlq limit 10001) d),
    'last_sync', c.seen_at,
    'syncing', coalesce(c.lease_until > clock_timestamp(), false),
    'replica', c.seen,
    'schema', (select s.hash from libsql_sync.schemas s order by s.generation desc limit 1),
    'walk', (
      select to_jsonb(w) - 'keys' from libsql_sync.walks w
      where w.walk_gen = (c.seen ->> 'walk_gen')::bigint and c.seen ->> 'walk_at' is not null
    ),
    'waiting_walks', (
      select coalesce(jsonb_agg(to_jsonb(w) - 'keys' order by w.walk_gen), '[]')
      from libsql_sync.walks w where w.walk_gen > coalesce((c.seen ->> 'walk_gen')::bigint, 0)
    ),
    'last_full_pass', (
      select to_jsonb(w) - 'keys' from libsql_sync.walks w
      where w.ended_at is not null and w.tables = array(select t.name from libsql_sync.tables t order by t.name)
      order by w.ended_at desc limit 1
    ),
    -- What the catalog shows: triggers that are gone or off, columns and tables.
    'catalog', (
      select coalesce(jsonb_agg(to_jsonb(d)), '[]')
      from libsql_sync.doctor(array['tables', 'triggers']) d where d.level <> 'ok'
    ),
    'last_epoch', (select to_jsonb(e) from libsql_sync.epochs e order by e.generation desc limit 1)
  ) || libsql_sync.queued()
  from libsql_sync.chain c
$$;
comment on function libsql_sync.status() is
  'How things stand, as JSON: epoch, position, pause, heartbeat, lag, dead letters, the replica''s row as last seen, walks, and the doctor''s findings on tables and triggers.';

-- The keys of dead letters are those of rows: they are sent only if asked for.
create or replace function libsql_sync.report(request json)
returns json
language sql
security definer -- the worker's role may call this and touch no table
set search_path = pg_catalog, pg_temp
as $$
  select (libsql_sync.status()
    || case when (request ->> 'alerts')::boolean then libsql_sync.alerts_due(c) else '{}' end
    || jsonb_build_object(
      'now', clock_timestamp(),
      'totals', c.totals,
      'tables', (
        select coalesce(jsonb_agg(jsonb_build_object(
          'name', t.name, 'rows', coalesce(e.rows, 0), 'applied', coalesce(o.applied, 0),
          'drift', coalesce(o.drift, 0), 'verified_at', o.verified_at) order by t.name), '[]')
        from libsql_sync.tables t
        left join libsql_sync.counts o on o.table_name = t.name
        -- The planner's estimate; a partitioned table's is that of its leaves.
        left join lateral (
          select sum(greatest(l.reltuples, 0))::bigint as rows
          from pg_partition_tree(to_regclass(format('public.%I', t.name))) p
          join pg_class l on l.oid = p.relid
          where p.isleaf) e on true),
      'syncs', (
        select coalesce(jsonb_agg(to_jsonb(s) - 'slot' order by s.n desc), '[]')
        from libsql_sync.syncs s),
      'minutes', (
        select coalesce(jsonb_agg(to_jsonb(m) - 'slot' order by m.minute), '[]')
        from libsql_sync.minutes m
        where m.minute > extract(epoch from clock_timestamp()) / 60 - 180),
      'letters', case when (request ->> 'letters')::boolean then (
        select coalesce(jsonb_agg(jsonb_build_object(
          'id', m.msg_id, 'table', m.message -> 'table', 'key', m.message -> 'key',
          'reason', m.message -> 'reason', 'parked_at', m.message -> 'parked_at') order by m.msg_id desc), '[]')
        from (select d.msg_id, d.message from pgmq.q_replicate_data_libsql_dlq d order by d.msg_id desc limit 50) m) end))::json
  from libsql_sync.chain c
$$;
comment on function libsql_sync.report(json) is
$$All that the worker's /status, /metrics and page show.
In: {"letters": boolean?, "alerts": boolean?}
Out: what status() returns, and "now", "totals", "tables", "syncs", "minutes"; with "letters" the newest 50 dead letters; with "alerts" what alerts_due() returns.$$;

create or replace function libsql_sync.request_redrive(request json)
returns json
language sql
security definer -- the worker's role may call this and touch no table
set search_path = pg_catalog, pg_temp
as $$
  select json_build_object('tried', libsql_sync.redrive(
    case when request -> 'ids' is not null then array(
      select i.id::bigint from json_array_elements_text(request -> 'ids') i (id)) end))
$$;
comment on function libsql_sync.request_redrive(json) is
$$Tries dead letters again, for the worker's page.
In: {"ids": [number, ...]?}
Out: {"tried": n}.$$;

-- supabase/sql/70_call_worker.sql

-- The way from PostgreSQL to the worker: the cron job asks whether there is work, and
-- pg_net posts to the worker's address, signed with the secret of the Vault.

create or replace function libsql_sync.secret(secret_name text)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if to_regclass('vault.decrypted_secrets') is null then
    return null;
  end if;
  return (select s.decrypted_secret from vault.decrypted_secrets s where s.name = secret_name);
end
$$;
comment on function libsql_sync.secret(text) is
  'A secret of the Vault by its name, or null.';

create or replace function public.get_libsql_sync_url()
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$ select libsql_sync.secret('libsql_sync_url') $$;
comment on function public.get_libsql_sync_url() is
  'The worker''s address, from the Vault secret libsql_sync_url; or null.';

create or replace function public.get_libsql_webhook_signature()
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$ select libsql_sync.secret('libsql_webhook_signature') $$;
comment on function public.get_libsql_webhook_signature() is
  'The worker''s webhook secret, from the Vault secret libsql_webhook_signature; or null.';

-- pgcrypto has it too, but may be missing or not permitted.
create or replace function libsql_sync.hmac(key bytea, message bytea)
returns bytea
language plpgsql immutable strict
set search_path = pg_catalog, pg_temp
as $$
declare
  block bytea := case when length(key) > 64 then sha256(key) else key end;
  inner_pad bytea := decode(repeat('36', 64), 'hex');
  outer_pad bytea := decode(repeat('5c', 64), 'hex');
begin
  for i in 0..length(block) - 1 loop
    inner_pad := set_byte(inner_pad, i, get_byte(inner_pad, i) # get_byte(block, i));
    outer_pad := set_byte(outer_pad, i, get_byte(outer_pad, i) # get_byte(block, i));
  end loop;
  return sha256(outer_pad || sha256(inner_pad || message));
end
$$;
comment on function libsql_sync.hmac(bytea, bytea) is
  'HMAC-SHA-256 (RFC 2104). In: the key, and the message.';

-- pg_net keeps the header in its tables, which every SQL role can read: a signature is
-- worth nothing after 5 minutes, and nothing for another path.
create or replace function libsql_sync.sign(secret text, url text, body text)
returns text
language sql volatile strict
set search_path = pg_catalog, pg_temp
as $$
  select 't=' || t.at || ',v1=' || encode(libsql_sync.hmac(
    convert_to(secret, 'UTF8'),
    convert_to(t.at || '.POST.' || p.path || '.' || body, 'UTF8')), 'hex')
  from (select floor(extract(epoch from clock_timestamp()))::bigint::text) t (at),
    (select case when r.rest ~ '^/' then r.rest else '/' || r.rest end
      from regexp_replace(url, '^[^:/?#]+://[^/?#]*|#.*$', '', 'g') r (rest)) p (path)
$$;
comment on function libsql_sync.sign(text, text, text) is
  'The header x-webhook-signature of a POST. In: the secret, the address, the body.';

create or replace function libsql_sync.has_work()
returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
-- The queue's index leads to what lives in it, past what is dead.
set enable_seqscan = off
as $$
  select not c.paused and (
    exists (select from pgmq.q_replicate_data_libsql m where m.msg_id >= c.floor)
    or c.walk_wanted > c.walk_opened
    or c.seen is null
    or c.seen ->> 'epoch' <> c.epoch
    or (c.seen ->> 'position')::bigint <> c.position
    or coalesce(c.seen ->> 'schema_hash' <> (select s.hash from libsql_sync.schemas s order by s.generation desc limit 1), false)
    -- What the last claim handed out may be applied, and not settled.
    or exists (select from libsql_sync.batches b where b.epoch = c.epoch and b.position > c.position and b.handed_at > c.seen_at)
    or ((c.seen ->> 'walk_done')::integer = 0 and c.refill)
    or exists (
      select from libsql_sync.walks w where w.kind <> 'scrub' and (
        w.walk_gen > (c.seen ->> 'walk_gen')::bigint
        or (w.walk_gen = (c.seen ->> 'walk_gen')::bigint and c.seen ->> 'walk_at' is not null)))
    or c.seen_at < clock_timestamp() - interval '15 minutes')
  from libsql_sync.chain c
$$;
comment on function libsql_sync.has_work() is
  'Whether a sync would do something: changes are queued, a batch is not settled, the replica does not follow or is not walked, a walk was asked for. Also true 15 minutes after the last claim, to find a replica that lost its latest commits.';

-- The worker answers within its budget of 8 s and its last step. The body goes out as its
-- text, which is signed.
create or replace function libsql_sync.call_worker()
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  url text;
  secret text;
  body constant jsonb := '{}';
begin
  url := public.get_libsql_sync_url();
  secret := public.get_libsql_webhook_signature();
  if coalesce(url, '') = '' or coalesce(secret, '') = '' then
    raise exception 'Cannot call the worker: expected the Vault secrets libsql_sync_url and libsql_webhook_signature, found %',
      case when coalesce(url, '') = '' and coalesce(secret, '') = '' then 'neither'
        when coalesce(url, '') = '' then 'no libsql_sync_url' else 'no libsql_webhook_signature' end
      using hint = 'select vault.create_secret(''<value>'', ''<name>'')';
  end if;
  return net.http_post(
    url := url,
    body := body,
    headers := jsonb_build_object('Content-Type', 'application/json',
      'x-webhook-signature', libsql_sync.sign(secret, url, body::text)),
    timeout_milliseconds := 15000
  );
end
$$;
comment on function libsql_sync.call_worker() is
  'Calls the worker once. Returns pg_net''s request id.';

create or replace function public.process_libsql_replication_batch()
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  -- At once, as an error below would take it back: the next call finds work.
  if libsql_sync.cap_queue() then
    return null;
  end if;
  perform libsql_sync.tidy();
  if not libsql_sync.has_work() then
    return null;
  end if;
  return libsql_sync.call_worker();
end
$$;
comment on function public.process_libsql_replication_batch() is
  'What the cron job runs every 5 minutes: keeps the source small, and calls the worker if there is something to do. Returns pg_net''s request id, or null.';

-- supabase/sql/71_realtime.sql

-- Realtime: a second cron job looks all the time, so that changes arrive within a second.
-- No writer does anything more for it, and none waits.

-- It writes only when it calls, and once after. A call is over when the chain has moved
-- since, or nothing remains to be done. One that had no effect (pg_net or the worker is
-- slow, or fails) is repeated after 5 seconds, then after twice that, up to 5 minutes.
create or replace function libsql_sync.watch(closely boolean default true)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
-- The queue's index leads to what lives in it, past what is dead.
set enable_seqscan = off
as $$
declare
  c libsql_sync.chain;
  place text;
  is_queued boolean;
begin
  select * into c from libsql_sync.chain where id = 1;
  -- What comes during a sync is seen when it has ended.
  if not c.realtime or c.lease_until > clock_timestamp() then
    return c.realtime;
  end if;
  place := c.epoch || ' ' || c.position;
  is_queued := not c.paused and exists (select from pgmq.q_replicate_data_libsql m where m.msg_id >= c.floor);
  if not is_queued and not (closely and libsql_sync.has_work()) then
    if closely and c.wake_place is not null then
      update libsql_sync.chain set wake_place = null, wake_misses = 0
      where id = (select h.id from libsql_sync.chain h where h.id = 1 for update skip locked);
    end if;
  elsif place is distinct from c.wake_place
    or clock_timestamp() > c.wake_at + least(interval '5 seconds' * 2 ^ c.wake_misses, interval '5 minutes')
  then
    update libsql_sync.chain set wake_at = clock_timestamp(), wake_place = place,
      wake_misses = case when place is distinct from c.wake_place then 0 else least(c.wake_misses + 1, 6) end
    where id = (select h.id from libsql_sync.chain h where h.id = 1 for update skip locked);
    if found then
      begin
        perform libsql_sync.call_worker();
      exception when others then
        -- The cron job reports it, every 5 minutes.
        null;
      end;
    end if;
  end if;
  return true;
end
$$;
comment on function libsql_sync.watch(boolean) is
  'One look of realtime: calls the worker if there is something to do and no sync is running or called. "closely" looks for more than queued changes, at ten times the cost. Returns whether to look again.';

-- The cron job looks every 50 ms whether something is queued, and every second whether
-- there is anything else to do, and calls the worker once however many writes there are.
-- A run ends after 55 seconds, and the next one starts within a second or two.
create or replace function libsql_sync.realtime(enabled boolean)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  job record;
begin
  if enabled is null then
    raise exception 'Cannot turn realtime on or off: expected true or false, found null';
  end if;
  if enabled and to_regprocedure('cron.schedule(text,text,text)') is null then
    raise exception 'Cannot turn realtime on: expected pg_cron, found none'
      using hint = 'create extension pg_cron; (or enable it on the dashboard)';
  end if;
  update libsql_sync.chain set realtime = enabled, wake_place = null, wake_misses = 0 where id = 1;
  if enabled then
    -- Each look is a transaction: what it asks of pg_net goes out with its COMMIT.
    perform cron.schedule('libsql_sync_realtime', '1 seconds', $job$do $do$
declare
  ends constant timestamptz := pg_catalog.clock_timestamp() + interval '55 seconds';
  looks integer := 0;
begin
  while libsql_sync.watch(looks % 20 = 0) and pg_catalog.clock_timestamp() < ends loop
    commit;
    looks := looks + 1;
    perform pg_catalog.pg_sleep(0.05);
  end loop;
end
$do$
$job$);
  elsif to_regclass('cron.job') is not null then
    for job in
      select j.jobid from cron.job j
      where j.jobname = 'libsql_sync_realtime' and j.database = current_database()
    loop
      perform cron.unschedule(job.jobid::bigint);
    end loop;
  end if;
  return enabled;
end
$$;
comment on function libsql_sync.realtime(boolean) is
  'Turns realtime on (changes arrive well within a second) or off (every 5 minutes). On, it costs one connection and 20 looks into an index a second; an idle worker is not called. Returns whether it is on.';

-- supabase/sql/90_finish.sql

-- The end of the migration: functions that an older version had are dropped, the
-- schema.json of this project is put in force, and the cron job is scheduled.

-- Over an older version: functions that are not in these files any more are dropped.
-- What was made in this transaction stays. If a tool runs statement by statement,
-- nothing is dropped.
do $$
declare
  routine regprocedure;
begin
  if not exists (
    select from pg_proc where oid = 'libsql_sync.lock_down()'::regprocedure
      and xmin = pg_current_xact_id()::xid
  ) then
    return;
  end if;
  for routine in
    select oid from pg_proc
    where pronamespace = 'libsql_sync'::regnamespace and xmin <> pg_current_xact_id()::xid
      -- The trigger functions are attach()'s.
      and prorettype <> 'trigger'::regtype
  loop
    execute format('drop function %s', routine);
  end loop;
end
$$;

-- schema.json begins
select libsql_sync.configure('c6ed9492599c8f3e56dc946d92a0245b', $schema${"tables":[{"name":"app_versions","key":["id"],"columns":[{"name":"app_id","type":"TEXT"},{"name":"checksum","type":"TEXT"},{"name":"deleted","type":"BOOLEAN"},{"name":"external_url","type":"TEXT"},{"name":"id","type":"INTEGER"},{"name":"min_update_version","type":"TEXT"},{"name":"name","type":"TEXT"},{"name":"owner_org","type":"TEXT"},{"name":"r2_path","type":"TEXT"},{"name":"session_key","type":"TEXT"},{"name":"storage_provider","type":"TEXT"},{"name":"user_id","type":"TEXT"}],"indexes":[["app_id"],["external_url"],["name"],["owner_org"],["r2_path"],["user_id"]]},{"name":"apps","key":["id"],"columns":[{"name":"app_id","type":"TEXT"},{"name":"default_upload_channel","type":"TEXT"},{"name":"icon_url","type":"TEXT"},{"name":"id","type":"TEXT"},{"name":"last_version","type":"TEXT"},{"name":"name","type":"TEXT"},{"name":"owner_org","type":"TEXT"},{"name":"retention","type":"INTEGER"},{"name":"transfer_history","type":"JSON"},{"name":"user_id","type":"TEXT"}],"indexes":[["app_id"],["name"],["owner_org"],["user_id"]]},{"name":"channel_devices","key":["id"],"columns":[{"name":"app_id","type":"TEXT"},{"name":"channel_id","type":"INTEGER"},{"name":"device_id","type":"TEXT"},{"name":"id","type":"INTEGER"},{"name":"owner_org","type":"TEXT"}],"indexes":[["app_id"],["channel_id"],["device_id"],["owner_org"]]},{"name":"channels","key":["id"],"columns":[{"name":"allow_dev","type":"BOOLEAN"},{"name":"allow_device_self_set","type":"BOOLEAN"},{"name":"allow_emulator","type":"BOOLEAN"},{"name":"android","type":"BOOLEAN"},{"name":"app_id","type":"TEXT"},{"name":"created_by","type":"TEXT"},{"name":"disable_auto_update","type":"TEXT"},{"name":"disable_auto_update_under_native","type":"BOOLEAN"},{"name":"id","type":"INTEGER"},{"name":"ios","type":"BOOLEAN"},{"name":"name","type":"TEXT"},{"name":"owner_org","type":"TEXT"},{"name":"public","type":"BOOLEAN"},{"name":"version","type":"INTEGER"}],"indexes":[["app_id"],["app_id","name"],["created_by"],["name"],["owner_org"],["public","app_id"],["public","app_id","android"],["public","app_id","ios"],["version"]]},{"name":"manifest","key":["id"],"columns":[{"name":"app_version_id","type":"INTEGER"},{"name":"file_hash","type":"TEXT"},{"name":"file_name","type":"TEXT"},{"name":"id","type":"INTEGER"},{"name":"s3_path","type":"TEXT"}],"indexes":[["app_version_id"]]},{"name":"orgs","key":["id"],"columns":[{"name":"created_by","type":"TEXT"},{"name":"customer_id","type":"TEXT"},{"name":"id","type":"TEXT"},{"name":"logo","type":"TEXT"},{"name":"management_email","type":"TEXT"},{"name":"name","type":"TEXT"}],"indexes":[["created_by"],["customer_id"],["name"]]},{"name":"stripe_info","key":["id"],"columns":[{"name":"bandwidth_exceeded","type":"BOOLEAN"},{"name":"customer_id","type":"TEXT"},{"name":"id","type":"INTEGER"},{"name":"is_good_plan","type":"BOOLEAN"},{"name":"mau_exceeded","type":"BOOLEAN"},{"name":"status","type":"TEXT"},{"name":"storage_exceeded","type":"BOOLEAN"},{"name":"trial_at","type":"TEXT"}],"indexes":[["customer_id"],["mau_exceeded","storage_exceeded","bandwidth_exceeded"],["status","is_good_plan"],["trial_at"]]}]}$schema$);
-- schema.json ends

do $$
declare
  extension text;
begin
  foreach extension in array array['pg_net', 'pg_cron'] loop
    if exists (select from pg_available_extensions where name = extension) then
      execute format('create extension if not exists %I', extension);
    end if;
  end loop;
  if to_regprocedure('cron.schedule(text,text,text)') is null then
    raise notice 'pg_cron is not here: call select public.process_libsql_replication_batch() every 5 minutes by other means';
  else
    perform cron.schedule('process_libsql_replication', '*/5 * * * *',
      'select public.process_libsql_replication_batch()');
    if (select realtime from libsql_sync.chain) then
      perform libsql_sync.realtime(true);
    end if;
  end if;
end
$$;

reset search_path;

-- The release, for operators: \dn+ in psql, or
-- select obj_description('libsql_sync'::regnamespace, 'pg_namespace')
comment on schema libsql_sync is 'LibSQL Sync Worker 0.1.0';
