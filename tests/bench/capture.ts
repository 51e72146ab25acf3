/**
 * Ring 3. What capture costs the statements that are captured.
 *
 * @module
 */

import postgres from "postgres";
import { QUEUE } from "./baseline_capture.ts";
import type { Part } from "./found.ts";
import { type Capture, Lab, type Pair } from "./lab.ts";
import { median } from "./median.ts";
import type { Sizes } from "./sizes.ts";

/** Rows of the large statement. */
const ROWS = 10_000;
/** Clients of the small statements, as many as a small pgbench has. */
const CLIENTS = 4;

const CAPTURES: Capture[] = ["none", "baseline", "ours"];
const QUEUES: Record<Capture, string | null> = {
  none: null,
  baseline: `q_${QUEUE}`,
  ours: "q_replicate_data_libsql",
};

/** Something for each way of capturing. */
const mapCaptures = <T>(make: (capture: Capture) => T) =>
  Object.fromEntries(
    CAPTURES.map((capture) => [capture, make(capture)]),
  ) as Record<Capture, T>;

/** A source that captures in one way, for each way. */
async function withPairs<T>(
  lab: Lab,
  sizes: Sizes,
  run: (pairs: Record<Capture, Pair>) => Promise<T>,
): Promise<T> {
  await using stack = new AsyncDisposableStack();
  const rows = sizes.rows;
  const pairs = {} as Record<Capture, Pair>;
  for (const capture of CAPTURES) {
    pairs[capture] = stack.use(await lab.empty({ capture, rows }));
  }
  return await run(pairs);
}

/** Empties the queue, and takes away what earlier statements left behind. */
async function clean({ sql }: Pair, capture: Capture): Promise<void> {
  const queue = QUEUES[capture];
  if (queue) await sql`truncate ${sql(`pgmq.${queue}`)}`;
  await sql`vacuum public.app_versions`;
}

/** How many messages wait. */
async function queuedAt({ sql }: Pair, capture: Capture): Promise<number> {
  const [found] = await sql`select count(*)::int as n from ${
    sql(`pgmq.${QUEUES[capture]}`)
  }`;
  return found!.n;
}

/** Milliseconds of one statement over many rows. */
async function largeStatement({ sql }: Pair, round: number): Promise<number> {
  const started = performance.now();
  const { count } = await sql`update public.app_versions
    set checksum = md5(id::text || ${
    String(round)
  }), deleted = not deleted where id <= ${ROWS}`;
  const ms = performance.now() - started;
  if (count !== ROWS) throw new Error(`${count} of ${ROWS} rows`);
  return ms;
}

/** Single-row updates for a while, in pgbench's default protocol; transactions a second. */
async function smallStatements(
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

/** WAL bytes of a single-row change, each in a transaction of its own. */
async function walPerChange({ sql }: Pair, changes: number): Promise<number> {
  const pass = async () => {
    const at = async () =>
      (await sql`select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8 as at`)[
        0
      ]!
        .at as number;
    const before = await at();
    await sql.unsafe(`call bench.update_alone(${changes})`).simple();
    return await at() - before;
  };
  // The first pass writes full pages, as the first one after any checkpoint.
  await pass();
  return await pass() / changes;
}

/** Bytes of a message as it is stored, of those that wait. */
async function messageBytes({ sql }: Pair, capture: Capture): Promise<number> {
  const [found] = await sql`
    select avg(pg_column_size(message))::float8 as bytes from ${
    sql(`pgmq.${QUEUES[capture]}`)
  }`;
  return found!.bytes;
}

/** The medians of what each way of capturing gave. */
const mediansOf = (runs: Record<Capture, number[]>) =>
  mapCaptures((capture) => median(runs[capture]));

const noRuns = () => mapCaptures((): number[] => []);

/** The parts of this file. */
export const CAPTURE_PARTS: Part[] = [
  {
    name: "capture_bulk",
    keys: ["capture_bulk_cost", "noop_messages"],
    run: (lab, { sizes, log }) =>
      withPairs(lab, sizes, async (pairs) => {
        const runs = noRuns();
        for (let round = 0; round <= 2 * sizes.rounds; round++) {
          for (const capture of CAPTURES) {
            await clean(pairs[capture], capture);
            const ms = await largeStatement(pairs[capture], round);
            // The first round warms up.
            if (round > 0) runs[capture].push(ms);
          }
        }
        const ms = mediansOf(runs);
        log(`10,000-row update: ${
          CAPTURES.map((name) => `${name} ${Math.round(ms[name])} ms`).join(
            ", ",
          )
        }`);
        const messages = await queuedAt(pairs.ours, "ours");
        await clean(pairs.ours, "ours");
        await pairs.ours.sql`update public.app_versions
          set checksum = checksum, deleted = deleted where id <= ${ROWS}`;
        return {
          figures: {
            capture_bulk_cost: ms.ours / ms.none,
            noop_messages: await queuedAt(pairs.ours, "ours"),
          },
          details: { ms, baselineCost: ms.baseline / ms.none },
          cost: {
            "source: queue rows written per 10,000-row statement": messages,
          },
        };
      }),
  },
  {
    name: "capture_single",
    keys: ["capture_single_tps"],
    async run(_, { sizes, log }) {
      // A commit waits for the disk, as everywhere but in tests.
      await using lab = new Lab(log, { fsync: "on" });
      return await withPairs(lab, sizes, async (pairs) => {
        const runs = noRuns();
        const { rows, tpsSeconds: seconds } = sizes;
        await using stack = new AsyncDisposableStack();
        const clients = mapCaptures((capture) =>
          Array.from({ length: CLIENTS }, () => {
            const options = { max: 1, fetch_types: false, onnotice: () => {} };
            const sql = postgres(pairs[capture].url, options);
            stack.defer(() => sql.end({ timeout: 5 }));
            return sql;
          })
        );
        // Short turns, often: what else the machine does hits all of them.
        for (let turn = 0; turn <= sizes.tpsTurns; turn++) {
          for (const capture of CAPTURES) {
            const tps = await smallStatements(clients[capture], {
              rows,
              seconds,
            });
            // The first turn connects.
            if (turn > 0) runs[capture].push(tps);
          }
        }
        const tps = mediansOf(runs);
        log(
          `single-row updates: ${
            CAPTURES.map((name) => `${name} ${Math.round(tps[name])}/s`).join(
              ", ",
            )
          }`,
        );
        return {
          figures: { capture_single_tps: tps.ours / tps.none },
          details: { tps, baselineShare: tps.baseline / tps.none },
        };
      });
    },
  },
  {
    name: "wal",
    keys: ["wal_ratio"],
    run: (lab, { sizes, log }) =>
      withPairs(lab, sizes, async (pairs) => {
        const changes = sizes.walChanges;
        const wal = { none: 0, baseline: 0, ours: 0 };
        for (const capture of CAPTURES) {
          wal[capture] = await walPerChange(pairs[capture], changes);
        }
        log(`WAL per change: ${
          CAPTURES.map((name) => `${name} ${Math.round(wal[name])} bytes`).join(
            ", ",
          )
        }`);
        const bytes = await messageBytes(pairs.ours, "ours");
        const baselineBytes = await messageBytes(pairs.baseline, "baseline");
        return {
          figures: { wal_ratio: wal.ours / wal.baseline },
          details: {
            wal,
            messageBytes: { ours: bytes, baseline: baselineBytes },
          },
          cost: {
            "source: queue rows written per single-row change": 1,
            "source: WAL bytes capture adds to a single-row change": wal.ours -
              wal.none,
            "source: bytes of a message in the queue": bytes,
          },
        };
      }),
  },
];
