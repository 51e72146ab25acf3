/**
 * Ring 0. A queue message, parsed once at the door.
 *
 * Promise: what comes out fits the schema in shape (its values are converted
 * later); what does not fit comes out as a refusal with a reason, never as an
 * exception and never with a value in it.
 *
 * @module
 */

import {
  type Cell,
  cellsAt,
  isCells,
  isRows,
  type Refusal,
} from "../chain/message.ts";
import type { Schema, Table } from "../schema.ts";

/** Rows of one table by the names of their columns. */
export interface Rows {
  /** Names of the columns, in the order of the cells. */
  readonly columns: readonly string[];
  /** The rows' cells. */
  readonly cells: readonly (readonly Cell[])[];
}

/** The changes one statement made to one table, in the order they apply. */
export interface Changes {
  /** The message they came in; null for a page. */
  readonly msgId: string | null;
  /** The table they concern. */
  readonly table: Table;
  /** Whether everything in the table went before the rest. */
  readonly truncate: boolean;
  /** Keys that are gone, in the order of the table's key. */
  readonly deletes: readonly (readonly Cell[])[];
  /** Rows as they are now. */
  readonly upserts: Rows;
  /** The key and what changed, of rows that were there before: it makes no row. */
  readonly updates: Rows;
  /** The message of each row, where several came as one. */
  readonly rowIds?: readonly string[];
  /** Keys of rows too large for any replica. */
  readonly oversize: readonly (readonly Cell[])[];
}

/** The SQLSTATE with which the source says so in a message's place. */
const TOO_LARGE = "54000";

const NO_ROWS: Rows = { columns: [], cells: [] };

/**
 * Makes the parser of a schema's messages.
 *
 * @param schema The tables that are replicated.
 * @returns A function of a message's id and its JSON value, which returns its
 * changes, or a refusal of the whole message.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { parseSchema } from "../schema.ts";
 *
 * const schema = parseSchema({
 *   tables: { t: { key: "id", columns: { id: "INTEGER", a: "TEXT" }, indexes: [] } },
 * });
 * const parse = createMessageParser(schema);
 * const parsed = parse("7", { v: 1, table: "u", truncate: true });
 * assertEquals(parsed, {
 *   msgId: "7",
 *   table: null,
 *   key: null,
 *   reason: 'table "u" is not in schema.json',
 * });
 * ```
 */
export function createMessageParser(
  schema: Schema,
): (msgId: string, message: unknown) => Changes | Refusal {
  const tables = new Map(schema.tables.map((table) => [table.name, table]));
  return (msgId, message) => {
    const refuse = (reason: string, table: string | null = null): Refusal => ({
      msgId,
      table,
      key: null,
      reason,
    });
    if (!isObject(message)) {
      return refuse(
        `malformed message: expected an object, found ${kindOf(message)}`,
      );
    }
    if (message.v === 1 && message.failed === TOO_LARGE) {
      return refuse(
        "message too large: expected at most 33,554,432 bytes, and 999 levels of lists and objects",
        tables.get(message.table as string)?.name,
      );
    }
    if (typeof message.table !== "string") {
      return refuse(
        `malformed message: expected a table's name in "table", found ${
          kindOf(message.table)
        }`,
      );
    }
    const table = tables.get(message.table);
    if (table === undefined) {
      return refuse(
        `table ${
          JSON.stringify(message.table.slice(0, 63))
        } is not in schema.json`,
      );
    }
    if (message.v !== 1) {
      return refuse(
        `malformed message: expected "v": 1, or a classic message with type, record and the whole key`,
        table.name,
      );
    }
    if (typeof message.failed === "string") {
      return refuse(
        `capture failed with ${
          sqlstateOf(message.failed)
        }: run select libsql_sync.attach()`,
        table.name,
      );
    }
    if (
      !["truncate", "deletes", "rows", "updates", "oversize"].some((name) =>
        message[name] !== undefined
      )
    ) {
      return refuse(
        `malformed message: expected "rows", "updates", "deletes", "oversize" or "truncate", found none`,
        table.name,
      );
    }
    const deletes = parseKeys(table, message.key, message.deletes);
    const oversize = parseKeys(table, message.key, message.oversize);
    const upserts = parseRows(table, message.columns, message.rows);
    const updates = parseUpdates(table, message.columns, message.updates);
    const problem = [deletes, oversize, upserts, updates].find((part) =>
      typeof part === "string"
    );
    if (
      typeof deletes === "string" || typeof oversize === "string" ||
      typeof upserts === "string" || typeof updates === "string"
    ) {
      return refuse(`malformed message: ${problem}`, table.name);
    }
    if (message.truncate !== undefined && message.truncate !== true) {
      return refuse(
        `malformed message: expected true in "truncate", found ${
          kindOf(message.truncate)
        }`,
        table.name,
      );
    }
    const truncate = message.truncate === true;
    return { msgId, table, truncate, deletes, upserts, updates, oversize };
  };
}

/**
 * Whether a parsed message is a refusal.
 *
 * @param parsed What the parser returned.
 * @returns Whether the whole message was refused.
 *
 * @example
 * ```ts
 * import { assert } from "@std/assert";
 *
 * assert(isRefusal({ msgId: "1", table: null, key: null, reason: "x" }));
 * ```
 */
export function isRefusal(parsed: Changes | Refusal): parsed is Refusal {
  return "reason" in parsed;
}

/** Keys in the order of the table's key, or what is wrong with them. */
function parseKeys(
  table: Table,
  names: unknown,
  keys: unknown,
): Cell[][] | string {
  if (keys === undefined) return [];
  if (
    !isCells(names) || names.length !== table.key.length ||
    !table.key.every((column) => names.includes(column))
  ) return `expected the key (${table.key.join(", ")}) in "key"`;
  if (!isRows(keys, names.length)) {
    return `expected keys of ${names.length} text(s) each`;
  }
  const order = table.key.map((column) => names.indexOf(column));
  if (order.every((from, to) => from === to)) return keys;
  return keys.map((key) => cellsAt(key, order));
}

/** Rows of listed columns with the whole key, or what is wrong with them. */
function parseRows(
  table: Table,
  columns: unknown,
  rows: unknown,
): Rows | string {
  if (rows === undefined) return NO_ROWS;
  if (!isCells(columns) || new Set(columns).size !== columns.length) {
    return `expected column names in "columns"`;
  }
  const unlisted = columns.filter((name) =>
    !table.columns.some((column) => column.name === name)
  );
  if (unlisted.length > 0) {
    return `expected columns of schema.json, found ${unlisted.length} other(s)`;
  }
  if (!table.key.every((column) => columns.includes(column))) {
    return `expected the key (${table.key.join(", ")}) among the columns`;
  }
  if (!isRows(rows, columns.length)) {
    return `expected rows of ${columns.length} text(s) or null(s) each`;
  }
  return { columns: columns as string[], cells: rows };
}

/** Rows with the whole key and something to change, or what is wrong with them. */
function parseUpdates(
  table: Table,
  columns: unknown,
  rows: unknown,
): Rows | string {
  const parsed = parseRows(table, columns, rows);
  return typeof parsed === "string" || parsed === NO_ROWS ||
      parsed.columns.length > table.key.length
    ? parsed
    : `expected a column beside the key (${table.key.join(", ")})`;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Cutting other text might leave half a character, which no json can hold. */
function sqlstateOf(failed: string): string {
  const [state] = /^[0-9A-Z]{5}/.exec(failed) ?? [];
  return state === undefined ? "no SQLSTATE" : `SQLSTATE ${state}`;
}

function kindOf(value: unknown): string {
  if (value === null) return "null";
  if (value === undefined) return "nothing";
  if (Array.isArray(value)) return "an array";
  return typeof value === "object" ? "an object" : `a ${typeof value}`;
}
