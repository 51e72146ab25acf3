/**
 * Ring 3. How fast a queue of changes is drained, beside the baselines.
 *
 * @module
 */

import { drainBaseline, undoQueued } from "./baseline.ts";
import { assertEqual } from "./equal.ts";
import type { Found, Part } from "./found.ts";
import type { Lab } from "./lab.ts";
import { median } from "./median.ts";
import { CHANGES, type Kind } from "./rows.ts";
import { baselineQueued, type Sizes } from "./sizes.ts";
import { drainOurs, startWorker } from "./worker.ts";

/** One run. */
interface Run {
  readonly perSecond: number;
  /** CPU of the worker's process by 100,000 messages or rows. */
  readonly cpuSeconds?: number;
}

/** Drains one queue and compares; so many changes must have come. */
type Contender = (lab: Lab, sizes: Sizes, kind: Kind) => Promise<Run>;

const baseline = (isTuned: boolean): Contender => async (lab, sizes, kind) => {
  const { rows, baselineMessages: messages } = sizes;
  await using pair = await lab.changed({
    capture: "baseline",
    rows,
    kind,
    count: baselineQueued(sizes),
  });
  const { url, client, sql } = pair;
  const started = performance.now();
  const drained = await drainBaseline({ url, client, messages, isTuned });
  const seconds = (performance.now() - started) / 1000;
  if (drained < messages) throw new Error(`${drained} of ${messages} drained`);
  await undoQueued(sql);
  await assertEqual(sql, client);
  return { perSecond: drained / seconds };
};

const ours: Contender = async (lab, sizes, kind) => {
  const { rows, messages: count } = sizes;
  await using pair = await lab.changed({ capture: "ours", rows, kind, count });
  const { url, client, sql, sqld } = pair;
  await using worker = await startWorker({ libsqlUrl: sqld.url, pgmqUrl: url });
  const cpuBefore = await worker.cpuSeconds();
  const started = performance.now();
  const drained = await drainOurs(worker);
  const seconds = (performance.now() - started) / 1000;
  const cpuSeconds = await worker.cpuSeconds() - cpuBefore;
  if (kind !== "bulk" && drained !== count) {
    throw new Error(`${drained} of ${count} drained`);
  }
  await assertEqual(sql, client);
  return {
    perSecond: count / seconds,
    cpuSeconds: cpuSeconds * 100_000 / count,
  };
};

/** What contenders are called, and the kind of changes each drains. */
type Entrants = Record<string, { contender: Contender; kind: Kind }>;

/** Runs contenders in turn; the medians of each. */
async function race(
  lab: Lab,
  options: {
    sizes: Sizes;
    entrants: Entrants;
    log: (line: string) => void;
  },
): Promise<Record<string, Run>> {
  const { sizes, entrants, log } = options;
  const runs: Record<string, Run[]> = {};
  for (let round = 0; round < sizes.rounds; round++) {
    for (const [name, { contender, kind }] of Object.entries(entrants)) {
      const run = await contender(lab, sizes, kind);
      (runs[name] ??= []).push(run);
      const cpu = run.cpuSeconds === undefined
        ? ""
        : `, ${run.cpuSeconds.toFixed(2)} s CPU per 100,000`;
      log(`${name}, ${kind}: ${Math.round(run.perSecond)}/s${cpu}`);
    }
  }
  return Object.fromEntries(
    Object.entries(runs).map(([name, list]) => {
      const cpu = list.flatMap(({ cpuSeconds }) => cpuSeconds ?? []);
      return [name, {
        perSecond: median(list.map(({ perSecond }) => perSecond)),
        ...(cpu.length > 0 ? { cpuSeconds: median(cpu) } : {}),
      }];
    }),
  );
}

/** A part that measures one kind of single-row messages. */
const single = (
  kind: "insert" | "update" | "indexed",
  entrants: Entrants = {},
): Part => ({
  name: `drain_${kind}`,
  keys: [
    `drain_${kind}_ratio`,
    `drain_${kind}_ratio_tuned`,
    "cpu_s_per_100k_single",
    ...("bulk" in entrants ? ["drain_bulk_ratio", "cpu_s_per_100k"] : []),
  ],
  async run(lab, { sizes, log }): Promise<Found> {
    const speeds = await race(lab, {
      sizes,
      entrants: {
        ours: { contender: ours, kind },
        plain: { contender: baseline(false), kind },
        tuned: { contender: baseline(true), kind },
        ...entrants,
      },
      log,
    });
    const { ours: us, plain, tuned, bulk } = speeds;
    return {
      figures: {
        [`drain_${kind}_ratio`]: us!.perSecond / plain!.perSecond,
        [`drain_${kind}_ratio_tuned`]: us!.perSecond / tuned!.perSecond,
        cpu_s_per_100k_single: us!.cpuSeconds!,
        ...(bulk
          ? {
            drain_bulk_ratio: bulk.perSecond / plain!.perSecond,
            cpu_s_per_100k: bulk.cpuSeconds!,
          }
          : {}),
      },
      details: speeds,
      cost: {
        [`edge: worker CPU seconds per million ${CHANGES[kind]}`]: 10 *
          us!.cpuSeconds!,
      },
    };
  },
});

/** The parts of this file. */
export const DRAINS: Part[] = [
  single("insert"),
  // A row trigger sends the same messages whatever the statement's size: the
  // plain baseline's speed at updates is what larger statements are beside.
  single("update", { bulk: { contender: ours, kind: "bulk" } }),
  single("indexed"),
];
