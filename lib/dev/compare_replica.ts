/**
 * Ring 3. Reads the replica's rows with the type each cell is stored as.
 *
 * Promise: no response grows beyond what libSQL allows, however big the table.
 *
 * @module
 */
import type { Client, InValue, ResultSet, Value } from "@libsql/client/http";
import { type Cell, keyName } from "./compare_source.ts";

/** The table to read. */
export interface ReplicaTable {
  client: Client;
  table: string;
  columns: string[];
  key: string[];
}

/** What is in a table. */
export interface ReplicaRows {
  /** Each row by its key, packed: a million rows of open objects would be a gigabyte. */
  readonly rows: Map<string, string>;
  /** Keys that more than one row has. */
  readonly duplicates: string[];
  /** Columns the table has too many or too few. */
  readonly columnsOff: string[];
}

/**
 * Packs a row's cells into one text; equal rows give equal texts.
 *
 * @param cells The cells by column, in the order of schema.json.
 * @returns The text.
 */
export function packRow(cells: Record<string, Cell>): string {
  return JSON.stringify(
    Object.entries(cells).map(([name, cell]) => [name, cell.type, cell.text]),
  );
}

/**
 * Unpacks what `packRow` made.
 *
 * @param packed The text.
 * @returns The cells by column.
 */
export function unpackRow(packed: string): Record<string, Cell> {
  const cells = JSON.parse(packed) as [string, string, string | null][];
  return Object.fromEntries(
    cells.map(([name, type, text]) => [name, { type, text }]),
  );
}

/** Rows fetched at once, unless they are too big for one response. */
const PAGE = 2_000;

/** A quoted identifier. */
const quote = (name: string) => `"${name.replaceAll('"', '""')}"`;

/** The place to go on after a page: by rowid, or by key in a table without one. */
interface Order {
  /** The expressions to go by. */
  readonly by: string[];
}

/** The table's own columns, null when there is no table. */
async function readColumns(
  client: Client,
  table: string,
): Promise<string[] | null> {
  const { rows } = await client.execute({
    sql: "select name from pragma_table_info(?)",
    args: [table],
  });
  return rows.length === 0 ? null : rows.map((row) => String(row.name));
}

/** Goes by rowid if the table has one: in a broken replica a key may hold NULL or stand twice. */
async function findOrder({ client, table, key }: ReplicaTable): Promise<Order> {
  const { rows } = await client.execute({
    sql: "select wr from pragma_table_list where schema = 'main' and name = ?",
    args: [table],
  });
  return { by: Number(rows[0]?.wr) === 1 ? key.map(quote) : ["rowid"] };
}

/** A stored value as an argument that compares as the value itself. */
function argument(type: Value, text: Value): InValue {
  return type === "integer" ? BigInt(String(text)) : text;
}

/** Fetches a page; a smaller one when the response would be too big. */
async function fetchPage(
  fetchRows: (limit: number) => Promise<ResultSet>,
  limit: number,
): Promise<{ page: ResultSet; limit: number }> {
  for (;; limit = Math.ceil(limit / 8)) {
    try {
      return { page: await fetchRows(limit), limit };
    } catch (error) {
      if (limit === 1 || !/too large/i.test((error as Error).message)) {
        throw error;
      }
    }
  }
}

/**
 * Reads every row of a table.
 *
 * @param replica The table.
 * @returns Its rows; null when there is no such table.
 */
export async function readReplica(
  replica: ReplicaTable,
): Promise<ReplicaRows | null> {
  const { client, table, columns, key } = replica;
  const found = await readColumns(client, table);
  if (found === null) return null;
  const there = columns.filter((column) => found.includes(column));
  const columnsOff = [...new Set(columns).symmetricDifference(new Set(found))];
  const rows = new Map<string, string>();
  const duplicates: string[] = [];
  if (!key.every((column) => found.includes(column))) {
    return { rows, duplicates, columnsOff };
  }

  const { by } = await findOrder(replica);
  const both = (name: string) =>
    `typeof(${name}), case typeof(${name}) when 'blob' then hex(${name}) else cast(${name} as text) end`;
  const select = `select ${
    [...by, ...there.map(quote)].map(both).join(", ")
  } from ${quote(table)}`;
  let after: InValue[] = [];
  let limit = PAGE;
  while (true) {
    const where = after.length
      ? ` where (${by.join(", ")}) > (${by.map(() => "?").join(", ")})`
      : "";
    const fetched = await fetchPage((limit) =>
      client.execute({
        sql: `${select}${where} order by ${by.join(", ")} limit ${limit}`,
        args: after,
      }), limit);
    limit = fetched.limit;
    for (const row of fetched.page.rows) {
      const cells = Object.fromEntries(there.map((column, i) => {
        const at = 2 * (by.length + i);
        return [column, {
          type: String(row[at]),
          text: row[at + 1] as string | null,
        }];
      }));
      const name = keyName(key.map((column) => cells[column]!.text));
      if (rows.has(name)) duplicates.push(name);
      rows.set(name, packRow(cells));
    }
    const last = fetched.page.rows.at(-1);
    if (last === undefined || fetched.page.rows.length < limit) {
      return { rows, duplicates, columnsOff };
    }
    after = by.map((_, i) => argument(last[2 * i]!, last[2 * i + 1]!));
    limit = Math.min(limit * 2, PAGE);
  }
}
