-- Which rows a message is about. Ours say it themselves, {"v": 2, "table", "keys"}; this is
-- for those of an older release and of row triggers of other solutions. Their values are
-- never read. Used by read_changes() (43_read_changes) and settle() (54_settle).

create or replace function libsql_sync.message_keys(message jsonb)
returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when message -> 'v' = '2' then message -> 'keys'
    when message -> 'truncate' = 'true' or upper(message ->> 'type') = 'TRUNCATE' or message ? 'failed' then null
    else (
      select jsonb_agg(k.key)
      from libsql_sync.tables t
      cross join lateral (
        -- 0.1.0: {"v": 1, "table", "columns", "rows" | "updates", "key", "deletes" | "oversize"}
        select (
          select jsonb_agg(r.value -> (c.n - 1)::integer order by k.n)
          from unnest(t.key) with ordinality k (name, n)
          left join jsonb_array_elements_text(f.names) with ordinality c (name, n) on c.name = k.name) as key
        from (values
          (message -> 'key', message -> 'deletes'), (message -> 'key', message -> 'oversize'),
          (message -> 'columns', message -> 'rows'), (message -> 'columns', message -> 'updates')
        ) f (names, listed)
        cross join lateral jsonb_array_elements(
          case when jsonb_typeof(f.names) = 'array' and jsonb_typeof(f.listed) = 'array' then f.listed else '[]' end) r
        where message -> 'v' = '1'
        union all
        -- A row trigger's: {"type", "table", "record", "old_record"}
        select (
          select jsonb_agg(to_jsonb(i.image ->> k.name) order by k.n)
          from unnest(t.key) with ordinality k (name, n))
        from (values (message -> 'record'), (message -> 'old_record')) i (image)
        where message -> 'v' is null and jsonb_typeof(i.image) = 'object'
      ) k
      where t.name = message ->> 'table'
    )
  end
$$;
comment on function libsql_sync.message_keys(jsonb) is
  'The keys of the rows that a message is about, [[text, ...], ...], or null if it names none. What stands in it is not checked.';

-- What stands for all rows of a table, or for rows that cannot be named.
create or replace function libsql_sync.message_kind(message jsonb)
returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when message -> 'truncate' = 'true' or message -> 'v' is null and upper(message ->> 'type') = 'TRUNCATE' then 'truncate'
    when message ?| '{walk,failed}' then 'walk'
    else 'keys'
  end
$$;
comment on function libsql_sync.message_kind(jsonb) is
  'What a message says: "keys", "truncate", or "walk" if capture could not name the rows.';
