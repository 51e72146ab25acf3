/**
 * Ring 0. What bounds the capture of a statement of one row: a trigger that does
 * what none can do without, and says nothing of what it found.
 *
 * @module
 */

/** Its queue. */
export const LEAST_QUEUE = "least";

const MESSAGE =
  '{"v": 1, "table": "app_versions", "columns": ["id", "checksum", "deleted"], "updates": [["1", "d41d8cd98f00b204e9800998ecf8427e", "true"]]}';

/**
 * Makes the queue and the trigger; run as role postgres. It reads the row as it was,
 * as the statement left it, and as it is: another may have changed it since, whose
 * message came first.
 */
export const LEAST_CAPTURE = `
  create extension if not exists pgmq;
  select pgmq.create('${LEAST_QUEUE}');

  create function public.send_the_least() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
  declare
    old_row record;
    new_row record;
    live_row record;
  begin
    select * into old_row from old_rows;
    select * into new_row from new_rows;
    select * into live_row from public.app_versions l where l.id = new_row.id;
    insert into pgmq.q_${LEAST_QUEUE} (vt, message) values (now(), '${MESSAGE}');
    return null;
  end
  $$;

  create trigger replicate_the_least after update on public.app_versions
  referencing old table as old_rows new table as new_rows
  for each statement execute function public.send_the_least();
`;
