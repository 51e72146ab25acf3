/**
 * Ring 0. A table as PostgreSQL's catalog has it, in schema.json's words.
 *
 * @module
 */

import type { ColumnType } from "../schema.ts";

/** A column as PostgreSQL has it. */
export interface CatalogColumn {
  /** Its name. */
  readonly name: string;
  /** The type that schema.json gives it. */
  readonly type: ColumnType;
  /** PostgreSQL's name of its type. */
  readonly typeName: string;
  /** Whether it is declared not null. */
  readonly notNull: boolean;
  /** Whether it holds whole numbers only, so that INTEGER fits as well. */
  readonly maybeInteger: boolean;
}

/** A table as PostgreSQL has it. */
export interface CatalogTable {
  /** Its name. */
  readonly name: string;
  /** Why it cannot be replicated, apart from a missing key; null if it can. */
  readonly problem: string | null;
  /** Its unique keys without a nullable column, the best one first. */
  readonly keys: readonly (readonly string[])[];
  /** Its columns, in its order. */
  readonly columns: readonly CatalogColumn[];
  /** The columns of its plain indexes, the keys' among them. */
  readonly indexes: readonly (readonly string[])[];
}

/** A table as the catalog's query answers it. */
export interface CatalogRow {
  /** The name asked for. */
  readonly name: string;
  /** pg_class.relkind; null if there is no such relation. */
  readonly kind: string | null;
  /** Whether it is a partition. */
  readonly partition: boolean;
  /** Whether it takes part in table inheritance. */
  readonly inherits: boolean;
  /** Its unique keys without a nullable column, the best one first. */
  readonly keys: string[][];
  /** Its columns, in its order. */
  readonly columns: CatalogColumn[];
  /** The columns of its plain indexes. */
  readonly indexes: string[][];
}

const KINDS: Record<string, string> = {
  v: "is a view",
  m: "is a materialized view",
  f: "is a foreign table",
};

/**
 * Reads a table from the query's answer.
 *
 * @param row The answer.
 * @returns The table.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const row = { name: "v", kind: "v", partition: false, inherits: false, keys: [], columns: [], indexes: [] };
 * assertEquals(tableOf(row).problem, "is a view");
 * ```
 */
export function tableOf(row: CatalogRow): CatalogTable {
  const { name, keys, columns, indexes } = row;
  return { name, problem: problemOf(row), keys, columns, indexes };
}

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

/**
 * Explains why a table cannot be replicated.
 *
 * @param table The table.
 * @returns The rest of a sentence that begins with its name; null if it can be.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const table = { name: "t", problem: null, keys: [["id"]], columns: [], indexes: [] };
 * assertEquals(refusalOf(table), null);
 * assertEquals(refusalOf({ ...table, problem: "is a view" }), "is a view");
 * ```
 */
export function refusalOf({ problem, keys }: CatalogTable): string | null {
  if (problem !== null || keys.length > 0) return problem;
  return "has no primary key, and no unique key whose columns are all not null";
}

/** A table's value in schema.json. */
export interface TableValue {
  /** The key's column, or columns. */
  readonly key: string | string[];
  /** The columns' types. */
  readonly columns: Record<string, ColumnType>;
  /** The indexes, each a column or a list of columns. */
  readonly indexes: (string | string[])[];
}

/**
 * Writes a table as its value in schema.json.
 *
 * @param table The table, which has a key.
 * @returns The value: the best key, all columns, each index once.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const id = { name: "id", type: "TEXT", typeName: "uuid", notNull: true, maybeInteger: false } as const;
 * assertEquals(
 *   tableValue({ name: "t", problem: null, keys: [["id"]], columns: [id], indexes: [["id"]] }),
 *   { key: "id", columns: { id: "TEXT" }, indexes: [] },
 * );
 * ```
 */
export function tableValue(table: CatalogTable): TableValue {
  const [key] = table.keys;
  // The key needs no index of its own.
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
