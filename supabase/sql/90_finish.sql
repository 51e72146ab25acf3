-- The end of the migration: functions that an older version had are dropped, the
-- schema.json of this project is put in force, and the cron job is scheduled.

-- Over an older version: functions that are not in these files any more are dropped.
-- What was made in this transaction stays. If a tool runs statement by statement,
-- nothing is dropped.
do $$
declare
  routine regprocedure;
begin
  if not exists (
    select from pg_proc where oid = 'libsql_sync.lock_down()'::regprocedure
      and xmin = pg_current_xact_id()::xid
  ) then
    return;
  end if;
  for routine in
    select oid from pg_proc
    where pronamespace = 'libsql_sync'::regnamespace and xmin <> pg_current_xact_id()::xid
  loop
    execute format('drop function %s', routine);
  end loop;
end
$$;

-- schema.json begins
select libsql_sync.configure('c6ed9492599c8f3e56dc946d92a0245b', $schema${"tables":[{"name":"app_versions","key":["id"],"columns":[{"name":"app_id","type":"TEXT"},{"name":"checksum","type":"TEXT"},{"name":"deleted","type":"BOOLEAN"},{"name":"external_url","type":"TEXT"},{"name":"id","type":"INTEGER"},{"name":"min_update_version","type":"TEXT"},{"name":"name","type":"TEXT"},{"name":"owner_org","type":"TEXT"},{"name":"r2_path","type":"TEXT"},{"name":"session_key","type":"TEXT"},{"name":"storage_provider","type":"TEXT"},{"name":"user_id","type":"TEXT"}],"indexes":[["app_id"],["external_url"],["name"],["owner_org"],["r2_path"],["user_id"]]},{"name":"apps","key":["id"],"columns":[{"name":"app_id","type":"TEXT"},{"name":"default_upload_channel","type":"TEXT"},{"name":"icon_url","type":"TEXT"},{"name":"id","type":"TEXT"},{"name":"last_version","type":"TEXT"},{"name":"name","type":"TEXT"},{"name":"owner_org","type":"TEXT"},{"name":"retention","type":"INTEGER"},{"name":"transfer_history","type":"JSON"},{"name":"user_id","type":"TEXT"}],"indexes":[["app_id"],["name"],["owner_org"],["user_id"]]},{"name":"channel_devices","key":["id"],"columns":[{"name":"app_id","type":"TEXT"},{"name":"channel_id","type":"INTEGER"},{"name":"device_id","type":"TEXT"},{"name":"id","type":"INTEGER"},{"name":"owner_org","type":"TEXT"}],"indexes":[["app_id"],["channel_id"],["device_id"],["owner_org"]]},{"name":"channels","key":["id"],"columns":[{"name":"allow_dev","type":"BOOLEAN"},{"name":"allow_device_self_set","type":"BOOLEAN"},{"name":"allow_emulator","type":"BOOLEAN"},{"name":"android","type":"BOOLEAN"},{"name":"app_id","type":"TEXT"},{"name":"created_by","type":"TEXT"},{"name":"disable_auto_update","type":"TEXT"},{"name":"disable_auto_update_under_native","type":"BOOLEAN"},{"name":"id","type":"INTEGER"},{"name":"ios","type":"BOOLEAN"},{"name":"name","type":"TEXT"},{"name":"owner_org","type":"TEXT"},{"name":"public","type":"BOOLEAN"},{"name":"version","type":"INTEGER"}],"indexes":[["app_id"],["app_id","name"],["created_by"],["name"],["owner_org"],["public","app_id"],["public","app_id","android"],["public","app_id","ios"],["version"]]},{"name":"manifest","key":["id"],"columns":[{"name":"app_version_id","type":"INTEGER"},{"name":"file_hash","type":"TEXT"},{"name":"file_name","type":"TEXT"},{"name":"id","type":"INTEGER"},{"name":"s3_path","type":"TEXT"}],"indexes":[["app_version_id"]]},{"name":"orgs","key":["id"],"columns":[{"name":"created_by","type":"TEXT"},{"name":"customer_id","type":"TEXT"},{"name":"id","type":"TEXT"},{"name":"logo","type":"TEXT"},{"name":"management_email","type":"TEXT"},{"name":"name","type":"TEXT"}],"indexes":[["created_by"],["customer_id"],["name"]]},{"name":"stripe_info","key":["id"],"columns":[{"name":"bandwidth_exceeded","type":"BOOLEAN"},{"name":"customer_id","type":"TEXT"},{"name":"id","type":"INTEGER"},{"name":"is_good_plan","type":"BOOLEAN"},{"name":"mau_exceeded","type":"BOOLEAN"},{"name":"status","type":"TEXT"},{"name":"storage_exceeded","type":"BOOLEAN"},{"name":"trial_at","type":"TEXT"}],"indexes":[["customer_id"],["mau_exceeded","storage_exceeded","bandwidth_exceeded"],["status","is_good_plan"],["trial_at"]]}]}$schema$);
-- schema.json ends

do $$
declare
  extension text;
begin
  foreach extension in array array['pg_net', 'pg_cron'] loop
    if exists (select from pg_available_extensions where name = extension) then
      execute format('create extension if not exists %I', extension);
    end if;
  end loop;
  if to_regprocedure('cron.schedule(text,text,text)') is null then
    raise notice 'pg_cron is not here: call select public.process_libsql_replication_batch() every 5 minutes by other means';
  else
    perform cron.schedule('process_libsql_replication', '*/5 * * * *',
      'select public.process_libsql_replication_batch()');
    if (select realtime from libsql_sync.chain) then
      perform libsql_sync.realtime(true);
    end if;
  end if;
end
$$;

reset search_path;
