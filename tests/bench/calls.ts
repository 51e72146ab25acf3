/**
 * Ring 3. What a drain asks of the two databases, and writes to them.
 *
 * @module
 */

import { walAt } from "./captures.ts";
import { assertEqual } from "./equal.ts";
import type { Part } from "./found.ts";
import type { Lab } from "./lab.ts";
import { countReplica, countSource, throughPort } from "./proxies.ts";
import type { Kind } from "./rows.ts";
import type { Sizes } from "./sizes.ts";
import { startWorker } from "./worker.ts";

/** Drains one kind by way of counting proxies. */
async function count(lab: Lab, sizes: Sizes, kind: Kind) {
  const { rows, messages } = sizes;
  await using pair = await lab.changed({
    capture: "ours",
    rows,
    kind,
    count: messages,
  });
  const { sql, client, sqld, url } = pair;
  await using source = countSource(Number(new URL(url).port));
  await using replica = countReplica(sqld.url);
  await using worker = await startWorker({
    libsqlUrl: replica.url,
    pgmqUrl: throughPort(url, source.port),
  });
  const calls = () => source.calls + replica.requests;
  const sync = async () => {
    const before = calls();
    const { batches, queued } = await worker.post("/sync");
    return {
      calls: calls() - before,
      batches: Number(batches),
      isLast: queued === 0,
    };
  };
  const walBefore = await walAt(pair);
  const all = { calls: 0, batches: 0, syncs: 0 };
  for (let isLast = false; !isLast; all.syncs += 1) {
    const one = await sync();
    all.calls += one.calls;
    all.batches += one.batches;
    isLast = one.isLast;
  }
  const wal = await walAt(pair) - walBefore;
  const { rowsWritten, requests } = replica;
  const { connections } = source;
  // One row more: what a sync costs beside its batches.
  await sql`update public.app_versions set checksum = 'one more' where id = 1`;
  const small = await sync();
  await assertEqual(sql, client);
  return {
    ...all,
    requests,
    connections,
    rowsWritten,
    walPerMessage: wal / messages,
    callsPer100k: all.calls * 100_000 / messages,
    roundTrips: (all.calls - all.syncs * small.calls) /
      (all.batches - all.syncs * small.batches),
  };
}

/** The part of this file. */
export const CALLS: Part = {
  name: "calls",
  keys: ["calls_per_100k", "calls_per_100k_inserts", "round_trips"],
  async run(lab, { sizes, log }) {
    const update = await count(lab, sizes, "update");
    const insert = await count(lab, sizes, "insert");
    for (
      const [name, { calls, syncs, batches }] of Object.entries({
        update,
        insert,
      })
    ) {
      log(`${name}: ${calls} calls, ${syncs} syncs, ${batches} batches`);
    }
    const million = 1_000_000 / sizes.messages;
    return {
      figures: {
        calls_per_100k: update.callsPer100k,
        calls_per_100k_inserts: insert.callsPer100k,
        round_trips: update.roundTrips,
      },
      details: { update, insert },
      cost: {
        "source: WAL bytes to deliver a change": update.walPerMessage,
        "edge: sub-requests per million updates": update.requests * million,
        "edge: sub-requests per million inserts": insert.requests * million,
        "edge: rows written per million updates": update.rowsWritten * million,
        "edge: rows written per million inserts": insert.rowsWritten * million,
      },
    };
  },
};
