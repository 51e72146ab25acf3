/**
 * Ring 3. What PostgreSQL's catalog says about tables, in schema.json's words.
 *
 * Promise: it reads the catalog and nothing else, never a row, so that any role
 * will do.
 *
 * @module
 */

import postgres from "postgres";
import { SyncError } from "../errors.ts";
import { completePostgresUrl } from "../postgres/url.ts";
import type { ColumnType, Schema, Table } from "../schema.ts";

/** A table as PostgreSQL has it. */
export interface CatalogTable {
  readonly name: string;
  /** What keeps it from being replicated, its key aside; null where nothing does. */
  readonly problem: string | null;
  /** Its unique keys without a nullable column, the best one first. */
  readonly keys: readonly (readonly string[])[];
  /** Its columns, in its order. */
  readonly columns: readonly {
    readonly name: string;
    readonly type: ColumnType;
    /** PostgreSQL's word for the type. */
    readonly typeName: string;
    readonly notNull: boolean;
    /** Whether it can do without fractions. */
    readonly maybeInteger: boolean;
  }[];
  /** The columns of its plain indexes, the keys' among them. */
  readonly indexes: readonly (readonly string[])[];
}

/** What `--check` compares with. */
export interface Catalog {
  readonly tables: readonly CatalogTable[];
  /** The hash of the schema in force; null where it is not installed. */
  readonly installed: string | null;
  /** Whether the role may read that. */
  readonly mayReadInstalled: boolean;
}

/**
 * Reads tables of PostgreSQL's schema public, and which schema is in force.
 *
 * @param url The connection string.
 * @param names The tables.
 * @returns A table for each name, in their order.
 * @throws {SyncError} `config_invalid` or `source_unreachable`: the connection
 * string is none, or leads nowhere.
 */
export async function readCatalog(
  url: string,
  names: readonly string[],
): Promise<Catalog> {
  const sql = connect(url);
  try {
    const rows = await sql.unsafe<{ table: CatalogRow }[]>(TABLES, [
      JSON.stringify(names),
    ]);
    return {
      tables: rows.map(({ table }) => tableOf(table)),
      ...await readInstalled(sql),
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
    await sql.end({ timeout: 1 });
  }
}

/**
 * Compares schema.json with the catalog.
 *
 * A column that is not listed is no difference, nor is TEXT for a column of
 * another type: it holds whatever there is.
 *
 * @param schema The schema.
 * @param catalog Its tables in the catalog.
 * @returns A sentence for each difference.
 */
export function differences(schema: Schema, { tables }: Catalog): string[] {
  return schema.tables.flatMap((listed) => {
    const found = tables.find(({ name }) => name === listed.name);
    const where = `table ${JSON.stringify(listed.name)}`;
    if (found === undefined || found.problem !== null) {
      return [`${where}: ${found?.problem ?? "is not in PostgreSQL"}`];
    }
    return [
      ...columnDifferences(listed, found).map((text) => `${where}, ${text}`),
      ...(isKey(listed.key, found) ? [] : [
        `${where}: its key (${
          listed.key.join(", ")
        }) is not unique and not null in PostgreSQL`,
      ]),
    ];
  });
}

/**
 * Says what keeps a table from being replicated.
 *
 * @param table The table.
 * @returns The words after its name; null where nothing does.
 */
export function refusalOf({ problem, keys }: CatalogTable): string | null {
  if (problem !== null || keys.length > 0) return problem;
  return "has no primary key, and no unique key whose columns are all not null";
}

/**
 * Writes a table of the catalog as schema.json's value.
 *
 * @param table The table, which has a key.
 * @returns The value.
 */
export function tableValue(table: CatalogTable): {
  key: string | string[];
  columns: Record<string, ColumnType>;
  indexes: (string | string[])[];
} {
  const [key] = table.keys;
  const seen = new Set([String(key)]);
  const indexes = table.indexes.filter((columns) => {
    const isNew = !seen.has(String(columns));
    seen.add(String(columns));
    return isNew;
  });
  return {
    key: oneOrMany(key!),
    columns: Object.fromEntries(
      table.columns.map(({ name, type }) => [name, type]),
    ),
    indexes: indexes.map(oneOrMany),
  };
}

function oneOrMany(names: readonly string[]): string | string[] {
  return names.length === 1 ? names[0]! : [...names];
}

function columnDifferences(listed: Table, found: CatalogTable): string[] {
  return listed.columns.flatMap(({ name, type }) => {
    const where = `column ${JSON.stringify(name)}`;
    const column = found.columns.find((column) => column.name === name);
    if (column === undefined) return [`${where}: PostgreSQL does not have it`];
    const agrees = type === "TEXT" || type === column.type ||
      (type === "INTEGER" && column.maybeInteger);
    return agrees ? [] : [
      `${where}: ${type} is listed, and PostgreSQL's type ${column.typeName} is ${column.type}`,
    ];
  });
}

/** What libsql_sync.usable_key() says. */
function isKey(key: readonly string[], found: CatalogTable): boolean {
  const isNotNull = (name: string) =>
    found.columns.some((column) => column.name === name && column.notNull);
  return key.every(isNotNull) &&
    found.keys.some((unique) => unique.every((name) => key.includes(name)));
}

function connect(url: string): postgres.Sql {
  try {
    return postgres(completePostgresUrl(url), {
      max: 1,
      prepare: false,
      fetch_types: false,
      connect_timeout: 10,
      onnotice: () => {},
    });
  } catch {
    // The driver's words would show the password.
    throw new SyncError(
      "config_invalid",
      "Cannot use PGMQ_URL: expected postgres://user:password@host:port/database, found another text",
    );
  }
}

async function readInstalled(
  sql: postgres.Sql,
): Promise<Pick<Catalog, "installed" | "mayReadInstalled">> {
  const [there] = await sql.unsafe(
    `select has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select') as may
     from pg_namespace n join pg_class c on c.relnamespace = n.oid and c.relname = 'schemas'
     where n.nspname = 'libsql_sync'`,
  );
  if (there === undefined) return { installed: null, mayReadInstalled: true };
  if (!there.may) return { installed: null, mayReadInstalled: false };
  const [newest] = await sql.unsafe(
    "select hash from libsql_sync.schemas order by generation desc limit 1",
  );
  return { installed: newest?.hash ?? null, mayReadInstalled: true };
}

/** What the query below gives for a name. */
type CatalogRow = {
  name: string;
  kind: string | null;
  partition: boolean;
  inherits: boolean;
  keys: string[][];
  columns: CatalogTable["columns"];
  indexes: string[][];
};

function tableOf(row: CatalogRow): CatalogTable {
  const { name, keys, columns, indexes } = row;
  return { name, problem: problemOf(row), keys, columns, indexes };
}

const KINDS: Record<string, string> = {
  v: "is a view",
  m: "is a materialized view",
  f: "is a foreign table",
};

/** The same refusals, in the same words, as libsql_sync.attach_problem(). */
function problemOf(row: CatalogRow): string | null {
  if (row.kind === null) return "is not in PostgreSQL's schema public";
  if (row.kind !== "r" && row.kind !== "p") {
    return KINDS[row.kind] ?? "is no table";
  }
  if (row.inherits) return "takes part in table inheritance";
  if (row.partition) return "is a partition: list the partitioned table";
  return null;
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
