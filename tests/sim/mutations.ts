/**
 * Deliberate bugs, one and more for each rule of the protocol: the simulation must find
 * every one. They live here alone, in the model or around the adapters.
 *
 * @module
 */

import type { Statement } from "../../lib/replica/sql.ts";
import { EVERYTHING, type Profile } from "./profiles.ts";
import { makeSchedule, type Phases, type Schedule } from "./simulate.ts";
import type { Mutation, Setup } from "./world.ts";

/** A bug, and the schedules in which it shows. */
export interface Mutant {
  readonly name: string;
  readonly mutation: Mutation;
  /** What happens more often than elsewhere. */
  readonly profile?: Profile;
  /** What happens one after the other, and for how many steps. */
  readonly phases?: Phases;
  readonly setup?: Partial<Setup>;
  /** It takes more than 100 schedules to find: `tests/long/` looks for it. */
  readonly isRare?: true;
}

const GUARDS = ["_libsql_sync_insert", "_libsql_sync_update"];

/** Every bug that must be found. */
export const MUTANTS: readonly Mutant[] = [
  {
    name: "no guard",
    mutation: {
      statements: (statements) =>
        statements.filter(({ sql }) =>
          !GUARDS.some((name) => sql.includes(`NOT EXISTS ${name}`))
        ),
    },
  },
  {
    name: "guard without predecessor",
    mutation: {
      statements: rewriting([
        ["AND NEW.prev = batch", ""],
        ["AND NEW.prev = OLD.batch", ""],
      ]),
    },
    // A source of another past makes another batch of the same position, and
    // what follows the first one comes late.
    phases: [
      [4, { write: 1 }],
      [1, { sync: 1 }],
      [40, { reach: 9, step: 1 }],
      [1, { kill: 1 }],
      [1, { rewind: 1 }],
      [1, { restore: 1 }],
      [3, { write: 1 }],
      [1, { sync: 1 }],
      [8, { step: 1 }],
      [2, { land: 1 }],
    ],
    setup: {
      batchMax: 1,
      refill: false,
      scrubRows: 0,
      isFilled: true,
      isBackedUp: true,
      faultsAt: "apply",
      rewindMax: 3,
    },
  },
  {
    name: "rows counted although some are set aside",
    mutation: { source: { countAside: true } },
    profile: { drift: 6, operate: 6 },
    isRare: true,
  },
  {
    name: "rows counted although changes are on their way",
    mutation: { source: { countedEarly: true } },
    phases: [
      [4, { drift: 1 }],
      [1, { mend: 1 }],
      [60, { step: 4, write: 1 }],
    ],
    setup: { isFilled: true, pageMax: 100 },
    isRare: true,
  },
  {
    name: "settled before it is applied",
    mutation: { source: { ackBeforeApply: true } },
  },
  {
    name: "settled by position alone",
    mutation: { source: { settleByPosition: true } },
    profile: { stall: 12, land: 6 },
  },
  {
    name: "a sibling's messages settled",
    mutation: { source: { settleSibling: true } },
    phases: [
      [2, { write: 1 }],
      [1, { sync: 1 }],
      [60, { step: 6, stall: 2, write: 2, land: 2 }],
    ],
    setup: { faultsAt: "apply" },
  },
  {
    name: "walk progress stored at the source",
    mutation: { source: { progressAtSource: true } },
    profile: { rewind: 8 },
  },
  {
    name: "everything read before the lock of the chain",
    mutation: { source: { snapshotBeforeLock: true } },
    phases: [
      [4, { write: 1 }],
      [1, { sync: 1 }],
      [80, { step: 6, stall: 2, land: 2, ungrip: 1, write: 2 }],
    ],
    setup: { faultsAt: "claim", isFilled: true },
    isRare: true,
  },
  {
    name: "rows read in an earlier snapshot than the queue",
    mutation: { source: { rowsEarlier: true } },
    profile: { grip: 12, ungrip: 12, write: 40 },
    isRare: true,
  },
  {
    name: "rows read in a later snapshot than the queue",
    mutation: { source: { queueEarlier: true } },
    profile: { grip: 12, ungrip: 12, write: 40 },
    isRare: true,
  },
  {
    name: "rows read without the lock of their table",
    mutation: { source: { unlocked: true } },
    profile: { lock: 8, write: 40 },
  },
  {
    name: "drained although a message of a locked table is left",
    mutation: { source: { leftDrained: true } },
    profile: { lock: 8, write: 40 },
  },
  {
    name: "drained ahead although a message was left before it",
    mutation: { source: { aheadDrained: true } },
    profile: { lock: 8, write: 40 },
    setup: { batchMax: 2 },
  },
  {
    name: "put back under new numbers",
    mutation: { source: { newNumbers: true } },
    profile: { rewind: 8 },
  },
  {
    name: "put back although messages are gone",
    mutation: { source: { archiveUnchecked: true } },
    profile: { purge: 8, rewind: 8 },
  },
  {
    name: "the floor stays where it is when messages are put back",
    mutation: { source: { floorKept: true } },
    profile: { rewind: 8, write: 30 },
  },
  {
    name: "the floor rises past messages of a locked table",
    mutation: { source: { floorSkips: true } },
    profile: { lock: 8, write: 40 },
  },
  {
    name: "a row's absence is not sent",
    mutation: { source: { absenceUnsent: true } },
  },
  {
    name: "a row that cannot be read is left out without a word",
    mutation: { source: { brokenUnsent: true } },
  },
  {
    name: "a row set aside late",
    mutation: { source: { parkLate: true } },
    phases: [
      [1, { strict: 1 }],
      [4, { bad: 1 }],
      [1, { sync: 1 }],
      [80, { step: 4, stall: 3, land: 1, later: 1 }],
    ],
    setup: { faultsAt: "park" },
    isRare: true,
  },
  {
    name: "a truncate that always empties the table",
    mutation: { source: { truncateWipes: true } },
    profile: { begin: 8, lock: 8, end: 12, write: 60 },
    isRare: true,
  },
  {
    name: "a truncate of a table with rows that opens no walk",
    mutation: { source: { truncateUntold: true } },
    profile: { begin: 6, write: 30 },
  },
  {
    name: "a dead letter that stays closed when its version is put back",
    mutation: { source: { letterLost: true } },
    phases: [
      [1, { strict: 1 }],
      [3, { bad: 1 }],
      [1, { sync: 1 }],
      [40, { step: 1 }],
      [40, { step: 1 }],
      [8, { write: 1 }],
      [1, { sync: 1 }],
      [40, { step: 1 }],
      [40, { step: 1 }],
      [1, { rewind: 1 }],
    ],
    setup: { isFilled: true, scrubRows: 0, rewindMax: 2 },
  },
  {
    name: "a dead letter that stays filed when its version is put back",
    mutation: { source: { letterKept: true } },
    profile: { rewind: 8, write: 30 },
  },
  {
    name: "a walk that closed dead letters is not repeated when it is lost",
    mutation: { source: { closingForgotten: true } },
    phases: [
      [1, { strict: 1 }],
      [3, { bad: 1 }],
      [1, { sync: 1 }],
      [40, { step: 1 }],
      [40, { step: 1 }],
      [1, { lenient: 1 }],
      [1, { sync: 1 }],
      [40, { step: 1 }],
      [40, { step: 1 }],
      [1, { rewind: 1 }],
      // The walk cannot go on at once.
      [1, { lock: 1 }],
      [3, { write: 1 }],
      [1, { sync: 1 }],
      [20, { step: 1 }],
    ],
    setup: { isFilled: true, scrubRows: 0, rewindMax: 2 },
  },
  {
    name: "a version trimmed that the replica can reach",
    mutation: { source: { trimReachable: true } },
    profile: { later: 6 },
  },
  {
    name: "a version handed out ahead settled without the one before",
    mutation: { source: { aheadAlone: true } },
    profile: { write: 30 },
    setup: { batchMax: 1 },
  },
  {
    name: "a version handed out ahead covers what the one before covers",
    mutation: { source: { aheadCovers: true } },
    profile: { write: 30 },
    setup: { batchMax: 1 },
  },
  {
    name: "a walk is not opened again when that is put back",
    mutation: { source: { opensForgotten: true } },
    phases: [
      [3, { detach: 1 }],
      [1, { sync: 1 }],
      [40, { step: 1 }],
      [2, { rewind: 1 }],
    ],
    setup: { isFilled: true },
  },
  {
    name: "a walk counts as opened when that is handed out",
    mutation: { source: { openedEarly: true } },
    profile: { detach: 4, drop: 6, kill: 6 },
  },
  {
    name: "a walk message that opens no walk",
    mutation: { source: { walkDropped: true } },
    profile: { detach: 4 },
  },
  {
    name: "a page in place of a walk that opens",
    mutation: { source: { pageOnOpening: true } },
    profile: { detach: 4 },
  },
  {
    name: "the rest of a cut message is dropped",
    mutation: { source: { remainderDropped: true } },
    setup: { batchMax: 1 },
  },
  {
    name: "the keys that were cut are not put back",
    mutation: { source: { cutKeysLost: true } },
    profile: { rewind: 8, write: 30 },
    setup: { batchMax: 1 },
  },
  {
    name: "the old key of a moved row is not sent",
    mutation: { capture: { newKeys: true } },
  },
  {
    name: "parked set kept in the worker",
    mutation: {
      parts: (parts) => {
        const kept: Parameters<typeof parts.source.park>[] = [];
        const { source } = parts;
        return {
          ...parts,
          source: {
            ...source,
            park: (...asked) => {
              kept.push(asked);
              return Promise.resolve(true);
            },
            claim: async (request) => {
              for (const asked of kept.splice(0)) await source.park(...asked);
              return await source.claim(request);
            },
          },
        };
      },
    },
  },
  {
    name: "bootstrap that replaces a row",
    mutation: { statements: replaceRow },
    profile: { stall: 8, land: 6, twice: 6 },
    setup: { isFilled: false },
  },
  {
    name: "adopt without from",
    mutation: {
      statements: rewriting([[
        "SET from_epoch = ?, epoch",
        "SET from_epoch = iif(? = '', epoch, epoch), epoch",
      ]]),
    },
    profile: { nuke: 8, stall: 10, twice: 6, land: 6 },
  },
  {
    name: "old schema applying after an alter",
    mutation: {
      statements: rewriting([
        ["AND NEW.schema_hash = schema_hash", ""],
        ["AND NEW.schema_hash = OLD.schema_hash", ""],
      ]),
    },
    phases: [
      [4, { write: 1 }],
      [1, { sync: 1 }],
      [40, { reach: 9, step: 1 }],
      [1, { kill: 1 }],
      [1, { deploy: 1 }],
      [2, { skew: 1 }],
      [1, { sync: 1 }],
      [12, { step: 1 }],
      [2, { land: 1 }],
    ],
    setup: { isFilled: false, refill: false, faultsAt: "apply" },
  },
  {
    name: "cursor by max msg_id",
    mutation: { source: { cursor: true } },
    profile: { begin: 6, end: 6 },
  },
  {
    name: "a truncate that the worker forgets",
    mutation: {
      parts: (parts) => ({
        ...parts,
        plan: (tables, unusable) => {
          const { steps, refusals } = parts.plan(tables, unusable);
          const kept = steps.filter(({ kind }) => kind !== "truncate");
          return { steps: kept, refusals };
        },
      }),
    },
  },
];

/** The schedule of a mutant for a seed. */
export function mutantSchedule(seed: number, mutant: Mutant): Schedule {
  const { profile, phases, setup } = mutant;
  return makeSchedule(seed, {
    phases: phases ?? { ...EVERYTHING, ...profile },
    setup,
  });
}

/** Changes the text of statements. */
function rewriting(
  changes: readonly [string | RegExp, string][],
): (statements: readonly Statement[]) => Statement[] {
  return (statements) =>
    statements.map(({ sql, args }) => ({
      sql: changes.reduce((text, [from, to]) => text.replace(from, to), sql),
      args,
    }));
}

/** A bootstrap that starts over whatever is there. */
function replaceRow(statements: readonly Statement[]): Statement[] {
  return statements.flatMap((statement): Statement[] => {
    const { sql, args } = statement;
    if (
      !sql.startsWith(
        "INSERT INTO _libsql_sync (id, epoch, position, batch, schema_hash, fresh",
      )
    ) {
      return [statement];
    }
    const guards = statements.filter(({ sql }) =>
      GUARDS.some((name) => sql.includes(`NOT EXISTS ${name}`))
    );
    const dropped = GUARDS.map((name) => ({
      sql: `DROP TRIGGER ${name}`,
      args: [],
    }));
    // Nor does it look at what is there.
    const replaced = sql.replace("INSERT", "INSERT OR REPLACE")
      .replace(/iif\(\(SELECT coalesce.*?\) = \?, /, "iif(? <> '-', ");
    return [...dropped, { sql: replaced, args }, ...guards];
  });
}
