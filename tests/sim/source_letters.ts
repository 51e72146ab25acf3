/**
 * Dead letters of the source in memory.
 *
 * @module
 */

import type { Json } from "../../lib/json.ts";
import type { SourceModel } from "./source_model.ts";
import { type Fields, isSame, type Version } from "./source_state.ts";

/** libsql_sync.dead_letter */
export function fileLetters(
  source: SourceModel,
  version: Version,
  changes: readonly Fields[],
): void {
  const { state, user } = source;
  // One open letter a row: the newest reason stands.
  state.letters = state.letters.filter(({ message }) =>
    !changes.some(({ table, key }) =>
      Array.isArray(key) && isSame(message.table, table) &&
      isSame(message.key, key)
    )
  );
  for (const change of changes) {
    const id = Number(change.msg_id);
    const message: Fields = {
      ...change,
      epoch: version.epoch,
      position: version.position,
      batch: version.batch,
    };
    if (change.key == null) {
      message.message = user.queue.get(id) ?? state.archive.get(id) ?? null;
    }
    state.letters.push({ id: state.nextLetter++, message });
  }
}

/** libsql_sync.heal */
export function heal(source: SourceModel, version: Version): void {
  const { state, user } = source;
  if (!state.letters.some(({ message }) => Array.isArray(message.key))) return;
  const touched: { table: Json; key: Json }[] = [];
  const truncated: Json[] = [];
  for (const id of version.msgIds) {
    const message = user.queue.get(id) as Fields | undefined;
    if (typeof message !== "object" || message === null) continue;
    const { table = null, deletes, rows, columns, truncate } = message;
    if (truncate === true) truncated.push(table);
    for (const key of Array.isArray(deletes) ? deletes : []) {
      touched.push({ table, key });
    }
    const listed = source.tables().find(({ name }) => name === table);
    if (listed === undefined || !Array.isArray(rows)) continue;
    if (!Array.isArray(columns)) continue;
    const at = listed.key.map((name) => columns.indexOf(name));
    for (const row of rows) {
      touched.push({
        table,
        key: at.map((index) => (row as Json[])[index] ?? null),
      });
    }
  }
  state.letters = state.letters.filter(({ message }) =>
    !Array.isArray(message.key) ||
    !truncated.includes(message.table!) &&
      !touched.some(({ table, key }) =>
        table === message.table && isSame(key, message.key)
      ) ||
    version.parked.some((parked) =>
      isSame(parked.table, message.table) && isSame(parked.key, message.key)
    )
  );
}
