/**
 * Ring 3. What capture costs statements of one row.
 *
 * @module
 */

import postgres from "postgres";
import {
  CAPTURES,
  describe,
  type ForEach,
  forEach,
  mediansOf,
  queueOf,
  ratiosOf,
  walAt,
  withPairs,
} from "./captures.ts";
import type { Part } from "./found.ts";
import { Lab, type Pair } from "./lab.ts";
import type { Sizes } from "./sizes.ts";

/** One is pgbench's default, and waits for the disk; several wait for the processor. */
const CLIENTS = [1, 4] as const;

/** Updates for a while, in pgbench's default protocol; transactions a second. */
async function updateFor(
  clients: readonly postgres.Sql[],
  options: { rows: number; seconds: number },
): Promise<number> {
  const { rows, seconds } = options;
  const started = performance.now();
  const end = started + seconds * 1000;
  let done = 0;
  await Promise.all(clients.map(async (sql) => {
    while (performance.now() < end) {
      const id = 1 + Math.floor(Math.random() * rows);
      await sql.unsafe(
        `update public.app_versions set checksum = md5('${Math.random()}'), deleted = not deleted where id = ${id}`,
      ).simple();
      done += 1;
    }
  }));
  return done * 1000 / (performance.now() - started);
}

/** Transactions a second of each way and turn, with so many clients. */
async function transactionsPerSecond(
  pairs: ForEach<Pair>,
  options: { sizes: Sizes; count: number },
): Promise<ForEach<number[]>> {
  const { sizes, count } = options;
  const { rows, tpsSeconds: seconds } = sizes;
  const runs = forEach((): number[] => []);
  await using stack = new AsyncDisposableStack();
  const clients = forEach((capture) =>
    Array.from({ length: count }, () => {
      const sql = postgres(pairs[capture].url, { max: 1, fetch_types: false });
      stack.defer(() => sql.end({ timeout: 5 }));
      return sql;
    })
  );
  // Short turns, often: what else the machine does hits all of them.
  for (let turn = 0; turn <= sizes.tpsTurns; turn++) {
    for (const capture of CAPTURES) {
      const tps = await updateFor(clients[capture], { rows, seconds });
      // The first turn connects.
      if (turn > 0) runs[capture].push(tps);
    }
  }
  return runs;
}

/** WAL bytes of a change in a transaction of its own. */
async function walPerChange(pair: Pair, changes: number): Promise<number> {
  const pass = async () => {
    const before = await walAt(pair);
    await pair.sql.unsafe(`call bench.update_alone(${changes})`).simple();
    return await walAt(pair) - before;
  };
  // The first pass writes full pages, as the first one after any checkpoint.
  await pass();
  return await pass() / changes;
}

/** The parts of this file. */
export const CAPTURE_SINGLE: Part[] = [
  {
    name: "capture_single",
    keys: ["capture_single_tps"],
    async run(_, { sizes, log }) {
      // A commit waits for the disk, as everywhere but in tests.
      await using lab = new Lab(log, { fsync: "on" });
      return await withPairs(lab, sizes.rows, async (pairs) => {
        const details: Record<string, unknown> = {};
        const sharesOf: ForEach<number>[] = [];
        for (const count of CLIENTS) {
          const runs = await transactionsPerSecond(pairs, { sizes, count });
          const tps = mediansOf(runs);
          const shares = ratiosOf(runs);
          log(
            `single-row updates, ${count} at once: ${describe(tps)} a second`,
          );
          details[`clients_${count}`] = { tps, shares };
          sharesOf.push(shares);
        }
        const [alone] = sharesOf;
        return {
          figures: { capture_single_tps: alone!.ours },
          details,
          cost: {
            "bound: capture_single_tps of the plain row trigger":
              alone!.baseline,
            "bound: capture_single_tps of reading the row, and no more":
              alone!.least,
          },
        };
      });
    },
  },
  {
    name: "wal",
    keys: ["wal_ratio"],
    run: (lab, { sizes, log }) =>
      withPairs(lab, sizes.rows, async (pairs) => {
        const changes = sizes.walChanges;
        const wal = forEach(() => 0);
        for (const capture of CAPTURES) {
          wal[capture] = await walPerChange(pairs[capture], changes);
        }
        log(`WAL of a single-row change: ${describe(wal)} bytes`);
        const ours = await queueOf(pairs.ours, "ours");
        const baseline = await queueOf(pairs.baseline, "baseline");
        return {
          figures: { wal_ratio: wal.ours / wal.baseline },
          details: {
            wal,
            messageBytes: {
              ours: ours.messageBytes,
              baseline: baseline.messageBytes,
            },
          },
          cost: {
            "source: queue rows written by a single-row change": ours.messages /
              (2 * changes),
            "source: WAL bytes that capture adds to it": wal.ours - wal.none,
            "source: bytes of its message": ours.messageBytes,
          },
        };
      }),
  },
];
