-- Reading rows: those after a place in the order of the key's index, for pages, and those
-- of some keys, for changes. Texts of SQL again, as in 20_render: every row is rendered
-- by the same.

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
    -- Not null for the modifier: "character" and "bit" would be of length 1. Not a
    -- domain: what its check refuses today may be in the table since before.
    format_type(libsql_sync.base_type(a.atttypid), -1),
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
create or replace function libsql_sync.rows_sql(relation oid, table_name text, whole boolean)
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
    (select string_agg(libsql_sync.cell_sql(p.declared, p.type, 't.' || p.quoted), ', '
       order by case when not whole then array_position(t.key, p.name) end)
     from libsql_sync.present_columns(relation, table_name) p where whole or p.name = any (t.key)),
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
comment on function libsql_sync.rows_sql(oid, text, boolean) is
  'The query of a page: $1 the walked key that it starts after (null: the start), $2 rows at most. For each row its bytes, its cells (those of the key alone, unless "whole") as JSON text if they are few bytes or else as an array, and its place.';

create or replace function libsql_sync.read_range(
  relation oid, table_name text, place_after text[], rows_max integer, bytes_max bigint,
  out n integer, out rows text[], out gone jsonb, out broken jsonb, out is_last boolean, out reached text[]
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  columns constant text[] := array(select p.name from libsql_sync.present_columns(relation, table_name) p);
  key_columns constant text[] := (select t.key from libsql_sync.tables t where t.name = table_name);
  r record;
  bytes bigint := 0;
  piece text := '';
  comma text := '';
begin
  n := 0;
  rows := '{}';
  gone := '[]';
  broken := '[]';
  is_last := true;
  for r in execute libsql_sync.rows_sql(relation, table_name, true) using place_after, rows_max + 1 loop
    if n >= rows_max or n > 0 and bytes + r.bytes > bytes_max then
      is_last := false;
      exit;
    end if;
    n := n + 1;
    bytes := bytes + r.bytes;
    if r.bytes > 5000000 then
      broken := broken || jsonb_build_array(jsonb_build_object(
        'key', (select jsonb_agg(r.cells[array_position(columns, k.name)] order by k.i)
          from unnest(key_columns) with ordinality k (name, i)),
        'reason', libsql_sync.too_large()));
    else
      piece := piece || comma || coalesce(r.text, array_to_json(r.cells)::text);
      comma := ',';
      if octet_length(piece) > 16384 then
        rows := rows || piece;
        piece := '';
      end if;
    end if;
    reached := r.place;
  end loop;
  rows := rows || piece;
end
$$;
comment on function libsql_sync.read_range(oid, text, text[], integer, bigint) is
$$The rows after a place in the order of the key's index, in the caller's snapshot, as far as the bounds on rows and bytes go.
Out: how many; their cells as JSON texts, [text, ...] joined by commas; no key that is gone; rows over 5 MB, [{"key", "reason"}, ...]; whether they are the last; and the place they reach.$$;

create or replace function libsql_sync.too_large()
returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $$ select 'row too large: expected at most 5,000,000 bytes, libSQL''s limit of a row' $$;
comment on function libsql_sync.too_large() is
  'Why a row is parked that no libSQL database can hold.';

-- What is in the way of a row alone must not stop the others; of what is in the way of
-- the call, each row would be to blame.
create or replace function libsql_sync.fault_of(state text)
returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
  select case
    -- A lost race, a lack of memory or disk, a lock, a cancelled query.
    when state ~ '^(40|53|55|57)' then 'call'
    -- A column or a right that is gone.
    when state ~ '^42' then 'table'
    -- Data: a cast that raises, damage, a limit.
    else 'row'
  end
$$;
comment on function libsql_sync.fault_of(text) is
  'Whose fault an error of reading rows is, by its SQLSTATE: the "call", the "table", or the "row".';

create or replace function libsql_sync.match_sql(relation oid, table_name text)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select string_agg(
    format('t.%s %s ', p.quoted, coalesce(w.equal, 'operator(pg_catalog.=)'))
    -- What was rendered as JSON is read as JSON again. Not as a record of the table: that
    -- asks the domains of all its columns.
    || format(case when libsql_sync.cell_sql(p.declared, p.type, 't') = 'to_json(t)::text'
         then '(select j.v from json_to_record(json_build_object(''v'', (k.key ->> %s)::json)) j (v %s))'
         else '(k.key ->> %s)::%s' end,
         k.n - 1, format_type(libsql_sync.base_type(p.type), -1)),
    ' and ' order by k.n)
  from libsql_sync.tables t
  cross join lateral unnest(t.key) with ordinality k (name, n)
  join lateral libsql_sync.present_columns(relation, table_name) p on p.name = k.name
  left join lateral libsql_sync.walk_columns(relation, t.key) w on w.name = k.name
  where t.name = table_name
$$;
comment on function libsql_sync.match_sql(oid, text) is
  'The SQL that is true if the row t has the key k.key, a JSON array of texts in the order of the listed key.';

-- Only rows that may fit are rendered, by the size in which they are stored, for which no
-- large value is fetched: where large rows follow small ones, a slice has gigabytes.
create or replace function libsql_sync.lookup_sql(relation oid, table_name text, whole boolean)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    'with found as materialized ('
    || ' select k.n, k.key, t.*, sum(t.stored) over (order by k.n rows unbounded preceding) as upto'
    || ' from unnest($1) with ordinality k (key, n)'
    || ' left join lateral (select %s, %s as stored, true as is_there from %s t where %s offset 0) t on true'
    || '), rendered as ('
    || ' select t.n, t.key, r.*, pg_column_size(t.key) + coalesce(pg_column_size(r.cells), 0) as bytes'
    || ' from found t'
    || ' cross join lateral (select case when t.is_there then array[%s]::text[] end as cells, t.is_there and %s as same offset 0) r'
    || ' where t.upto is null or t.upto <= $2 + 1000000 or t.n = 1'
    || ') select max(t.n)::integer as n, sum(t.bytes)::bigint as bytes,'
    || ' string_agg(array_to_json(t.cells)::text, '','' order by t.n) filter (where t.bytes <= 5000000) as rows,'
    || ' coalesce(jsonb_agg(t.key order by t.n) filter (where t.same is not true), ''[]'') as gone,'
    || ' coalesce(jsonb_agg(t.key order by t.n) filter (where t.bytes > 5000000), ''[]'') as large'
    || ' from (select f.*, sum(f.bytes) over (order by f.n rows unbounded preceding) as upto from rendered f) t'
    || ' where t.upto <= $2 or t.n = 1',
    string_agg(format('t.%s as c%s', p.quoted, p.i), ', ' order by p.i),
    string_agg(format('coalesce(pg_column_size(t.%s), 0)', p.quoted), ' + ' order by p.i),
    relation::regclass, libsql_sync.match_sql(relation, table_name),
    string_agg(libsql_sync.cell_sql(p.declared, p.type, 't.c' || p.i), ', ' order by p.i) filter (where whole),
    -- Another text of the same key (citext, collations) is another row in the replica.
    coalesce(string_agg(format('%s collate "C" = t.key ->> %s',
      libsql_sync.cell_sql(p.declared, p.type, 't.c' || p.i), array_position(t.key, p.name) - 1), ' and ')
      filter (where p.name = any (t.key) and p.declared not in ('INTEGER', 'BOOLEAN')), 'true'))
  from libsql_sync.tables t
  cross join lateral (
    select c.*, row_number() over () as i
    from libsql_sync.present_columns(relation, table_name) c where whole or c.name = any (t.key)
  ) p
  where t.name = table_name
$$;
comment on function libsql_sync.lookup_sql(oid, text, boolean) is
  'The query of rows by key: $1 an array of keys, $2 bytes at most. How many keys it read, one at least; their bytes; the rows as JSON texts ("whole": of all listed columns, else empty); keys without a row, or with one whose key has another text; keys whose row is over 5 MB.';

-- A slice that fails is read again in smaller ones, down to the one row that is to blame.
create or replace function libsql_sync.read_rows(
  relation oid, table_name text, keys jsonb[], whole boolean, bytes_max bigint, until timestamptz,
  out n integer, out bytes bigint, out rows text[], out gone jsonb, out broken jsonb
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  query constant text := libsql_sync.lookup_sql(relation, table_name, whole);
  total constant integer := cardinality(keys);
  size integer := 16;
  r record;
  state text;
  is_there boolean;
begin
  n := 0;
  bytes := 0;
  rows := '{}';
  gone := '[]';
  broken := '[]';
  while n < total and bytes < bytes_max and (n = 0 or clock_timestamp() < until) loop
    begin
      execute query into r using keys[n + 1 : n + size], bytes_max - bytes;
      if n > 0 and r.n = 1 and bytes + r.bytes > bytes_max then
        exit;
      end if;
      n := n + r.n;
      bytes := bytes + r.bytes;
      if whole and r.rows is not null then
        rows := rows || (case when rows <> '{}' then ',' else '' end || r.rows);
      end if;
      gone := gone || r.gone;
      if r.large <> '[]' then
        broken := broken || (
          select jsonb_agg(jsonb_build_object('key', l.value, 'reason', libsql_sync.too_large()))
          from jsonb_array_elements(r.large) l);
      end if;
      -- As many as fit, by what rows took until now.
      size := least(size * 4, 8192, greatest(1, (bytes_max - bytes) / greatest(1, bytes / n)));
    exception when others then
      state := sqlstate;
      if libsql_sync.fault_of(state) <> 'row' then raise; end if;
      if size > 1 then
        size := greatest(1, least(size, total - n) / 4);
        continue;
      end if;
      begin
        execute format('select exists (select from %s t, (values ($1)) k (key) where %s)',
          relation::regclass, libsql_sync.match_sql(relation, table_name))
        into is_there using keys[n + 1];
      -- What cannot be a value of the key has no row.
      exception when data_exception or check_violation or not_null_violation then
        is_there := false;
      end;
      if is_there then
        broken := broken || jsonb_build_array(jsonb_build_object('key', keys[n + 1],
          'reason', 'PostgreSQL cannot read the row: ' || state));
      else
        gone := gone || jsonb_build_array(keys[n + 1]);
      end if;
      n := n + 1;
      size := 4;
    end;
  end loop;
end
$$;
comment on function libsql_sync.read_rows(oid, text, jsonb[], boolean, bigint, timestamptz) is
$$Rows by key, in the caller's snapshot, as far as the bounds on bytes and time go: one key at least.
In: the table, its name in schema.json, keys, whether the cells are wanted.
Out: how many keys were read; bytes; the rows' cells as JSON texts, [text, ...] joined by commas; keys that have no row; and rows that cannot be read or are over 5 MB, [{"key", "reason"}, ...].$$;
