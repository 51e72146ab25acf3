/**
 * Ring 3. Compares source and replica cell by cell: the oracle of the tests.
 *
 * Promise: it shares no SQL and no conversion with what it judges, and it sees
 * one snapshot of the source over all tables.
 *
 * @module
 */
import type { Client } from "@libsql/client/http";
import type { Sql, TransactionSql } from "postgres";
import { packRow, readReplica, unpackRow } from "./compare_replica.ts";
import { type Cell, readSource } from "./compare_source.ts";

/** schema.json as it stands in the file. */
export interface RawSchema {
  tables: Record<
    string,
    { key: string | string[]; columns: Record<string, string> }
  >;
}

/** What can differ. */
export type DifferenceKind =
  /** The replica does not have the table. */
  | "table"
  /** The replica's table has other columns than schema.json lists. */
  | "columns"
  /** The source has the row, the replica does not. */
  | "missing"
  /** The replica has the row, the source does not. */
  | "ghost"
  /** One side has two rows of this key. */
  | "duplicate"
  /** The cell's value is stored as another type than its column asks for. */
  | "type"
  /** The cells differ. */
  | "value"
  /** The source's cell cannot be stored as the declared type: its row must be parked. */
  | "refused";

/** One difference. */
export interface Difference {
  readonly table: string;
  readonly kind: DifferenceKind;
  /** The row's key, several parts as a JSON array; missing when it is about the table. */
  readonly key?: string;
  readonly column?: string;
  /** Both sides' cells, only if asked for. */
  readonly source?: Cell;
  readonly replica?: Cell;
}

/** What was found. */
export interface Comparison {
  /** Rows of the source that were compared. */
  readonly rows: number;
  /** The differences found; at most as many as asked for. */
  readonly differences: Difference[];
  /** Whether there are more. */
  readonly hasMore: boolean;
  /** Tables, and columns as `table.column`, that the source does not have. */
  readonly skipped: string[];
}

/** What to compare. */
export interface CompareOptions {
  /** The source; its role must be able to read the tables. */
  sql: Sql;
  /** The replica. */
  client: Client;
  schema: RawSchema;
  /** Put the cells into the differences; they may hold anything. */
  withValues?: boolean;
  /** The most differences to return; 1000 by default. */
  differencesMax?: number;
}

/** Whether two cells are the same value, stored the same way. */
function isSame(source: Cell, replica: Cell): boolean {
  return source.type === replica.type && source.text === replica.text;
}

/**
 * Compares the tables of a schema.
 *
 * @param options The two sides and the schema.
 * @returns The differences, and how many rows were compared.
 */
export async function compareTables(
  options: CompareOptions,
): Promise<Comparison> {
  const { sql, client, schema, withValues = false, differencesMax = 1_000 } =
    options;
  const differences: Difference[] = [];
  const skipped: string[] = [];
  let rows = 0;
  let found = 0;
  const add = (difference: Difference) => {
    if (found++ < differencesMax) differences.push(difference);
  };

  const compareTable = async (tx: TransactionSql, table: string) => {
    const columns = schema.tables[table]!.columns;
    const key = [schema.tables[table]!.key].flat();
    const replica = await readReplica({
      client,
      table,
      columns: Object.keys(columns),
      key,
    });
    if (replica === null) return add({ table, kind: "table" });
    for (const column of replica.columnsOff) {
      add({ table, kind: "columns", column });
    }
    for (const key of replica.duplicates) {
      add({ table, kind: "duplicate", key });
    }

    const seen = new Set<string>();
    const missing = await readSource(
      { tx, table, columns, key },
      (key, cells) => {
        rows++;
        if (seen.has(key)) add({ table, kind: "duplicate", key });
        seen.add(key);
        const packed = replica.rows.get(key);
        const refused = Object.keys(cells).filter((column) =>
          cells[column]!.type === "refused"
        );
        // Such a row is parked as a whole: what the replica has of it is an older state.
        for (const column of refused) {
          add({
            table,
            kind: "refused",
            key,
            column,
            ...(withValues && { source: cells[column] }),
          });
        }
        if (refused.length || packed === packRow(cells)) return;
        if (packed === undefined) return add({ table, kind: "missing", key });
        const other = unpackRow(packed);
        for (const [column, source] of Object.entries(cells)) {
          const replica = other[column];
          if (!replica || isSame(source, replica)) continue;
          const kind = source.type === replica.type ? "value" : "type";
          add({
            table,
            kind,
            key,
            column,
            ...(withValues && { source, replica }),
          });
        }
      },
    );
    skipped.push(...missing);
    if (missing.includes(table)) return;
    for (const key of replica.rows.keys()) {
      if (!seen.has(key)) add({ table, kind: "ghost", key });
    }
  };

  await sql.begin("isolation level repeatable read read only", async (tx) => {
    for (const table of Object.keys(schema.tables)) {
      await compareTable(tx, table);
    }
  });
  return { rows, differences, hasMore: found > differences.length, skipped };
}

/**
 * Puts differences into lines a person can read: never a cell's value.
 *
 * @param comparison What was found.
 * @param linesMax The most lines; 20 by default.
 * @returns The lines; empty when the sides are equal.
 */
export function describeDifferences(
  comparison: Comparison,
  linesMax = 20,
): string[] {
  const lines = comparison.differences.slice(0, linesMax).map((
    { table, column, key, kind },
  ) =>
    `${table}${column ? `.${column}` : ""}: ${kind}${
      key === undefined ? "" : ` at key ${key}`
    }`
  );
  const rest = comparison.differences.length - lines.length;
  if (rest > 0 || comparison.hasMore) {
    lines.push(`and ${rest}${comparison.hasMore ? " or more" : ""} more`);
  }
  return lines;
}
