-- The two queues, made by PGMQ: changes wait in replicate_data_libsql, dead letters in
-- replicate_data_libsql_dlq. Triggers write to the first (21_capture), claim() takes from
-- it (55_claim); settled messages lie in its archive for the replay window (54_settle).

create extension if not exists pgmq;

do $$
begin
  if to_regclass('pgmq.q_replicate_data_libsql') is null then
    perform pgmq.create('replicate_data_libsql');
  end if;
  if to_regclass('pgmq.q_replicate_data_libsql_dlq') is null then
    perform pgmq.create('replicate_data_libsql_dlq');
  end if;
end
$$;
