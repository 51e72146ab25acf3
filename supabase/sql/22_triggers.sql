-- The text of the trigger function, put together from 21_capture. Still the first step of
-- the data's way: the function runs in each writer's transaction, with its owner's rights.

-- One static branch per table and kind of statement: EXECUTE per call costs half of a
-- small statement's time, and PL/pgSQL plans a branch only when it runs.
create or replace function libsql_sync.branches()
returns table (relation oid, table_name text, operation text, branch text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select r.oid, t.name, o.operation, format(
$branch$        if tg_op = %L then
          perform from %s limit 2;
          get diagnostics touched = row_count;
          if touched = 1 and current_setting('transaction_isolation') = 'read committed' then
%s          end if;
          if touched > 1 or touched = 1 and message is null and not unchanged then
            messages := array(%s);
          end if;
        end if;
$branch$, o.operation, o.transition,
    libsql_sync.one_row_sql(r.oid, t.name, o.operation), libsql_sync.capture_sql(r.oid, t.name, o.operation))
  from libsql_sync.tables t
  cross join lateral to_regclass(format('public.%I', t.name)) r (oid)
  -- An UPDATE's new row may be missing, where a trigger kept it from a partition.
  cross join (values ('INSERT', 'new_rows'), ('UPDATE', 'old_rows'), ('DELETE', 'old_rows')) o (operation, transition)
  where r.oid is not null
$$;
comment on function libsql_sync.branches() is
  'The branches of the trigger function, one for each listed table that exists and each kind of statement.';

create or replace function libsql_sync.trigger_sql()
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  branches text := (
    select coalesce(string_agg(t.branches, '' order by t.table_name), '')
    from (
      select b.table_name, format(E'      elsif tg_argv[0] = %L then\n', b.table_name)
        || string_agg(b.branch, '' order by b.operation) as branches
      from libsql_sync.branches() b group by b.table_name
    ) t);
begin
  return $body$
-- Written by libsql_sync.attach(): do not edit.
declare
  touched integer;
  old_row record;
  new_row record;
  live_row record;
  found_live boolean;
  unchanged boolean := false;
  names text[];
  field text := 'updates';
  cells text[];
  message jsonb;
  messages jsonb[];
  ours oid;
  listed oid;
begin
  if tg_op = 'TRUNCATE' then
    ours := coalesce(pg_partition_root(tg_relid), tg_relid);
    -- Another table may bear the name now: what this one loses is not its.
    listed := coalesce(to_regclass(format('public.%I', tg_argv[0])), ours);
  end if;
  if listed <> ours then
    return null;
  elsif tg_op = 'TRUNCATE' and tg_when = 'AFTER' and listed <> tg_relid then
    -- It became a partition since attach(): what was in it is not known any more.
    messages := array[jsonb_build_object('v', 1, 'table', tg_argv[0], 'failed', '55000')];
  elsif tg_op = 'TRUNCATE' and tg_when = 'AFTER' then
    messages := array[jsonb_build_object('v', 1, 'table', tg_argv[0], 'truncate', true)];
  else
    -- Rendering alone stands in the block: a write in it would burn a
    -- transaction id per statement.
    begin
      if tg_op = 'TRUNCATE' then
        execute 'select array(' || libsql_sync.truncate_sql(tg_relid, tg_argv[0]) || ')' into strict messages;
$body$ || branches || $body$      else
        raise exception 'no branch';
      end if;
    exception when others then
      -- A lost race is the transaction's to retry.
      if sqlstate like '40%' then raise; end if;
      -- The table changed since attach(), a column renamed or dropped: what is
      -- still there is sent, and the user's write never fails.
      begin
        execute 'select array(' || case tg_op
          when 'TRUNCATE' then libsql_sync.truncate_sql(tg_relid, tg_argv[0])
          else libsql_sync.capture_sql(
            coalesce(to_regclass(format('public.%I', tg_argv[0])),
              pg_partition_root(tg_relid), tg_relid), tg_argv[0], tg_op)
        end || ')' into strict messages;
      exception when others then
        if sqlstate like '40%' then raise; end if;
        messages := array[jsonb_build_object('v', 1, 'table', tg_argv[0], 'failed', sqlstate)];
      end;
    end;
  end if;
  if messages is not null then
    insert into pgmq.q_replicate_data_libsql (vt, message)
    select now(), m from unnest(messages) m;
  elsif message is not null then
    insert into pgmq.q_replicate_data_libsql (vt, message) values (now(), message);
  end if;
  return null;
end
$body$;
end
$$;
comment on function libsql_sync.trigger_sql() is
  'The body of the trigger function as the tables are today.';

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
  'The name of a table''s trigger, inside PostgreSQLs 63 bytes. In: the table''s name, and a suffix such as _update.';
