/**
 * Ring 0. SQL for the cells of a statement's argument.
 *
 * Promise: every cell travels as text, which is exact.
 *
 * @module
 */

import { quote } from "./sql.ts";
import { isStoredAsNumber, type Table, typeOf } from "../schema.ts";

/** The new rows; no listed table has such a name, as one named like it would hide. */
export const ROWS = "_libsql_sync_rows";

/** A row of the argument. */
const ROW = "_libsql_sync_row";

/** SQLite's functions take 127 arguments. */
const COLUMNS_MAX = 127;

/** Bytes of a row's texts whose JSON, six times as long at most, is a value sqld takes. */
const TEXT_BYTES_MAX = 700_000;

/**
 * The rows of an argument, or a row bound cell by cell: cells by their columns' names.
 * If the table is given, rows that it already stores with the same text are left out.
 */
export function namedRows(
  table: Table,
  columns: readonly string[],
  isBound: boolean,
  stored: string | null = null,
): string {
  const cells = cellsOf(
    table,
    columns,
    (at) => isBound ? "?" : `value->>${at}`,
  );
  const sameText = stored !== null && columns.length <= COLUMNS_MAX
    ? ` AS ${ROW} WHERE NOT EXISTS (${sameTextSql(table, columns, stored)})`
    : "";
  return `WITH ${ROWS} AS MATERIALIZED (SELECT ${
    cells.map((cell, at) => `${cell} AS ${quote(columns[at]!)}`).join(", ")
  }${isBound ? "" : ` FROM json_each(?)${sameText}`})`;
}

/**
 * The stored row that is, as JSON, the same text as a row of the argument. Where the
 * types of its cells are right, their text says all of them, and to make one text costs
 * half of taking the other apart. What is written otherwise is compared cell by cell.
 */
function sameTextSql(
  table: Table,
  columns: readonly string[],
  stored: string,
): string {
  const value = `${ROW}.value`;
  const stores = columns.map((name) => ({
    cell: `t.${quote(name)}`,
    isNumber: isStoredAsNumber(typeOf(table, name)),
  }));
  const key = cellsOf(
    table,
    table.key,
    (at) => `${value}->>${columns.indexOf(table.key[at]!)}`,
  );
  const types = stores.map(({ cell, isNumber }) =>
    `typeof(${cell}) IN ('${isNumber ? "integer" : "text"}', 'null')`
  );
  const bytes = stores.filter(({ isNumber }) => !isNumber)
    .map(({ cell }) => `ifnull(octet_length(${cell}), 0)`);
  const cells = stores.map(({ cell, isNumber }) =>
    isNumber ? `CAST(${cell} AS TEXT)` : cell
  );
  // CASE, as json_array() fails for a BLOB, and where its text passes 5,000,000 bytes.
  return `SELECT 1 FROM ${stored} AS t WHERE ${
    key.map((cell, at) => `t.${quote(table.key[at]!)} = ${cell}`).join(" AND ")
  } AND CASE WHEN ${types.join(" AND ")} AND ${
    ["0", ...bytes].join(" + ")
  } < ${TEXT_BYTES_MAX} THEN json_array(${cells.join(", ")}) = ${value} END`;
}

/** Whether a key column holds what its type says; U+0000 is in no text of PostgreSQL. */
export function rightType(table: Table, name: string): string {
  const type = typeOf(table, name);
  const column = quote(name);
  switch (type) {
    case "INTEGER":
      return `typeof(${column}) = 'integer'`;
    case "BOOLEAN":
      return `(typeof(${column}) = 'integer' AND ${column} IN (0, 1))`;
    case "TEXT":
    case "JSON":
      return `(typeof(${column}) = 'text' AND instr(${column}, char(0)) = 0)`;
  }
}

/** Every cell travels as text, which is exact; CAST makes numbers of digits. */
export function cellsOf(
  table: Table,
  columns: readonly string[],
  cell: (at: number) => string,
): string[] {
  return columns.map((name, at) =>
    isStoredAsNumber(typeOf(table, name))
      ? `CAST(${cell(at)} AS INTEGER)`
      : cell(at)
  );
}

/**
 * Compares columns of two tables, all at once: SQLite's expressions may be 1,000 deep,
 * and a table may have as many columns.
 *
 * @param columns The columns, one at least.
 * @param left What names the first table, with its dot.
 * @param operator How they are compared.
 * @param right What names the second table.
 * @returns The expression.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(compareSql(["a", "b"], "t.", "IS", "r."), '(t."a", t."b") IS (r."a", r."b")');
 * ```
 */
export function compareSql(
  columns: readonly string[],
  left: string,
  operator: "=" | "IS" | "IS NOT",
  right: string,
): string {
  const side = (of: string) =>
    `(${columns.map((name) => of + quote(name)).join(", ")})`;
  return `${side(left)} ${operator} ${side(right)}`;
}
