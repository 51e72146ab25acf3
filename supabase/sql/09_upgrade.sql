-- What tables of an older release lack. A fresh install has no such table yet, and
-- makes all of it in 10_tables.

-- Since 0.1.0: changes that capture could not queue.
alter table if exists libsql_sync.chain
  add column if not exists unqueued bigint not null default 0,
  add column if not exists unqueued_until xid8;
