-- Puts a schema.json in force. The call with the project's schema.json is in 90_finish.

create or replace function libsql_sync.configure(schema_hash text, spec jsonb)
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pg_advisory_xact_lock(hashtext('libsql_sync install'));
  if schema_hash is distinct from (select s.hash from libsql_sync.schemas s order by s.generation desc limit 1) then
    delete from libsql_sync.schemas s where s.hash = schema_hash;
    insert into libsql_sync.schemas (hash, spec) values (schema_hash, configure.spec);
  end if;
  delete from libsql_sync.tables where true;
  insert into libsql_sync.tables (name, key, columns)
  select t.value ->> 'name',
    array(select jsonb_array_elements_text(t.value -> 'key')),
    t.value -> 'columns'
  from jsonb_array_elements(configure.spec -> 'tables') t;
  return libsql_sync.attach();
end
$$;
comment on function libsql_sync.configure(text, jsonb) is
  'Puts a schema.json in force and attaches. In: its hash, by which worker and replica name it, and {"tables": [{"name", "key", "columns", "indexes"}, ...]}. Returns how many triggers were made. deno task schema writes the call.';
