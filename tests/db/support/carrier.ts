/**
 * Ring 3. A carrier on each way to the source, with functions to call there.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import postgres from "postgres";
import type { Carrier } from "../../../lib/chain/claim.ts";
import { parsePgmq, type PgmqSettings } from "../../../lib/config/source.ts";
import { openCarrier } from "../../../lib/connect/open_carrier.ts";
import { SUPERUSER } from "../../../lib/dev/postgres.ts";
import type { Servers } from "./stack.ts";
import { admitToken, settingsFor, type Transport } from "./transport.ts";

/** How long a call may take: the machine may do much else. */
export const TIMEOUT_MS = 30_000;

/** Functions of the tests beside the source's own. */
const PROBES = `
  create function libsql_sync.echo(request json) returns json language sql volatile as $$ select request $$;
  create or replace function libsql_sync.claim(request json) returns text[] language sql volatile as $$
    select string_to_array(request::text, null) $$;
  create function libsql_sync.many(request json) returns json language sql volatile as $$
    select to_json(repeat('y', (request #>> '{}')::integer)) $$;
  create function libsql_sync.nap(request json) returns json language plpgsql volatile as $$
    begin perform pg_sleep((request ->> 'seconds')::float8); return request; end $$;
  create function libsql_sync.fail(request json) returns json language plpgsql volatile as $$
    begin raise exception 'a row''s value' using errcode = request ->> 'state'; end $$;
  create function libsql_sync.pid(request json) returns json language sql volatile as $$
    select to_json(pg_backend_pid()) $$;
  create function libsql_sync.secret(request json) returns json language sql volatile as $$ select request $$;
  grant execute on function libsql_sync.echo(json), libsql_sync.many(json), libsql_sync.nap(json), libsql_sync.fail(json),
    libsql_sync.pid(json) to libsql_sync_worker;
  revoke execute on function libsql_sync.secret(json) from public;
`;

/** What a test of a way is given. */
export interface Setup {
  readonly carrier: Carrier;
  /** As superuser. */
  readonly sql: postgres.Sql;
  readonly way: PgmqSettings;
}

/** Runs something with a carrier on a way, whose settings may be changed before. */
export type WithWay = (
  transport: Transport,
  run: (setup: Setup) => Promise<void>,
  change?: (settings: Record<string, string>) => void,
  timeoutMs?: number,
) => Promise<void>;

/**
 * Opens ways to a database of the servers: one for all, as the calls of these
 * tests change nothing in it.
 */
export function openWays(servers: Servers): WithWay {
  let database: Promise<string> | null = null;
  const probed = () => database ??= makeProbed(servers);
  return async (
    transport,
    run,
    change = () => {},
    timeoutMs = TIMEOUT_MS,
  ) => {
    const server = await servers.postgres();
    const database = await probed();
    const settings = await settingsFor(server.url({ database }), transport);
    change(settings);
    const problems: string[] = [];
    const way = parsePgmq(
      (name) => settings[name] ?? "",
      (problem) => problems.push(problem),
    );
    assertEquals(problems, []);
    const sql = postgres(server.url({ database, user: SUPERUSER }), { max: 1 });
    const carrier = openCarrier(way, { timeoutMs });
    try {
      await run({ carrier, sql, way });
    } finally {
      await carrier.close();
      await sql.end({ timeout: 1 });
    }
  };
}

/** Makes a database with the functions. */
async function makeProbed(servers: Servers): Promise<string> {
  const server = await servers.postgres();
  const made = await servers.database();
  await admitToken(server, made);
  const sql = postgres(server.url({ database: made }), { max: 1 });
  await sql.unsafe(PROBES).simple();
  await sql.end();
  return made;
}
