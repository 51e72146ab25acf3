/**
 * Ring 0. The replica's tables and indexes, and what brings them to the schema.
 *
 * Promise: what is there is kept; a table that cannot be kept is rebuilt beside
 * the old one, which readers still see.
 *
 * @module
 */

import { bare, BESIDE, declare, names, quote, type Statement } from "./sql.ts";
import {
  type ColumnType,
  indexName,
  isStoredAsNumber,
  type Schema,
  type Table,
} from "../schema.ts";

/**
 * Lists every column as (table, column, type, place in the key), and every
 * index as (null, name).
 */
export const INSPECT: Statement = {
  sql:
    "SELECT m.name, c.name, c.type, c.pk FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table'" +
    " UNION ALL SELECT NULL, name, NULL, NULL FROM sqlite_master WHERE type = 'index'",
  args: [],
};

/**
 * The text of all that is there but the chain's own tables, as an expression:
 * what was planned for one layout fits no other.
 */
export const LAYOUT =
  "(SELECT coalesce(group_concat(sql, ';'), '') FROM (SELECT sql FROM sqlite_master WHERE tbl_name NOT IN ('_libsql_sync', '_libsql_sync_walks') ORDER BY type, name))";

/** What a replica has. */
export interface Present {
  /** What {@linkcode LAYOUT} was. */
  readonly layout: string;
  /** Its columns, by "table\u0000column". */
  readonly columns: ReadonlyMap<
    string,
    { readonly type: string; readonly isKey: boolean }
  >;
  /** The names of its indexes. */
  readonly indexes: ReadonlySet<string>;
}

/** An empty replica. */
export const NOTHING: Present = {
  layout: "",
  columns: new Map(),
  indexes: new Set(),
};

/** What brings a replica to the schema. */
export interface SchemaChanges {
  /** What brings the replica to the schema, in order. */
  readonly statements: readonly Statement[];
  /** Tables created now: what they will hold is ours. */
  readonly fresh: readonly string[];
  /** Tables that are there and lack an index. */
  readonly unindexed: readonly string[];
  /** Tables whose types or key changed: a new one is filled beside the old. */
  readonly rebuilding: readonly string[];
}

/**
 * Compares what is there with the schema.
 *
 * @param schema The tables.
 * @param present What is there.
 * @returns The statements that bring it to the schema, and what they leave to do.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { parseSchema } from "../schema.ts";
 *
 * const schema = parseSchema({
 *   tables: { t: { key: "id", columns: { id: "INTEGER" }, indexes: [] } },
 * });
 * assertEquals(schemaChanges(schema, NOTHING).fresh, ["t"]);
 * const columns = new Map([["t\u0000id", { type: "TEXT", isKey: true }]]);
 * assertEquals(
 *   schemaChanges(schema, { ...NOTHING, columns }).rebuilding,
 *   ["t"],
 * );
 * ```
 */
export function schemaChanges(schema: Schema, present: Present): SchemaChanges {
  const statements: Statement[] = [];
  const fresh: string[] = [];
  const unindexed: string[] = [];
  const rebuilding: string[] = [];
  for (const table of schema.tables) {
    const { name } = table;
    const beside = `${BESIDE}${name}`;
    if (!isThere(name, present)) {
      fresh.push(name);
      statements.push(createStatement(table, name), ...indexStatements(table));
    } else if (fits(table, name, present)) {
      statements.push(...addColumnStatements(table, name, present));
      if (isThere(beside, present)) statements.push(dropStatement(beside));
      const lacksIndex = table.indexes.some((columns) =>
        !present.indexes.has(indexName(name, columns))
      );
      if (lacksIndex) unindexed.push(name);
    } else {
      rebuilding.push(name);
      if (isThere(beside, present) && fits(table, beside, present)) {
        statements.push(...addColumnStatements(table, beside, present));
      } else {
        fresh.push(name);
        statements.push(dropStatement(beside), createStatement(table, beside));
      }
    }
  }
  return { statements, fresh, unindexed, rebuilding };
}

/**
 * Drops every table of the schema.
 *
 * @param schema The tables.
 * @returns The statements.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(dropStatements({ tables: [] }), []);
 * ```
 */
export function dropStatements(schema: Schema): Statement[] {
  return schema.tables.flatMap(({ name }) => [
    dropStatement(name),
    dropStatement(`${BESIDE}${name}`),
  ]);
}

/**
 * The statements that build a table's indexes, each for a transaction of its own.
 *
 * @param table The table.
 * @returns The statements.
 */
export function indexStatements(table: Table): Statement[] {
  return table.indexes.map((columns) =>
    bare(
      `CREATE INDEX IF NOT EXISTS ${quote(indexName(table.name, columns))} ON ${
        quote(table.name)
      } (${names(columns)})`,
    )
  );
}

/**
 * Counts a table's rows, up to a bound.
 *
 * @param table The table.
 * @param rowsMax The bound.
 * @returns The statement.
 */
export function countStatement(table: Table, rowsMax: number): Statement {
  return {
    sql: `SELECT count(*) FROM (SELECT 1 FROM ${quote(table.name)} LIMIT ?)`,
    args: [BigInt(rowsMax)],
  };
}

function isThere(name: string, { columns }: Present): boolean {
  return columnsOf(name, columns).length > 0;
}

/** A table's columns and what they are. */
function columnsOf(table: string, columns: Present["columns"]) {
  return [...columns].filter(([name]) => name.startsWith(`${table}\u0000`));
}

/**
 * Whether adding columns makes the table the schema's: a column of another type
 * would change values silently, and another key would merge rows.
 */
function fits(table: Table, name: string, { columns }: Present): boolean {
  const key = columnsOf(name, columns).filter(([, { isKey }]) => isKey)
    .map(([column]) => column.slice(name.length + 1));
  return key.toSorted().join() === table.key.toSorted().join() &&
    table.columns.every((column) => {
      const found = columns.get(`${name}\u0000${column.name}`)?.type;
      return found === undefined || holds(found, column.type);
    });
}

/** Whether SQLite's affinity of a declared type stores ours unchanged. */
function holds(declared: string, type: ColumnType): boolean {
  // https://sqlite.org/datatype3.html#determination_of_column_affinity
  const isInteger = /INT/i.test(declared);
  const isText = !isInteger && /CHAR|CLOB|TEXT/i.test(declared);
  const isOther = declared === "" || /BLOB|REAL|FLOA|DOUB/i.test(declared);
  return isStoredAsNumber(type) ? isInteger || !(isText || isOther) : isText;
}

/** Columns missing in a table that is there. */
function addColumnStatements(
  table: Table,
  name: string,
  { columns }: Present,
): Statement[] {
  return table.columns
    .filter((column) => !columns.has(`${name}\u0000${column.name}`))
    .map((column) =>
      bare(
        `ALTER TABLE ${quote(name)} ADD COLUMN ${quote(column.name)} ${
          declare(column.type)
        }`,
      )
    );
}

function createStatement(table: Table, as: string): Statement {
  const columns = table.columns.map(({ name, type }) =>
    `${quote(name)} ${declare(type)}${
      table.key.includes(name) ? " NOT NULL" : ""
    }`
  );
  return bare(
    `CREATE TABLE IF NOT EXISTS ${quote(as)} (${
      columns.join(", ")
    }, PRIMARY KEY (${names(table.key)}))`,
  );
}

function dropStatement(name: string): Statement {
  return bare(`DROP TABLE IF EXISTS ${quote(name)}`);
}
