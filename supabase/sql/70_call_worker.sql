-- The way from PostgreSQL to the worker: the cron job asks whether there is work, and
-- pg_net posts to the worker's address, signed with the secret of the Vault.

create or replace function libsql_sync.secret(secret_name text)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if to_regclass('vault.decrypted_secrets') is null then
    return null;
  end if;
  return (select s.decrypted_secret from vault.decrypted_secrets s where s.name = secret_name);
end
$$;
comment on function libsql_sync.secret(text) is
  'A secret of the Vault by its name, or null.';

create or replace function public.get_libsql_sync_url()
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$ select libsql_sync.secret('libsql_sync_url') $$;
comment on function public.get_libsql_sync_url() is
  'The worker''s address, from the Vault secret libsql_sync_url; or null.';

create or replace function public.get_libsql_webhook_signature()
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$ select libsql_sync.secret('libsql_webhook_signature') $$;
comment on function public.get_libsql_webhook_signature() is
  'The worker''s webhook secret, from the Vault secret libsql_webhook_signature; or null.';

-- pgcrypto has it too, but may be missing or not permitted.
create or replace function libsql_sync.hmac(key bytea, message bytea)
returns bytea
language plpgsql immutable strict
set search_path = pg_catalog, pg_temp
as $$
declare
  block bytea := case when length(key) > 64 then sha256(key) else key end;
  inner_pad bytea := decode(repeat('36', 64), 'hex');
  outer_pad bytea := decode(repeat('5c', 64), 'hex');
begin
  for i in 0..length(block) - 1 loop
    inner_pad := set_byte(inner_pad, i, get_byte(inner_pad, i) # get_byte(block, i));
    outer_pad := set_byte(outer_pad, i, get_byte(outer_pad, i) # get_byte(block, i));
  end loop;
  return sha256(outer_pad || sha256(inner_pad || message));
end
$$;
comment on function libsql_sync.hmac(bytea, bytea) is
  'HMAC-SHA-256 (RFC 2104). In: the key, and the message.';

-- pg_net keeps the header in its tables, which every SQL role can read: a signature is
-- worth nothing after 5 minutes, and nothing for another path.
create or replace function libsql_sync.sign(secret text, url text, body text)
returns text
language sql volatile strict
set search_path = pg_catalog, pg_temp
as $$
  select 't=' || t.at || ',v1=' || encode(libsql_sync.hmac(
    convert_to(secret, 'UTF8'),
    convert_to(t.at || '.POST.' || p.path || '.' || body, 'UTF8')), 'hex')
  from (select floor(extract(epoch from clock_timestamp()))::bigint::text) t (at),
    (select case when r.rest ~ '^/' then r.rest else '/' || r.rest end
      from regexp_replace(url, '^[^:/?#]+://[^/?#]*|#.*$', '', 'g') r (rest)) p (path)
$$;
comment on function libsql_sync.sign(text, text, text) is
  'The header x-webhook-signature of a POST. In: the secret, the address, the body.';

create or replace function libsql_sync.has_work()
returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
-- The queue's index leads to what lives in it, past what is dead.
set enable_seqscan = off
as $$
  select not c.paused and (
    exists (select from pgmq.q_replicate_data_libsql m where m.msg_id >= c.floor)
    or c.walk_wanted > c.walk_opened
    or c.seen is null
    or c.seen ->> 'epoch' <> c.epoch
    or (c.seen ->> 'position')::bigint <> c.position
    or coalesce(c.seen ->> 'schema_hash' <> (select s.hash from libsql_sync.schemas s order by s.generation desc limit 1), false)
    -- What the last claim handed out may be applied, and not settled.
    or exists (select from libsql_sync.batches b where b.epoch = c.epoch and b.position > c.position and b.handed_at > c.seen_at)
    or ((c.seen ->> 'walk_done')::integer = 0 and c.refill)
    or exists (
      select from libsql_sync.walks w where w.kind <> 'scrub' and (
        w.walk_gen > (c.seen ->> 'walk_gen')::bigint
        or (w.walk_gen = (c.seen ->> 'walk_gen')::bigint and c.seen ->> 'walk_at' is not null)))
    or c.seen_at < clock_timestamp() - interval '15 minutes')
  from libsql_sync.chain c
$$;
comment on function libsql_sync.has_work() is
  'Whether a sync would do something: changes are queued, a batch is not settled, the replica does not follow or is not walked, a walk was asked for. Also true 15 minutes after the last claim, to find a replica that lost its latest commits.';

-- The worker answers within its budget of 8 s and its last step. The body goes out as its
-- text, which is signed.
create or replace function libsql_sync.call_worker()
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  url text;
  secret text;
  body constant jsonb := '{}';
begin
  url := public.get_libsql_sync_url();
  secret := public.get_libsql_webhook_signature();
  if coalesce(url, '') = '' or coalesce(secret, '') = '' then
    raise exception 'Cannot call the worker: expected the Vault secrets libsql_sync_url and libsql_webhook_signature, found %',
      case when coalesce(url, '') = '' and coalesce(secret, '') = '' then 'neither'
        when coalesce(url, '') = '' then 'no libsql_sync_url' else 'no libsql_webhook_signature' end
      using hint = 'select vault.create_secret(''<value>'', ''<name>'')';
  end if;
  return net.http_post(
    url := url,
    body := body,
    headers := jsonb_build_object('Content-Type', 'application/json',
      'x-webhook-signature', libsql_sync.sign(secret, url, body::text)),
    timeout_milliseconds := 15000
  );
end
$$;
comment on function libsql_sync.call_worker() is
  'Calls the worker once. Returns pg_net''s request id.';

create or replace function public.process_libsql_replication_batch()
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  -- At once, as an error below would take it back: the next call finds work.
  if libsql_sync.cap_queue() then
    return null;
  end if;
  perform libsql_sync.tidy();
  if not libsql_sync.has_work() then
    return null;
  end if;
  return libsql_sync.call_worker();
end
$$;
comment on function public.process_libsql_replication_batch() is
  'What the cron job runs every 5 minutes: keeps the source small, and calls the worker if there is something to do. Returns pg_net''s request id, or null.';
