/**
 * The same random calls on two sources: each answers as the other does, and
 * has the same on record.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import type { Json } from "../../lib/chain/json.ts";
import { makeStep, type Side } from "./calls.ts";
import type { SourceUnderTest } from "./source.ts";
import { randomOf } from "../sim/random.ts";
import { canonical, type Fields } from "../sim/source_state.ts";

/** What a failure prints. */
interface Told {
  readonly seed: number;
  readonly steps: readonly string[];
}

/**
 * Runs a sequence on both sides.
 *
 * @param seed What the sequence is made of.
 * @param options The sources, the model first; how many steps; where what was
 * answered is noted.
 */
export async function compareSources(
  seed: number,
  { sources, steps, answered }: {
    sources: readonly [SourceUnderTest, SourceUnderTest];
    steps: number;
    answered: Map<string, number>;
  },
): Promise<void> {
  const random = randomOf(seed);
  const sides = sources.map((source): Side => ({
    source,
    rows: [null],
    batch: null,
    schema: 0,
    names: new Map(),
  })) as [Side, Side];
  const open = new Set<number>();
  const told: { seed: number; steps: string[] } = { seed, steps: [] };
  try {
    for (let n = 0; n < steps; n++) {
      const [title, step] = makeStep(random, open, sides);
      told.steps.push(title);
      if (step === null) continue;
      const answers: unknown[] = [];
      for (const side of sides) {
        answers.push(normal(await step(side) as Json, side.names));
      }
      note(answered, answers[0]);
      compare(answers, told);
      const standing: unknown[] = [];
      for (const side of sides) {
        standing.push(normal(await side.source.standing(), side.names));
      }
      compare(standing, told);
    }
  } finally {
    for (const session of open) {
      for (const { source } of sides) await source.end(session, "rollback");
    }
  }
}

/** Counts what was answered, so that nothing is left out without a word. */
function note(answered: Map<string, number>, answer: unknown): void {
  if (Array.isArray(answer)) answer.forEach((one) => note(answered, one));
  const found = answer as Fields | null;
  if (typeof found?.do !== "string") return;
  const { error, page, reopen, tables, put_back } = found;
  const names = [
    [found.do, error].filter(Boolean).join(" "),
    ...(reopen ? ["reopen"] : []),
    ...(Number(put_back) > 0 ? ["put back"] : []),
    ...(Array.isArray(tables) &&
        (tables as Fields[]).some((one) => one.truncate)
      ? ["truncate"]
      : []),
    ...(page
      ? [`page ${(page as Fields).kind}`, `page ${(page as Fields).half}`]
      : []),
  ];
  for (const name of names) answered.set(name, (answered.get(name) ?? 0) + 1);
}

function compare(found: readonly unknown[], told: Told): void {
  assertEquals(
    found[1],
    found[0],
    `SEED=${told.seed}, after\n  ${told.steps.join("\n  ")}\n`,
  );
}

const UUID = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g;
/** What is never the same twice. */
const CHANCE = new Set(["snapshot", "source_time", "parked_at"]);
/** Lists whose order is the plan's of a query. */
const UNORDERED = new Set([
  ...["tables", "rows", "gone", "broken", "unusable", "open", "keys"],
  ...["parked", "letters"],
]);
/** JSON inside a text. */
const NESTED = new Set(["upto", "walk_at", "at"]);

/** A value with names for ids, without times, in one order. */
function normal(value: Json | undefined, names: Map<string, string>): unknown {
  if (typeof value === "string") {
    return value.replace(UUID, (id) => {
      if (!names.has(id)) names.set(id, `id ${names.size + 1}`);
      return names.get(id)!;
    });
  }
  if (Array.isArray(value)) return value.map((each) => normal(each, names));
  if (typeof value !== "object" || value === null) return value;
  const made: Record<string, unknown> = {};
  for (const name of Object.keys(value).sort()) {
    const field = (value as Fields)[name];
    if (CHANCE.has(name)) continue;
    if (NESTED.has(name) && typeof field === "string") {
      made[name] = normal(JSON.parse(field), names);
    } else if (UNORDERED.has(name) && Array.isArray(field)) {
      made[name] = normal(
        // Not by random ids: these are others on each side.
        field.map((each) => ({ each, by: canonical(each).replace(UUID, "") }))
          .sort((a, b) => a.by < b.by ? -1 : 1).map(({ each }) => each),
        names,
      );
    } else {
      made[name] = normal(field, names);
    }
  }
  return made;
}
