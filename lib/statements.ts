/**
 * Ring 0. The statements of a batch's steps.
 *
 * Promise: a row is written where it differs, and only there; what a walk finds
 * is counted in the same transaction.
 *
 * @module
 */

import {
  type CompareStep,
  type RowStep,
  type Step,
  type TallyStep,
  type WalkOf,
} from "./plan.ts";
import { indexName, isStoredAsNumber, type Table, typeOf } from "./schema.ts";
import { bare, names, quote, type Statement, storedName } from "./sql.ts";

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
 * const statement = stepToStatement({ kind: "truncate", table, columns: [], count: 0, json: "[]", large: null, msgIds: null, keys: null });
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

/** The new rows; no listed table has such a name, as one named like it would hide. */
const ROWS = "_libsql_sync_rows";
/** A row of the argument. */
const ROW = "_libsql_sync_row";
/** SQLite's functions take 127 arguments. */
const COLUMNS_MAX = 127;
/** Bytes of a row's texts whose JSON, six times as long at most, is a value sqld takes. */
const TEXT_BYTES_MAX = 700_000;
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
 * The statement that deletes rows whose key is no UTF-8. No text of PostgreSQL is
 * such: whenever it lands, it takes no row of the source.
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
      const [of, from] = ["t.", `${ROWS}.`];
      return {
        sql: `${namedRows(table, columns, isBound)} UPDATE ${stored} AS t SET ${
          sets.map((name) => `${quote(name)} = ${from}${quote(name)}`).join(
            ", ",
          )
        } FROM ${ROWS} WHERE ${same(table.key, of, "=", from)} AND ${
          same(sets, of, "IS NOT", from)
        }`,
        args,
      };
    }
    case "mend":
    case "upsert":
      return {
        sql: `${
          namedRows(table, columns, isBound, kind === "mend" ? stored : null)
        } INSERT INTO ${stored} AS t (${
          names(columns)
        }) SELECT * FROM ${ROWS} WHERE true ${onConflict(table, columns)}`,
        args,
      };
  }
}

/**
 * The rows of an argument, or a row bound cell by cell: cells by their columns' names.
 * With the table where they are stored, some of those that are there as they are told
 * are left out.
 */
function namedRows(
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

/** Counts rows that are missing or different, or ghosts that are there. */
function compareStatement(
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
  const same = [
    ...table.key.map((name) => `t.${quote(name)} = ${ROWS}.${quote(name)}`),
    ...rest.map((name) => `t.${quote(name)} IS ${ROWS}.${quote(name)}`),
  ];
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
function straysStatement(
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
function tallyStatement(
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

/** Whether a key column holds what its type says; U+0000 is in no text of PostgreSQL. */
function rightType(table: Table, name: string): string {
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

/** Compares columns of two tables, all at once. */
function same(
  columns: readonly string[],
  left: string,
  operator: "=" | "IS NOT",
  right: string,
): string {
  const side = (of: string) =>
    `(${columns.map((name) => of + quote(name)).join(", ")})`;
  return `${side(left)} ${operator} ${side(right)}`;
}

/** The row changes where it differs, and only then. */
function onConflict(table: Table, columns: readonly string[]): string {
  const rest = columns.filter((name) => !table.key.includes(name));
  if (rest.length === 0) return `ON CONFLICT (${names(table.key)}) DO NOTHING`;
  const set = rest.map((name) => `${quote(name)} = excluded.${quote(name)}`);
  // A table named "excluded" would stand for the new row, but for the alias.
  const before = rest.map((name) => `t.${quote(name)}`);
  const after = rest.map((name) => `excluded.${quote(name)}`);
  return `ON CONFLICT (${names(table.key)}) DO UPDATE SET ${
    set.join(", ")
  } WHERE (${before.join(", ")}) IS NOT (${after.join(", ")})`;
}

/** Every cell travels as text, which is exact; CAST makes numbers of digits. */
function cellsOf(
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
