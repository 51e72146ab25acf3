-- What a deployment needs, looked at from here: each line says what was found and,
-- where it is not well, how to mend it. It changes nothing. Vault secrets are
-- looked at, never shown. Schemas vault, cron and net may be missing.
create or replace function libsql_sync.doctor(only_sections text[] default null)
returns table (name text, level text, found text, advice text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  handler oid := to_regprocedure('public.trigger_http_queue_post_to_function_libsql()');
  c libsql_sync.chain;
  newest text := (select s.hash from libsql_sync.schemas s order by s.generation desc limit 1);
  attach constant text := 'select libsql_sync.attach();';
  migrate constant text := 'run the migration in supabase/migrations again';
  section text;
  -- plpgsql's own "found" hides the column of that name.
  what text;
  sections constant text[] := array['server', 'extensions', 'queues', 'tables', 'triggers', 'leftovers',
    'grants', 'worker role', 'secrets', 'cron', 'pg_net', 'queue', 'archive', 'replica'];
  -- Relations whose rows are ours alone.
  ours oid[] := array(
    select r.oid from pg_class r
    where r.relkind in ('r', 'p') and (r.relnamespace = 'libsql_sync'::regnamespace
      or r.relnamespace = 'pgmq'::regnamespace and r.relname in (
        'q_replicate_data_libsql', 'a_replicate_data_libsql',
        'q_replicate_data_libsql_dlq', 'a_replicate_data_libsql_dlq')));
  routines oid[] := array(
    select p.oid from pg_proc p
    where p.pronamespace = 'libsql_sync'::regnamespace
      or p.pronamespace = 'public'::regnamespace and p.proname in (
        'get_libsql_sync_url', 'get_libsql_webhook_signature',
        'process_libsql_replication_batch', 'trigger_http_queue_post_to_function_libsql'));
  r record;
  n bigint;
  -- Whether a section has told of something that is not well.
  told boolean;
  body text;
  run record;
  -- How the failed "exception" clause names what it could not do.
  state text;
begin
  select * into strict c from libsql_sync.chain h where h.id = 1;
  foreach section in array coalesce(only_sections, sections) loop
    told := false;
    begin
      case section

      when 'server' then
        name := 'PostgreSQL';
        what := current_setting('server_version') || ', ' || current_setting('server_encoding');
        level := 'ok';
        if current_setting('server_version_num')::integer < 150000 then
          level := 'error';
          advice := 'upgrade to PostgreSQL 15 or later';
        elsif current_setting('server_encoding') <> 'UTF8' then
          level := 'error';
          advice := 'use a database of encoding UTF8';
        end if;
        return query select name, level, what, advice;
        advice := null;

        name := 'isolation';
        level := 'ok';
        what := current_setting('default_transaction_isolation');
        if what <> 'read committed' then
          level := 'error';
          advice := format('alter role %I set default_transaction_isolation to ''read committed'';', current_user);
        end if;
        return query select name, level, what, advice;
        advice := null;

        for r in
          select coalesce(s.setrole::regrole::text, '') as role
          from pg_db_role_setting s
          where (s.setdatabase = 0 or s.setdatabase = (
              select d.oid from pg_database d where d.datname = current_database()))
            and 'session_replication_role=replica' = any (s.setconfig)
        loop
          name := 'session_replication_role';
          level := 'error';
          what := 'replica' || case when r.role in ('', '-') then ' for everybody' else ' for role ' || r.role end
            || ': rows written so pass the triggers by';
          advice := 'reset it where it was set (alter role or alter database ... reset session_replication_role), then: deno task verify --repair';
          return query select name, level, what, advice;
        end loop;
        advice := null;

      when 'extensions' then
        for r in
          select w.name, w.since, w.instead, x.extversion as version
          from (values
            ('pgmq', '1.4.4', null),
            ('pg_cron', null, 'cron.schedule(text,text,text)'),
            ('pg_net', null, 'net.http_post(text,jsonb,jsonb,jsonb,integer)'),
            ('supabase_vault', null, 'vault.create_secret(text,text,text,uuid)')
          ) w (name, since, instead)
          left join pg_extension x on x.extname = w.name
        loop
          name := r.name;
          level := 'ok';
          what := r.version;
          if r.version is null and to_regprocedure(r.instead) is not null then
            what := 'its functions, without the extension';
          elsif r.version is null then
            level := 'error';
            what := 'not installed';
            advice := format('create extension %I; (or enable it on the dashboard), then %s', r.name, migrate);
          elsif r.since is not null and string_to_array(substring(r.version, '^[0-9]+(?:\.[0-9]+)*'), '.')::integer[]
            < string_to_array(r.since, '.')::integer[] then
            level := 'error';
            what := what || ', expected ' || r.since || ' or later';
            advice := format('alter extension %I update;', r.name);
          end if;
          return query select name, level, what, advice;
          advice := null;
        end loop;
      when 'queues' then
        for r in
          select q.name, a.name as missing
          from (values ('q_replicate_data_libsql'), ('a_replicate_data_libsql'),
            ('q_replicate_data_libsql_dlq'), ('a_replicate_data_libsql_dlq')) q (name)
          left join lateral (
            select string_agg(k.name, ', ') as name
            from (values ('msg_id'), ('read_ct'), ('enqueued_at'), ('vt'), ('message')) k (name)
            where not exists (
              select from pg_attribute a
              where a.attrelid = to_regclass('pgmq.' || q.name) and a.attname = k.name and not a.attisdropped)
          ) a on true
          where a.name is not null
        loop
          told := true;
          name := 'queue';
          level := 'error';
          what := case when to_regclass('pgmq.' || r.name) is null
            then 'pgmq.' || r.name || ' is not there: writes to the listed tables fail'
            else 'pgmq.' || r.name || ' lacks ' || r.missing end;
          advice := case when to_regclass('pgmq.' || r.name) is null
            then format('select pgmq.create(%L); then select libsql_sync.lock_down(); and deno task verify --repair',
              substr(r.name, 3))
            else 'alter extension pgmq update;' end;
          return query select name, level, what, advice;
          advice := null;
        end loop;
        if not told then
          name := 'queues';
          level := 'ok';
          what := 'replicate_data_libsql, replicate_data_libsql_dlq';
          return query select name, level, what, advice;
        end if;

      when 'tables' then
        n := 0;
        for r in
          select t.name, q.oid as relation, libsql_sync.attach_problem(q.oid, t.key) as problem, m.missing
          from libsql_sync.tables t
          cross join lateral to_regclass(format('public.%I', t.name)) q (oid)
          left join lateral (
            select string_agg(k.value ->> 'name', ', ') as missing
            from jsonb_array_elements(t.columns) k
            where k.value ->> 'name' not in (select p.name from libsql_sync.present_columns(q.oid, t.name) p)
          ) m on true
          order by t.name
        loop
          n := n + 1;
          name := 'table ' || r.name;
          if r.relation is null then
            level := 'error';
            what := 'does not exist';
            advice := 'create it, then ' || attach || ' or take it out of schema.json';
          elsif r.problem is not null then
            level := 'error';
            what := r.problem;
            advice := 'mend the table, then ' || attach || ' or take it out of schema.json';
          elsif r.missing is not null then
            level := 'warning';
            what := 'lacks listed column(s) ' || r.missing || ': they stay as they are in the replica';
            advice := 'put the new names into schema.json (or take them out), run deno task schema and the migration, then deploy';
          else
            continue;
          end if;
          told := true;
          return query select name, level, what, advice;
          advice := null;
        end loop;
        if not told then
          name := 'tables';
          level := 'ok';
          what := n || ', each with its key and columns';
          return query select name, level, what, advice;
        end if;

      when 'triggers' then
        n := 0;
        for r in
          select case when f.is_partition then 'partition ' || f.relation::regclass
              else 'table ' || t.name end as place,
            libsql_sync.trigger_name(t.name, e.suffix) as name,
            case
              when g.oid is null then 'is missing'
              when g.tgenabled = 'D' then 'is disabled'
              when g.tgenabled = 'R' then 'fires for replicas only'
              when g.tgfoid is distinct from handler or g.tgtype <> e.type
                or g.tgargs <> convert_to(t.name, 'UTF8') || '\x00'::bytea then 'is another one'
            end as problem
          from libsql_sync.tables t
          cross join lateral to_regclass(format('public.%I', t.name)) q (oid)
          cross join lateral (
            select q.oid as relation, false as is_partition where q.oid is not null
            union all
            select p.relid, true from pg_partition_tree(q.oid) p where p.relid <> q.oid
          ) f
          cross join lateral (values ('', 4), ('_update', 16), ('_delete', 8),
            ('_truncate', case when f.is_partition then 34 else 32 end)) e (suffix, type)
          left join pg_trigger g
            on g.tgrelid = f.relation and g.tgname = libsql_sync.trigger_name(t.name, e.suffix) and not g.tgisinternal
          order by t.name, f.relation::regclass::text, e.type
        loop
          n := n + 1;
          if r.problem is not null then
            told := true;
            name := r.place;
            level := 'error';
            what := 'trigger ' || r.name || ' ' || r.problem;
            advice := attach || ' The replica is then walked by itself';
            return query select name, level, what, advice;
            advice := null;
          end if;
        end loop;
        if not told then
          name := 'triggers';
          level := 'ok';
          what := n || ', all enabled';
          return query select name, level, what, advice;
        end if;

        name := 'trigger function';
        level := 'ok';
        what := 'has today''s columns';
        body := null;
        begin
          body := libsql_sync.trigger_sql();
        exception when others then
          -- A table without its key, which is told above.
          null;
        end;
        if handler is null then
          level := 'error';
          what := 'is not there';
          advice := attach;
        elsif exists (select from pg_proc p where p.oid = handler and not p.prosecdef) then
          level := 'error';
          what := 'runs with the writer''s rights, who may not write to the queue';
          advice := 'alter function public.trigger_http_queue_post_to_function_libsql() security definer;';
        elsif body is null then
          level := 'error';
          what := 'cannot be made anew while a table lacks its key';
          advice := 'see that table, then ' || attach;
        elsif body is distinct from (select p.prosrc from pg_proc p where p.oid = handler) then
          level := 'warning';
          what := 'is older than a change of the tables: each write falls back to a slower way';
          advice := attach;
        end if;
        return query select name, level, what, advice;
        advice := null;

      when 'leftovers' then
        for r in
          select g.tgname as name, g.tgrelid::regclass::text as relation, g.tgfoid = handler as is_ours
          from pg_trigger g
          join pg_proc p on p.oid = g.tgfoid
          where not g.tgisinternal and (
            g.tgfoid <> handler and p.prosrc ~ 'replicate_data_libsql'
            or g.tgfoid = handler and not exists (
              select from libsql_sync.tables t
              cross join lateral to_regclass(format('public.%I', t.name)) q (oid)
              where g.tgargs = convert_to(t.name, 'UTF8') || '\x00'::bytea
                and g.tgname in (libsql_sync.trigger_name(t.name, ''), libsql_sync.trigger_name(t.name, '_update'),
                  libsql_sync.trigger_name(t.name, '_delete'), libsql_sync.trigger_name(t.name, '_truncate'))
                -- Of a table that was renamed: that one is told as missing.
                and (q.oid is null or g.tgrelid = q.oid
                  or g.tgrelid in (select p.relid from pg_partition_tree(q.oid) p))))
          order by 2, 1
        loop
          told := true;
          name := 'leftover';
          level := 'warning';
          what := 'trigger ' || r.name || ' on ' || r.relation || case when r.is_ours
            then ', which is not listed so' else ' sends messages of its own' end;
          advice := format('drop trigger %I on %s;', r.name, r.relation);
          return query select name, level, what, advice;
          advice := null;
        end loop;
        if to_regclass('cron.job') is not null then
          for r in execute
            'select j.jobid, coalesce(j.jobname, '''') as jobname from cron.job j
             where j.jobname is distinct from ''process_libsql_replication''
               and j.command ~ ''process_libsql_replication_batch|replicate_data_libsql|get_libsql_sync_url'''
          loop
            told := true;
            name := 'leftover';
            level := 'warning';
            what := format('cron job %s %s calls the worker as well', r.jobid, r.jobname);
            advice := format('select cron.unschedule(%s);', r.jobid);
            return query select name, level, what, advice;
            advice := null;
          end loop;
        end if;
        if not told then
          name := 'leftovers';
          level := 'ok';
          what := 'none';
          return query select name, level, what, advice;
        end if;

      when 'grants' then
        -- What strangers may do, by whatever way they got it.
        for r in
          select s.role, 'execute ' || p.oid::regprocedure as may
          from unnest(routines) p (oid)
          cross join (
            select 'public' as role union all
            select a.rolname from pg_roles a where a.rolname in ('anon', 'authenticated', 'service_role')
          ) s
          where has_function_privilege(s.role, p.oid, 'execute')
            and not (p.oid = 'libsql_sync.bookmark()'::regprocedure
              and s.role in ('authenticated', 'service_role'))
          union all
          select s.role, 'use ' || q.oid::regclass
          from unnest(ours) q (oid)
          cross join (
            select 'public' as role union all
            select a.rolname from pg_roles a where a.rolname in ('anon', 'authenticated', 'service_role')
          ) s
          where has_table_privilege(s.role, q.oid, 'select, insert, update, delete, truncate')
            or has_any_column_privilege(s.role, q.oid, 'select, insert, update')
          order by 1, 2
          limit 20
        loop
          told := true;
          name := 'grant';
          level := 'error';
          what := r.role || ' may ' || r.may;
          advice := 'select libsql_sync.lock_down();';
          return query select name, level, what, advice;
          advice := null;
        end loop;
        -- What was given to roles nobody here knows. PGMQ itself gives its tables to pg_monitor.
        for r in
          select distinct g.grantee::regrole::text as role, g.thing
          from (
            select a.grantee, p.oid::regprocedure::text as thing, p.proowner as owner
            from pg_proc p cross join lateral aclexplode(p.proacl) a
            where p.oid = any (routines)
              -- Those are for the worker's role, and for whoever writes.
              and p.oid::regprocedure::text !~ '^libsql_sync\.(bookmark|claim|lease|park|release|report|reset|request_redrive|request_walk)\('
            union all
            select a.grantee, q.oid::regclass::text, q.relowner
            from pg_class q cross join lateral aclexplode(q.relacl) a
            where q.oid = any (ours)
          ) g
          join pg_roles o on o.oid = g.grantee
          where g.grantee <> g.owner and not o.rolsuper and o.rolname !~ '^pg_'
            and o.rolname not in ('anon', 'authenticated', 'service_role')
            and not pg_has_role(o.oid, g.owner, 'member')
          order by 1, 2
          limit 20
        loop
          told := true;
          name := 'grant';
          level := 'warning';
          what := 'role ' || r.role || ' has rights on ' || r.thing;
          advice := 'revoke them, unless that role shall read every replicated row';
          return query select name, level, what, advice;
          advice := null;
        end loop;
        if not told then
          name := 'grants';
          level := 'ok';
          what := 'strangers may execute and read nothing of ours';
          return query select name, level, what, advice;
        end if;

        told := false;
        for r in
          select q.oid::regclass::text as relation
          from pg_class q where q.oid = any (ours) and not q.relrowsecurity
        loop
          told := true;
          name := 'row level security';
          level := 'error';
          what := 'off on ' || r.relation;
          advice := format('alter table %s enable row level security;', r.relation);
          return query select name, level, what, advice;
          advice := null;
        end loop;
        if not told then
          name := 'row level security';
          level := 'ok';
          what := 'on for our ' || cardinality(ours) || ' tables';
          return query select name, level, what, advice;
        end if;

      when 'worker role' then
        name := 'worker role';
        level := 'ok';
        if not exists (select from pg_roles o where o.rolname = 'libsql_sync_worker') then
          level := 'warning';
          what := 'libsql_sync_worker is not here: the worker connects as a role that may do more than it needs';
          advice := 'create role libsql_sync_worker nologin; select libsql_sync.lock_down(); then a login role in it, as the README shows';
        elsif exists (
          select from pg_proc p
          where p.oid = any (routines) and p.pronamespace = 'libsql_sync'::regnamespace
            and p.proname in ('claim', 'lease', 'park', 'release', 'report', 'request_redrive', 'request_walk', 'reset')
            and not has_function_privilege('libsql_sync_worker', p.oid, 'execute')
        ) or not has_schema_privilege('libsql_sync_worker', 'libsql_sync', 'usage') then
          level := 'error';
          what := 'libsql_sync_worker may not call the worker''s functions';
          advice := 'select libsql_sync.lock_down();';
        else
          select string_agg(m.member::regrole::text, ', ' order by m.member::regrole::text) into what
          from pg_auth_members m
          where m.roleid = 'libsql_sync_worker'::regrole and m.member <> (
            select s.nspowner from pg_namespace s where s.nspname = 'libsql_sync');
          if what is null then
            level := 'warning';
            what := 'nobody is in libsql_sync_worker: the worker connects as a role that may do more than it needs';
            advice := 'create role libsql_sync_login login password ''...'' in role libsql_sync_worker; and name it in the worker''s PGMQ_URL';
          else
            what := 'may call the worker''s functions; in it: ' || what;
          end if;
        end if;
        return query select name, level, what, advice;
        advice := null;

      when 'secrets' then
        for r in
          select s.name, s.pattern, s.wanted, libsql_sync.secret(s.name) as value
          from (values
            ('libsql_sync_url', '^https?://[^/]+/sync$', 'the worker''s address with /sync at its end'),
            ('libsql_webhook_signature', '^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$', 'printable ASCII without space around it')
          ) s (name, pattern, wanted)
        loop
          name := 'secret ' || r.name;
          if coalesce(r.value, '') = '' then
            level := 'error';
            what := 'not in the Vault: cron cannot call the worker';
            advice := format('select vault.create_secret(''<value>'', %L);', r.name);
          elsif r.value !~ r.pattern then
            level := 'error';
            what := 'there, but not ' || r.wanted;
            advice := format('select vault.update_secret(id, ''<value>'') from vault.secrets where name = %L;', r.name);
          else
            level := 'ok';
            what := 'there';
          end if;
          return query select name, level, what, advice;
          advice := null;
        end loop;
        name := 'signature';
        level := 'ok';
        what := 'cron signs each call (HMAC-SHA-256): the secret stays in the Vault';
        if not (select p.prosrc ~ 'libsql_sync\.call_worker\(' from pg_proc p
          where p.oid = 'public.process_libsql_replication_batch()'::regprocedure)
        then
          level := 'warning';
          what := 'cron sends the secret itself, which every SQL role can read in net.http_request_queue';
          advice := migrate;
        end if;
        return query select name, level, what, advice;
        advice := null;

      when 'cron' then
        name := 'cron job';
        n := null;
        if to_regclass('cron.job') is not null then
          execute 'select j.jobid, j.schedule, j.active, j.username::text, j.database::text, j.command
            from cron.job j where j.jobname = ''process_libsql_replication'' order by j.active desc limit 1' into r;
          get diagnostics n = row_count;
        end if;
        if n is null then
          level := 'error';
          what := 'pg_cron is not here';
          advice := 'enable pg_cron and ' || migrate || '; or call select public.process_libsql_replication_batch(); every 5 minutes by other means';
        elsif n = 0 then
          level := 'error';
          what := 'process_libsql_replication is not scheduled';
          advice := 'select cron.schedule(''process_libsql_replication'', ''*/5 * * * *'', ''select public.process_libsql_replication_batch()'');';
        elsif not r.active then
          level := 'error';
          what := 'process_libsql_replication is not active';
          advice := format('select cron.alter_job(%s, active := true);', r.jobid);
        elsif r.command !~ 'process_libsql_replication_batch' or r.database <> current_database() then
          level := 'error';
          what := 'process_libsql_replication runs something else, or in another database';
          advice := migrate;
        else
          level := 'ok';
          what := r.schedule || ' as ' || r.username;
        end if;
        return query select name, level, what, advice;
        advice := null;

        if c.realtime then
          name := 'realtime';
          level := 'ok';
          what := 'on';
          if n is null or not exists (
            select from cron.job j where j.jobname = 'libsql_sync_realtime' and j.active
              and j.database = current_database() and j.command ~ 'libsql_sync\.watch')
          then
            level := 'error';
            what := 'on, and nobody looks: cron job libsql_sync_realtime is not there, or not active';
            advice := 'select libsql_sync.realtime(true);';
          elsif c.wake_misses > 0 then
            level := 'error';
            what := format('%s calls of the worker in a row came to nothing', c.wake_misses);
            advice := 'see the secrets, pg_net''s answers here, and the worker''s log';
          else
            execute 'select d.status, d.return_message from cron.job_run_details d join cron.job j using (jobid)
              where j.jobname = ''libsql_sync_realtime'' order by d.runid desc limit 1' into run;
            if run.status = 'failed' then
              level := 'error';
              what := 'on, and its last run failed: ' || left(split_part(run.return_message, E'\n', 1), 160);
              advice := 'select libsql_sync.realtime(true);';
            end if;
          end if;
          return query select name, level, what, advice;
          advice := null;
        end if;

        if n = 1 then
          name := 'cron runs';
          level := 'ok';
          execute 'select count(*) as runs, count(*) filter (where d.status = ''failed'') as failed,
              max(d.start_time) as latest,
              (array_agg(d.status order by d.start_time desc))[1] as status,
              (array_agg(d.return_message order by d.start_time desc) filter (where d.status = ''failed''))[1] as message
            from (select * from cron.job_run_details d where d.jobid = $1 order by d.runid desc limit 10) d'
          into run using r.jobid;
          if run.runs = 0 then
            level := 'warning';
            what := 'none yet';
            advice := 'wait for the next; if there is none, is pg_cron''s worker running (select * from pg_stat_activity where application_name ~ ''cron'')?';
          else
            what := format('%s of the last %s failed, latest %s ago', run.failed, run.runs,
              date_trunc('second', clock_timestamp() - run.latest));
            if run.status = 'failed' then
              level := 'error';
              what := what || ': ' || left(split_part(run.message, E'\n', 1), 160);
              advice := 'select * from cron.job_run_details where jobid = ' || r.jobid || ' order by runid desc limit 5;';
            elsif run.failed > 0 then
              level := 'warning';
              advice := 'the latest went well; watch it';
            end if;
          end if;
          return query select name, level, what, advice;
          advice := null;
        end if;

      when 'pg_net' then
        name := 'pg_net answers';
        level := 'ok';
        if to_regclass('net._http_response') is null then
          level := 'error';
          what := 'pg_net is not here';
          advice := 'enable pg_net, or call the worker by other means';
        else
          -- Answers of everybody's requests: they do not say whose they are.
          execute 'select count(*) as answers, bool_and(a.status_code between 200 and 299) as good,
              (array_agg(a.status_code order by a.id desc))[1] as latest,
              string_agg(distinct case when a.timed_out then ''timeout'' else coalesce(a.status_code::text, ''no answer'') end, '', '') as codes
            from (select * from net._http_response a order by a.id desc limit 20) a'
          into run;
          what := case when run.answers = 0 then 'none kept'
            else format('the last %s of all requests: %s', run.answers, run.codes) end;
          if run.good is not true and run.answers > 0 then
            level := 'warning';
            advice := 'if they are the worker''s: 401 is a wrong secret, 404 a wrong libsql_sync_url, 409 and 5xx are told in the worker''s answer (select status_code, content from net._http_response order by id desc limit 20)';
          end if;
        end if;
        return query select name, level, what, advice;
        advice := null;

      when 'queue' then
        select m.enqueued_at into r from pgmq.q_replicate_data_libsql m
        where m.msg_id >= (select h.floor from libsql_sync.chain h) order by m.msg_id limit 1;
        name := 'queue';
        level := 'ok';
        what := format('%s%s, %s on disk', libsql_sync.queued() ->> 'queued',
          case when libsql_sync.queued() ->> 'queued_exact' = 'true' then '' else ' or more' end,
          pg_size_pretty(pg_total_relation_size('pgmq.q_replicate_data_libsql')));
        if r.enqueued_at < clock_timestamp() - interval '30 minutes' then
          level := 'error';
          what := what || ', the oldest waits for ' || date_trunc('second', clock_timestamp() - r.enqueued_at);
          advice := 'see the cron job, the worker and its answers here; deno task status tells the rest';
        end if;
        return query select name, level, what, advice;
        advice := null;

        select count(*) into n from (select from pgmq.q_replicate_data_libsql_dlq limit 10001) d;
        name := 'dead letters';
        level := case when n = 0 then 'ok' else 'warning' end;
        what := case when n > 10000 then 'more than 10000' else n::text end;
        advice := case when n > 0 then 'deno task dlq list' end;
        return query select name, level, what, advice;
        advice := null;

      when 'archive' then
        name := 'archive';
        level := 'ok';
        select min(b.acked_at) as oldest into r from libsql_sync.batches b where b.state = 'acked';
        n := pg_total_relation_size('pgmq.a_replicate_data_libsql');
        what := pg_size_pretty(n) || case when r.oldest is null then ', nothing to replay'
          else ', replays the last ' || date_trunc('second', clock_timestamp() - r.oldest) end;
        if r.oldest < clock_timestamp() - c.replay_window - interval '1 day'
          and exists (
            select from pgmq.q_replicate_data_libsql m
            where m.msg_id >= (select h.floor from libsql_sync.chain h)) then
          level := 'warning';
          what := what || ', kept for ' || c.replay_window;
          advice := 'each sync trims some of it: see why none comes';
        elsif n > 5368709120 then
          level := 'warning';
          advice := 'shorten chain.replay_window, or vacuum full pgmq.a_replicate_data_libsql; in a quiet hour (it locks the archive)';
        end if;
        return query select name, level, what, advice;
        advice := null;

      when 'replica' then
        name := 'replica';
        level := 'ok';
        if c.seen_at is null then
          level := 'warning';
          what := 'no worker has called yet';
          advice := 'deploy it, put its address into the Vault, and wait for the next tick';
        elsif c.seen is null then
          level := 'warning';
          what := 'empty when last seen, ' || date_trunc('second', clock_timestamp() - c.seen_at) || ' ago';
          advice := 'the next sync starts it: deno task status';
        else
          what := format('at position %s of %s, seen %s ago', c.seen ->> 'position', c.position,
            date_trunc('second', clock_timestamp() - c.seen_at));
          if c.seen ->> 'epoch' <> c.epoch then
            level := 'warning';
            what := what || ', in another epoch';
            advice := 'the next sync follows, or says why not: deno task status';
          elsif (libsql_sync.heartbeat(c) ->> 'stale')::boolean then
            level := 'error';
            advice := 'a worker looks every 15 minutes even when nothing is queued: see the cron job, the secrets and pg_net''s answers here';
          end if;
        end if;
        return query select name, level, what, advice;
        advice := null;

        name := 'walk';
        level := 'ok';
        what := case when (c.seen ->> 'walk_done')::integer = 1 then 'every table was walked' else 'not every table was walked yet' end;
        if (c.seen ->> 'walk_done')::integer = 0 and not c.refill then
          level := 'warning';
          what := what || ', and nobody asked for it';
          advice := 'deno task backfill';
        end if;
        return query select name, level, what, advice;
        advice := null;

        name := 'schema in force';
        level := 'ok';
        what := newest;
        if newest is null then
          level := 'error';
          what := 'none';
          advice := 'deno task schema, then ' || migrate;
        elsif c.seen ->> 'schema_hash' <> newest then
          level := 'warning';
          what := what || ', the replica has ' || (c.seen ->> 'schema_hash');
          advice := 'deploy the worker with the schema.json in force; its next sync alters the replica';
        end if;
        return query select name, level, what, advice;
        advice := null;

        if c.paused then
          name := 'paused';
          level := 'warning';
          what := 'the worker is held off';
          advice := 'select libsql_sync.resume();';
          return query select name, level, what, advice;
          advice := null;
        end if;
      end case;
    exception when others then
      get stacked diagnostics state = returned_sqlstate;
      name := section;
      level := 'error';
      what := 'cannot be looked at: SQLSTATE ' || state;
      advice := case when state = '42501' then 'ask as the role that ran the migration (postgres)' else migrate end;
      return query select name, level, what, advice;
      advice := null;
    end;
  end loop;
end
$$;
