-- The lease: one sync at a time, so that two workers do not do the same work. No safety
-- rests on it; that is what the chain's row lock and the replica's guard are for.

create or replace function libsql_sync.queued()
returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object('queued', least(n, 10000), 'queued_exact', n <= 10000)
  from (
    select count(*) as n
    from (
      select from pgmq.q_replicate_data_libsql m
      where m.msg_id >= (select h.floor from libsql_sync.chain h) order by m.msg_id limit 10001) q
  ) c
$$;
comment on function libsql_sync.queued() is
  'How many messages are queued: {"queued", "queued_exact"}, exact up to 10,000, then a lower bound.';

-- One more whenever a call changes.
create or replace function libsql_sync.version()
returns integer
language sql immutable
set search_path = pg_catalog, pg_temp
as $$ select 5 $$;
comment on function libsql_sync.version() is
  'The version of the calls between worker and source, on which both must agree.';

create or replace function libsql_sync.lease(request json)
returns json
language plpgsql
security definer -- the worker's role may call this and touch no table
set search_path = pg_catalog, pg_temp
as $$
declare
  c libsql_sync.chain;
  may_scrub boolean;
begin
  if (request ->> 'version')::integer is distinct from libsql_sync.version() then
    return jsonb_build_object('do', 'other_version', 'version', libsql_sync.version());
  end if;
  select * into c from libsql_sync.chain where id = 1 for update skip locked;
  if not found or c.paused or (c.lease <> request ->> 'lease' and c.lease_until > clock_timestamp()) then
    return libsql_sync.queued() || (
      select jsonb_build_object('do', 'busy', 'epoch', h.epoch, 'paused', h.paused,
        'followed', coalesce(h.seen ->> 'epoch' = h.epoch, false))
      from libsql_sync.chain h);
  end if;
  may_scrub := not c.realtime or coalesce(c.scrubbed_at < clock_timestamp() - interval '1 minute', true);
  update libsql_sync.chain set
    lease = request ->> 'lease',
    lease_until = clock_timestamp() + make_interval(secs => (request ->> 'seconds')::float8),
    scrubbed_at = case when may_scrub then clock_timestamp() else scrubbed_at end,
    lag_ms = libsql_sync.lag_ms(c)
  where id = 1;
  return jsonb_build_object('do', 'granted', 'epoch', c.epoch, 'scrub', may_scrub, 'brief', c.realtime);
end
$$;
comment on function libsql_sync.lease(json) is
$$Takes the lease.
In: {"lease": token, "seconds": n, "version": n}
Out: {"do": "granted", "epoch", "scrub", "brief"}, {"do": "busy", "queued", "queued_exact", "epoch", "paused", "followed"} or {"do": "other_version", "version"}.
"followed": the replica was seen in this epoch. "scrub": a page of the scrub may ride; with realtime, once a minute. "brief": the sync need not wait for further changes, as it is called at once when there are some.$$;
