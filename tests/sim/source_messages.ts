/**
 * What messages of the queue say: keys, a truncate or a walk. Those of the old
 * format and classic ones are read by their keys alone.
 *
 * @module
 */

import type { Json } from "../../lib/chain/json.ts";
import type { Table } from "../../lib/schema.ts";
import type { Fields } from "./source_state.ts";
import type { Message } from "./tables.ts";

/** The cells of a key, in the order of the listed key. */
export type Key = readonly string[];

/** What a message says. */
export interface Said {
  /** The listed table; null where there is none. */
  readonly table: string | null;
  readonly keys: readonly Key[];
  readonly truncate: boolean;
  readonly walk: boolean;
  /** Why it has no usable key; null if it has one, or needs none. */
  readonly unusable: string | null;
}

const NOTHING: Said = {
  table: null,
  keys: [],
  truncate: false,
  walk: false,
  unusable: null,
};

/** libsql_sync.head_keys, of one message */
export function said(tables: readonly Table[], message: Message): Said {
  const fields = (isFields(message) ? message : {}) as Fields;
  const { table: name } = fields;
  const table = tables.find((listed) => listed.name === name);
  if (typeof name !== "string" || table === undefined) {
    const reason = typeof name === "string"
      ? `table ${JSON.stringify(name.slice(0, 63))} is not in schema.json`
      : 'malformed message: expected a table\'s name in "table", found none';
    return { ...NOTHING, unusable: reason };
  }
  if (fields.truncate === true || fields.type === "TRUNCATE") {
    return { ...NOTHING, table: name, truncate: true };
  }
  if (typeof fields.walk === "string" || typeof fields.failed === "string") {
    return { ...NOTHING, table: name, walk: true };
  }
  const all = keysOf(table, fields) ?? [];
  const keys = all.filter((key) => isKey(key, table.key.length)) as Key[];
  const isUsable = all.length > 0 && keys.length === all.length;
  const unusable = isUsable
    ? null
    : 'malformed message: expected {"v": 2, "table", "keys": [[text, ...], ...]}, found another';
  return { ...NOTHING, table: name, keys, unusable };
}

/** The keys of any format; null where there are none. */
function keysOf(table: Table, fields: Fields): Json[] | null {
  if (fields.v === 2) return Array.isArray(fields.keys) ? fields.keys : null;
  if (fields.v === 1) {
    const { key, columns } = fields;
    const of = (names: Json | undefined, rows: Json | undefined): Json[] =>
      Array.isArray(names) && Array.isArray(rows)
        ? rows.map((row) =>
          table.key.map((name) => (row as Json[])[names.indexOf(name)] ?? null)
        )
        : [];
    return [
      ...of(key, fields.deletes),
      ...of(key, fields.oversize),
      ...of(columns, fields.rows),
      ...of(columns, fields.updates),
    ];
  }
  const images = [fields.old_record, fields.record].filter((image) =>
    typeof image === "object" && image !== null && !Array.isArray(image)
  ) as Fields[];
  const keys = images.map((image) =>
    table.key.map((name) => {
      const cell = image[name] ?? null;
      return typeof cell === "number" ? String(cell) : cell;
    })
  );
  return keys.filter((key, at) =>
    keys.findIndex((other) => other.join("\0") === key.join("\0")) === at
  );
}

function isFields(message: Message): boolean {
  return typeof message === "object" && message !== null &&
    !Array.isArray(message);
}

function isKey(key: Json, length: number): boolean {
  return Array.isArray(key) && key.length === length &&
    key.every((cell) => typeof cell === "string");
}
