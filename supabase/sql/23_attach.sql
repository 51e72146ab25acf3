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

-- The second step of attach().
create or replace function libsql_sync.make_trigger_function()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  body constant text := libsql_sync.trigger_sql();
  handler constant oid := to_regprocedure('public.trigger_http_queue_post_to_function_libsql()');
  previous constant text := (select p.prosrc from pg_proc p where p.oid = handler);
  listed record;
begin
  -- What a writer sent by the old text lacks a column that is listed now, and may be
  -- committed after everything was walked: so the writer ends first, then all is walked.
  for listed in
    select b.relation from libsql_sync.branches() b
    where strpos(previous, b.branch) = 0 group by b.relation, b.table_name order by b.table_name
  loop
    begin
      execute format('lock table %s in share row exclusive mode', listed.relation::regclass);
    exception when lock_not_available then
      perform libsql_sync.locked_elsewhere(listed.relation);
    end;
    update libsql_sync.chain set reopen = true where id = 1 and not reopen;
  end loop;
  if handler is null or body is distinct from previous then
    -- Definer: the writing user may neither read the queue nor write to it.
    execute format(
      'create or replace function public.trigger_http_queue_post_to_function_libsql() returns trigger'
      || ' language plpgsql security definer'
      || ' set search_path = pg_catalog, pg_temp set row_security = off'
      || ' set timezone = ''UTC'' set datestyle = ''ISO, YMD'' set intervalstyle = ''postgres'''
      || ' set bytea_output = ''hex'' set extra_float_digits = 1 set lc_monetary = ''C'''
      || ' set quote_all_identifiers = off'
      -- A plan is kept while a table grows from one page to millions. Transition
      -- tables come without statistics: a merge would sort them, a memo remember
      -- keys that come once.
      || ' set enable_seqscan = off set enable_mergejoin = off set enable_memoize = off'
      || ' as %L', body);
    comment on function public.trigger_http_queue_post_to_function_libsql() is
      'The trigger function of every listed table: queues the rows that a statement has changed. Written by libsql_sync.attach().';
  end if;
end
$$;
comment on function libsql_sync.make_trigger_function() is
  'Makes the trigger function, or makes it anew if what it sends has changed: then each table concerned is locked first, and walked later.';

-- The third step of attach(). A statement fires the triggers of the one table it
-- names: so every partition of a partitioned table gets them as well.
create or replace function libsql_sync.make_triggers()
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  handler constant oid := to_regprocedure('public.trigger_http_queue_post_to_function_libsql()');
  wanted record;
  made integer := 0;
begin
  for wanted in
    select f.relation, t.name as table_name, libsql_sync.trigger_name(t.name, e.suffix) as name,
      e.fires, e.transition, e.type
    from libsql_sync.tables t
    cross join lateral to_regclass(format('public.%I', t.name)) r (oid)
    cross join lateral (
      select r.oid as relation, false as is_partition where r.oid is not null
      union all
      select p.relid, true from pg_partition_tree(r.oid) p where p.relid <> r.oid
    ) f
    cross join lateral (values
      ('', 'after insert', 'referencing new table as new_rows', 4),
      ('_update', 'after update', 'referencing old table as old_rows new table as new_rows', 16),
      ('_delete', 'after delete', 'referencing old table as old_rows', 8),
      -- Truncating one partition is not a truncate of the table: its keys are read before.
      ('_truncate', case when f.is_partition then 'before truncate' else 'after truncate' end, '',
        case when f.is_partition then 34 else 32 end)
    ) e (suffix, fires, transition, type)
  loop
    if not exists (
      select from pg_trigger g
      where g.tgrelid = wanted.relation and g.tgname = wanted.name and g.tgfoid = handler
        and g.tgtype = wanted.type and g.tgenabled in ('O', 'A')
        and g.tgargs = convert_to(wanted.table_name, 'UTF8') || '\x00'::bytea
    ) then
      begin
        execute format(
          'create or replace trigger %I %s on %s %s for each statement execute function public.trigger_http_queue_post_to_function_libsql(%L)',
          wanted.name, wanted.fires, wanted.relation::regclass, wanted.transition, wanted.table_name);
        execute format('alter table %s enable trigger %I', wanted.relation::regclass, wanted.name);
      exception when lock_not_available then
        perform libsql_sync.locked_elsewhere(wanted.relation);
      end;
      made := made + 1;
      -- Until now its writes bypassed the queue. So also before the replica was ever
      -- seen: the queue may hold rows that are gone.
      update libsql_sync.chain set reopen = true where id = 1 and not reopen;
    end if;
  end loop;
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
  handler constant oid := to_regprocedure('public.trigger_http_queue_post_to_function_libsql()');
  stale record;
begin
  for stale in
    select g.tgrelid::regclass as relation, g.tgname as name
    from pg_trigger g
    where g.tgfoid = handler and not exists (
      select from libsql_sync.tables t
      cross join lateral to_regclass(format('public.%I', t.name)) r (oid)
      where g.tgargs = convert_to(t.name, 'UTF8') || '\x00'::bytea
        -- A table that was renamed is followed until another one has the name.
        and (r.oid is null or g.tgrelid = r.oid
          or g.tgrelid in (select p.relid from pg_partition_tree(r.oid) p))
    )
  loop
    execute format('drop trigger %I on %s', stale.name, stale.relation);
    -- A partition that was detached took its rows along.
    update libsql_sync.chain set reopen = true where id = 1 and not reopen;
  end loop;
end
$$;
comment on function libsql_sync.drop_stale_triggers() is
  'Drops our triggers from tables that are not listed any more, and from detached partitions.';

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
  perform libsql_sync.make_trigger_function();
  perform libsql_sync.lock_down();
  made := libsql_sync.make_triggers();
  perform libsql_sync.drop_stale_triggers();
  return made;
end
$$;
comment on function libsql_sync.attach() is
  'Puts the triggers on every listed table that exists, and takes them from others. What is as it should be is not touched or locked. Returns how many triggers were made.';
