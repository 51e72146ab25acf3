/**
 * Ring 0. schema.json as a typed value: tables, keys, columns, types, indexes.
 *
 * Promise: a parsed schema can be created in SQLite as it stands. Two files that
 * say the same, in any order of their fields, have the same text and hash.
 *
 * @module
 */

import { SyncError } from "./errors.ts";
import { sha256Hex } from "./bytes.ts";

/** How a column is stored in the replica; any other type word is TEXT. */
export type ColumnType = "INTEGER" | "TEXT" | "BOOLEAN" | "JSON";

/** One replicated column. */
export interface Column {
  /** Its name, the same on both sides. */
  readonly name: string;
  /** How it is stored in the replica. */
  readonly type: ColumnType;
}

/** One replicated table. */
export interface Table {
  /** Its name, the same on both sides. */
  readonly name: string;
  /** The columns of its key, in the order written. */
  readonly key: readonly string[];
  /** Its columns, in the order written. */
  readonly columns: readonly Column[];
  /** The columns of each index of the replica. */
  readonly indexes: readonly (readonly string[])[];
}

/** Everything that is replicated; what is not listed never leaves the source. */
export interface Schema {
  /** The tables, in the order written. */
  readonly tables: readonly Table[];
}

/** PostgreSQL cuts longer names off, so such a table or column cannot exist. */
const NAME_BYTES_MAX = 63;
/** Half of SQLite's own limit, which also bounds the terms of one statement. */
const COLUMNS_MAX = 1_000;
const TYPE_WORD = /^[A-Za-z][A-Za-z0-9 _()[\],]*$/;
// deno-lint-ignore no-control-regex
const CONTROL = /[\u0000-\u001f\u007f-\u009f]/;

/** Takes a problem: where it is, and what it is. */
type Report = (where: string, reason: string) => void;

/**
 * Reads schema.json's value.
 *
 * Names of tables and columns may hold anything but control characters. One
 * column name is refused, `_rowid_`: SQLite's row id then keeps a name by
 * which it can be reached, while `oid` and `rowid`, which real tables do have,
 * stay usable.
 *
 * @param value What JSON.parse made of the file.
 * @returns The schema, tables and columns in the order written.
 * @throws {SyncError} `schema_invalid`, naming every problem with its table,
 * column and reason.
 *
 * @example A key may be a name or a list of names
 * ```ts
 * import { assertEquals, assertThrows } from "@std/assert";
 *
 * const { tables } = parseSchema({
 *   tables: { orgs: { key: "id", columns: { id: "uuid", size: "INTEGER" } } },
 * });
 * assertEquals(tables[0]?.key, ["id"]);
 * assertEquals(tables[0]?.columns[0], { name: "id", type: "TEXT" });
 * assertThrows(() => parseSchema({ tables: {} }), Error, "no tables");
 * ```
 */
export function parseSchema(value: unknown): Schema {
  const problems: string[] = [];
  const report: Report = (where, reason) =>
    void problems.push(where === "" ? reason : `${where}: ${reason}`);
  const tables = parseTables(value, report);
  if (problems.length > 0) {
    throw new SyncError(
      "schema_invalid",
      `Cannot use schema.json: ${problems.join("; ")}`,
    );
  }
  return { tables };
}

/**
 * Writes a schema in its canonical form: compact JSON, tables and columns by
 * name, indexes by the names of their columns, and the key as it is ordered.
 *
 * @param schema The schema.
 * @returns One line of JSON.
 *
 * @example The order in the file does not matter
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const one = parseSchema({ tables: { t: { key: "a", columns: { a: "TEXT", b: "JSON" } } } });
 * const two = parseSchema({ tables: { t: { columns: { b: "json", a: "text" }, key: ["a"] } } });
 * assertEquals(schemaText(one), schemaText(two));
 * ```
 */
export function schemaText(schema: Schema): string {
  const tables = schema.tables.map(({ name, key, columns, indexes }) => ({
    name,
    key,
    columns: columns.map(({ name, type }) => ({ name, type })).sort(byName),
    indexes: indexes.map((columns) => ({ name: columns.join("__"), columns }))
      .sort(byName).map(({ columns }) => columns),
  }));
  return JSON.stringify({ tables: tables.sort(byName) });
}

/**
 * Names a schema by its content.
 *
 * @param schema The schema.
 * @returns The first 32 hex digits of the SHA-256 of its canonical text.
 *
 * @example
 * ```ts
 * import { assertMatch } from "@std/assert";
 *
 * const schema = parseSchema({ tables: { t: { key: "a", columns: { a: "TEXT" } } } });
 * assertMatch(await schemaHash(schema), /^[0-9a-f]{32}$/);
 * ```
 */
export async function schemaHash(schema: Schema): Promise<string> {
  return (await sha256Hex(schemaText(schema))).slice(0, 32);
}

/**
 * The type of a listed column.
 *
 * @param table The table.
 * @param name One of its columns.
 * @returns The type.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const { tables } = parseSchema({
 *   tables: { t: { key: "id", columns: { id: "INTEGER" }, indexes: [] } },
 * });
 * assertEquals(typeOf(tables[0]!, "id"), "INTEGER");
 * ```
 */
export function typeOf(table: Table, name: string): ColumnType {
  return table.columns.find((column) => column.name === name)!.type;
}

/**
 * Whether the replica stores a type's cells as numbers; else as text.
 *
 * @param type The type.
 * @returns Whether it does.
 *
 * @example
 * ```ts
 * import { assert } from "@std/assert";
 *
 * assert(isStoredAsNumber("BOOLEAN") && !isStoredAsNumber("JSON"));
 * ```
 */
export function isStoredAsNumber(type: ColumnType): boolean {
  return type === "INTEGER" || type === "BOOLEAN";
}

/**
 * Names an index of the replica.
 *
 * @param table The table's name.
 * @param columns The names of the columns it covers, in order.
 * @returns The index's name, not quoted.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(indexName("channels", ["public", "app_id"]), "idx_channels__public__app_id");
 * ```
 */
export function indexName(table: string, columns: readonly string[]): string {
  return ["idx_" + table, ...columns].join("__");
}

function parseTables(value: unknown, report: Report): Table[] {
  const root = objectOf(value, ["tables"], "", report);
  if (root === undefined) return [];
  const listed = objectOf(root.tables, undefined, `"tables"`, report);
  if (listed === undefined) return [];
  const entries = Object.entries(listed);
  if (entries.length === 0) {
    report("", `there are no tables: "tables" must list at least one`);
  }
  reportSameNames(
    entries.map(([name]) => ({ name, what: `table ${JSON.stringify(name)}` })),
    report,
  );
  const tables = entries.map(([name, table]) =>
    parseTable(name, table, report)
  );
  reportIndexNames(tables, report);
  return tables;
}

function parseTable(name: string, value: unknown, report: Report): Table {
  const where = `table ${JSON.stringify(name)}`;
  reportName(name, where, report);
  if (/^(_libsql_sync|sqlite_)/i.test(name)) {
    report(where, "names that begin with _libsql_sync or sqlite_ are reserved");
  }
  if (/^(json_each$|pragma_)/i.test(name)) {
    report(where, "a table of this name would hide a function of SQLite's");
  }
  const given = objectOf(value, ["key", "columns", "indexes"], where, report);
  if (given === undefined) return { name, key: [], columns: [], indexes: [] };
  const columns = parseColumns(given.columns, where, report);
  const known = new Set(columns.map((column) => column.name));
  const key = given.key === undefined
    ? (report(
      where,
      `"key" is missing: name the column or columns of its primary or unique key`,
    ),
      [])
    : namesOf(given.key, { what: `"key"`, where, known, report });
  return {
    name,
    key,
    columns,
    indexes: parseIndexes(given.indexes, { where, known, report }),
  };
}

function parseColumns(value: unknown, where: string, report: Report): Column[] {
  const given = objectOf(value, undefined, `${where}, "columns"`, report);
  if (given === undefined) return [];
  const entries = Object.entries(given);
  if (entries.length === 0) report(where, "there are no columns");
  if (entries.length > COLUMNS_MAX) {
    report(
      where,
      `at most ${COLUMNS_MAX} columns are expected: found ${entries.length}`,
    );
  }
  const whereOf = (name: string) => `${where}, column ${JSON.stringify(name)}`;
  reportSameNames(
    entries.map(([name]) => ({ name, what: whereOf(name) })),
    report,
  );
  return entries.map(([name, type]) => {
    reportName(name, whereOf(name), report);
    if (foldCase(name) === "_rowid_") {
      report(whereOf(name), "this name is SQLite's own for the row id");
    }
    return { name, type: parseType(type, whereOf(name), report) };
  });
}

function parseType(value: unknown, where: string, report: Report): ColumnType {
  const word = typeof value === "string" ? value.trim() : "";
  if (!TYPE_WORD.test(word)) {
    report(
      where,
      `a type such as "INTEGER", "TEXT", "BOOLEAN" or "JSON" is expected: found ${
        kindOf(value)
      }`,
    );
  }
  const type = word.toUpperCase();
  return type === "INTEGER" || type === "BOOLEAN" || type === "JSON"
    ? type
    : "TEXT";
}

/** Where names are read from, and which ones there are. */
interface Place {
  readonly where: string;
  readonly known: ReadonlySet<string>;
  readonly report: Report;
}

function parseIndexes(value: unknown, place: Place): string[][] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) {
    place.report(
      place.where,
      `"indexes" must be a list: found ${kindOf(value)}`,
    );
    return [];
  }
  return value.map((names, i) =>
    namesOf(names, { what: `index ${i + 1}`, ...place })
  );
}

/** The columns of a key or an index: one name, or a list of names. */
function namesOf(
  value: unknown,
  place: Place & { readonly what: string },
): string[] {
  const { what, where, known, report } = place;
  const names: unknown[] = Array.isArray(value) ? value : [value];
  if (names.length === 0) report(where, `${what} names no column`);
  const seen = new Set<string>();
  for (const name of names) {
    if (typeof name !== "string") {
      report(
        where,
        `${what} must be a column's name or a list of names: found ${
          kindOf(name)
        }`,
      );
      continue;
    }
    if (!known.has(name)) {
      report(
        `${where}, column ${JSON.stringify(name)}`,
        `${what} names it, but it is not listed in "columns"`,
      );
    }
    if (seen.has(name)) {
      report(
        `${where}, column ${JSON.stringify(name)}`,
        `${what} names it twice`,
      );
    }
    seen.add(name);
  }
  return [...seen];
}

/** In SQLite, tables and indexes share one set of names. */
function reportIndexNames(tables: readonly Table[], report: Report): void {
  const taken = new Map(
    tables.map(({ name }) => [foldCase(name), `table ${JSON.stringify(name)}`]),
  );
  for (const table of tables) {
    for (
      const columns of table.indexes.filter((columns) => columns.length > 0)
    ) {
      const what = `index on ${JSON.stringify(columns)} of table ${
        JSON.stringify(table.name)
      }`;
      const name = indexName(table.name, columns);
      const other = taken.get(foldCase(name));
      if (other === what) {
        report(
          `table ${JSON.stringify(table.name)}`,
          `there are two indexes on ${JSON.stringify(columns)}`,
        );
      } else if (other !== undefined) {
        report(
          `table ${JSON.stringify(table.name)}`,
          `the ${what} would be named ${
            JSON.stringify(name)
          }, as is the ${other}`,
        );
      } else taken.set(foldCase(name), what);
    }
  }
}

/** SQLite takes two names for one when they differ in the case of A to Z only. */
function reportSameNames(
  named: readonly { name: string; what: string }[],
  report: Report,
): void {
  const seen = new Map<string, string>();
  for (const { name, what } of named) {
    const other = seen.get(foldCase(name));
    if (other === undefined) seen.set(foldCase(name), name);
    else {report(
        what,
        `SQLite takes its name for ${
          JSON.stringify(other)
        }, as upper and lower case are the same to it`,
      );}
  }
}

function reportName(name: string, where: string, report: Report): void {
  if (name === "") report(where, "the name is empty");
  if (CONTROL.test(name)) report(where, "the name holds a control character");
  if (!name.isWellFormed()) {
    report(where, "the name holds half a character (a lone surrogate)");
  }
  const bytes = new TextEncoder().encode(name).length;
  if (bytes > NAME_BYTES_MAX) {
    report(
      where,
      `a name of at most ${NAME_BYTES_MAX} bytes is expected: found ${bytes} bytes`,
    );
  }
}

/** The value as an object, with nothing in it but what is allowed. */
function objectOf(
  value: unknown,
  allowed: readonly string[] | undefined,
  where: string,
  report: Report,
) {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    report(where, `an object is expected: found ${kindOf(value)}`);
    return undefined;
  }
  for (const name of Object.keys(value)) {
    if (allowed !== undefined && !allowed.includes(name)) {
      report(where, `unknown property ${JSON.stringify(name)}`);
    }
  }
  return value as Record<string, unknown>;
}

function kindOf(value: unknown): string {
  if (value === undefined) return "nothing";
  if (value === null) return "null";
  if (Array.isArray(value)) {
    return value.length === 0 ? "an empty list" : "a list";
  }
  if (typeof value === "object") return "an object";
  if (typeof value === "string") return JSON.stringify(value);
  return `a ${typeof value}`;
}

function foldCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => letter.toLowerCase());
}

function byName(
  a: { readonly name: string },
  b: { readonly name: string },
): number {
  return a.name < b.name ? -1 : a.name > b.name ? 1 : 0;
}
