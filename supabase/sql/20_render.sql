-- How a cell and a key become text. Capture, claim and walk share these texts of SQL: the
-- same value is always the same text, or the replica would have two rows for one key. The
-- settings that rendering depends on (time zone, date style, ...) are pinned by the
-- functions that run the SQL: trigger functions, read_changes() and read_page().

create or replace function libsql_sync.base_type(type oid)
returns oid
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with recursive base (oid, typtype, typbasetype) as (
    select t.oid, t.typtype, t.typbasetype from pg_type t where t.oid = type
    union all
    select t.oid, t.typtype, t.typbasetype
    from base b join pg_type t on t.oid = b.typbasetype
    where b.typtype = 'd'
  )
  select b.oid from base b where b.typtype <> 'd'
$$;
comment on function libsql_sync.base_type(oid) is
  'The type that a domain rests on; any other type itself.';

create or replace function libsql_sync.cell_sql(declared text, type oid, expression text)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    -- to_json, not to_jsonb: that one raises for a json value holding \u0000.
    when declared = 'JSON' then format('to_json(%s)::text', expression)
    when declared in ('INTEGER', 'BOOLEAN')
      or b.oid in (
        'text'::regtype, 'varchar'::regtype, 'uuid'::regtype, 'bool'::regtype,
        'int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'numeric'::regtype,
        'float4'::regtype, 'float8'::regtype, 'json'::regtype, 'jsonb'::regtype
      )
      or b.typtype = 'e'
      then format('%s::text', expression)
    when b.typtype = 'c' or b.typcategory = 'A'
      then format('to_json(%s)::text', expression)
    -- As JSON has it: times by ISO 8601, char(n) with its blanks.
    when b.oid in ('date'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype, 'bpchar'::regtype)
      then format('to_json(%s) #>> ''{}''', expression)
    -- As the type itself writes it. Its casts are others' ideas of the value: PostGIS'
    -- cast to json rounds, and inet's cast to text adds a netmask.
    else format('case when %1$s is not null then format(''%%s'', %1$s) end', expression)
  end
  from pg_type b
  where b.oid = libsql_sync.base_type(type)
$$;
comment on function libsql_sync.cell_sql(text, oid, text) is
  'The SQL that renders one cell as text. In: the type that schema.json declares, the column''s type, and the SQL of the value.';

-- "=" is cheaper than comparing images, but true to them for few types only: json has
-- none, and numeric's calls 1.0 and 1.00 equal, which are two texts in the replica.
create or replace function libsql_sync.differs_sql(type oid, one text, other text)
returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
  select format(case
    when type in ('text'::regtype, 'varchar'::regtype)
      then '%s collate "C" is distinct from %s collate "C"'
    when type in (
      'bool'::regtype, 'int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'uuid'::regtype,
      'date'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype
    -- The type may have been changed since attach().
    ) then '(%1$s is distinct from %2$s or pg_typeof(%1$s) <> %3$L::regtype'
      || ' and row(%1$s)::record *<> row(%2$s)::record)'
    else 'row(%s)::record *<> row(%s)::record'
  end, one, other, type::regtype)
$$;
comment on function libsql_sync.differs_sql(oid, text, text) is
  'The SQL that is true if two values of a type have different images. In: the type, and the SQL of both.';

-- Always in quotes: words that PL/pgSQL reserves are free in SQL.
create or replace function libsql_sync.quoted(name text)
returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $$ select '"' || replace(name, '"', '""') || '"' $$;
comment on function libsql_sync.quoted(text) is
  'A name as a quoted identifier.';

create or replace function libsql_sync.present_columns(relation oid, table_name text)
returns table (name text, declared text, type oid, quoted text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select c.value ->> 'name', c.value ->> 'type', a.atttypid, libsql_sync.quoted(a.attname)
  from libsql_sync.tables t
  cross join lateral jsonb_array_elements(t.columns) with ordinality c (value, n)
  join pg_attribute a
    on a.attrelid = relation and a.attname = c.value ->> 'name'
   and a.attnum > 0 and not a.attisdropped
  where t.name = table_name
  order by c.n
$$;
comment on function libsql_sync.present_columns(oid, text) is
  'The listed columns of a table that exist today, in the order of schema.json: name, declared type, column type, quoted name.';

create or replace function libsql_sync.usable_key(relation oid, key_columns text[])
returns oid
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Planned once in a session: the plan takes ten times as long as the answer.
  return (
    select i.indexrelid
    from pg_index i
    where i.indrelid = relation and i.indisunique and i.indisvalid
      and i.indpred is null and i.indexprs is null
      and not exists (
        select from generate_series(0, i.indnkeyatts - 1) n
        join pg_attribute a on a.attrelid = relation and a.attnum = i.indkey[n]
        where a.attname <> all (key_columns) or not a.attnotnull
      )
      -- The rest of the key only has to be there and not null.
      and (
        select count(*) from pg_attribute a
        where a.attrelid = relation and a.attname = any (key_columns)
          and a.attnotnull and not a.attisdropped
      ) = cardinality(key_columns)
    order by i.indisprimary desc, i.indnkeyatts desc, i.indexrelid
    limit 1
  );
end
$$;
comment on function libsql_sync.usable_key(oid, text[]) is
  'The unique index that makes the listed key usable, or null. It may be deferrable; it must cover every row and have no nullable column.';

-- By the very operators of the key's index, so that types of an extension (citext)
-- compare as their index does, and use it.
create or replace function libsql_sync.key_match_sql(
  relation oid, key_columns text[], left_alias text, right_alias text
)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  index_oid oid := libsql_sync.usable_key(relation, key_columns);
  matches text[] := '{}';
  column_name text;
  equal text;
begin
  foreach column_name in array key_columns loop
    select format('operator(%I.%s)', n.nspname, o.oprname) into equal
    from pg_index i
    cross join lateral generate_series(0, i.indnkeyatts - 1) k
    join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[k]
    join pg_opclass c on c.oid = i.indclass[k]
    join pg_amop s
      on s.amopfamily = c.opcfamily and s.amopstrategy = 3
     and s.amoplefttype = c.opcintype and s.amoprighttype = c.opcintype
    join pg_operator o on o.oid = s.amopopr
    join pg_namespace n on n.oid = o.oprnamespace
    where i.indexrelid = index_oid and a.attname = column_name;
    matches := matches || format(
      '%s.%s %s %s.%s', left_alias, libsql_sync.quoted(column_name),
      coalesce(equal, 'operator(pg_catalog.=)'), right_alias, libsql_sync.quoted(column_name)
    );
    equal := null;
  end loop;
  return array_to_string(matches, ' and ');
end
$$;
comment on function libsql_sync.key_match_sql(oid, text[], text, text) is
  'The SQL "a.k1 = b.k1 and ..." for two aliases of a table''s rows.';
