/**
 * The end of a simulation: faults stop, one worker syncs until there is
 * nothing to do, and the replica must be equal. Dead letters are tried again:
 * what stays is refused.
 *
 * @module
 */

import { SyncError } from "../../lib/errors.ts";
import type { SyncResult } from "../../lib/sync/result.ts";
import type { WalkResult } from "../../lib/sync/walk.ts";
import { finish, kill } from "./actions.ts";
import { Violation } from "./invariants.ts";
import { outcomeOf, settle } from "./network.ts";
import { redrive } from "./source_walks.ts";
import { tell as tellOf, titleOf } from "./tell.ts";
import { type Flow, LARGE, type World } from "./world.ts";

/** Syncs that bring any of these small worlds to rest. */
const SYNCS_MAX = 40;
const DAY_MS = 86_400_000;

/**
 * Brings a world to rest, and compares.
 *
 * @param world The world.
 * @param seed Decides what still lands.
 * @param tell Where what happens is told.
 * @throws {Violation} It does not come to rest, or the replica is not equal.
 */
export async function finishWorld(
  world: World,
  seed: number,
  tell: (line: string) => void,
): Promise<void> {
  const { source, invariants } = world;
  for (const worker of world.running()) kill(world, worker, seed % 3 === 0);
  for (const { user } of world.sources()) {
    for (const name of [...user.open.keys()]) user.end(name, "commit");
  }
  world.holder = null;
  if (seed % 2 === 0) {
    for (const call of world.limbo.splice(0)) {
      tell(`late: ${titleOf(call)} ${tellOf(call, outcomeOf(call))}`);
      check(world);
    }
  }
  world.limbo.length = 0;
  world.clone = null;
  world.now += DAY_MS;
  Object.assign(source.state.chain, { paused: false });
  // Small pages were tried enough.
  world.setup = { ...world.setup, ...LARGE };
  await rest(world, tell);
  // The first walk does not ask for the keys of tables that were created empty.
  for (let n = 0; n < 2 && invariants.needsWalk(); n++) {
    await until(world, { kind: "backfill" }, tell);
    await rest(world, tell);
  }
  compare(world);
  if (seed % 4 === 0) await verify(world, tell);
  redrive(source);
  await rest(world, tell);
  compare(world);
  const [healthy] = invariants.healthyLetters(source);
  if (healthy !== undefined) {
    throw new Violation("a dead letter of a row that nothing refuses", healthy);
  }
}

/** Syncs until nothing is left to do. */
async function rest(world: World, tell: (line: string) => void): Promise<void> {
  for (let n = 0; n < SYNCS_MAX; n++) {
    const { queued, processed, drained, walk_done, busy } = await once(
      world,
      { kind: "sync" },
      tell,
    ) as SyncResult;
    if (busy) {
      throw new Violation("it does not come to rest", "the lease is held");
    }
    const isDone = walk_done || !world.source.state.chain.refill;
    if (queued === 0 && processed === 0 && drained && isDone) return;
  }
  throw new Violation("it does not come to rest", `${SYNCS_MAX} syncs`);
}

/** Walks until the walk is done. */
async function until(
  world: World,
  flow: Flow,
  tell: (line: string) => void,
): Promise<WalkResult> {
  for (let n = 0; n < SYNCS_MAX; n++) {
    const result = await once(world, flow, tell) as WalkResult;
    if (result.done) return result;
  }
  throw new Violation("it does not come to rest", `${SYNCS_MAX} walks`);
}

/** One request without a fault; a replica of another past is nuked. */
async function once(
  world: World,
  flow: Flow,
  tell: (line: string) => void,
): Promise<unknown> {
  const worker = world.start(flow);
  tell(`worker ${worker.id}: ${flow.kind}`);
  for (let n = 0; worker.state === "running"; n++) {
    await settle();
    check(world);
    for (const call of [...worker.calls]) {
      const told = finish(world, call);
      tell(`${titleOf(call)} ${told}`);
    }
    world.now += 1;
    if (n > 500) throw new Violation("it does not come to rest", "one flow");
    await settle();
    check(world);
  }
  if (worker.state === "done") return worker.result;
  const error = worker.result;
  const code = error instanceof SyncError ? error.code : "";
  // What a source of another past says, and a nuke mends.
  const isOfAnotherPast = code === "replica_ahead" ||
    code === "replica_foreign" || code === "schema_outdated";
  if (
    flow.kind !== "nuke" && isOfAnotherPast && world.invariants.hasOtherPast
  ) {
    await once(world, { kind: "nuke", refill: true }, tell);
    return await once(world, flow, tell);
  }
  throw new Violation(
    "a flow fails where nothing else does",
    `${flow.kind}: ${error}`,
  );
}

function check({ invariants }: World): void {
  if (invariants.broken) throw invariants.broken;
}

/** The replica is the source, but for open dead letters. */
function compare({ source, invariants }: World): void {
  const { row } = invariants;
  if (row?.drained !== 1 || row.walk_done !== 1) {
    throw new Violation("it does not come to rest", JSON.stringify(row));
  }
  if (source.user.queue.size > 0) {
    throw new Violation("a message stays in the queue", "at the end");
  }
  const [first] = invariants.differences(source);
  if (first !== undefined) {
    throw new Violation("not equal at the end", first);
  }
}

/** What a walk calls different is different. */
async function verify(
  world: World,
  tell: (line: string) => void,
): Promise<void> {
  const { differences } = await until(world, { kind: "verify" }, tell);
  const { letters } = world.source.state;
  if (differences > letters.length) {
    throw new Violation(
      "a walk found what is not different",
      `${differences} differences, ${letters.length} dead letters`,
    );
  }
}
