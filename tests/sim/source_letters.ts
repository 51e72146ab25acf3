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

/** libsql_sync.letters_held: of rows that a version covers, or parks again. */
export function heldLetters(
  { state }: SourceModel,
  { parked, emptied }: Pick<Version, "parked" | "emptied">,
  covered: readonly { table: string; key: Key }[],
): Letter[] {
  return state.letters.filter(({ message }) =>
    Array.isArray(message.key)
      ? emptied.includes(message.table as string) ||
        [...covered, ...parked].some(({ table, key }) =>
          isSame(table, message.table) &&
          isSame(key as Fields[string], message.key)
        )
      : parked.some(({ table, key, reason }) =>
        key === null && isSame(table, message.table) &&
        reason === message.reason
      )
  );
}

/** libsql_sync.settle: those of covered rows are closed, unless these
 * were set aside again; what was set aside is filed. */
export function settleLetters(
  source: SourceModel,
  version: Version,
  covered: readonly { table: string; key: Key }[],
): void {
  const { state } = source;
  const { epoch, position, batch, parked } = version;
  // One open letter a row: the newest reason stands.
  const gone = heldLetters(source, version, covered);
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
