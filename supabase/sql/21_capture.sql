-- Capture: what a statement that wrote to a listed table sends to the queue. These
-- functions generate the SQL of the trigger functions (22_triggers), once per table and
-- kind of statement, when attach() runs. First step of the data's way.
--
-- A message says which rows may have changed, and claim() reads them. So capture looks
-- nothing up: it reads the rows that the statement itself brings, and no other.

create or replace function libsql_sync.key_sql(relation oid, table_name text, alias text)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select format('array[%s]::text[]', string_agg(
    libsql_sync.cell_sql(c.declared, c.type, alias || '.' || c.quoted), ', ' order by k.n))
  from libsql_sync.tables t
  cross join lateral unnest(t.key) with ordinality k (name, n)
  join lateral libsql_sync.present_columns(relation, table_name) c on c.name = k.name
  where t.name = table_name
$$;
comment on function libsql_sync.key_sql(oid, text, text) is
  'The SQL of a row''s key as an array of texts, in the order of the listed key. In: the table, its name in schema.json, the alias of its row.';

-- These types write the same text under any setting.
create or replace function libsql_sync.needs_settings(relation oid, table_name text)
returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select from libsql_sync.tables t
    join libsql_sync.present_columns(relation, table_name) c on c.name = any (t.key)
    join pg_type b on b.oid = libsql_sync.base_type(c.type)
    where t.name = table_name and b.typtype <> 'e' and b.oid not in (
      'bool'::regtype, 'int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'numeric'::regtype,
      'text'::regtype, 'varchar'::regtype, 'bpchar'::regtype, 'uuid'::regtype))
$$;
comment on function libsql_sync.needs_settings(oid, text) is
  'Whether the text of a table''s keys depends on settings, which then must be pinned: each costs time in every call.';

create or replace function libsql_sync.touched_sql(relation oid, table_name text, operation text)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select case operation
    when 'INSERT' then format('select %s from new_rows n', k.new_key)
    when 'DELETE' then format('select %s from old_rows o', k.old_key)
    when 'UPDATE' then format('select %s from new_rows n union all select %s from old_rows o', k.new_key, k.old_key)
  end
  from (values (
    libsql_sync.key_sql(relation, table_name, 'n'), libsql_sync.key_sql(relation, table_name, 'o')
  )) k (new_key, old_key)
$$;
comment on function libsql_sync.touched_sql(oid, text, text) is
  'The query of the keys that a statement touched, old and new. In: the table, its name in schema.json, INSERT, UPDATE or DELETE.';

-- Not merely equal: json has no "=", and citext calls different texts equal.
create or replace function libsql_sync.any_differs_sql(relation oid, table_name text, names text[])
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select string_agg(libsql_sync.differs_sql(c.type, 'o.' || c.quoted, 'n.' || c.quoted), ' or ')
  from libsql_sync.present_columns(relation, table_name) c
  where names is null or c.name = any (names)
$$;
comment on function libsql_sync.any_differs_sql(oid, text, text[]) is
  'The SQL that is true if some of the listed columns (null: any) differ between the rows o and n of a table.';

-- What keeps its key under another spelling (citext) is another row in the replica.
create or replace function libsql_sync.changed_sql(relation oid, table_name text)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    'select case when s.is_old then %s else %s end'
    || ' from old_rows o full join new_rows n on %s cross join (values (false), (true)) s (is_old)'
    || ' where (%s) and case when s.is_old'
    || ' then o.%5$s is distinct from null and (n.%5$s is not distinct from null or %6$s)'
    || ' else n.%5$s is distinct from null end',
    libsql_sync.key_sql(relation, table_name, 'o'), libsql_sync.key_sql(relation, table_name, 'n'),
    libsql_sync.key_match_sql(relation, t.key, 'o', 'n'),
    libsql_sync.any_differs_sql(relation, table_name, null),
    libsql_sync.quoted(t.key[1]), libsql_sync.any_differs_sql(relation, table_name, t.key))
  from libsql_sync.tables t where t.name = table_name
$$;
comment on function libsql_sync.changed_sql(oid, text) is
  'The query of the keys, old and new, of the rows in which an UPDATE changed a listed column. In: the table, its name in schema.json.';

-- The most frequent statement touches one row: no keys need to be compared. Its new row
-- is missing if a trigger kept it from a partition.
create or replace function libsql_sync.changed_row_sql(relation oid, table_name text)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    'select case when n.%1$s is not distinct from null then array[%2$s]'
    || ' when %3$s then array[%2$s, %4$s] else array[%4$s] end'
    || ' from old_rows o left join new_rows n on true where %5$s',
    libsql_sync.quoted(t.key[1]), libsql_sync.key_sql(relation, table_name, 'o'),
    libsql_sync.any_differs_sql(relation, table_name, t.key), libsql_sync.key_sql(relation, table_name, 'n'),
    libsql_sync.any_differs_sql(relation, table_name, null))
  from libsql_sync.tables t where t.name = table_name
$$;
comment on function libsql_sync.changed_row_sql(oid, text) is
  'The same as changed_sql() for an UPDATE of one row: all keys in one array.';
