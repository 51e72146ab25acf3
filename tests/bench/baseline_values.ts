/**
 * Ring 0. How the baselines turn a message into a statement.
 *
 * @module
 */

/** A message of the row trigger. */
export interface BaselineMessage {
  readonly table: string;
  readonly type: "INSERT" | "UPDATE" | "DELETE";
  readonly record: Record<string, unknown> | null;
  readonly old_record: Record<string, unknown> | null;
}

/** The part of schema.json's table that is needed. */
export interface BaselineTable {
  readonly key: string;
  readonly columns: Record<string, string>;
}

type Value = string | number | null;

/** A value of the message as its column stores it. */
function toValue(value: unknown, type: string): Value {
  if (value === null || value === undefined) return null;
  switch (type) {
    case "INTEGER":
      return Number(value);
    case "BOOLEAN":
      return value ? 1 : 0;
    default:
      return typeof value === "object" ? JSON.stringify(value) : String(value);
  }
}

/**
 * Makes what turns messages into statements, one each.
 *
 * @param name The table's name.
 * @param table Its key and columns.
 * @returns Takes a message and returns its statement.
 */
export function baselineStatements(
  name: string,
  table: BaselineTable,
): (message: BaselineMessage) => { sql: string; args: Value[] } {
  const columns = Object.entries(table.columns);
  const upsert = `INSERT OR REPLACE INTO ${name} (${
    columns.map(([column]) => column).join(", ")
  }) VALUES (${columns.map(() => "?").join(", ")})`;
  const remove = `DELETE FROM ${name} WHERE ${table.key} = ?`;
  const keyType = table.columns[table.key]!;
  return ({ type, record, old_record }) =>
    type === "DELETE"
      ? { sql: remove, args: [toValue(old_record![table.key], keyType)] }
      : {
        sql: upsert,
        args: columns.map(([column, type]) => toValue(record![column], type)),
      };
}
