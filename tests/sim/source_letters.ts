/**
 * Dead letters of the source in memory.
 *
 * @module
 */

import type { Json } from "../../lib/chain/json.ts";
import type { SourceModel } from "./source_model.ts";
import {
  type Fields,
  isSame,
  type Letter,
  type Version,
} from "./source_state.ts";
import { askRedrive, newestLetter } from "./source_walks.ts";

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
    const { open: _, ...bare } = change;
    const message: Fields = {
      ...bare,
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

/** An open dead letter whose row is in some messages. */
interface Touched {
  readonly letter: Letter;
  /** Whether the whole row is in them, or only what changed of it. */
  readonly isWhole: boolean;
  /** The first of them. */
  readonly msgId: number;
}

/** libsql_sync.letters_touched */
function lettersTouched(
  source: SourceModel,
  msgIds: readonly number[],
): Touched[] {
  const { state, user } = source;
  const rows: { id: number; table: Json; key: Json; isWhole: boolean }[] = [];
  const truncated: { id: number; table: Json }[] = [];
  for (const id of msgIds) {
    const message = user.queue.get(id) as Fields | undefined;
    if (typeof message !== "object" || message === null) continue;
    const { table = null, deletes, columns, truncate } = message;
    if (truncate === true) truncated.push({ id, table });
    for (const key of Array.isArray(deletes) ? deletes : []) {
      rows.push({ id, table, key, isWhole: true });
    }
    const listed = source.tables().find(({ name }) => name === table);
    if (listed === undefined || !Array.isArray(columns)) continue;
    const at = listed.key.map((name) => columns.indexOf(name));
    for (const field of ["rows", "updates"]) {
      const sent = message[field];
      for (const row of Array.isArray(sent) ? sent : []) {
        const key = at.map((index) => (row as Json[])[index] ?? null);
        rows.push({ id, table, key, isWhole: field === "rows" });
      }
    }
  }
  return state.letters.flatMap((letter) => {
    const { table, key } = letter.message;
    if (!Array.isArray(key)) return [];
    const of = [
      ...rows.filter((row) => row.table === table && isSame(row.key, key)),
      ...truncated.filter((one) => one.table === table)
        .map(({ id }) => ({ id, isWhole: true })),
    ];
    return of.length === 0 ? [] : [{
      letter,
      isWhole: of.some(({ isWhole }) => isWhole) ||
        source.faults.healByUpdate === true,
      msgId: Math.min(...of.map(({ id }) => id)),
    }];
  });
}

/** libsql_sync.still_aside */
export function stillAside(
  source: SourceModel,
  msgIds: readonly number[],
): Fields[] {
  if (source.faults.updateAside) return [];
  return lettersTouched(source, msgIds)
    .filter(({ isWhole }) => !isWhole)
    .map(({ letter: { message: { table, key, reason } }, msgId }) => ({
      msg_id: String(msgId),
      table: table!,
      key: key!,
      reason: reason!,
      open: true,
    }));
}

/** libsql_sync.heal */
export function heal(source: SourceModel, version: Version): void {
  const isParked = ({ message }: Letter) =>
    version.parked.some((parked) =>
      isSame(parked.table, message.table) && isSame(parked.key, message.key)
    );
  const healed = lettersTouched(source, version.msgIds)
    .filter(({ letter, isWhole }) => isWhole && !isParked(letter))
    .map(({ letter }) => letter);
  const { state } = source;
  state.letters = state.letters.filter((letter) => !healed.includes(letter));
}

/** libsql_sync.try_updated */
export function tryUpdated(source: SourceModel, version: Version): void {
  const { chain, walks } = source.state;
  const open = version.parked.filter((parked) => parked.open === true);
  for (const table of source.tableNames()) {
    const keys = open.filter((parked) => parked.table === table)
      .map(({ key }) => key!);
    if (keys.length === 0) continue;
    const waiting = walks.filter((walk) =>
      walk.kind === "redrive" &&
      walk.walkGen > Number(chain.seen?.walk_gen) &&
      isSame([...walk.tables], [table]) &&
      isSame([...walk.keys!], keys.toSorted())
    );
    for (const walk of waiting) walk.lettersUntil = newestLetter(source);
    if (waiting.length === 0) askRedrive(source, table, keys);
  }
}
