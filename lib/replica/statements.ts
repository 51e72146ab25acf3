/**
 * Ring 0. The statements of a batch's steps.
 *
 * Promise: a row is written where it differs, and only there; what a walk finds
 * is counted in the same transaction.
 *
 * @module
 */

import { indexedOf } from "../plan/plan.ts";
import type { RowStep, Step } from "../plan/step.ts";
import { cellsOf, compareSql, namedRows, ROWS } from "./cells.ts";
import { bare, names, quote, type Statement, storedName } from "./sql.ts";
import {
  compareStatement,
  straysStatement,
  tallyStatement,
} from "./walk_statements.ts";
import { indexName, type Table } from "../schema.ts";

/**
 * The statement of a planned step.
 *
 * @param step What to do to one table.
 * @param rebuilding Tables that are rebuilt beside the old ones.
 * @returns The statement.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const table = { name: "t", key: ["id"], columns: [{ name: "id", type: "INTEGER" as const }], indexes: [] };
 * const statement = stepToStatement({ kind: "truncate", table, columns: [], count: 0, json: "[]", large: null, keys: null });
 * assertEquals(statement, { sql: 'DELETE FROM "t"', args: [] });
 * ```
 */
export function stepToStatement(
  step: Step,
  rebuilding: readonly string[] = [],
): Statement {
  if (step.kind === "tally") return tallyStatement(step);
  const { table } = step;
  const stored = storedName(table, rebuilding);
  switch (step.kind) {
    case "compare":
      return compareStatement(step, stored);
    case "strays":
      return straysStatement(step, stored);
    case "drop":
      return bare(`DROP TABLE ${quote(table.name)}`);
    case "rename":
      return bare(`ALTER TABLE ${stored} RENAME TO ${quote(table.name)}`);
    case "unindex":
      return bare(
        `DROP INDEX IF EXISTS ${quote(indexName(table.name, step.index))}`,
      );
    default:
      return rowStatement(step, stored);
  }
}

/** The statement that changes rows. */
function rowStatement(step: RowStep, stored: string): Statement {
  const { kind, table, columns, large } = step;
  const args = large ? [...large] : [step.json];
  const isBound = large !== null;
  switch (kind) {
    case "truncate":
      return bare(`DELETE FROM ${stored}`);
    case "delete": {
      const cells = cellsOf(table, columns, (at) => `value->>${at}`);
      return {
        sql: `DELETE FROM ${stored} WHERE (${names(columns)}) IN (SELECT ${
          cells.join(", ")
        } FROM json_each(?))`,
        args,
      };
    }
    case "update": {
      const sets = columns.filter((name) => !table.key.includes(name));
      const indexed = indexedOf(table, columns);
      const [of, from] = ["t.", `${ROWS}.`];
      return {
        sql: `${namedRows(table, columns, isBound)} UPDATE ${stored} AS t SET ${
          sets.map((name) => `${quote(name)} = ${from}${quote(name)}`).join(
            ", ",
          )
        } FROM ${ROWS} WHERE ${compareSql(table.key, of, "=", from)} AND ${
          compareSql(indexed, of, "IS NOT", from)
        }`,
        args,
      };
    }
    case "write":
    case "repair":
    case "upsert": {
      // The "update" before a "write" has set the indexed columns.
      const settled = kind === "write" ? indexedOf(table, columns) : [];
      const sets = columns.filter((name) => !settled.includes(name));
      return {
        sql: `${
          namedRows(table, columns, isBound, kind === "repair" ? stored : null)
        } INSERT INTO ${stored} AS t (${
          names(columns)
        }) SELECT * FROM ${ROWS} WHERE true ${onConflict(table, sets)}`,
        args,
      };
    }
  }
}

/** The row changes where it differs, and only then. */
function onConflict(table: Table, columns: readonly string[]): string {
  const rest = columns.filter((name) => !table.key.includes(name));
  if (rest.length === 0) return `ON CONFLICT (${names(table.key)}) DO NOTHING`;
  const set = rest.map((name) => `${quote(name)} = excluded.${quote(name)}`);
  // A table named "excluded" would stand for the new row, but for the alias.
  return `ON CONFLICT (${names(table.key)}) DO UPDATE SET ${
    set.join(", ")
  } WHERE ${compareSql(rest, "t.", "IS NOT", "excluded.")}`;
}
