/**
 * One schedule after another: decisions by chance, invariants after each, and
 * an end at which the replica is equal.
 *
 * @module
 */

import { act, type Action, decide } from "./actions.ts";
import { finishWorld } from "./finish.ts";
import { Violation } from "./invariants.ts";
import { settle } from "./network.ts";
import { type Profile, PROFILES } from "./profiles.ts";
import { oneOf, randomOf } from "./random.ts";
import { makeStatement } from "./statements.ts";
import { LARGE, type Mutation, type Setup, World } from "./world.ts";

/** A schedule: where it begins, and what is decided. */
export interface Schedule {
  readonly seed: number;
  readonly setup: Setup;
  readonly actions: readonly Action[];
}

/** What came of one. */
export interface Outcome {
  readonly violation: Violation | null;
  /** What happened, to be read. */
  readonly lines: readonly string[];
  readonly counts: ReadonlyMap<string, number>;
}

/** Profiles, one after the other, and for how many steps each at most. */
export type Phases = readonly (readonly [number, Profile])[];

/** Makes the schedule of a seed. */
export function makeSchedule(
  seed: number,
  options: { phases?: Profile | Phases; setup?: Partial<Setup> } = {},
): Schedule {
  const random = randomOf(seed);
  const setup: Setup = {
    batchMax: oneOf(random, [1, 2, 2, 3, 100]),
    bytesMax: oneOf(random, [1, 60, 1_000_000, 1_000_000]),
    pageMax: oneOf(random, [1, 2, 100]),
    keysMax: oneOf(random, [1, 2, 100]),
    scrubRows: oneOf(random, [0, 1, 1000]),
    refill: random(8) > 0,
    schema: random(3),
    isFilled: random(6) > 0,
    ...options.setup,
  };
  const steps = oneOf(random, [12, 24, 40, 80]);
  const { phases = PROFILES[seed % PROFILES.length]! } = options;
  const decisions = (length: number, profile: Profile) =>
    Array.from({ length }, () => decide(random, profile));
  const isList = (value: Profile | Phases): value is Phases =>
    Array.isArray(value);
  const actions = isList(phases)
    ? phases.flatMap(([most, profile]) => decisions(1 + random(most), profile))
    : decisions(steps, phases);
  return { seed, setup, actions };
}

/** Worlds at rest, by schema: most schedules go on from one. */
const resting = new Map<Mutation, Map<number, Promise<World>>>();
const NONE: Mutation = {};

function restingWorld(schema: number, mutation: Mutation): Promise<World> {
  const made = resting.get(mutation) ?? new Map<number, Promise<World>>();
  resting.set(mutation, made);
  const world = made.get(schema) ?? makeRestingWorld(schema, mutation);
  made.set(schema, world);
  return world;
}

async function makeRestingWorld(
  schema: number,
  mutation: Mutation,
): Promise<World> {
  const world = new World({
    ...LARGE,
    scrubRows: 1000,
    refill: true,
    schema,
    isFilled: false,
  }, { mutation });
  const random = randomOf(schema);
  for (let n = 0; n < 5; n++) {
    world.source.user.run(makeStatement(world, world.source.user, random));
  }
  await finishWorld(world, 1, () => {});
  world.replica.keep();
  return world;
}

/**
 * Runs a schedule.
 *
 * @param schedule What is decided.
 * @param options A deliberate bug; whether to keep what happened, to be read.
 * @returns What came of it.
 */
export async function run(
  schedule: Schedule,
  { mutation = NONE, tells = false }: {
    mutation?: Mutation;
    tells?: boolean;
  } = {},
): Promise<Outcome> {
  const { setup } = schedule;
  const lines: string[] = [];
  let world: World | null = null;
  const tell = (line: string | null) => {
    if (tells && line !== null) lines.push(line);
  };
  try {
    const from = setup.isFilled
      ? await restingWorld(setup.schema, mutation)
      : undefined;
    world = new World(setup, { mutation, from });
    for (const action of schedule.actions) {
      tell(act(world, action));
      await settle();
      if (world.invariants.broken) throw world.invariants.broken;
    }
    tell("faults stop");
    await finishWorld(world, schedule.seed, tell);
    return { violation: null, lines, counts: world.counts };
  } catch (error) {
    if (!(error instanceof Violation)) {
      throw Object.assign(error as Error, { lines });
    }
    return { violation: error, lines, counts: world?.counts ?? new Map() };
  } finally {
    world?.close();
  }
}
