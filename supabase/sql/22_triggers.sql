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
