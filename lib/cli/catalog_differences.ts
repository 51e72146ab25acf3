/**
 * Ring 0. Compares schema.json with PostgreSQL's catalog.
 *
 * @module
 */

import type { CatalogTable } from "./catalog_table.ts";
import type { Schema, Table } from "../schema.ts";

/**
 * Compares schema.json with the catalog.
 *
 * Two things are not differences: a column that schema.json does not list, and
 * TEXT for a column of any type, as TEXT holds every value.
 *
 * @param schema The schema.
 * @param tables Its tables in the catalog.
 * @returns A sentence for each difference.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { parseSchema } from "../schema.ts";
 *
 * const schema = parseSchema({ tables: { t: { key: "id", columns: { id: "TEXT" } } } });
 * assertEquals(findDifferences(schema, []), ['table "t": is not in PostgreSQL']);
 * ```
 */
export function findDifferences(
  schema: Schema,
  tables: readonly CatalogTable[],
): string[] {
  return schema.tables.flatMap((listed) => {
    const found = tables.find(({ name }) => name === listed.name);
    const subject = `table ${JSON.stringify(listed.name)}`;
    if (found === undefined || found.problem !== null) {
      return [`${subject}: ${found?.problem ?? "is not in PostgreSQL"}`];
    }
    const columns = compareColumns(listed, found)
      .map((text) => `${subject}, ${text}`);
    return isKey(listed.key, found) ? columns : [
      ...columns,
      `${subject}: its key (${
        listed.key.join(", ")
      }) is not unique and not null in PostgreSQL`,
    ];
  });
}

function compareColumns(listed: Table, found: CatalogTable): string[] {
  return listed.columns.flatMap(({ name, type }) => {
    const subject = `column ${JSON.stringify(name)}`;
    const column = found.columns.find((column) => column.name === name);
    if (column === undefined) {
      return [`${subject}: PostgreSQL does not have it`];
    }
    const agrees = type === "TEXT" || type === column.type ||
      (type === "INTEGER" && column.maybeInteger);
    return agrees ? [] : [
      `${subject}: schema.json lists ${type}, and PostgreSQL's type ${column.typeName} is ${column.type}`,
    ];
  });
}

/** The same judgement as libsql_sync.usable_key(). */
function isKey(key: readonly string[], found: CatalogTable): boolean {
  const isNotNull = (name: string) =>
    found.columns.some((column) => column.name === name && column.notNull);
  return key.every(isNotNull) &&
    found.keys.some((unique) => unique.every((name) => key.includes(name)));
}
