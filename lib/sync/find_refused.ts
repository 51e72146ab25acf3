/**
 * Ring 2. Finds the changes that make the replica refuse a batch.
 *
 * Promise: it keeps nothing of what it tries, and every row it names is refused
 * even where everything before it is not.
 *
 * @module
 */

import type { Refusal } from "../chain/message.ts";
import {
  keyOf,
  rowsOf,
  type Step,
  stepOf,
  type StepRow,
} from "../plan/step.ts";
import type { Replica } from "../replica/replica.ts";

/** Statements that one try takes apart what it suspects into. */
const PIECES_MAX = 256;

/**
 * Finds the rows of a refused step that the replica refuses: the step goes in
 * pieces, and the piece that fails is taken apart until it is one row.
 *
 * @param replica The replica.
 * @param steps The steps of the batch up to the refused one, which is last.
 * @param options What the replica said, for the reason; how often it may be
 * asked; the tables that are rebuilt.
 * @returns The rows to set aside, some of them where the tries were not enough;
 * none where the step has no rows, or the replica takes it now.
 * @throws {SyncError} The replica could not be asked.
 */
export async function isolate(
  replica: Pick<Replica, "refusedOf">,
  steps: readonly Step[],
  options: { code: string; triesMax: number; rebuilding: readonly string[] },
): Promise<Refusal[]> {
  const before = steps.slice(0, -1);
  const step = steps.at(-1)!;
  const guilty: Refusal[] = [];
  if (!("columns" in step) || step.kind === "compare") return guilty;
  const { kind, table, columns, large } = step;
  let pieces = takeApart(rowsOf(step));
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
    const smaller = piece.length > 1 ? takeApart(piece) : [];
    pieces = [...pieces.slice(0, at), ...smaller, ...pieces.slice(at + 1)];
    if (piece.length === 1) {
      const [row] = piece;
      const key = keyOf(table, { columns, ...row! });
      const reason = `libSQL refused the row with ${options.code}`;
      guilty.push({ msgId: row!.msgId, table: table.name, key, reason });
    }
  }
  return guilty;
}

/** Rows in equal pieces, not too many of them. */
function takeApart(rows: readonly StepRow[]): StepRow[][] {
  const size = Math.ceil(rows.length / PIECES_MAX);
  const pieces: StepRow[][] = [];
  for (let at = 0; at < rows.length; at += size) {
    pieces.push(rows.slice(at, at + size));
  }
  return pieces;
}
