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
