-- What changes rows without a write: a column retyped, dropped and added again, or given
-- another one's name; a table that has another one's name; a partition attached, detached
-- or dropped; an enum's value renamed. No trigger fires for these. Each claim compares what
-- the catalog shows with what it showed before, and walks if it differs.

create or replace function libsql_sync.type_shape(type oid)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with recursive part (oid) as (
    select type
    union
    select d.refobjid from (
      select t.typbasetype, t.typelem, t.typrelid, t.oid from part p join pg_type t on t.oid = p.oid
    ) t
    cross join lateral (
      select t.typbasetype union all select t.typelem
      union all select r.rngsubtype from pg_range r where r.rngtypid = t.oid
      union all select a.atttypid from pg_attribute a where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
    ) d (refobjid)
    where d.refobjid >= 16384
  )
  select string_agg(concat_ws(':', p.oid,
    (select string_agg(e.enumlabel, ',' order by e.enumsortorder) from pg_enum e where e.enumtypid = p.oid),
    (select string_agg(concat_ws(' ', a.attname, a.atttypid, a.atttypmod), ',' order by a.attnum)
     from pg_type t join pg_attribute a on a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
     where t.oid = p.oid)), ';' order by p.oid)
  from part p
$$;
comment on function libsql_sync.type_shape(oid) is
  'What the text of a type''s values depends on in the catalog: labels of enums, fields of composite types, also of those it is made of.';

create or replace function libsql_sync.shapes_now()
returns table (name text, shape text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select t.name, md5(concat_ws('|', r.oid,
    -- xmin: the column was altered, also if it has the same type again.
    (select string_agg(concat_ws(' ', a.attname, a.attnum, a.atttypid, a.atttypmod, a.xmin,
       case when a.atttypid >= 16384 then libsql_sync.type_shape(a.atttypid) end), ',' order by a.attnum)
     from jsonb_array_elements(t.columns) c
     join pg_attribute a on a.attrelid = r.oid and a.attname = c.value ->> 'name' and a.attnum > 0 and not a.attisdropped),
    (select string_agg(concat_ws(' ', i.inhrelid, i.xmin), ',' order by i.inhrelid)
     from pg_partition_tree(r.oid) p join pg_inherits i on i.inhrelid = p.relid)))
  from libsql_sync.tables t
  cross join lateral to_regclass(format('public.%I', t.name)) r (oid)
$$;
comment on function libsql_sync.shapes_now() is
  'Each listed table, and a digest of what its rows'' texts depend on in the catalog.';

create or replace function libsql_sync.note_shapes()
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  changed boolean;
begin
  with noted as (
    insert into libsql_sync.shapes as s (name, shape)
    select n.name, n.shape from libsql_sync.shapes_now() n
    where n.shape is distinct from (select k.shape from libsql_sync.shapes k where k.name = n.name)
    on conflict (name) do update set shape = excluded.shape
    -- A table that was not known is walked anyway, as it is new in schema.json.
    returning xmax <> 0 as was_known
  )
  select coalesce(bool_or(n.was_known), false) into changed from noted n;
  if changed then
    update libsql_sync.chain set walk_wanted = walk_wanted + 1 where id = 1;
  end if;
  return changed;
end
$$;
comment on function libsql_sync.note_shapes() is
  'Whether a listed table changed in a way that triggers do not see, so that the walk starts over.';
