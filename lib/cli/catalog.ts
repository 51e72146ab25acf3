/**
 * Ring 3. Reads tables from PostgreSQL's catalog.
 *
 * Promise: it reads the catalog and never a row, so any role can run it.
 *
 * @module
 */

import {
  type CatalogRow,
  type CatalogTable,
  tableOf,
} from "./catalog_table.ts";
import { type Connection, openSource, type Query } from "./query_source.ts";
import { SyncError } from "../errors.ts";

/** PostgreSQL's side of a comparison with schema.json. */
export interface Catalog {
  /** The tables asked for, in their order. */
  readonly tables: readonly CatalogTable[];
  /** The hash of the schema in force; null if the migration was not run. */
  readonly installed: string | null;
  /** Whether the role may read which schema is in force. */
  readonly mayReadInstalled: boolean;
}

/**
 * Reads tables of PostgreSQL's schema public, and which schema.json is in force.
 *
 * @param url The connection string.
 * @param names The tables.
 * @returns A table for each name, in their order.
 * @throws {SyncError} `config_invalid` if the text is not a connection string,
 * `source_unreachable` if PostgreSQL does not answer.
 */
export async function readCatalog(
  url: string,
  names: readonly string[],
): Promise<Catalog> {
  const source = connect(url);
  try {
    const rows = await source.query<{ table: CatalogRow }>(TABLES, [
      JSON.stringify(names),
    ]);
    return {
      tables: rows.map(({ table }) => tableOf(table)),
      ...await readInstalled(source.query),
    };
  } catch (error) {
    if (error instanceof SyncError) throw error;
    const { code } = error as { code?: unknown };
    throw new SyncError(
      "source_unreachable",
      `Cannot read PostgreSQL's catalog: expected an answer, found ${
        typeof code === "string" ? code : "no connection"
      }; check PGMQ_URL`,
      { cause: error },
    );
  } finally {
    await source.close();
  }
}

function connect(url: string): Connection {
  try {
    return openSource(url);
  } catch {
    // The driver's own message would show the password.
    throw new SyncError(
      "config_invalid",
      "Cannot use PGMQ_URL: expected postgres://user:password@host:port/database, found another text",
    );
  }
}

async function readInstalled(
  query: Query,
): Promise<Pick<Catalog, "installed" | "mayReadInstalled">> {
  const [schemas] = await query<{ may: boolean }>(
    `select has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select') as may
     from pg_namespace n join pg_class c on c.relnamespace = n.oid and c.relname = 'schemas'
     where n.nspname = 'libsql_sync'`,
  );
  if (schemas === undefined) {
    return { installed: null, mayReadInstalled: true };
  }
  if (!schemas.may) return { installed: null, mayReadInstalled: false };
  const [newest] = await query<{ hash: string }>(
    "select hash from libsql_sync.schemas order by generation desc limit 1",
  );
  return { installed: newest?.hash ?? null, mayReadInstalled: true };
}

// Domains are followed to what they stand for. A numeric's modifier holds
// ((precision << 16) | (scale & 2047)) + 4, the scale's sign in its bit 1024.
const TABLES = `
with recursive wanted as (
  select w.name, w.n, c.oid, c.relkind, c.relispartition
  from jsonb_array_elements_text($1::text::jsonb) with ordinality w (name, n)
  left join pg_class c on c.relname = w.name and c.relnamespace = to_regnamespace('public')
), type (relation, attnum, oid, typtype, typcategory, typbasetype, typmod) as (
  select a.attrelid, a.attnum, t.oid, t.typtype, t.typcategory, t.typbasetype,
    case when t.typtype = 'd' then t.typtypmod else a.atttypmod end
  from wanted w join pg_attribute a on a.attrelid = w.oid join pg_type t on t.oid = a.atttypid
  where a.attnum > 0 and not a.attisdropped
  union all
  select b.relation, b.attnum, t.oid, t.typtype, t.typcategory, t.typbasetype,
    case when t.typtype = 'd' then t.typtypmod else b.typmod end
  from type b join pg_type t on t.oid = b.typbasetype where b.typtype = 'd'
), column_of as (
  select a.attrelid, a.attnum, a.attname, a.attnotnull, format_type(a.atttypid, a.atttypmod) as type_name,
    b.oid in ('int2'::regtype, 'int4'::regtype, 'int8'::regtype) as is_int,
    b.oid = 'numeric'::regtype and (b.typmod = -1 or (((b.typmod - 4) & 2047) # 1024) - 1024 <= 0) as is_whole,
    b.oid = 'numeric'::regtype and b.typmod <> -1 and (((b.typmod - 4) & 2047) # 1024) - 1024 = 0
      and ((b.typmod - 4) >> 16) & 65535 <= 18 as is_short,
    b.oid = 'bool'::regtype as is_bool,
    b.oid in ('json'::regtype, 'jsonb'::regtype) or b.typcategory = 'A' or b.typtype = 'c' as is_json
  from type b join pg_attribute a on a.attrelid = b.relation and a.attnum = b.attnum
  where b.typtype <> 'd'
), index_of as (
  select i.indrelid, i.indisprimary, i.indisunique,
    array_agg(a.attname::text order by k) as names, bool_and(a.attnotnull) as is_not_null
  from wanted w join pg_index i on i.indrelid = w.oid
  join pg_class c on c.oid = i.indexrelid join pg_am m on m.oid = c.relam and m.amname = 'btree'
  cross join generate_series(0, i.indnkeyatts - 1) k
  join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[k]
  where i.indisvalid and i.indpred is null and i.indexprs is null
  group by i.indexrelid, i.indrelid, i.indisprimary, i.indisunique
)
select json_build_object(
  'name', w.name,
  'kind', w.relkind,
  'partition', coalesce(w.relispartition, false),
  'inherits', exists (
    select from pg_inherits h join pg_class p on p.oid = h.inhparent
    where w.oid in (h.inhparent, h.inhrelid) and p.relkind = 'r'),
  'keys', (
    select coalesce(json_agg(to_json(i.names)
      order by i.indisprimary desc, cardinality(i.names), array_to_string(i.names, ',') collate "C"), '[]')
    from index_of i where i.indrelid = w.oid and i.indisunique and i.is_not_null),
  'columns', (
    select coalesce(json_agg(json_build_object(
      'name', c.attname, 'typeName', c.type_name, 'notNull', c.attnotnull, 'maybeInteger', c.is_int or c.is_whole,
      'type', case when c.is_int or c.is_short then 'INTEGER' when c.is_bool then 'BOOLEAN'
        when c.is_json then 'JSON' else 'TEXT' end) order by c.attnum), '[]')
    from column_of c where c.attrelid = w.oid),
  'indexes', (
    select coalesce(json_agg(to_json(i.names)
      order by cardinality(i.names), array_to_string(i.names, ',') collate "C"), '[]')
    from index_of i where i.indrelid = w.oid)
) as table
from wanted w order by w.n`;
