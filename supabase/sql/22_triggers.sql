-- The trigger functions: one for each listed table and kind of statement, made of the
-- texts of 21_capture, and one for TRUNCATE of every table. The first step of the data's
-- way: they run in each writer's transaction, with their owner's rights.

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

-- A queue that was restored without its sequence draws numbers that it holds. All
-- messages of the statement go in again, in order: those that are there twice change
-- nothing.
create or replace function libsql_sync.queue_again(messages jsonb[])
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
      select now(), m from unnest(messages) m
      on conflict do nothing;
      get diagnostics queued = row_count;
      exit when queued = cardinality(messages);
    end loop;
  end if;
  return queued;
end
$$;
comment on function libsql_sync.queue_again(jsonb[]) is
  'Queues the messages of a statement when some of the queue''s next numbers are taken. Returns how many went in.';

-- The user's write never fails because of it. The rendering stands in a block that
-- falls back to a query made anew: the table may have changed since attach(). The queue
-- is looked for before it is written to, and no such block stands around the INSERT,
-- as it would burn a transaction id per statement. Messages that cannot be queued are
-- counted by a sequence, which no writer waits for and which grows nothing: the claim
-- opens the walk when the count has changed.
create or replace function libsql_sync.trigger_body(variables text, rendering text)
returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $outer$
  select format($body$
-- Written by libsql_sync.attach(): do not edit.
declare
%s  messages jsonb[];
  queue oid;
  queued integer := 0;
begin
  begin
%s  exception when others then
    -- A lost race is the transaction's to retry.
    if sqlstate like '40%%' then raise; end if;
    begin
      execute 'select array(' || case tg_op
        when 'TRUNCATE' then libsql_sync.truncate_sql(tg_relid, tg_argv[0])
        else libsql_sync.capture_sql(
          coalesce(to_regclass(format('public.%%I', tg_argv[0])), pg_partition_root(tg_relid), tg_relid),
          tg_argv[0], tg_op)
      end || ')' into strict messages;
    exception when others then
      if sqlstate like '40%%' then raise; end if;
      messages := array[jsonb_build_object('v', 1, 'table', tg_argv[0], 'failed', sqlstate)];
    end;
  end;
  if cardinality(messages) > 0 then
    if has_schema_privilege(to_regnamespace('pgmq'), 'usage') then
      queue := to_regclass('pgmq.q_replicate_data_libsql');
    end if;
    if has_table_privilege(queue, 'insert') and not row_security_active(queue) then
      insert into pgmq.q_replicate_data_libsql (vt, message)
      select now(), m from unnest(messages) m
      on conflict do nothing;
      get diagnostics queued = row_count;
      if queued < cardinality(messages) then
        queued := libsql_sync.queue_again(messages);
      end if;
    end if;
    if queued < cardinality(messages) then
      perform nextval('libsql_sync.unqueued');
    end if;
  end if;
  return null;
end
$body$, variables, rendering)
$outer$;
comment on function libsql_sync.trigger_body(text, text) is
  'The body of a trigger function. In: its variables, and the code that renders the messages of a statement.';

create or replace function libsql_sync.truncate_function()
returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
  select libsql_sync.trigger_body(
$variables$  ours oid := coalesce(pg_partition_root(tg_relid), tg_relid);
  -- Another table may have the name now: what this one loses is not lost there.
  listed oid := coalesce(to_regclass(format('public.%I', tg_argv[0])), ours);
$variables$,
$rendering$    if tg_op <> 'TRUNCATE' then
      raise exception 'not a TRUNCATE';
    elsif listed <> ours then
      return null;
    elsif tg_when = 'AFTER' and listed <> tg_relid then
      -- It became a partition since attach(): what it held is not known any more.
      messages := array[jsonb_build_object('v', 1, 'table', tg_argv[0], 'failed', '55000')];
    elsif tg_when = 'AFTER' then
      messages := array[jsonb_build_object('v', 1, 'table', tg_argv[0], 'truncate', true)];
    else
      execute 'select array(' || libsql_sync.truncate_sql(tg_relid, tg_argv[0]) || ')' into strict messages;
    end if;
$rendering$)
$$;
comment on function libsql_sync.truncate_function() is
  'The body of the function that queues what rows cannot say: a TRUNCATE of any listed table.';

create or replace function libsql_sync.captured()
returns table (operation text, suffix text, fires text, referencing text, counted text, type integer)
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
  values
    ('INSERT', '', 'after insert', 'referencing new table as new_rows', 'new_rows', 4),
    -- An UPDATE's new row may be missing: a trigger may have kept it from a partition.
    ('UPDATE', '_update', 'after update', 'referencing old table as old_rows new table as new_rows', 'old_rows', 16),
    ('DELETE', '_delete', 'after delete', 'referencing old table as old_rows', 'old_rows', 8)
$$;
comment on function libsql_sync.captured() is
  'The kinds of statements for which each table has a function of its own, and their triggers.';

-- One function for each table and kind of statement. PL/pgSQL compiles a function once for each trigger that runs it: were it
-- one function for all tables, each trigger would cost a session the code of all.
create or replace function libsql_sync.capture_functions(table_name text)
returns table (relation oid, operation text, name text, body text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select r.oid, o.operation, libsql_sync.trigger_name(t.name, o.suffix), libsql_sync.trigger_body(
$variables$  touched integer;
  old_row record;
  new_row record;
  live_row record;
  found_live boolean;
  unchanged boolean := false;
  names text[];
  field text := 'updates';
  cells text[];
  message jsonb;
$variables$, format(
$rendering$    perform from %s limit 2;
    get diagnostics touched = row_count;
    if touched = 1 and current_setting('transaction_isolation') = 'read committed' then
%s    end if;
    if message is not null then
      messages := array[message];
    elsif touched > 0 and not unchanged then
      messages := array(%s);
    end if;
$rendering$, o.counted, libsql_sync.one_row_sql(r.oid, t.name, o.operation), libsql_sync.capture_sql(r.oid, t.name, o.operation)))
  from libsql_sync.tables t
  cross join lateral to_regclass(format('public.%I', t.name)) r (oid)
  cross join libsql_sync.captured() o
  where t.name = capture_functions.table_name and r.oid is not null
$$;
comment on function libsql_sync.capture_functions(text) is
  'The functions that capture the rows of a listed table, as the table is today. In: the table''s name.';

create or replace function libsql_sync.stale_functions()
returns table (relation oid, name text, body text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select f.* from (
    select null::oid, 'public.trigger_http_queue_post_to_function_libsql', libsql_sync.truncate_function()
    union all
    select c.relation, format('libsql_sync.%I', c.name), c.body
    from libsql_sync.tables t cross join lateral libsql_sync.capture_functions(t.name) c
  ) f (relation, name, body)
  where f.body is distinct from (select p.prosrc from pg_proc p where p.oid = to_regprocedure(f.name || '()'))
$$;
comment on function libsql_sync.stale_functions() is
  'The trigger functions that are missing, or whose body is not what it would be today. The one for TRUNCATE belongs to no table.';

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
  cross join lateral (
    select o.suffix, o.fires, o.referencing, o.type, null as function from libsql_sync.captured() o
    union all
    -- TRUNCATE of one partition is not one of the table: its keys are read before.
    select '_truncate', case when f.is_partition then 'before truncate' else 'after truncate' end, '',
      case when f.is_partition then 34 else 32 end, 'public.trigger_http_queue_post_to_function_libsql'
  ) e
$$;
comment on function libsql_sync.wanted_triggers() is
  'The triggers that each listed table and each of its partitions should have: a statement fires the triggers of the one table it names.';

create or replace function libsql_sync.is_ours(routine oid)
returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select from pg_proc p
    where p.oid = routine and p.prorettype = 'trigger'::regtype and (
      p.pronamespace = 'libsql_sync'::regnamespace
      or p.pronamespace = 'public'::regnamespace and p.proname = 'trigger_http_queue_post_to_function_libsql'))
$$;
comment on function libsql_sync.is_ours(oid) is
  'Whether a function is one that our triggers run.';
