/**
 * Dead letters of the source in memory: what settling a version does to them,
 * and putting it back undoes.
 *
 * @module
 */

import type { Key } from "./source_messages.ts";
import type { SourceModel } from "./source_model.ts";
import {
  type Fields,
  isSame,
  type Letter,
  type Version,
} from "./source_state.ts";

/** libsql_sync.settle_letters: those of covered rows are closed, unless these
 * were set aside again; what was set aside is filed. */
export function settleLetters(
  { state }: SourceModel,
  version: Version,
  covered: readonly { table: string; key: Key }[],
): void {
  const { epoch, position, batch, parked, emptied } = version;
  // One open letter a row: the newest reason stands.
  const gone = state.letters.filter(({ message }) =>
    Array.isArray(message.key) &&
    (emptied.includes(message.table as string) ||
      [...covered, ...parked].some(({ table, key }) =>
        isSame(table, message.table) &&
        isSame(key as Fields[string], message.key)
      ))
  );
  const filed = parked.map((row): Letter => ({
    id: state.nextLetter++,
    message: { ...row, epoch, position, batch },
  }));
  state.letters = [
    ...state.letters.filter((letter) => !gone.includes(letter)),
    ...filed,
  ];
  version.closed = gone;
  version.opened = filed.map(({ id }) => id);
}

/** libsql_sync.unsettle_letters */
export function unsettleLetters(
  { state, faults }: SourceModel,
  version: Version,
): void {
  const { opened, closed } = version;
  state.letters = [
    ...state.letters.filter(({ id }) =>
      !opened.includes(id) || faults.letterKept
    ),
    ...faults.letterLost ? [] : closed,
  ].toSorted((a, b) => a.id - b.id);
  version.opened = [];
  version.closed = [];
}
