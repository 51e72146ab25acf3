/**
 * Ring 0. What the rows of each table were like when they last came.
 *
 * Promise: it decides how rows are written, never which: SQLite maintains every
 * index whose column a statement names, changed or not, so that a statement
 * should name what changes, and new rows should come in the order of an index.
 *
 * @module
 */

import {
  type Habit,
  type HabitOf,
  indexedColumns,
  type RowStep,
  type Step,
} from "./plan.ts";

/** A step that was applied, and what its statement gave. */
interface Done {
  readonly step: Step;
  readonly result: {
    readonly rows: readonly ArrayLike<unknown>[];
    readonly rowsAffected: number;
  };
}

/** What was seen so far. */
export interface Habits {
  /** What is known of a table's rows. */
  readonly of: HabitOf;
  /** Whether a step would repeat rows that the update before it writes all of. */
  isNeedless(step: Step): step is RowStep;
  /** Takes note of a batch. */
  note(done: readonly Done[]): void;
}

/**
 * Begins to look, with nothing known.
 *
 * @returns What was seen so far.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const columns = [{ name: "id", type: "INTEGER" as const }, { name: "a", type: "TEXT" as const }];
 * const table = { name: "t", key: ["id"], columns, indexes: [["a"]] };
 * const rows = [{ msgId: "1", key: null, cells: ["1", "x"] }];
 * const step = { kind: "look" as const, table, columns: ["id", "a"], rows, json: "" };
 * const habits = createHabits();
 * assertEquals(habits.of(table), null);
 * habits.note([{ step, result: { rows: [[1, 1]], rowsAffected: 0 } }]);
 * assertEquals(habits.of(table), { areThere: true, changes: ["a"], isSure: false });
 * ```
 */
export function createHabits(): Habits {
  const habits = new Map<string, Habit>();
  return {
    of: ({ name }) => habits.get(name) ?? null,
    isNeedless: (step): step is RowStep =>
      step.kind === "upsert" && step.follows === true &&
      habits.get(step.table.name)?.isSure === true,
    note(done) {
      const updated = new Map<string, { rows: number; changed: number }>();
      for (const { step, result } of done) {
        if (step.kind === "look") {
          const counts = Array.from(result.rows[0]!, Number);
          habits.set(step.table.name, {
            areThere: counts[0]! * 2 >= step.rows.length,
            changes: indexedColumns(step).filter((_, at) =>
              counts[at + 1]! > 0
            ),
            isSure: false,
          });
        } else if (step.kind === "update") {
          const sum = updated.get(step.table.name) ?? { rows: 0, changed: 0 };
          sum.rows += step.rows.length;
          sum.changed += result.rowsAffected;
          updated.set(step.table.name, sum);
        }
      }
      for (const [name, { rows, changed }] of updated) {
        // The look came with the first update.
        const habit = habits.get(name)!;
        habits.set(name, { ...habit, isSure: changed === rows });
      }
    },
  };
}
