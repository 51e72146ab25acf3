/**
 * Ring 3. Random statements of a user, of every kind there is.
 *
 * Promise: what is made depends on the seed alone, never on what the database
 * holds.
 *
 * @module
 */

import type { Random } from "../../lib/dev/random.ts";
import { ALONE, GROUPS, type Make } from "./writes.ts";

const WEIGHTS = GROUPS.reduce((sum, [weight]) => sum + weight, 0);

/** Whether a statement empties one partition. */
const TRUNCATES_LEAF = /^truncate part_/;
const TRUNCATES = /^truncate/;

/**
 * Makes a statement.
 *
 * @param random What it depends on.
 * @param options Whether the transaction has one snapshot for all: then no
 * partition is truncated alone, which is a known limit (README).
 * @returns SQL of one statement, or a few.
 */
export function makeStatement(
  random: Random,
  options: { oneSnapshot: boolean },
): string {
  for (;;) {
    let at = random.below(WEIGHTS);
    const group = GROUPS.find(([weight]) => (at -= weight) < 0)!;
    const statement = sqlOf(random.pick(group[1]), random);
    if (TRUNCATES_LEAF.test(statement) && options.oneSnapshot) continue;
    // Seldom: it takes everything there was to see, and locks the table.
    if (TRUNCATES.test(statement) && !random.chance(0.35)) continue;
    return statement;
  }
}

/**
 * Makes a statement that is a transaction, or a large one.
 *
 * @param random What it depends on.
 * @returns SQL.
 */
export function makeAlone(random: Random): string {
  return sqlOf(random.pick(ALONE), random);
}

/**
 * Makes rows for a COPY.
 *
 * @param random What they depend on.
 * @returns The command, and its data.
 */
export function makeCopy(random: Random): { sql: string; data: string } {
  const from = 200 + random.below(50);
  const lines = Array.from(
    { length: 1 + random.below(40) },
    (_, i) => `${from + i}\tcopied ${random.hex(4)}\t${i}`,
  );
  // Now and then a key twice: all of it fails.
  if (random.chance(0.1)) lines.push(lines[0]!);
  return {
    sql: "copy hot (id, name, size) from stdin",
    data: lines.join("\n") + "\n",
  };
}

function sqlOf(make: Make, random: Random): string {
  return typeof make === "string" ? make : make(random);
}
