/**
 * Ring 3. How much a long way to both databases costs.
 *
 * @module
 */

import { assertEqual } from "./equal.ts";
import type { Part } from "./found.ts";
import type { Lab } from "./lab.ts";
import { median } from "./median.ts";
import { startTcpProxy, throughPort } from "./proxies.ts";
import type { Sizes } from "./sizes.ts";
import { drainOurs, startWorker } from "./worker.ts";

const DELAY_MS = 80;

/** Drains by way of proxies that hold requests back; messages a second. */
async function drain(lab: Lab, sizes: Sizes, delayMs: number): Promise<number> {
  const { rows, messages: count } = sizes;
  await using pair = await lab.changed({
    capture: "ours",
    rows,
    kind: "update",
    count,
  });
  const { sql, client, sqld, url } = pair;
  await using source = startTcpProxy({
    to: Number(new URL(url).port),
    delayMs,
  });
  await using replica = startTcpProxy({ to: sqld.port, delayMs });
  await using worker = await startWorker({
    libsqlUrl: `http://127.0.0.1:${replica.port}`,
    pgmqUrl: throughPort(url, source.port),
  });
  const started = performance.now();
  await drainOurs(worker);
  const seconds = (performance.now() - started) / 1000;
  await assertEqual(sql, client);
  return count / seconds;
}

/** The part of this file. */
export const WAN: Part = {
  name: "wan",
  keys: ["wan_of_lan"],
  async run(lab, { sizes, log }) {
    const near: number[] = [];
    const far: number[] = [];
    for (let round = 0; round < sizes.rounds; round++) {
      // Both by way of a proxy: its own cost is not what is asked for.
      near.push(await drain(lab, sizes, 0));
      far.push(await drain(lab, sizes, DELAY_MS));
      log(
        `near ${Math.round(near.at(-1)!)}/s, ${DELAY_MS} ms away ${
          Math.round(far.at(-1)!)
        }/s`,
      );
    }
    return {
      figures: { wan_of_lan: median(far) / median(near) },
      details: { near: median(near), far: median(far) },
    };
  },
};
