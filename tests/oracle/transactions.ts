/**
 * Ring 3. Random transactions of a user.
 *
 * Promise: what is made depends on the seed alone.
 *
 * @module
 */

import type { Random } from "../../lib/dev/random.ts";
import { makeAlone, makeCopy, makeStatement } from "./statements.ts";
import { KEYS } from "./tables.ts";

/** One step of a transaction. */
export type Step =
  | { do: "run"; sql: string }
  | { do: "copy"; sql: string; data: string }
  | { do: "pause"; ms: number };

/** A transaction before it is run. */
export interface Transaction {
  /** What begins it; null: a statement alone. */
  readonly begin: string | null;
  readonly steps: readonly Step[];
  /** Whether a statement that fails is rolled back alone. */
  readonly isolated: boolean;
  readonly end:
    | "commit"
    | "rollback"
    | "commit prepared"
    | "rollback prepared"
    | "leave";
  /** How long a prepared transaction waits. */
  readonly preparedMs: number;
}

/**
 * Makes a transaction.
 *
 * @param random What it depends on.
 * @returns The transaction.
 */
export function makeTransaction(random: Random): Transaction {
  if (random.chance(0.05)) return makeReborn(random);
  const oneSnapshot = random.chance(0.25);
  const statement = (): Step => ({
    do: "run",
    sql: makeStatement(random, { oneSnapshot }),
  });
  if (random.chance(0.35)) {
    const step: Step = random.chance(0.1)
      ? { do: "copy", ...makeCopy(random) }
      : {
        do: "run",
        sql: random.chance(0.06)
          ? makeAlone(random)
          : makeStatement(random, { oneSnapshot: false }),
      };
    return {
      begin: null,
      steps: [step],
      isolated: false,
      end: "commit",
      preparedMs: 0,
    };
  }
  const level = oneSnapshot
    ? random.pick(["repeatable read", "serializable"])
    : "read committed";
  const steps: Step[] = [];
  const run = (sql: string) => void steps.push({ do: "run", sql });
  if (random.chance(0.1)) run("set local role authenticated");
  if (random.chance(0.1)) {
    run(`select pg_advisory_xact_lock(${random.below(3)})`);
  }
  if (random.chance(0.15)) run("set local timezone = 'America/St_Johns'");
  if (oneSnapshot && random.chance(0.5)) {
    // The snapshot is taken now, and grows old.
    run("select count(*) from hot");
    steps.push({ do: "pause", ms: random.below(400) });
  }
  const open: string[] = [];
  const length = 1 + random.below(random.chance(0.1) ? 30 : 6);
  for (let i = 0; i < length; i++) {
    if (random.chance(0.2)) {
      open.push(`s${i}`);
      run(`savepoint s${i}`);
    }
    if (random.chance(0.08)) {
      steps.push({ do: "copy", ...makeCopy(random) });
    } else steps.push(statement());
    if (open.length > 0 && random.chance(0.4)) {
      const at = random.below(open.length);
      const name = open[at];
      run(
        random.chance(0.6)
          ? `rollback to savepoint ${name}`
          : `release savepoint ${name}`,
      );
      open.length = at;
    }
    if (random.chance(0.12)) {
      steps.push({
        do: "pause",
        ms: random.below(random.chance(0.2) ? 1_500 : 80),
      });
    }
  }
  return {
    begin: `begin isolation level ${level}`,
    steps,
    isolated: random.chance(0.4),
    end: random.pick([
      ...Array(16).fill("commit"),
      "rollback",
      "rollback",
      "commit prepared",
      "commit prepared",
      "rollback prepared",
      "leave",
    ]),
    preparedMs: random.below(600),
  };
}

/** Rows under keys that others free meanwhile, which an old snapshot still sees. */
function makeReborn(random: Random): Transaction {
  const steps: Step[] = [];
  const run = (sql: string) => void steps.push({ do: "run", sql });
  run("select count(*) from hot");
  steps.push({ do: "pause", ms: 100 + random.below(400) });
  const key = () => 1 + random.below(KEYS);
  for (let i = 0; i < 8; i++) {
    run(
      `insert into hot (id, name) values (${key()}, 'mine') on conflict do nothing`,
    );
  }
  run(
    `update hot set name = 'still mine' where name = 'mine' and id < ${key()}`,
  );
  run(
    `update hot set id = id + ${KEYS} where name = 'mine' and id = (select min(id) from hot where name = 'mine')`,
  );
  run(`delete from hot where name = 'mine' and id < ${key()}`);
  return {
    begin: `begin isolation level ${
      random.pick(["repeatable read", "serializable"])
    }`,
    steps,
    isolated: true,
    end: "commit",
    preparedMs: 0,
  };
}
