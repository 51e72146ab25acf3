-- Every schema.json ever installed; the newest generation is the one in force.
create table if not exists libsql_sync.schemas (
  generation bigint generated always as identity primary key,
  hash text not null unique,
  spec jsonb not null
);

-- The tables of the schema in force.
create table if not exists libsql_sync.tables (
  name text primary key,
  key text[] not null,
  columns jsonb not null
);

-- Every epoch, the newest last: what came before ours is an ancestor.
create table if not exists libsql_sync.epochs (
  generation bigint generated always as identity primary key,
  epoch text not null unique,
  wipe boolean not null,
  reason text not null,
  begun_at timestamptz not null default clock_timestamp()
);

-- One row: where the chain stands. Its row lock serialises every move. "seen" is
-- the replica's row as the last claim showed it.
create table if not exists libsql_sync.chain (
  id integer primary key default 1 check (id = 1),
  epoch text not null references libsql_sync.epochs (epoch),
  position bigint not null default 0,
  batch text not null,
  lease text,
  lease_until timestamptz,
  replay_window interval not null default '1 hour'
);

-- What each position contains. A pending position may have several versions.
create table if not exists libsql_sync.batches (
  epoch text not null,
  position bigint not null,
  batch text not null,
  prev text not null,
  version integer not null,
  msg_ids int8multirange not null,
  messages integer not null,
  drained boolean not null,
  snapshot text not null,
  source_time timestamptz not null,
  dead_letters integer not null,
  parked jsonb not null default '[]',
  state text not null default 'pending' check (state in ('pending', 'acked', 'trimmed')),
  acked_at timestamptz,
  primary key (epoch, position, batch)
);
create index if not exists batches_acked on libsql_sync.batches (acked_at) where state = 'acked';

-- Walks that were asked for. How far one is lies in the replica's row alone, so
-- that what a replica loses, it walks again.
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
  found jsonb not null default '{}'
);
alter table libsql_sync.chain
  add column if not exists seen jsonb,
  add column if not exists seen_at timestamptz,
  add column if not exists scrub_rows integer not null default 1000,
  add column if not exists refill boolean not null default true,
  add column if not exists reopen boolean not null default false,
  add column if not exists paused boolean not null default false,
  add column if not exists queue_mb_max integer default 1024,
  add column if not exists cron_run bigint not null default 0,
  -- No message below the floor is in the queue, or can appear there.
  add column if not exists floor bigint not null default 0,
  add column if not exists floor_next bigint,
  add column if not exists floor_awaits text[],
  add column if not exists floor_queue oid,
  -- Up to this position walks closed dead letters: who lost it walks again.
  add column if not exists letters_closed bigint not null default 0,
  -- Realtime: whether it is on, and the last call of the worker that nothing came
  -- of yet: when, where the chain stood, and how many before it in a row.
  add column if not exists realtime boolean not null default false,
  add column if not exists wake_at timestamptz,
  add column if not exists wake_place text,
  add column if not exists wake_misses integer not null default 0,
  add column if not exists scrubbed_at timestamptz,
  add column if not exists ticked_at timestamptz;
alter table libsql_sync.batches
  add column if not exists reopen boolean not null default false,
  -- Handed out while the one before it was pending: it is acked, never issued again.
  add column if not exists ahead boolean not null default false;
-- Dead letters up to this id were filed before the walk was asked for.
alter table libsql_sync.walks
  add column if not exists letters_until bigint not null default 0;

-- What syncs did, for status alone. Each table is a ring of fixed size: a row is
-- written over when its turn comes, so that nothing grows and nothing is trimmed.
alter table libsql_sync.chain
  -- How long the oldest change had waited when the last sync began.
  add column if not exists lag_ms bigint not null default 0,
  add column if not exists totals jsonb not null default '{}',
  -- What the alert webhook was told last.
  add column if not exists alerted jsonb not null default '{}';
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
create table if not exists libsql_sync.minutes (
  slot integer primary key,
  minute bigint not null,
  syncs integer not null,
  failed integer not null,
  processed bigint not null,
  lag_ms bigint not null
);
-- By table: rows that changes wrote or removed, differences that walks found,
-- whether some of them may be left, and when the last walk was through.
create table if not exists libsql_sync.counts (
  table_name text primary key,
  applied bigint not null default 0,
  drift bigint not null default 0,
  drifted boolean not null default false,
  verified_at timestamptz
);

-- Only where it is off: the lock waits for every open transaction that wrote to
-- the queue, and every writer waits behind it.
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

-- These run in the trigger, with its owner's rights and in any writer's session.
-- Under search_path = '' types are looked up in pg_temp first: a writer's own
-- type "text", with a function of the writer's in its check, would run. So
-- pg_temp is named, and last.
