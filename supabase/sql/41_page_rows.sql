-- The queries of a page: rows in the order of the key's index, and rows by key. Texts of
-- SQL again, as in 20_render, so that a walked row equals a captured one.

create or replace function libsql_sync.walk_columns(relation oid, key_columns text[])
returns table (n bigint, name text, quoted text, type_oid oid, type text, less text, equal text, at_least text, greater text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  walked constant oid := libsql_sync.usable_key(relation, key_columns);
begin
  -- Planned once in a session, too.
  return query select (k + 1)::bigint, a.attname::text,
    quote_ident(a.attname) || coalesce((
      select format(' collate %I.%I', n.nspname, l.collname)
      from pg_collation l join pg_namespace n on n.oid = l.collnamespace
      where l.oid = i.indcollation[k] and l.oid <> a.attcollation), ''),
    a.atttypid,
    -- Not null for the modifier: "character" and "bit" would be of length 1.
    format_type(a.atttypid, -1),
    s.less, s.equal, s.at_least, s.greater
  from pg_index i
  cross join lateral generate_series(0, i.indnkeyatts - 1) k
  join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[k]
  join pg_opclass c on c.oid = i.indclass[k]
  cross join lateral (
    select max(o.name) filter (where o.strategy = 1) as less,
      max(o.name) filter (where o.strategy = 3) as equal,
      max(o.name) filter (where o.strategy = 4) as at_least,
      max(o.name) filter (where o.strategy = 5) as greater
    from (
      select m.amopstrategy, format('operator(%I.%s)', n.nspname, o.oprname)
      from pg_amop m
      join pg_operator o on o.oid = m.amopopr
      join pg_namespace n on n.oid = o.oprnamespace
      where m.amopfamily = c.opcfamily and m.amopstrategy in (1, 3, 4, 5)
        and m.amoplefttype = c.opcintype and m.amoprighttype = c.opcintype
    ) o (strategy, name)
  ) s
  where i.indexrelid = walked
  order by k;
end
$$;
comment on function libsql_sync.walk_columns(oid, text[]) is
  'The columns of the index that is walked, which may be fewer than the listed key, in its order, with the operators and the collation that the index has.';

-- It follows the index, so that no page costs a sort. Cells of few bytes come as JSON
-- text: rendered in the query they take half as long as in PL/pgSQL, which however fetches
-- up to 50 rows that it may not need.
create or replace function libsql_sync.rows_sql(relation oid, table_name text)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    'select r.bytes, case when r.bytes <= 65536 then array_to_json(r.cells)::text end as text,'
    || ' case when r.bytes > 65536 then r.cells end as cells, array[%s]::text[] as place from %s t'
    || ' cross join lateral (select c.cells, pg_column_size(c.cells) as bytes from (select array[%s]::text[] as cells offset 0) c offset 0) r'
    || ' where $1 is null or (%s) order by %s limit $2',
    -- As the type itself writes it: what a cast reads again.
    string_agg(format('t.%I::text', w.name), ', ' order by w.n),
    relation::regclass,
    (select string_agg(libsql_sync.cell_sql(p.declared, p.type, 't.' || p.quoted), ', ')
     from libsql_sync.present_columns(relation, table_name) p),
    case when bool_and(w.greater = 'operator(pg_catalog.>)') and count(*) > 1
      then format('row(%s) operator(pg_catalog.>) row(%s)',
        string_agg('t.' || w.quoted, ', ' order by w.n),
        string_agg('($1)[' || w.n || ']::' || w.type, ', ' order by w.n))
      -- The same written out, for operators that a row comparison cannot name.
      else min(case when w.n = 1 then format('t.%s %s ($1)[1]::%s and ', w.quoted, w.at_least, w.type) end)
        || '(' || string_agg(
          coalesce((
            select string_agg(format('t.%s %s ($1)[%s]::%s and ', b.quoted, b.equal, b.n, b.type), '' order by b.n)
            from libsql_sync.walk_columns(relation, t.key) b where b.n < w.n), '')
          || format('t.%s %s ($1)[%s]::%s', w.quoted, w.greater, w.n, w.type), ' or ' order by w.n) || ')'
    end,
    string_agg('t.' || w.quoted || ' using ' || w.less, ', ' order by w.n))
  from libsql_sync.tables t
  cross join lateral libsql_sync.walk_columns(relation, t.key) w
  where t.name = table_name
  group by t.key
$$;
comment on function libsql_sync.rows_sql(oid, text) is
  'The query of a page: $1 the walked key that it starts after (null: the start), $2 rows at most. For each row its bytes, its cells as JSON text if they are few bytes or else as an array, and its place.';

create or replace function libsql_sync.lookup_sql(relation oid, table_name text, whole boolean)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    'select k.key, f.cells from jsonb_array_elements($1) with ordinality k (key, n)'
    || ' left join lateral (select array[%s]::text[] as cells from %s t where %s) f on true order by k.n',
    (select string_agg(libsql_sync.cell_sql(p.declared, p.type, 't.' || p.quoted), ', ')
     from libsql_sync.present_columns(relation, table_name) p where whole),
    relation::regclass,
    string_agg(
      format('t.%s %s ', p.quoted, coalesce(w.equal, 'operator(pg_catalog.=)'))
      -- What was rendered as JSON is read as JSON again.
      || case when libsql_sync.cell_sql(p.declared, p.type, 't') = 'to_json(t)::text'
           then format(
             '(json_populate_record(null::%s, json_build_object(%L, (k.key ->> %s)::json))).%s',
             relation::regclass, p.name, k.n - 1, p.quoted)
           else format('(k.key ->> %s)::%s', k.n - 1, format_type(p.type, -1)) end
      -- Another text of the same key (citext, collations) is another row there.
      || case when p.declared in ('INTEGER', 'BOOLEAN') then ''
           else format(' and %s collate "C" = k.key ->> %s',
             libsql_sync.cell_sql(p.declared, p.type, 't.' || p.quoted), k.n - 1) end,
      ' and ' order by k.n))
  from libsql_sync.tables t
  cross join lateral unnest(t.key) with ordinality k (name, n)
  join lateral libsql_sync.present_columns(relation, table_name) p on p.name = k.name
  left join lateral libsql_sync.walk_columns(relation, t.key) w on w.name = k.name
  where t.name = table_name
  group by t.key
$$;
comment on function libsql_sync.lookup_sql(oid, text, boolean) is
  'The query of rows by key: $1 keys as the replica stores them, a JSON array of arrays in the order of the listed key. For each the row''s cells ("whole", else an empty array), or null.';

-- If one of the keys cannot be a value of its column, each is read by itself: such a key
-- has no row.
create or replace function libsql_sync.lookup(relation oid, table_name text, keys jsonb, whole boolean)
returns table (key jsonb, cells text[])
language plpgsql stable
set search_path = pg_catalog, pg_temp
set timezone = 'UTC' set datestyle = 'ISO, YMD' set intervalstyle = 'postgres'
set bytea_output = 'hex' set extra_float_digits = 1 set lc_monetary = 'C'
as $$
declare
  query text := libsql_sync.lookup_sql(relation, table_name, whole);
  found_keys jsonb[];
  found_cells text[];
  one jsonb;
  one_cells text;
begin
  begin
    execute format('select array_agg(q.key), array_agg(q.cells::text) from (%s) q', query)
    into found_keys, found_cells using keys;
    return query select f.key, f.cells::text[] from rows from (unnest(found_keys), unnest(found_cells)) f (key, cells);
    return;
  -- A domain's check says the same in other words.
  exception when data_exception or check_violation or not_null_violation then
    null;
  end;
  for one in select k.value from jsonb_array_elements(keys) k loop
    begin
      execute format('select q.cells::text from (%s) q', query)
      into strict one_cells using jsonb_build_array(one);
    exception when data_exception or check_violation or not_null_violation then
      one_cells := null;
    end;
    key := one;
    cells := one_cells::text[];
    return next;
  end loop;
end
$$;
comment on function libsql_sync.lookup(oid, text, jsonb, boolean) is
  'Rows by key: the key, and the row''s cells or null. In: the table, its name in schema.json, a JSON array of keys, whether the cells are wanted.';

create or replace function libsql_sync.read_keys(
  relation oid, table_name text, keys jsonb, done integer, rows_max integer, bytes_max bigint,
  out n integer, out cells text, out ghosts jsonb, out oversize jsonb
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  one jsonb;
  r record;
  bytes bigint := 0;
  comma text := '';
begin
  n := 0;
  cells := '';
  ghosts := '[]';
  oversize := '[]';
  for one in
    select k.value from jsonb_array_elements(keys) with ordinality k (value, i)
    -- Each is a query of its own, of some milliseconds.
    where k.i > done and k.i <= done + least(rows_max, 200) order by k.i
  loop
    select * into strict r from libsql_sync.lookup(relation, table_name, jsonb_build_array(one), true);
    exit when n > 0
      and bytes + pg_column_size(one) + coalesce(pg_column_size(r.cells), 0) > bytes_max;
    n := n + 1;
    bytes := bytes + pg_column_size(one);
    if r.cells is null then
      ghosts := ghosts || jsonb_build_array(r.key);
    elsif pg_column_size(r.cells) > 5000000 then
      oversize := oversize || jsonb_build_array(r.key);
    else
      bytes := bytes + pg_column_size(r.cells);
      cells := cells || comma || array_to_json(r.cells)::text;
      comma := ',';
    end if;
  end loop;
end
$$;
comment on function libsql_sync.read_keys(oid, text, jsonb, integer, integer, bigint) is
  'The rows of some keys, for a redrive, from the key after the first "done" ones: how many keys were read, the rows'' cells as JSON, keys that have no row, and keys whose row is over 5 MB.';
