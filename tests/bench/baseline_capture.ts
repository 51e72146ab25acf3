/**
 * Ring 0. How the baselines capture: a row trigger that sends both images.
 *
 * @module
 */

/** The baselines' queue. */
export const QUEUE = "baseline";

/** Makes the queue and the trigger; run as role postgres. */
export const CAPTURE = `
  create extension if not exists pgmq;
  select pgmq.create('${QUEUE}');

  create function public.send_to_baseline() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
  begin
    perform pgmq.send('${QUEUE}'::text, jsonb_build_object(
      'table', tg_table_name,
      'type', tg_op,
      'record', case when tg_op <> 'DELETE' then to_jsonb(new) end,
      'old_record', case when tg_op <> 'INSERT' then to_jsonb(old) end));
    return null;
  end
  $$;

  create trigger replicate_to_baseline after insert or update or delete on public.app_versions
  for each row execute function public.send_to_baseline();
`;
