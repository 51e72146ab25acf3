-- The roles of a Supabase project, as far as they matter here.
--
-- What: role postgres is not a superuser and has what hosted Supabase gives it; the
--   API's roles have their timeouts. The password of every role that may log in
--   is the one of a local server.
-- Who runs it: a superuser. Roles belong to the whole server. Safe to run again.

do $$
declare
  v_role text;
begin
  foreach v_role in array array['postgres', 'anon', 'authenticated', 'service_role', 'authenticator'] loop
    if not exists (select from pg_catalog.pg_roles where rolname = v_role) then
      execute format('create role %I', v_role);
    end if;
  end loop;
end
$$;

alter role postgres login nosuperuser createdb createrole bypassrls replication password 'postgres';
alter role postgres set search_path to "$user", public, extensions;
alter role anon nologin;
alter role anon set statement_timeout = '3s';
alter role authenticated nologin;
alter role authenticated set statement_timeout = '8s';
alter role service_role nologin bypassrls;
alter role authenticator login noinherit password 'postgres';
alter role authenticator set statement_timeout = '8s';

grant anon, authenticated, service_role to authenticator;
grant anon, authenticated, service_role to postgres with admin option;
grant pg_monitor, pg_read_all_data, pg_signal_backend to postgres;
