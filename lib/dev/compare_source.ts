/**
 * Ring 3. Reads the source's rows in the canonical form of the comparison.
 *
 * Promise: the form follows the project's rules for each declared type, stated
 * here a second time and on purpose apart from the worker's code.
 *
 * @module
 */
import type { TransactionSql } from "postgres";

/** A value and how SQLite stores it; `refused` when the declared type cannot hold it. */
export interface Cell {
  readonly type: string;
  readonly text: string | null;
}

/**
 * Names a row by its key.
 *
 * @param parts The key's parts as text.
 * @returns The part itself, or all of them as a JSON array.
 */
export function keyName(parts: (string | null)[]): string {
  return parts.length === 1 ? String(parts[0]) : JSON.stringify(parts);
}

/** The table to read. */
export interface SourceTable {
  /** An open transaction; its settings are changed. */
  tx: TransactionSql;
  table: string;
  /** The declared type of each column. */
  columns: Record<string, string>;
  key: string[];
}

/** Rows fetched at once. */
const PAGE = 1_000;

/** What rendering depends on, pinned as the rules say. */
export const SETTINGS = {
  TimeZone: "UTC",
  DateStyle: "ISO, MDY",
  IntervalStyle: "postgres",
  bytea_output: "hex",
  extra_float_digits: "1",
  lc_monetary: "C",
};

/** How a column is built: json or jsonb, an array or composite, what JSON writes in its own way, or anything else; domains by what they rest on. */
export type Shape = "json" | "nested" | "scalar" | "plain";

/**
 * Reads how a table's columns are built.
 *
 * @param tx An open transaction.
 * @param table The table.
 * @returns Each column's shape; null when there is no such table.
 */
export async function readShapes(
  tx: TransactionSql,
  table: string,
): Promise<Map<string, Shape> | null> {
  const [found] = await tx`
    select c.oid from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'public' and c.relname = ${table} and c.relkind in ('r', 'p')`;
  if (!found) return null;
  const rows = await tx<{ name: string; shape: Shape }[]>`
    with recursive base as (
      select a.attname, a.atttypid as typid from pg_catalog.pg_attribute a
      where a.attrelid = ${found.oid} and a.attnum > 0 and not a.attisdropped
      union all
      select b.attname, t.typbasetype from base b
      join pg_catalog.pg_type t on t.oid = b.typid where t.typtype = 'd'
    )
    select b.attname as name, case
        when t.typname in ('json', 'jsonb') then 'json'
        when t.typtype = 'c' or (t.typcategory = 'A' and t.typelem <> 0) then 'nested'
        when t.oid in ('bool'::regtype, 'date'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype) then 'scalar'
        else 'plain'
      end as shape
    from base b join pg_catalog.pg_type t on t.oid = b.typid
    where t.typtype <> 'd'`;
  return new Map(rows.map(({ name, shape }) => [name, shape]));
}

/** A quoted identifier. */
const quote = (name: string) => `"${name.replaceAll('"', '""')}"`;

/**
 * The SQL that renders a column as text.
 *
 * @param name The column, qualified and quoted.
 * @param declared Its declared type.
 * @param shape How it is built.
 * @returns An expression.
 */
export function cellSql(name: string, declared: string, shape: Shape): string {
  if (declared === "JSON") return `to_json(${name})::text`;
  if (shape === "json") return `${name}::text`;
  if (shape === "nested") return `to_json(${name})::text`;
  if (shape === "scalar") return `to_json(${name}) #>> '{}'`;
  // By the type's own output: its casts to json and text may write something else.
  return `case when ${name} is not null then format('%s', ${name}) end`;
}

/** An exact integer, also written as 5.00 or 1e3, as its digits; null when it is none of 64 bits. */
function integer(text: string): string | null {
  const match = /^\s*([+-]?)(\d*)\.?(\d*)(?:[eE]([+-]?\d{1,3}))?\s*$/.exec(
    text,
  );
  if (!match || match[2]! + match[3]! === "") return null;
  const [, sign, whole = "", fraction = "", exponent = "0"] = match;
  const digits = whole + fraction;
  const point = whole.length + Number(exponent);
  if (/[1-9]/.test(digits.slice(Math.max(point, 0)))) return null;
  const value =
    BigInt((digits.slice(0, Math.max(point, 0)) || "0").padEnd(point, "0")) *
    (sign === "-" ? -1n : 1n);
  return BigInt.asIntN(64, value) === value ? value.toString() : null;
}

/**
 * The cell the replica must hold.
 *
 * @param text The source's value as `cellSql` renders it.
 * @param declared The column's declared type.
 * @returns The cell.
 */
export function canonicalCell(text: string | null, declared: string): Cell {
  if (text === null) return { type: "null", text: null };
  if (declared === "INTEGER") {
    const value = integer(text);
    return value === null
      ? { type: "refused", text }
      : { type: "integer", text: value };
  }
  if (declared === "BOOLEAN") {
    if (["true", "t", "1"].includes(text)) {
      return { type: "integer", text: "1" };
    }
    if (["false", "f", "0"].includes(text)) {
      return { type: "integer", text: "0" };
    }
    return { type: "refused", text };
  }
  return { type: "text", text };
}

/**
 * Reads every row of a table.
 *
 * @param source The table.
 * @param onRow Called with each row's key and its cells by column.
 * @returns What the source does not have: the table's name, or `table.column`s.
 */
export async function readSource(
  source: SourceTable,
  onRow: (key: string, cells: Record<string, Cell>) => void,
): Promise<string[]> {
  const { tx, table, columns, key } = source;
  for (const [name, value] of Object.entries(SETTINGS)) {
    await tx`select set_config(${name}, ${value}, true)`;
  }
  const shapes = await readShapes(tx, table);
  if (shapes === null) return [table];
  const there = Object.keys(columns).filter((column) => shapes.has(column));
  if (!key.every((column) => shapes.has(column))) return [table];
  const list = there.map((column) =>
    cellSql(`t.${quote(column)}`, columns[column]!, shapes.get(column)!)
  );
  const query = tx.unsafe<Record<string, string | null>[]>(
    `select ${
      list.map((text, i) => `${text} as "${i}"`).join(", ")
    } from public.${quote(table)} as t`,
  );
  for await (const page of query.cursor(PAGE)) {
    for (const row of page) {
      const cells = Object.fromEntries(
        there.map((
          column,
          i,
        ) => [column, canonicalCell(row[String(i)]!, columns[column]!)]),
      );
      onRow(keyName(key.map((column) => cells[column]!.text)), cells);
    }
  }
  return Object.keys(columns).filter((column) => !shapes.has(column))
    .map((column) => `${table}.${column}`);
}
