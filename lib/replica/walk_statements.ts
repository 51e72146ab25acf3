/**
 * Ring 0. The statements of a walk: what it compares, counts and deletes.
 *
 * Promise: what a walk finds is counted in the transaction that finds it.
 *
 * @module
 */

import type { CompareStep, Step, TallyStep, WalkOf } from "../plan/step.ts";
import { cellsOf, compareSql, namedRows, rightType, ROWS } from "./cells.ts";
import { bare, names, quote, type Statement, storedName } from "./sql.ts";
import type { Table } from "../schema.ts";

/** sqld answers with 10 MB at most, and JSON may make six bytes of one. */
const KEYS_BYTES_MAX = 1_000_000;

/**
 * The statement that reads a page of a table's keys, in the replica's order.
 *
 * @param table The table.
 * @param options The key to start after, null for the start; how many; the
 * tables that are rebuilt beside the old ones.
 * @returns The statement; each row is a key as the hex of its text, which may be
 * no UTF-8 (sqld fails to answer with that), and how many keys there would be if
 * their size had no bound.
 */
export function keysStatement(
  table: Table,
  options: {
    after: readonly string[] | null;
    keysMax: number;
    rebuilding: readonly string[];
  },
): Statement {
  const { after, keysMax, rebuilding } = options;
  const own = table.key.map((name) => rightType(table, name));
  const at = table.key.map((_, n) => `k${n}`);
  const bytes = table.key.map((_, n) => `octet_length(t${n})`);
  const bound = after === null
    ? []
    : [`(${names(table.key)}) > (${
      cellsOf(table, table.key, () => "?").join(", ")
    })`];
  return {
    sql: `SELECT ${
      table.key.map((_, n) => `hex(t${n})`).join(", ")
    }, keys FROM (
SELECT *, count(*) OVER () AS keys, row_number() OVER w AS place, sum(${
      bytes.join(" + ")
    }) OVER w AS bytes FROM (SELECT ${
      table.key.map((name, n) =>
        `${quote(name)} AS k${n}, CAST(${quote(name)} AS TEXT) AS t${n}`
      ).join(", ")
    } FROM ${storedName(table, rebuilding)} AS t WHERE ${
      [...own, ...bound].join(" AND ")
    } ORDER BY ${
      // A column named t0 would stand for ours of that name.
      table.key.map((name) => `t.${quote(name)}`).join(", ")} LIMIT ?)
WINDOW w AS (ORDER BY ${at.join(", ")} ROWS UNBOUNDED PRECEDING)
) WHERE place = 1 OR bytes <= ${KEYS_BYTES_MAX} ORDER BY ${at.join(", ")}`,
    args: [...(after ?? []), BigInt(keysMax)],
  };
}

/**
 * The statement that deletes rows whose key is not UTF-8. PostgreSQL stores no such
 * text: whenever the statement arrives, it deletes no row of the source.
 *
 * @param table The table.
 * @param keys The keys as {@linkcode keysStatement} reads them.
 * @param rebuilding Tables that are rebuilt beside the old ones.
 * @returns The statement.
 */
export function brokenStatement(
  table: Table,
  keys: readonly (readonly string[])[],
  rebuilding: readonly string[],
): Statement {
  const cells = cellsOf(
    table,
    table.key,
    (at) => `CAST(unhex(value->>${at}) AS TEXT)`,
  );
  return {
    sql: `DELETE FROM ${storedName(table, rebuilding)} WHERE (${
      names(table.key)
    }) IN (SELECT ${cells.join(", ")} FROM json_each(?))`,
    args: [JSON.stringify(keys)],
  };
}

/**
 * The statement that counts the rows of a table in which a walk found no row of the
 * source missing or different.
 *
 * @param table The table.
 * @param walkGen The walk.
 * @returns The statement; no row comes back where it found one.
 */
export function comparedStatement(table: Table, walkGen: number): Statement {
  return {
    sql: `SELECT (SELECT count(*) FROM ${
      quote(table.name)
    }) WHERE NOT EXISTS (SELECT 1 FROM _libsql_sync_walks WHERE walk_gen = ? AND table_name = ? AND differing > 0)`,
    args: [BigInt(walkGen), table.name],
  };
}

/** Counts rows that are missing or different, or ghosts that are there. */
export function compareStatement(
  step: CompareStep,
  stored: string,
): Statement {
  const { of, table, columns, large, walk } = step;
  const args = large ? [...large] : [step.json];
  if (of === "delete") {
    const cells = cellsOf(table, columns, (at) => `value->>${at}`);
    const key = names(table.key);
    return countInto(walk, "ghosts", {
      sql: `SELECT count(*) FROM ${stored} WHERE (${key}) IN (SELECT ${
        cells.join(", ")
      } FROM json_each(?))`,
      args,
    });
  }
  const rest = columns.filter((name) => !table.key.includes(name));
  const same = [compareSql(table.key, "t.", "=", `${ROWS}.`)];
  if (rest.length > 0) same.push(compareSql(rest, "t.", "IS", `${ROWS}.`));
  return countInto(walk, "differing", {
    sql: `${
      namedRows(table, columns, large !== null, stored)
    } SELECT count(*) FROM ${ROWS} WHERE NOT EXISTS (SELECT 1 FROM ${stored} t WHERE ${
      same.join(" AND ")
    })`,
    args,
  });
}

/** Rows whose key has a type no row of the source can have. */
export function straysStatement(
  step: Extract<Step, { kind: "strays" }>,
  stored: string,
): Statement {
  const { table, repair, walk } = step;
  const right = table.key.map((name) => rightType(table, name)).join(" AND ");
  return repair
    ? bare(`DELETE FROM ${stored} WHERE NOT (${right})`)
    : countInto(
      walk,
      "ghosts",
      bare(`SELECT count(*) FROM ${stored} WHERE NOT (${right})`),
    );
}

/** Adds what the statement before it changed, and the rows looked at. */
export function tallyStatement(
  { walk, found, rows, ended, failed }: TallyStep,
): Statement {
  return {
    sql:
      `INSERT INTO _libsql_sync_walks (walk_gen, table_name, rows, differing, ghosts, ended, failed)
VALUES (?, ?, ?, ${found === "differing" ? "changes()" : "0"}, ${
        found === "ghosts" ? "changes()" : "0"
      }, ?, ?)
ON CONFLICT (walk_gen, table_name) DO UPDATE SET rows = rows + excluded.rows,
  differing = differing + excluded.differing, ghosts = ghosts + excluded.ghosts, ended = excluded.ended,
  failed = coalesce(excluded.failed, failed)
RETURNING walk_gen, table_name, rows, differing, ghosts, ended, failed`,
    args: [
      BigInt(walk.walkGen),
      walk.table.name,
      BigInt(rows),
      ended ? 1n : 0n,
      failed,
    ],
  };
}

/** Adds what a query counts. */
function countInto(
  { walkGen, table }: WalkOf,
  found: "differing" | "ghosts",
  { sql, args }: Statement,
): Statement {
  return {
    sql:
      `INSERT INTO _libsql_sync_walks (walk_gen, table_name, ${found}) SELECT ?, ?, (${sql}) WHERE true
ON CONFLICT (walk_gen, table_name) DO UPDATE SET ${found} = ${found} + excluded.${found}`,
    args: [BigInt(walkGen), table.name, ...args],
  };
}
