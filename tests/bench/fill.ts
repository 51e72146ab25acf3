/**
 * Ring 3. How fast an empty replica is filled, and a full one compared.
 *
 * @module
 */

import { assertEqual } from "./equal.ts";
import type { Part } from "./found.ts";
import { fillLimit } from "./limit.ts";
import { median } from "./median.ts";
import { finishWalk, startWorker } from "./worker.ts";

/** The part of this file. */
export const FILL: Part = {
  name: "backfill",
  keys: ["backfill_of_limit", "scrub_over_backfill", "cpu_s_per_100k"],
  async run(lab, { sizes, log }) {
    const rows = sizes.fillRows;
    const runs: Record<
      "limit" | "backfill" | "scrub" | "cpuSeconds" | "scrubCpuSeconds",
      number[]
    > = {
      limit: [],
      backfill: [],
      scrub: [],
      cpuSeconds: [],
      scrubCpuSeconds: [],
    };
    for (let round = 0; round < sizes.rounds; round++) {
      await using pair = await lab.empty({ capture: "ours", rows });
      const { sql, client, sqld, url } = pair;
      const file = `${await lab.folder()}/limit.db`;
      const limit = await fillLimit(sql, file);
      runs.limit.push(limit.rows / limit.seconds);
      await Deno.remove(file);

      await using worker = await startWorker({
        libsqlUrl: sqld.url,
        pgmqUrl: url,
      });
      for (
        const [kind, cpu] of [
          ["backfill", "cpuSeconds"],
          ["scrub", "scrubCpuSeconds"],
        ] as const
      ) {
        const cpuBefore = await worker.cpuSeconds();
        const started = performance.now();
        // The second one meets equal rows.
        await finishWalk(worker, "/backfill");
        const seconds = (performance.now() - started) / 1000;
        runs[kind].push(rows / seconds);
        const used = await worker.cpuSeconds() - cpuBefore;
        runs[cpu].push(used * 100_000 / rows);
        await assertEqual(sql, client);
      }
      log(
        `${rows} rows: limit ${Math.round(runs.limit.at(-1)!)}/s, backfill ${
          Math.round(runs.backfill.at(-1)!)
        }/s, ${runs.cpuSeconds.at(-1)!.toFixed(2)} s CPU per 100,000, scrub ${
          Math.round(runs.scrub.at(-1)!)
        }/s, ${runs.scrubCpuSeconds.at(-1)!.toFixed(2)} s CPU`,
      );
    }
    const medians = Object.fromEntries(
      Object.entries(runs).map(([name, list]) => [name, median(list)]),
    );
    return {
      figures: {
        backfill_of_limit: medians.backfill! / medians.limit!,
        scrub_over_backfill: medians.scrub! / medians.backfill!,
        cpu_s_per_100k: medians.cpuSeconds!,
      },
      details: medians,
    };
  },
};
