-- The shape in which the worker gets a message: JSON text. Messages of row triggers of
-- other solutions are translated, and what no worker could hold is replaced by a note.
-- Used by queue_head() and recorded() (31_queue_head), and for dead letters.

create or replace function libsql_sync.is_json_container(value text)
returns boolean
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if value !~ '^\s*[{\[]' then
    return false;
  end if;
  return value::json is not null;
exception when others then
  return false;
end
$$;
comment on function libsql_sync.is_json_container(text) is
  'Whether a text is a JSON object or array.';

-- jsonb is exact, so numbers keep every digit.
create or replace function libsql_sync.classic_envelope(message jsonb)
returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  listed libsql_sync.tables;
  operation text := upper(message ->> 'type');
  image jsonb := message -> 'record';
  old_image jsonb := message -> 'old_record';
  envelope jsonb;
  columns text[];
  cells text[];
  old_key text[];
begin
  select * into listed from libsql_sync.tables t where t.name = message ->> 'table';
  if not found or operation is null then
    return null;
  end if;
  envelope := jsonb_build_object('v', 1, 'table', listed.name);
  if operation = 'TRUNCATE' then
    return envelope || '{"truncate": true}';
  end if;

  if operation in ('UPDATE', 'DELETE') and jsonb_typeof(old_image) = 'object' then
    select array_agg(old_image ->> k.name order by k.n) into old_key
    from unnest(listed.key) with ordinality k (name, n);
  end if;
  if operation = 'DELETE' then
    return case when array_position(old_key, null) is null and old_key is not null
      then envelope || jsonb_build_object('key', listed.key, 'deletes', jsonb_build_array(old_key)) end;
  end if;

  if operation not in ('INSERT', 'UPDATE') or jsonb_typeof(image) is distinct from 'object'
    or not image ?& listed.key then
    return null;
  end if;
  select array_agg(c.name order by c.n), array_agg(c.cell order by c.n)
  into columns, cells
  from (
    select c.value ->> 'name' as name, c.n, case
      when c.value ->> 'type' <> 'JSON' or jsonb_typeof(image -> (c.value ->> 'name')) = 'null'
        or (jsonb_typeof(image -> (c.value ->> 'name')) = 'string'
            and libsql_sync.is_json_container(image ->> (c.value ->> 'name')))
        then image ->> (c.value ->> 'name')
      else (image -> (c.value ->> 'name'))::text
    end as cell
    from jsonb_array_elements(listed.columns) with ordinality c (value, n)
    where image ? (c.value ->> 'name')
  ) c;
  envelope := envelope || jsonb_build_object('columns', columns, 'rows', jsonb_build_array(cells));
  -- The key as it was leaves no ghost behind.
  if old_key is not null and array_position(old_key, null) is null
    and old_key <> (select array_agg(image ->> k.name order by k.n)
                    from unnest(listed.key) with ordinality k (name, n)) then
    envelope := envelope || jsonb_build_object('key', listed.key, 'deletes', jsonb_build_array(old_key));
  end if;
  return envelope;
end
$$;
comment on function libsql_sync.classic_envelope(jsonb) is
  'A classic message {record, old_record, type, table} of a row trigger as one of ours, or null if it is not one.';

-- jsonb keeps of 1e131071 one digit, and may be compressed. A worker has 128 MB: 32 MB
-- of one message is more than any row of ours.
create or replace function libsql_sync.large_envelope(message jsonb)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  whole jsonb;
  envelope text;
begin
  whole := jsonb_build_array(message) -> 0; -- decompressed once
  if pg_column_size(whole) > 33554432 then
    null;
  elsif jsonb_typeof(whole) = 'object' and whole -> 'v' = '1'
    and whole - '{v,table,columns,rows,updates,key,deletes,oversize,truncate,failed}'::text[] = '{}'
    and not whole @? '$.**{4}'
  then
    -- As ours are, lists of lists of texts: to look for a number among them would
    -- take as long as to render them.
    envelope := whole::text;
  else
    if whole -> 'v' is distinct from '1' then
      envelope := libsql_sync.classic_envelope(whole)::text;
    end if;
    if envelope is null and not whole @? '$.**{999}' and not whole @? '$ ? (@.** > 1e40 || @.** < -1e40)' then
      envelope := whole::text;
    end if;
  end if;
  if octet_length(envelope) <= 33554432 then
    return envelope;
  end if;
  raise program_limit_exceeded;
-- PostgreSQL says so itself of what is too deep, or of 1 GB.
exception when program_limit_exceeded then
  return jsonb_build_object('v', 1, 'failed', '54000', 'table',
    case when length(message ->> 'table') < 64 then message -> 'table' end);
end
$$;
comment on function libsql_sync.large_envelope(jsonb) is
  'A message as the worker gets it, if it may be large or deep; {"failed": "54000"} if it is too large for a worker.';

create or replace function libsql_sync.envelope(message jsonb)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when message is null then 'null'
    -- Less can grow to some 30 MB at most.
    when pg_column_size(message) > 3000 or pg_column_compression(message) is not null
      then libsql_sync.large_envelope(message)
    when message -> 'v' = '1'::jsonb then message::text
    else coalesce(libsql_sync.classic_envelope(message), message)::text
  end
$$;
comment on function libsql_sync.envelope(jsonb) is
  'A message as the worker gets it: JSON text. What cannot be read stays as it is, for the worker to park with its reason.';
