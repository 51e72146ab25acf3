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
