/**
 * Ring 2. Finds the rows for which the replica refuses a batch.
 *
 * Promise: nothing it tries is kept, and every row it names is refused even if
 * everything before it is accepted.
 *
 * @module
 */

import type { Refusal } from "../chain/rows.ts";
import {
  keyOf,
  rowsOf,
  type Step,
  stepOf,
  type StepRow,
} from "../plan/step.ts";
import type { Replica } from "../replica/replica.ts";

/** Statements that one try splits a suspected piece into. */
const PIECES_MAX = 256;

/** What a search may do. */
export interface SearchOptions {
  /** The replica's code for the refusal; it becomes part of the reason. */
  readonly code: string;
  /** How often the replica may be asked. */
  readonly triesMax: number;
  /** The tables that are being rebuilt. */
  readonly rebuilding: readonly string[];
}

/**
 * Finds the rows of a refused step that the replica refuses: it tries the step
 * in pieces, and splits the piece that fails until it is one row.
 *
 * @param replica The replica.
 * @param steps The steps of the batch up to the refused one, which is last.
 * @param options The code, how often to ask, and the tables being rebuilt.
 * @returns The rows to park; if the tries were not enough, some of them. None
 * if the step has no rows, or if the replica accepts it now.
 * @throws {SyncError} The replica could not be asked.
 */
export async function findRefused(
  replica: Pick<Replica, "refusedOf">,
  steps: readonly Step[],
  options: SearchOptions,
): Promise<Refusal[]> {
  const before = steps.slice(0, -1);
  const step = steps.at(-1)!;
  const guilty: Refusal[] = [];
  if (!("columns" in step) || step.kind === "compare") return guilty;
  const { kind, table, columns, large } = step;
  let pieces = split(rowsOf(step));
  for (let tries = 0; tries < options.triesMax && pieces.length > 0; tries++) {
    const trial = pieces.map((rows) =>
      stepOf(kind, table, columns, rows, large !== null)
    );
    const refused = await replica.refusedOf(
      [...before, ...trial],
      options.rebuilding,
    );
    const at = refused === null ? -1 : refused - before.length;
    const piece = pieces[at];
    if (piece === undefined) break;
    const smaller = piece.length > 1 ? split(piece) : [];
    pieces = [...pieces.slice(0, at), ...smaller, ...pieces.slice(at + 1)];
    if (piece.length === 1) {
      const [row] = piece;
      const key = keyOf(table, { columns, ...row! });
      const reason = `libSQL refused the row with ${options.code}`;
      guilty.push({ table: table.name, key, reason });
    }
  }
  return guilty;
}

/** Rows in equal pieces, not too many of them. */
function split(rows: readonly StepRow[]): StepRow[][] {
  const size = Math.ceil(rows.length / PIECES_MAX);
  const pieces: StepRow[][] = [];
  for (let at = 0; at < rows.length; at += size) {
    pieces.push(rows.slice(at, at + size));
  }
  return pieces;
}
