/**
 * Ring 3. Claims that hand out little, so that a few writers make long queues
 * and many batches.
 *
 * Promise: what a worker asks for is only ever made less.
 *
 * @module
 */

import type { Sql } from "postgres";

const LIMITS = `
alter function libsql_sync.claim(json) rename to claim_as_asked;
create function libsql_sync.claim(request json) returns text[]
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  asked jsonb := request::jsonb;
  less constant integer := 1 + random(0, 40);
begin
  if (asked ->> 'rows_max')::integer > less and random() < 0.7 then
    asked := jsonb_set(asked, '{rows_max}', to_jsonb(less));
  end if;
  if (asked ->> 'bytes_max')::integer > 200 * less and random() < 0.3 then
    asked := jsonb_set(asked, '{bytes_max}', to_jsonb(200 * less));
  end if;
  if (asked #>> '{page,rows}')::integer > 20 + 3 * less and random() < 0.5 then
    asked := jsonb_set(asked, '{page,rows}', to_jsonb(20 + 3 * less));
  end if;
  return libsql_sync.claim_as_asked(asked::json);
end $$;
revoke all on function libsql_sync.claim(json) from public;
grant execute on function libsql_sync.claim(json) to libsql_sync_worker;
`;

/** Puts limits in the place of a worker's own, of a size that changes each time. */
export async function limitClaims(sql: Sql): Promise<void> {
  await sql.unsafe(LIMITS).simple();
}
