-- STAND-INS for Vault, pg_net and pg_cron, which cannot be had from npm.
--
-- What: the same schemas, signatures, grants and visible behaviour as on
--   Supabase, in plain SQL, for local use. PostgreSQL and PGMQ are the real ones.
--   lib/dev/ticker.ts carries out the cron jobs and sends the HTTP requests.
-- Stand-ins, and what is worse or other than on Supabase:
--   vault.secrets is NOT encrypted.
--   cron.schedule() checks the schedule's form, but every active job runs every
--   few seconds, as the ticker was started.
-- As bad as the real ones, on purpose:
--   net.* is readable by every role, with the headers of requests and answers.
--   net.* is unlogged: a crash forgets requests and answers.
--   A request is deleted from its queue before it is sent, and is never repeated.
--   200 requests are sent at once, and the next ones wait for all their answers.
--   A request times out after 5 s by default; answers are deleted after 6 hours.
--   cron.job shows each role its own jobs only, and a job is known by its name
--   and its role: two roles have two jobs of one name.
--   A run that is not over delays the next one of its job; runs are recorded in
--   cron.job_run_details and never trimmed.
-- Who runs it: a superuser, as the owner of the three schemas. Safe to run again.
-- Undo: drop schema vault, net, cron cascade;

-- Vault ----------------------------------------------------------------------

create schema if not exists vault;

create table if not exists vault.secrets (
  id uuid primary key default gen_random_uuid(),
  name text,
  description text not null default '',
  secret text not null,
  key_id uuid,
  nonce bytea,
  created_at timestamptz not null default current_timestamp,
  updated_at timestamptz not null default current_timestamp
);
create unique index if not exists secrets_name_idx on vault.secrets (name) where name is not null;

create or replace view vault.decrypted_secrets as
select id, name, description, secret, secret as decrypted_secret, key_id, nonce,
  created_at, updated_at
from vault.secrets;

create or replace function vault.create_secret(
  new_secret text,
  new_name text default null,
  new_description text default '',
  new_key_id uuid default null
) returns uuid
language sql security definer set search_path = '' as $$
  insert into vault.secrets (secret, name, description, key_id)
  values (new_secret, new_name, new_description, new_key_id)
  returning id
$$;

create or replace function vault.update_secret(
  secret_id uuid,
  new_secret text default null,
  new_name text default null,
  new_description text default null,
  new_key_id uuid default null
) returns void
language sql security definer set search_path = '' as $$
  update vault.secrets set
    secret = coalesce(new_secret, secret),
    name = coalesce(new_name, name),
    description = coalesce(new_description, description),
    key_id = coalesce(new_key_id, key_id),
    updated_at = current_timestamp
  where id = secret_id
$$;

revoke all on function vault.create_secret(text, text, text, uuid) from public;
revoke all on function vault.update_secret(uuid, text, text, text, uuid) from public;
grant usage on schema vault to postgres with grant option;
grant select, delete on vault.secrets, vault.decrypted_secrets to postgres with grant option;
grant execute on function
  vault.create_secret(text, text, text, uuid),
  vault.update_secret(uuid, text, text, text, uuid)
  to postgres with grant option;

-- pg_net ---------------------------------------------------------------------

create schema if not exists net;

create unlogged table if not exists net.http_request_queue (
  id bigserial primary key,
  method text not null,
  url text not null,
  headers jsonb not null,
  body bytea,
  timeout_milliseconds integer not null
);
create unlogged table if not exists net._http_response (
  id bigint,
  status_code integer,
  content_type text,
  headers jsonb,
  content text,
  timed_out boolean,
  error_msg text,
  created timestamptz not null default now()
);
create index if not exists _http_response_created_idx on net._http_response (created);

create or replace function net._urlencode_string(string text) returns text
language sql immutable strict set search_path = '' as $$
  select coalesce(string_agg(
    case
      when c ~ '^[0-9A-Za-z_.~-]$' then c
      else regexp_replace(upper(encode(convert_to(c, 'UTF8'), 'hex')), '(..)', '%\1', 'g')
    end, '' order by n), '')
  from regexp_split_to_table(string, '') with ordinality as t(c, n)
$$;

create or replace function net.http_post(
  url text,
  body jsonb default '{}'::jsonb,
  params jsonb default '{}'::jsonb,
  headers jsonb default '{"Content-Type": "application/json"}'::jsonb,
  timeout_milliseconds int default 5000
) returns bigint
language plpgsql volatile set search_path = '' as $$
declare
  -- The name counts in any case; the request has one such header in the end.
  v_type text := (
    select h.value from jsonb_each_text(http_post.headers) as h
    where lower(h.key) = 'content-type' limit 1
  );
  v_headers jsonb := (
    select coalesce(jsonb_object_agg(h.key, h.value), '{}')
    from jsonb_each_text(http_post.headers) as h where lower(h.key) <> 'content-type'
  ) || '{"Content-Type": "application/json"}';
  v_query text := (
    select string_agg(net._urlencode_string(p.key) || '=' || net._urlencode_string(p.value), '&')
    from jsonb_each_text(http_post.params) as p
  );
  v_id bigint;
begin
  if v_type is not null and v_type <> 'application/json' then
    raise exception 'Content-Type header must be "application/json"';
  end if;
  insert into net.http_request_queue (method, url, headers, body, timeout_milliseconds)
  values (
    'POST',
    http_post.url || coalesce(case when strpos(http_post.url, '?') > 0 then '&' else '?' end || v_query, ''),
    v_headers,
    convert_to(http_post.body::text, 'UTF8'),
    http_post.timeout_milliseconds
  )
  returning id into v_id;
  return v_id;
end
$$;

grant usage on schema net to public;
grant all on all tables in schema net to public;
grant all on all sequences in schema net to public;

-- pg_cron --------------------------------------------------------------------

create schema if not exists cron;
create sequence if not exists cron.jobid_seq;
create sequence if not exists cron.runid_seq;

create table if not exists cron.job (
  jobid bigint primary key default nextval('cron.jobid_seq'),
  schedule text not null,
  command text not null,
  nodename text not null default 'localhost',
  nodeport integer not null default 5432,
  database text not null default current_database(),
  username text not null default current_user,
  active boolean not null default true,
  jobname text,
  constraint jobname_username_uniq unique (jobname, username)
);
create table if not exists cron.job_run_details (
  jobid bigint,
  runid bigint primary key default nextval('cron.runid_seq'),
  job_pid integer,
  database text,
  username text,
  command text,
  status text,
  return_message text,
  start_time timestamptz,
  end_time timestamptz
);
alter table cron.job enable row level security;
alter table cron.job_run_details enable row level security;
drop policy if exists cron_job_policy on cron.job;
create policy cron_job_policy on cron.job using (username = current_user);
drop policy if exists cron_job_run_details_policy on cron.job_run_details;
create policy cron_job_run_details_policy on cron.job_run_details using (username = current_user);

-- Does the writing. Only the owner and the functions below may call it: they pass
-- on the caller's name, which a definer function cannot see.
create or replace function cron._schedule(
  p_name text, p_schedule text, p_command text, p_user text
) returns bigint
language plpgsql security definer set search_path = '' as $$
declare
  v_field constant text := '[0-9a-zA-Z*/,$-]+';
  v_id bigint;
begin
  if p_schedule !~* '^\s*([1-9]|[1-5][0-9])\s+seconds?\s*$'
    and p_schedule !~ ('^\s*' || v_field || ('(\s+' || v_field || '){4}') || '\s*$')
    and p_schedule !~ '^\s*@(hourly|daily|midnight|weekly|monthly|yearly|annually|reboot)\s*$'
  then
    raise exception 'invalid schedule: %', p_schedule
      using hint = 'Use cron format (e.g. 5 4 * * *), or interval format ''[1-59] seconds''';
  end if;
  insert into cron.job (jobname, schedule, command, database, username)
  values (p_name, p_schedule, p_command, current_database(), p_user)
  on conflict on constraint jobname_username_uniq do update
    set schedule = excluded.schedule, command = excluded.command, database = excluded.database
  returning jobid into v_id;
  return v_id;
end
$$;

create or replace function cron._unschedule(p_id bigint, p_name text, p_user text) returns boolean
language plpgsql security definer set search_path = '' as $$
begin
  delete from cron.job where username = p_user and (jobid = p_id or jobname = p_name);
  if not found then
    raise exception 'could not find valid entry for job ''%''', coalesce(p_name, p_id::text);
  end if;
  return true;
end
$$;

create or replace function cron.schedule(job_name text, schedule text, command text) returns bigint
language sql as $$ select cron._schedule(job_name, schedule, command, current_user) $$;

create or replace function cron.schedule(schedule text, command text) returns bigint
language sql as $$ select cron._schedule(null, schedule, command, current_user) $$;

create or replace function cron.unschedule(job_name text) returns boolean
language sql as $$ select cron._unschedule(null, job_name, current_user) $$;

create or replace function cron.unschedule(job_id bigint) returns boolean
language sql as $$ select cron._unschedule(job_id, null, current_user) $$;

revoke all on all functions in schema cron from public;
grant usage on schema cron to postgres with grant option;
grant execute on all functions in schema cron to postgres with grant option;
grant select on cron.job to postgres with grant option;
-- The runs are never trimmed by themselves; their owner may.
grant all on cron.job_run_details to postgres with grant option;
