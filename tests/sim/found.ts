/**
 * What a reader finds in the replica, and how it differs from the source.
 *
 * @module
 */

import type { ReplicaRow } from "../../lib/chain/row.ts";
import { convert } from "../../lib/plan/convert.ts";
import { type Schema, typeOf } from "../../lib/schema.ts";
import { HASHES, SCHEMAS } from "../contract/source.ts";
import type { MemoryDatabase } from "./libsql.ts";
import type { Row as UserRow, Rows } from "./tables.ts";

/** What the replica's tables hold, by table and key. */
export type Found = Map<string, Map<string, (string | number | null)[]>>;

/** The names of rows that need not be equal, as they have an open dead letter. */
export type Excused = ReadonlySet<string>;

const FIELDS = [
  ...["epoch", "position", "batch", "prev", "from_epoch", "walk_gen"],
  ...["walk_at", "walk_done", "drained", "snapshot", "schema_hash"],
  ...["rebuilding", "fresh"],
] as const;
const ROW = `SELECT ${FIELDS.join()} FROM _libsql_sync`;
/** Columns of every schema. */
const COMMON = ["id", "name", "item", "code", "note"];

/** The fields of the replica's row that are looked at. */
export type Row = Pick<
  ReplicaRow,
  | "epoch"
  | "position"
  | "batch"
  | "prev"
  | "from_epoch"
  | "walk_gen"
  | "walk_at"
  | "walk_done"
  | "drained"
  | "snapshot"
  | "schema_hash"
  | "rebuilding"
  | "fresh"
>;

/** The replica's row; null where there is none. */
export function readRow(replica: MemoryDatabase): Row | null {
  const [cells] = replica.read(ROW);
  if (cells === undefined) return null;
  return Object.fromEntries(
    FIELDS.map((name, at) => [name, cells[at]]),
  ) as unknown as Row;
}

/** The schema a row speaks of; without tables where it is none of ours. */
export function schemaOf({ schema_hash }: Row): Schema {
  return SCHEMAS[HASHES.indexOf(schema_hash)] ?? { tables: [] };
}

/** The columns that readers see: of a table that is rebuilt those that it had
 * before as well. */
export function columnsOf(table: string, row: Row): string[] {
  const rebuilding: string[] = JSON.parse(row.rebuilding);
  return schemaOf(row).tables.find(({ name }) => name === table)!.columns
    .map(({ name }) => name)
    .filter((name) => !rebuilding.includes(table) || COMMON.includes(name));
}

/** Whether the replica stores a cell of the source so. */
export function isStored(
  cell: string | null,
  there: string | number | null,
  { table, column, schema }: { table: string; column: string; schema: Schema },
): boolean {
  const listed = schema.tables.find(({ name }) => name === table)!;
  return stored(cell, typeOf(listed, column)) === shown(there);
}

/** Whether a row's cells fit their types. */
export function isStorable(
  row: UserRow,
  name: string,
  schema: Schema,
): boolean {
  const table = schema.tables.find((listed) => listed.name === name)!;
  return table.columns.every((column) =>
    !stored(row[column.name] ?? null, column.type).startsWith("unfit")
  );
}

/** What the replica's tables hold. */
export function readTables(replica: MemoryDatabase, row: Row): Found {
  const found: Found = new Map();
  for (const { name, key } of schemaOf(row).tables) {
    const columns = columnsOf(name, row);
    const at = key.map((part) => columns.indexOf(part));
    const rows = new Map<string, (string | number | null)[]>();
    const text = `SELECT ${columns.join()} FROM ${name}`;
    for (const cells of replica.read(text)) {
      const id = JSON.stringify(at.map((index) => String(cells[index])));
      rows.set(id, cells as (string | number | null)[]);
    }
    found.set(name, rows);
  }
  return found;
}

/** How what was found differs from rows, but for what is excused. */
export function differences(
  rows: Rows,
  found: Found,
  { excused, schema }: { excused: Excused; schema: Schema },
): string[] {
  const differing: string[] = [];
  for (const table of schema.tables) {
    const { name } = table;
    const there = found.get(name)!;
    for (const key of new Set([...rows[name]!.keys(), ...there.keys()])) {
      if (excused.has(nameOf(name, key))) continue;
      const row = rows[name]!.get(key);
      const expected = row === undefined
        ? "nothing"
        : table.columns.map((column) =>
          stored(row[column.name] ?? null, typeOf(table, column.name))
        ).join();
      const actual = there.get(key)?.map(shown).join() ?? "nothing";
      if (expected !== actual) {
        differing.push(
          `${name} ${key}: expected ${expected}, found ${actual}`,
        );
      }
    }
  }
  return differing;
}

/** A row's name: its table and key. */
export function nameOf(table: string, key: string): string {
  return `${table} ${key}`;
}

/** The number of the write that made a row; null where none of ours did. */
export function stampOf(cells: readonly unknown[]): number | null {
  for (const cell of cells) {
    const stamp = typeof cell === "string" &&
      /^(?:bad |torn )?v(\d+)$/.exec(cell);
    if (stamp) return Number(stamp[1]);
  }
  return null;
}

/** A cell as the replica stores it; what it cannot hold is never equal. */
function stored(cell: string | null, type: ReturnType<typeof typeOf>): string {
  try {
    const value = convert(cell, type);
    return value === null || type === "TEXT" || type === "JSON"
      ? shown(value)
      : shown(Number(value));
  } catch {
    return `unfit ${cell}`;
  }
}

/** A cell with its type: 5 is not '5'. */
function shown(cell: unknown): string {
  return typeof cell === "string" ? `'${cell}'` : String(cell);
}
