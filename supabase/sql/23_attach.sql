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
