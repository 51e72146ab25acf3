/**
 * Ring 0. Pieces of SQL for the replica: statements, names, declared types.
 *
 * Promise: a name with any character in it stays a name.
 *
 * @module
 */

import type { ColumnType, Table } from "../schema.ts";

/** A statement with its arguments. */
export interface Statement {
  /** The SQL, with "?" for arguments. */
  readonly sql: string;
  /** The arguments; integers as bigint, as numbers travel as floats. */
  readonly args: (string | bigint | null)[];
}

/** What a statement returned. */
export interface Result {
  /** Its rows: a cell by its place, or by its column's name. */
  readonly rows: readonly (
    & ArrayLike<unknown>
    & Readonly<Record<string, unknown>>
  )[];
}

/** What runs statements. */
export interface Database {
  /**
   * Runs one statement.
   *
   * @param statement The statement.
   * @returns What it returned.
   * @throws {Error} It was refused, with SQLite's `code`; or nothing is known.
   */
  execute(statement: Statement): Promise<Result>;
  /**
   * Runs statements in one transaction.
   *
   * @param statements What the transaction does, one after another; from its start
   * it is the only one that writes.
   * @returns What each returned.
   * @throws {Error} One was refused, its `statementIndex` and SQLite's `code`, and
   * none is applied; or nothing is known.
   */
  write(statements: readonly Statement[]): Promise<Result[]>;
}

/**
 * A statement without arguments.
 *
 * @param sql The SQL.
 * @returns The statement.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(bare("SELECT 1"), { sql: "SELECT 1", args: [] });
 * ```
 */
export function bare(sql: string): Statement {
  return { sql, args: [] };
}

/**
 * A name as an identifier.
 *
 * @param name The name.
 * @returns The name in quotes.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(quote('a"; DROP'), '"a""; DROP"');
 * ```
 */
export function quote(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/**
 * Names as a list of identifiers.
 *
 * @param columns The names.
 * @returns The list.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(names(["a", "b"]), '"a", "b"');
 * ```
 */
export function names(columns: readonly string[]): string {
  return columns.map(quote).join(", ");
}

/**
 * The type a column is declared with.
 *
 * @param type Its type in schema.json.
 * @returns The declared type.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(declare("JSON"), "TEXT");
 * ```
 */
export function declare(type: ColumnType): string {
  return type === "JSON" ? "TEXT" : type;
}

/** What the name of a table that is rebuilt begins with. */
export const BESIDE = "_libsql_sync_new_";

/**
 * The name of the table that is written to.
 *
 * @param table The table.
 * @param rebuilding Tables that are rebuilt beside the old ones.
 * @returns The quoted name.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const table = { name: "t", key: [], columns: [], indexes: [] };
 * assertEquals(storedName(table, []), '"t"');
 * assertEquals(storedName(table, ["t"]), '"_libsql_sync_new_t"');
 * ```
 */
export function storedName(
  { name }: Table,
  rebuilding: readonly string[],
): string {
  return quote(rebuilding.includes(name) ? `${BESIDE}${name}` : name);
}
