/**
 * Many schedules in one test, and what must have happened in them.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { describe, shrink } from "./shrink.ts";
import { makeSchedule, run, type Schedule } from "./simulate.ts";

/** What a full run must have seen, each many times. */
const SEEN = [
  ...["lose", "drop", "stall", "twice", "hold", "wait", "land source"],
  ...["land replica", "kill", "rewind", "restore", "clone", "skew", "later"],
  ...["drift", "strict", "deploy", "detach", "cap", "send", "nuke", "purge"],
  ...["put back", "claimed ahead", "stands"],
  ...["replica start", "replica step", "replica adopt", "replica alter"],
  ...["claim batch", "claim idle", "claim none", "claim settled"],
  ...["claim stop replica_ahead", "claim stop replica_foreign"],
  ...["claim stop schema_outdated", "claim stop schema_unknown"],
  ...["park parked", "park gone", "reset begun", "reset moved"],
  ...["call try", "call keys", "call create index", "log index", "equal"],
  "epoch: messages of position n, which the replica lost, are gone",
  "epoch: the replica at position n holds a batch that is not on record, or whose past is not",
  "epoch: the replica of another source was taken over",
];
/** Below it, chance decides what is seen. */
const FULL = 5_000;

/**
 * Runs schedules.
 *
 * @param share Which of how many shares: their seeds lie between each other.
 *   `many` is the number of schedules in all of them, unless SCHEDULES is set.
 */
export async function runSchedules(
  share: { first: number; of: number; many: number },
): Promise<void> {
  const first = setting("SEED", 1);
  const many = setting("SCHEDULES", share.many);
  const counts = new Map<string, number>();
  let runs = 0;
  for (let seed = first + share.first; seed < first + many; seed += share.of) {
    const schedule = makeSchedule(seed);
    const outcome = await run(schedule);
    if (outcome.violation !== null) {
      throw new Error(await explain(schedule, outcome.violation.rule));
    }
    runs += 1;
    for (const [name, n] of outcome.counts) {
      counts.set(name, (counts.get(name) ?? 0) + n);
    }
  }
  const sum = (names: readonly string[]) =>
    names.reduce((all, name) => all + (counts.get(name) ?? 0), 0);
  console.log(
    `SEED=${first}: ${runs} schedules, ${sum(["replica step"])} batches, ${
      sum(["equal"])
    } comparisons, ${sum(FAULTS)} faults`,
  );
  const missing = SEEN.filter((name) => !counts.has(trimmed(name, counts)));
  if (runs >= FULL) assertEquals(missing, [], "these never happened");
}

/** What counts as a fault. */
const FAULTS = [
  ...["lose", "drop", "stall", "twice", "kill", "rewind", "restore", "clone"],
  ...["skew", "later", "drift", "hold"],
];

/** The shortest schedule that fails the same way, and what happens in it. */
async function explain(schedule: Schedule, rule: string): Promise<string> {
  const shortest = await shrink(schedule, { rule });
  return describe(shortest, await run(shortest, { tells: true }));
}

/** A name as it was counted: answers without a word of their own end so. */
function trimmed(name: string, counts: ReadonlyMap<string, number>): string {
  return counts.has(name) ? name : `${name} `;
}

/** A number from the environment, where it may be read. */
function setting(name: string, otherwise: number): number {
  const { state } = Deno.permissions.querySync({ name: "env", variable: name });
  return Number((state === "granted" && Deno.env.get(name)) || otherwise);
}
