/**
 * Ring 3. How fast a queue of changes is drained, beside the baselines.
 *
 * @module
 */

import { drainBaseline } from "./baseline.ts";
import { assertEqual } from "./equal.ts";
import type { Found, Part } from "./found.ts";
import type { Lab } from "./lab.ts";
import { median } from "./median.ts";
import type { Kind } from "./rows.ts";
import type { Sizes } from "./sizes.ts";
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
  const count = sizes.baselineMessages;
  const { rows } = sizes;
  await using pair = await lab.changed({
    capture: "baseline",
    rows,
    kind,
    count,
  });
  const { url, client, sql } = pair;
  const started = performance.now();
  const drained = await drainBaseline({ url, client, isTuned });
  const seconds = (performance.now() - started) / 1000;
  if (drained !== count) throw new Error(`${drained} of ${count} drained`);
  await assertEqual(sql, client);
  return { perSecond: count / seconds };
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

const CONTENDERS: Record<string, Contender> = {
  ours,
  plain: baseline(false),
  tuned: baseline(true),
};

/** Runs contenders in turn; the medians of each. */
async function race(
  lab: Lab,
  options: {
    sizes: Sizes;
    kind: Kind;
    contenders: string[];
    log: (line: string) => void;
  },
): Promise<Record<string, Run>> {
  const { sizes, kind, contenders, log } = options;
  const runs: Record<string, Run[]> = {};
  for (let round = 0; round < sizes.rounds; round++) {
    for (const name of contenders) {
      const run = await CONTENDERS[name]!(lab, sizes, kind);
      (runs[name] ??= []).push(run);
      const cpu = run.cpuSeconds === undefined
        ? ""
        : `, ${run.cpuSeconds.toFixed(2)} s CPU per 100,000`;
      log(`${kind}, ${name}: ${Math.round(run.perSecond)}/s${cpu}`);
    }
  }
  return Object.fromEntries(
    Object.entries(runs).map(([name, list]) => [name, {
      perSecond: median(list.map(({ perSecond }) => perSecond)),
      ...(name === "ours"
        ? { cpuSeconds: median(list.map((run) => run.cpuSeconds!)) }
        : {}),
    }]),
  );
}

/** A part that measures one kind of single-row messages. */
const single = (kind: "insert" | "update" | "indexed"): Part => ({
  name: `drain_${kind}`,
  keys: [
    `drain_${kind}_ratio`,
    `drain_${kind}_ratio_tuned`,
    "cpu_s_per_100k_single",
  ],
  async run(lab, { sizes, log }): Promise<Found> {
    const contenders = ["ours", "plain", "tuned"];
    const speeds = await race(lab, { sizes, kind, contenders, log });
    const { ours, plain, tuned } = speeds;
    return {
      figures: {
        [`drain_${kind}_ratio`]: ours!.perSecond / plain!.perSecond,
        [`drain_${kind}_ratio_tuned`]: ours!.perSecond / tuned!.perSecond,
        cpu_s_per_100k_single: ours!.cpuSeconds!,
      },
      details: speeds,
    };
  },
});

/** The parts of this file. */
export const DRAINS: Part[] = [
  single("insert"),
  single("update"),
  single("indexed"),
  {
    name: "drain_bulk",
    keys: ["drain_bulk_ratio", "cpu_s_per_100k"],
    async run(lab, { sizes, log }) {
      const contenders = ["ours", "plain"];
      const speeds = await race(lab, { sizes, kind: "bulk", contenders, log });
      const { ours, plain } = speeds;
      return {
        figures: {
          drain_bulk_ratio: ours!.perSecond / plain!.perSecond,
          cpu_s_per_100k: ours!.cpuSeconds!,
        },
        details: speeds,
      };
    },
  },
];
