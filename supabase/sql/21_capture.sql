-- Capture: what a statement that wrote to a listed table sends to the queue. These
-- functions generate the SQL of the trigger function (22_triggers), once per table and
-- kind of statement, when attach() runs. First step of the data's way.

-- The row that is sent is the one in the table NOW, not the transition image: that would
-- be wrong where a user's trigger changed the row again, as the inner statement's message
-- comes first.
--
-- Of a row that keeps its key, an UPDATE sends what it changed: every column comes with
-- each statement that changes it, as the whole row does with each that makes it, so what
-- is sent last is what is there. What a trigger updates it sends whole: it sees what the
-- statement around it did, which sends that later.
create or replace function libsql_sync.capture_sql(relation oid, table_name text, operation text)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  key_columns text[] := (select t.key from libsql_sync.tables t where t.name = table_name);
  columns text[];
  cells text;
  live_columns text;
  differing text;
  any_differs text;
  sent_differing text;
  sent_columns text;
  sent_cells text;
  live_key text;
  touched_key text;
  key_names text;
  old_key text;
  new_key text;
  changed_key text;
  changed_old text;
  changed_new text;
  respelled text;
  touched text;
begin
  if libsql_sync.usable_key(relation, key_columns) is null then
    raise exception 'Cannot capture table %: expected a unique, not null key (%), found none',
      table_name, array_to_string(key_columns, ', ')
      using hint = 'Restore the key, or take the table out of schema.json.';
  end if;

  select
    array_agg(c.name),
    string_agg(c.cell, ', '),
    string_agg('t.' || c.quoted, ', '),
    string_agg(format('%s as d%s', c.differs, c.n), ', '),
    string_agg(c.differs, ' or '),
    string_agg(format('bool_or(x.d%s) as d%1$s', c.n), ', '),
    coalesce(string_agg(format(
      ' || case when s.d%s then array[%L] else ''{}'' end', c.n, c.name), '') filter (where not c.is_key), ''),
    coalesce(string_agg(format(
      ' || case when s.d%s then array[%s]::text[] else ''{}'' end', c.n, c.cell), '') filter (where not c.is_key), '')
  into columns, cells, live_columns, differing, any_differs, sent_differing, sent_columns, sent_cells
  from (
    select c.name, c.quoted, row_number() over () as n, c.name = any (key_columns) as is_key,
      libsql_sync.cell_sql(c.declared, c.type, 't.' || c.quoted) as cell,
      libsql_sync.differs_sql(c.type, 'o.' || c.quoted, 'n.' || c.quoted) as differs
    from libsql_sync.present_columns(relation, table_name) c
  ) c;

  select
    string_agg(libsql_sync.cell_sql(c.declared, c.type, 't.' || c.quoted), ', ' order by k.n),
    string_agg(libsql_sync.cell_sql(c.declared, c.type, 'k.' || c.quoted), ', ' order by k.n),
    string_agg(c.quoted, ', ' order by k.n),
    string_agg('o.' || c.quoted, ', ' order by k.n),
    string_agg('n.' || c.quoted, ', ' order by k.n),
    string_agg('o.' || c.quoted || ' as o' || k.n || ', n.' || c.quoted || ' as n' || k.n, ', ' order by k.n),
    string_agg('x.o' || k.n, ', ' order by k.n),
    string_agg('x.n' || k.n, ', ' order by k.n),
    -- Bytes count: the key's own collation may call different texts equal. What
    -- equals as a number, 5.00 and 5, is one INTEGER in the replica.
    coalesce(string_agg(format(
      '(%s) collate "C" <> (%s) collate "C"',
      libsql_sync.cell_sql(c.declared, c.type, 't.' || c.quoted),
      libsql_sync.cell_sql(c.declared, c.type, 'k.' || c.quoted)), ' or ' order by k.n)
      filter (where c.declared not in ('INTEGER', 'BOOLEAN')), 'false')
  into live_key, touched_key, key_names, old_key, new_key, changed_key, changed_old, changed_new, respelled
  from libsql_sync.present_columns(relation, table_name) c
  join unnest(key_columns) with ordinality k (name, n) on k.name = c.name;

  touched := case operation
    when 'INSERT' then 'select ' || new_key || ' from new_rows n'
    when 'DELETE' then 'select ' || old_key || ' from old_rows o'
    when 'UPDATE' then 'select c.* from changed x cross join lateral (select ' || changed_new
      || ' where x.n1 is distinct from null union all select ' || changed_old
      || ' where x.o1 is distinct from null and (x.n1 is not distinct from null or x.moved)) c'
  end;

  -- An array of arrays becomes JSON in one pass; jsonb_agg() would take three.
  return 'with '
    -- Rows whose listed columns are the same image send nothing. Not merely
    -- equal: json has no "=", and citext calls different texts equal.
    || case when operation = 'UPDATE' then 'changed as materialized (select ' || changed_key || ', ' || differing
        || ', row(' || old_key || ')::record *<> row(' || new_key || ')::record as moved'
        || ' from old_rows o full join new_rows n on '
        || libsql_sync.key_match_sql(relation, key_columns, 'o', 'n')
        || ' where ' || any_differs || '), '
        || 'sent as materialized (select ' || sent_differing
        || ', bool_or(x.moved) or pg_trigger_depth() > 1 as whole from changed x), '
      else '' end
    || format(
      $sql$live as materialized (
        select array[%s]::text[] as touched_key, t.%I is distinct from null as found,
          array[%s]::text[] as live_key, %s as cells, %s as part, %s as respelled
        from (%s) k (%s)
        left join lateral (select %s from %s t where %s and (
          (select current_setting('transaction_isolation') = 'read committed')
          or %s) offset 0) t on true %s
      ) $sql$,
      -- Lateral with offset 0: the plan is a session's and made for its first
      -- statement. A join made for one of many rows would read the whole table
      -- for every single row that follows.
      -- "is distinct from null": a composite with a null in it is not null.
      touched_key, key_columns[1], live_key,
      -- Under another spelling of its key the row is another one in the replica.
      case when operation = 'UPDATE'
        then format('case when s.whole or (%s) then array[%s]::text[] else array[%s]::text[]%s end',
          respelled, cells, live_key, sent_cells)
        else format('array[%s]::text[]', cells) end,
      case when operation = 'UPDATE' then format('not (s.whole or (%s))', respelled) else 'false' end,
      respelled, touched, key_names, live_columns,
      relation::regclass, libsql_sync.key_match_sql(relation, key_columns, 't', 'k'),
      -- A transaction with one snapshot still sees rows that were deleted since,
      -- under keys that it gave to rows of its own: what is there now is its own.
      -- xmin has the lower 32 bits of an id that is near ours.
      $own$pg_xact_status((
          (select pg_current_xact_id()::text::bigint)
          + (t.xmin::text::bigint - (select pg_current_xact_id()::text::bigint) + 6442450944) % 4294967296 - 2147483648
        )::text::xid8) = 'in progress'$own$,
      case when operation = 'UPDATE' then 'cross join sent s' else '' end)
    || format(
      -- Deletes come first: if an old and a new key are one in the replica, the row stays.
      -- No libSQL row may pass 5,000,000 bytes: such a row sends its key alone.
      $sql$select m.message from (
        select 0 as kind, min(d.n) as n, jsonb_build_object(
          'v', 1, 'table', %1$L::text, 'key', %2$L::jsonb,
          'deletes', array_agg(d.touched_key)) as message
        from (
          select l.touched_key, row_number() over () as n
          from live l where not l.found or l.respelled
        ) d group by (d.n - 1) / 1000
        union all
        select 1, min(r.n), jsonb_build_object(
          'v', 1, 'table', %1$L::text, 'columns', %3$s,
          case when r.part then 'updates' else 'rows' end, array_agg(r.cells))
        from (
          select l.cells, l.part, row_number() over () as n,
            sum(pg_column_size(l.cells)) over (rows unbounded preceding) as bytes
          from live l where l.found and pg_column_size(l.cells) <= 5000000
        ) r group by r.part, (r.n - 1) / 1000, r.bytes / 262144
        union all
        select 2, 0, jsonb_build_object(
          'v', 1, 'table', %1$L::text, 'key', %2$L::jsonb,
          'oversize', jsonb_build_array(to_jsonb(l.live_key)))
        from live l where l.found and pg_column_size(l.cells) > 5000000
      ) m order by m.kind, m.n$sql$,
      table_name, to_jsonb(key_columns),
      case when operation = 'UPDATE'
        then format('case when r.part then (select to_jsonb(%L::text[]%s) from sent s) else %L::jsonb end',
          key_columns, sent_columns, to_jsonb(columns))
        else format('%L::jsonb', to_jsonb(columns)) end);
end
$$;
comment on function libsql_sync.capture_sql(oid, text, text) is
  'The query whose rows are the messages of one statement: for every key that it touched, old and new, the row that is in the table now, or a delete. In: the table, its name in schema.json, INSERT, UPDATE or DELETE.';

-- The most frequent statement touches one row. It leaves no message if the key changed,
-- or the row is not there as the statement left it: then capture_sql() answers. So it
-- does if one snapshot may see two rows of a key.
create or replace function libsql_sync.one_row_sql(relation oid, table_name text, operation text)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select case operation
    when 'DELETE' then format(
$sql$            select * into old_row from old_rows;
            perform from %s l where %s;
            if not found then
              message := jsonb_build_object('v', 1, 'table', %L, 'key', %L::jsonb,
                'deletes', jsonb_build_array(jsonb_build_array(%s)));
            end if;
$sql$,
      relation::regclass, libsql_sync.key_match_sql(relation, t.key, 'l', 'old_row'),
      t.name, to_jsonb(t.key), k.cells)
    when 'UPDATE' then format(
$sql$            select * into old_row from old_rows;
            select * into new_row from new_rows;
            if row(%s)::record *= row(%s)::record then
              select l.* into live_row from %s l where %s;
              found_live := found and row(%s)::record *= row(%s)::record;
              names := %L;
              cells := array[%s]::text[];
%s              unchanged := names = %L;
              if found_live and not unchanged then
                if pg_trigger_depth() > 1 then
                  names := %L;
                  cells := array[%s]::text[];
                  field := 'rows';
                end if;
                if pg_column_size(cells) <= 5000000 then
                  message := jsonb_build_object('v', 1, 'table', %L, 'columns', names,
                    field, array[cells]);
                end if;
              end if;
            end if;
$sql$,
      k.old_images, k.new_images, relation::regclass,
      libsql_sync.key_match_sql(relation, t.key, 'l', 'new_row'), k.live_images, k.new_images,
      t.key, k.live_cells, c.changes, t.key, c.names, c.cells, t.name)
    else format(
$sql$            select * into new_row from new_rows;
            select l.* into live_row from %s l where %s;
            if found and row(%s)::record *= row(%s)::record then
              cells := array[%s]::text[];
              if pg_column_size(cells) <= 5000000 then
                message := jsonb_build_object('v', 1, 'table', %L, 'columns', %L::jsonb,
                  'rows', array[cells]);
              end if;
            end if;
$sql$,
      relation::regclass, libsql_sync.key_match_sql(relation, t.key, 'l', 'new_row'),
      k.live_images, k.new_images, c.cells, t.name, c.columns)
  end
  from libsql_sync.tables t
  cross join lateral (
    select jsonb_agg(c.name) as columns,
      array_agg(c.name) as names,
      string_agg(c.cell, ', ') as cells,
      -- A statement for each column: PostgreSQL prepares an expression anew in each
      -- transaction, and most columns are not among what changed.
      coalesce(string_agg(format(
$sql$              if %s then
                names := names || %L::text;
                cells := cells || (%s);
              end if;
$sql$, c.differs, c.name, c.cell), '') filter (where c.name <> all (t.key)), '') as changes
    from (
      select c.name, libsql_sync.cell_sql(c.declared, c.type, 'live_row.' || c.quoted) as cell,
        libsql_sync.differs_sql(c.type, 'old_row.' || c.quoted, 'new_row.' || c.quoted) as differs
      from libsql_sync.present_columns(relation, table_name) c
    ) c
  ) c
  cross join lateral (
    select string_agg('old_row.' || c.quoted, ', ') as old_images,
      string_agg('new_row.' || c.quoted, ', ') as new_images,
      string_agg('live_row.' || c.quoted, ', ') as live_images,
      string_agg(libsql_sync.cell_sql(c.declared, c.type, 'old_row.' || c.quoted), ', ' order by k.n) as cells,
      string_agg(libsql_sync.cell_sql(c.declared, c.type, 'live_row.' || c.quoted), ', ' order by k.n) as live_cells
    from libsql_sync.present_columns(relation, table_name) c
    join unnest(t.key) with ordinality k (name, n) on k.name = c.name
  ) k
  where t.name = table_name
$$;
comment on function libsql_sync.one_row_sql(oid, text, text) is
  'The same as capture_sql() for a statement that touched one row, as PL/pgSQL without a query but for the rows themselves.';

create or replace function libsql_sync.truncate_sql(partition oid, table_name text)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    $sql$select jsonb_build_object('v', 1, 'table', %1$L::text, 'key', %2$L::jsonb,
      'deletes', jsonb_agg(to_jsonb(d.key) order by d.n))
    from (select array[%3$s]::text[] as key, row_number() over () as n from %4$s t) d
    group by (d.n - 1) / 1000$sql$,
    table_name, to_jsonb(t.key),
    string_agg(libsql_sync.cell_sql(c.declared, c.type, 't.' || c.quoted), ', ' order by k.n),
    partition::regclass)
  from libsql_sync.tables t
  cross join lateral unnest(t.key) with ordinality k (name, n)
  join lateral libsql_sync.present_columns(partition, table_name) c on c.name = k.name
  where t.name = table_name
  group by t.key
$$;
comment on function libsql_sync.truncate_sql(oid, text) is
  'The query whose rows are the deletes of everything in one partition.';
