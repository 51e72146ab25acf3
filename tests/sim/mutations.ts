/**
 * Deliberate bugs, one for each rule of the protocol: the simulation must find
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
  /** It takes more than 300 schedules to find: `tests/long/` looks for it. */
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
    name: "a dead letter closed by what changed of its row",
    mutation: { source: { healByUpdate: true } },
    profile: { write: 30 },
  },
  {
    name: "what changed of a row that is set aside",
    mutation: { source: { updateAside: true } },
    profile: { write: 30 },
    isRare: true,
  },
  {
    name: "rows counted although some are set aside",
    mutation: { source: { countAside: true } },
    profile: { drift: 6, operate: 6 },
  },
  { name: "ack before apply", mutation: { source: { ackBeforeApply: true } } },
  {
    name: "ack by position alone",
    mutation: { source: { ackByPosition: true } },
    profile: { stall: 12, land: 6 },
  },
  {
    name: "ack of another attempt's content",
    mutation: { source: { ackOtherContent: true } },
    profile: { stall: 12, land: 6 },
  },
  {
    name: "page on a batch that is not drained",
    mutation: { source: { pageUndrained: true } },
    phases: [
      [16, { write: 1 }],
      [2, { start: 1, sync: 1 }],
      [40, { step: 12, write: 1 }],
    ],
    setup: { batchMax: 1, pageMax: 100, scrubRows: 1000, isFilled: true },
  },
  { name: "page on a re-issue", mutation: { source: { pageAgain: true } } },
  {
    name: "walk progress stored at ack",
    mutation: { source: { progressAtAck: true } },
    profile: { rewind: 8 },
  },
  {
    name: "snapshot taken before the lock",
    mutation: { source: { snapshotBeforeLock: true } },
    profile: { hold: 8, twice: 12, land: 8 },
  },
  {
    name: "source read before the probe",
    mutation: { source: { sourceBeforeProbe: true } },
  },
  {
    name: "drained recomputed on re-issue",
    mutation: { source: { drainedAgain: true } },
    profile: { rewind: 8 },
    setup: { batchMax: 1 },
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
    name: "replay of a trimmed window",
    mutation: { source: { replayTrimmed: true } },
    phases: [
      [6, { write: 1 }],
      [1, { sync: 1 }],
      [20, { step: 1 }],
      [6, { later: 1 }],
      [4, { write: 1 }],
      [2, { sync: 1 }],
      [30, { step: 1 }],
      [2, { rewind: 1 }],
    ],
    setup: { batchMax: 1, isFilled: true },
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
    name: "what reopens is forgotten by a nuke",
    mutation: { source: { reopenForgotten: true } },
    phases: [
      [4, { write: 1 }],
      [2, { detach: 1 }],
      [1, { sync: 1 }],
      [12, { reach: 1 }],
      [2, { nuke: 1 }],
      [20, { step: 1 }],
    ],
    setup: { faultsAt: "apply" },
  },
  {
    name: "a failed capture that opens no walk",
    mutation: { source: { uncapturedForgotten: true } },
    profile: { detach: 4 },
  },
  {
    name: "batch claimed ahead acked without the one before",
    mutation: { source: { aheadAlone: true } },
    profile: { write: 30 },
    setup: { batchMax: 1 },
  },
  {
    name: "cursor by max msg_id",
    mutation: { source: { cursor: true } },
    profile: { begin: 6, end: 6 },
  },
  {
    name: "capture of the transition image",
    mutation: { transitionImage: true },
  },
  {
    name: "fold that forgets a truncate",
    mutation: {
      parts: (parts) => ({
        ...parts,
        plan: (batch) => {
          const { steps, refusals } = parts.plan(batch);
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
