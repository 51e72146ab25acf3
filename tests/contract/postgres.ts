/**
 * The source in PostgreSQL, as the contract tests it: one database, put back
 * to where it began for each test.
 *
 * @module
 */

import postgres from "postgres";
import { openCarrier } from "../../lib/connect/open_carrier.ts";
import { type Schema, schemaText } from "../../lib/schema.ts";
import { HASHES, SCHEMAS, type SourceUnderTest } from "./source.ts";
import type { Fields } from "../sim/source_state.ts";
import {
  keyOf,
  type Row,
  USER_TABLES,
  type UserStatement,
} from "../sim/tables.ts";

/** The user's tables. */
export const TABLES = `
  create table public.item (id bigint primary key, name text, size text, extra text);
  create table public.part (item bigint, code text, note text, primary key (item, code));
`;

/** Everything as a first install leaves it, but for the schema in force. */
const RESET = `
  truncate public.item, public.part;
  truncate pgmq.q_replicate_data_libsql, pgmq.a_replicate_data_libsql,
    pgmq.q_replicate_data_libsql_dlq, pgmq.a_replicate_data_libsql_dlq restart identity;
  truncate libsql_sync.batches, libsql_sync.walks, libsql_sync.schemas, libsql_sync.chain,
    libsql_sync.epochs restart identity;
  with genesis as (insert into libsql_sync.epochs (epoch, wipe, reason)
    values (gen_random_uuid(), false, 'installed') returning epoch)
  insert into libsql_sync.chain (epoch, batch) select epoch, epoch from genesis;
`;

/**
 * Makes one with the first schema in force and empty tables.
 *
 * @param url The database, with the migration and {@linkcode TABLES}.
 * @returns The source.
 */
export async function makePostgres(url: string): Promise<SourceUnderTest> {
  const connect = () =>
    postgres(url, {
      max: 1,
      prepare: false,
      onnotice: () => {},
      // A wait that the model does not know of is told, not waited for.
      connection: { lock_timeout: 10_000 },
    });
  const sql = connect();
  const carrier = openCarrier({
    pgmqUrl: url,
    pgmqApiKey: "",
    pgmqToken: "",
    pgmqCa: "",
  }, { timeoutMs: 60_000 });
  const sessions = new Map<number, postgres.Sql>();
  await sql.unsafe(RESET).simple();
  const configure = async (schema: Schema, hash: string) => {
    const text = schemaText(schema);
    return await sql`select libsql_sync.configure(${hash}, ${text}::text::jsonb)`
      .then(() => true, (error) => {
        // Somebody is writing by the old schema.
        if (error.code === "55P03") return false;
        throw error;
      });
  };
  await configure(SCHEMAS[0]!, HASHES[0]!);
  await sql`update libsql_sync.chain set walk_wanted = 1, walk_opened = 0`;
  return {
    carrier,
    async run(statement, session) {
      const on = session === undefined ? sql : sessions.get(session)!;
      await on.unsafe(textOf(statement)).simple();
      return true;
    },
    async begin(session) {
      const on = connect();
      sessions.set(session, on);
      await on.unsafe("begin; select pg_current_xact_id()").simple();
    },
    async end(session, how) {
      const on = sessions.get(session)!;
      sessions.delete(session);
      await on.unsafe(how).simple();
      await on.end({ timeout: 1 });
    },
    async send(message) {
      await sql`select pgmq.send('replicate_data_libsql'::text, ${
        JSON.stringify(message)
      }::text::jsonb)`;
    },
    configure,
    async set({ scrubRows, refill, walkWanted, paused, replayWindowMs }) {
      await sql`update libsql_sync.chain set
        scrub_rows = coalesce(${scrubRows ?? null}::integer, scrub_rows),
        refill = coalesce(${refill ?? null}::boolean, refill),
        walk_wanted = coalesce(${walkWanted ?? null}::bigint, walk_wanted),
        paused = coalesce(${paused ?? null}::boolean, paused),
        replay_window = coalesce(make_interval(secs => ${
        replayWindowMs === undefined ? null : replayWindowMs / 1000
      }::float8), replay_window)`;
    },
    async redrive() {
      await sql`select libsql_sync.redrive()`;
    },
    async standing() {
      const [{ standing }] = await sql.unsafe<[{ standing: Fields }]>(STANDING);
      return standing;
    },
    async close() {
      await carrier.close();
      for (const open of [...sessions.values(), sql]) {
        await open.end({ timeout: 1 });
      }
    },
  };
}

/** A statement as its SQL. */
function textOf(statement: UserStatement): string {
  const { table } = statement;
  const { key, columns } = USER_TABLES[table]!;
  const literal = (value: string | null | undefined) =>
    value == null ? "null" : `'${value.replaceAll("'", "''")}'`;
  const where = (keys: readonly string[]) =>
    `(${key.join()}) in (${
      keys.map((name) => {
        const cells = JSON.parse(name) as string[];
        return `(${cells.map(literal).join()})`;
      }).join()
    })`;
  const set = (row: Row) =>
    Object.entries(row).map(([name, value]) => `${name} = ${literal(value)}`)
      .join();
  switch (statement.kind) {
    case "insert":
      return `insert into ${table} values ${
        statement.rows.map((row) =>
          `(${columns.map((name) => literal(row[name])).join()})`
        ).join()
      } on conflict do nothing`;
    case "update":
      return `update ${table} set ${set(statement.set)} where ${
        where(statement.keys)
      }`;
    case "rekey": {
      const cells = JSON.parse(statement.key) as string[];
      const before = Object.fromEntries(
        key.map((name, at) => [name, cells[at]!]),
      );
      const after = keyOf(table, { ...before, ...statement.set });
      return `update ${table} set ${set(statement.set)} where ${
        where([statement.key])
      } and not exists (select from ${table} where ${where([after])})`;
    }
    case "delete":
      return `delete from ${table} where ${where(statement.keys)}`;
    case "truncate":
      return `truncate ${table}`;
    // One message of several statements is one transaction.
    case "reload":
      return `truncate ${table}; ${textOf({ ...statement, kind: "insert" })}`;
    case "touch":
      throw new Error("needs a trigger of the user's");
  }
}

const STANDING = `
select json_build_object(
  'chain', (select json_build_object('epoch', epoch, 'position', position, 'batch', batch, 'handed', handed, 'lease', lease,
    'scrub_rows', scrub_rows, 'refill', refill, 'asked', walk_wanted > walk_opened, 'paused', paused,
    'letters_closed', letters_closed, 'floor', floor, 'floor_next', floor_next, 'floor_awaits', coalesce(cardinality(floor_awaits), 0)) from libsql_sync.chain),
  'epochs', (select coalesce(json_agg(json_build_object('epoch', epoch, 'wipe', wipe, 'reason', reason)
    order by generation), '[]') from libsql_sync.epochs),
  'batches', (select coalesce(json_agg(json_build_object('position', b.position, 'batch', b.batch, 'prev', b.prev,
      'msg_ids', (select coalesce(json_agg(i order by i), '[]') from unnest(b.msg_ids) r
        cross join lateral generate_series(lower(r), upper(r) - 1) i),
      'cut', case when b.cut_id is not null then json_build_object('msg_id', b.cut_id, 'keys', b.cut_count) end, 'messages', b.messages, 'drained', b.drained, 'dead_letters', b.dead_letters, 'parked', b.parked,
      'opens', b.opens is not null, 'upto', b.upto, 'state', b.state) order by b.position, b.handed_at), '[]')
    from libsql_sync.batches b join libsql_sync.chain c using (epoch)),
  'walks', (select coalesce(json_agg(json_build_object('walk_gen', walk_gen, 'kind', kind, 'tables', tables,
    'keys', keys, 'repair', repair, 'closes', closes, 'ended', ended_at is not null, 'found', found)
    order by walk_gen), '[]') from libsql_sync.walks),
  'queue', (select coalesce(json_agg(msg_id order by msg_id), '[]') from pgmq.q_replicate_data_libsql),
  'archive', (select coalesce(json_agg(msg_id order by msg_id), '[]') from pgmq.a_replicate_data_libsql),
  'letters', (select coalesce(json_agg(message - 'parked_at' order by msg_id), '[]') from pgmq.q_replicate_data_libsql_dlq)
)::json as standing`;
