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
