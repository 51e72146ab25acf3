/**
 * Ring 0. What bounds the capture of a statement of one row: a trigger that does
 * what none can do without, and says nothing of what it found.
 *
 * @module
 */

/** Its queue. */
export const LEAST_QUEUE = "least";

const MESSAGE = '{"v": 2, "table": "app_versions", "keys": [["1"]]}';

/**
 * Makes the queue and the trigger; run as role postgres. It reads the row as it was,
 * and as the statement left it.
 */
export const LEAST_CAPTURE = `
  create extension if not exists pgmq;
  select pgmq.create('${LEAST_QUEUE}');

  create function public.send_the_least() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
  declare
    old_row record;
    new_row record;
  begin
    select * into old_row from old_rows;
    select * into new_row from new_rows;
    insert into pgmq.q_${LEAST_QUEUE} (vt, message) values (now(), '${MESSAGE}');
    return null;
  end
  $$;

  create trigger replicate_the_least after update on public.app_versions
  referencing old table as old_rows new table as new_rows
  for each statement execute function public.send_the_least();
`;
