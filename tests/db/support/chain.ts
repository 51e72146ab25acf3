/**
 * Ring 3. Faults for the tests of the chain: a small stack, workers that die,
 * and workers driven by hand.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import type { Batch, Claim } from "../../../lib/chain/claim.ts";
import { SyncError } from "../../../lib/errors.ts";
import { createPlanner } from "../../../lib/plan/plan.ts";
import type { Replica } from "../../../lib/replica/replica.ts";
import { parseSchema } from "../../../lib/schema.ts";
import type { Source } from "../../../lib/source/source.ts";
import type { Parts } from "../../../lib/sync/progress.ts";
import type { SyncResult } from "../../../lib/sync/result.ts";
import { sync } from "../../../lib/sync/sync.ts";
import { walkAfterBatch } from "../../contract/source.ts";
import { type RawSchema, type Servers, serveWorker, Stack } from "./stack.ts";

/** Two tables, one of them with a key of two columns. */
export const SCHEMA: RawSchema = {
  tables: {
    item: {
      key: "id",
      columns: { id: "INTEGER", name: "TEXT", size: "INTEGER" },
      indexes: ["name"],
    },
    part: {
      key: ["item", "code"],
      columns: { item: "INTEGER", code: "TEXT", note: "TEXT" },
      indexes: [],
    },
  },
};

const TABLES = `
  create table public.item (id bigint primary key, name text, size numeric);
  create table public.part (item bigint, code text, note text, primary key (item, code));
`;

/** Size of a claim that takes everything. */
export const ALL = { rows: 20_000, bytes: 4_194_304 };

/** A stack with {@linkcode SCHEMA}'s tables, where nothing is walked by itself. */
export async function startChain(servers: Servers): Promise<Stack> {
  return await Stack.start(servers, {
    schema: SCHEMA,
    setup: TABLES,
    walks: false,
  });
}

/** One message for each row: `from` up to `to`. */
export async function insertItems(
  { sql }: Stack,
  from: number,
  to: number,
): Promise<void> {
  await sql.unsafe(
    `do $$ begin for i in ${from}..${to} loop insert into item values (i, 'item ' || i, i); end loop; end $$`,
  );
}

/** Puts a message into the queue as any other sender could. */
export async function send({ sql }: Stack, message: unknown): Promise<void> {
  await sql`select pgmq.send('replicate_data_libsql'::text, ${
    JSON.stringify(message)
  }::text::jsonb)`;
}

/** What the source has on record. */
export async function standing({ sql }: Stack) {
  const ids = async (table: string) =>
    (await sql.unsafe(`select msg_id from pgmq.${table} order by msg_id`))
      .map((row) => Number(row.msg_id));
  const [chain] = await sql`select * from libsql_sync.chain`;
  const batches = await sql`
    select epoch, position::int, batch, prev, messages, drained, snapshot, state, parked
    from libsql_sync.batches order by epoch, position, handed_at`;
  const epochs =
    await sql`select * from libsql_sync.epochs order by generation`;
  return {
    epoch: chain!.epoch as string,
    position: Number(chain!.position),
    batch: chain!.batch as string,
    lease: chain!.lease as string | null,
    batches: batches.map((row) => ({ ...row })) as Record<string, unknown>[],
    epochs: epochs.map((row) => ({ ...row })) as Record<string, unknown>[],
    queue: await ids("q_replicate_data_libsql"),
    archive: await ids("a_replicate_data_libsql"),
    dlq: await ids("q_replicate_data_libsql_dlq"),
  };
}

/** Every row of the replica's tables, for "nothing changed". */
export async function rowsOf({ client, schema }: Stack): Promise<unknown[]> {
  const found: unknown[] = [];
  for (const table of Object.keys(schema.tables)) {
    const { rows } = await client.execute(
      `SELECT '${table}', * FROM "${table}" ORDER BY 2, 3`,
    );
    found.push(...rows.map((row) => ({ ...row })));
  }
  return found;
}

/** Sets the replica's data aside, and puts it back: a failover that lost commits. */
export async function saveReplica(
  { sqld, folder }: Stack,
): Promise<() => Promise<void>> {
  const saved = `${folder}/saved-${crypto.randomUUID()}`;
  // Not in good order: that waits for connections which stay open.
  await sqld.kill();
  await sqld.backup(saved);
  return async () => {
    await sqld.kill();
    await sqld.restore(saved);
  };
}

/** As if the lease's time were over. */
export async function expireLease({ sql }: Stack): Promise<void> {
  await sql`update libsql_sync.chain set lease_until = now() - interval '1 second'`;
}

/** Runs a sync with some parts replaced. */
export async function syncWith(
  stack: Stack,
  replace: (parts: Parts) => {
    [K in keyof Parts]?: Partial<Parts[K]>;
  },
): Promise<SyncResult> {
  return await stack.withParts((parts) => {
    const other = replace(parts);
    return sync({
      ...parts,
      source: { ...parts.source, ...other.source },
      replica: { ...parts.replica, ...other.replica },
      budget: { ...parts.budget, ...other.budget },
      ...(other.now ? { now: other.now as () => number } : {}),
    });
  });
}

const DEATH = "the worker is dead";

/** A sync that dies at a verb of the replica, before or after it was carried out. */
export async function dieAt(
  stack: Stack,
  verb: "apply" | "adopt" | "alter" | "bootstrap",
  options: { when: "before" | "after"; times?: number },
): Promise<void> {
  let left = options.times ?? 1;
  let isDead = false;
  try {
    await syncWith(stack, ({ source, replica }) => ({
      replica: {
        [verb]: async (...args: unknown[]) => {
          const call = replica[verb] as (
            ...args: unknown[]
          ) => Promise<unknown>;
          if (--left > 0) return await call(...args);
          if (options.when === "after") await call(...args);
          isDead = true;
          throw new Error(DEATH);
        },
      } as Partial<Replica>,
      // The dead give nothing back.
      source: {
        release: (lease: string) => {
          if (isDead) throw new Error(DEATH);
          return source.release(lease);
        },
      },
    }));
  } catch (error) {
    if (!isDead) throw error;
    await expireLease(stack);
    return;
  }
  throw new Error(`the sync ended without ${verb}`);
}

/** A batch, with what its claim settled. */
type ClaimedBatch = Extract<Claim, { do: "batch" }>;

/** The batch that a claim must have answered. */
export function batchOf(claim: Claim): ClaimedBatch {
  assertEquals(claim.do, "batch", JSON.stringify(claim));
  return claim as ClaimedBatch;
}

/** A worker driven by hand, one call at a time. */
export class Hand {
  readonly lease = crypto.randomUUID();
  readonly source: Source;
  readonly replica: Replica;
  readonly #plan: ReturnType<typeof createPlanner>;

  constructor(parts: Parts, schema: RawSchema = SCHEMA) {
    this.source = parts.source;
    this.replica = parts.replica;
    this.#plan = createPlanner(parseSchema(schema));
  }

  /** Takes the lease, probes and claims. */
  async claim(options: { rows?: number } = {}): Promise<Claim> {
    await this.source.lease(this.lease);
    return await this.again(options);
  }

  /** Probes and claims under the lease there is. */
  async again(
    options: { rows?: number; ahead?: string } = {},
  ): Promise<Claim> {
    const { rows, ahead } = options;
    return await this.source.claim({
      lease: this.lease,
      row: await this.replica.probe(),
      size: { ...ALL, ...(rows === undefined ? {} : { rows }) },
      ...(ahead ? { ahead } : {}),
    });
  }

  /** Claims the batch on top of another. */
  async ahead(batch: Batch, rows?: number): Promise<ClaimedBatch> {
    return batchOf(
      await this.again({
        ahead: batch.batch,
        ...(rows === undefined ? {} : { rows }),
      }),
    );
  }

  /** Claims what must be a batch. */
  async batch(
    options?: Parameters<Hand["claim"]>[0],
  ): Promise<ClaimedBatch> {
    return batchOf(await this.claim(options));
  }

  /** Applies a batch; the code of what refused it. */
  async apply(batch: Batch): Promise<string> {
    const { steps, refusals } = this.#plan(batch.tables, batch.unusable);
    try {
      const before = (await this.replica.probe())!;
      await this.replica.apply(batch, steps, {
        parked: refusals.length,
        walk: {
          before,
          after: walkAfterBatch(before, batch),
        },
      });
      return "applied";
    } catch (error) {
      if (error instanceof SyncError) return error.code;
      throw error;
    }
  }
}

/** Runs something with a second worker that reaches other databases. */
export async function withWorker<T>(
  stack: Stack,
  options: {
    libsqlUrl?: string;
    pgmqUrl?: string;
    database?: string;
    schema?: RawSchema;
    log?: Record<string, unknown>[];
  },
  run: (port: number) => Promise<T>,
): Promise<T> {
  const worker = serveWorker(
    {
      libsqlUrl: options.libsqlUrl ?? stack.sqld.url,
      pgmqUrl: options.pgmqUrl ??
        stack.server.url({ database: options.database ?? stack.database }),
    },
    options.schema ?? stack.schema,
    options.log,
  );
  try {
    return await run(worker.addr.port);
  } finally {
    await worker.shutdown();
  }
}

/** Waits until something is so; long enough for a machine that does much else. */
export async function until(
  what: string,
  holds: () => boolean | Promise<boolean>,
  deadlineMs = 60_000,
): Promise<void> {
  const end = performance.now() + deadlineMs;
  while (!await holds()) {
    if (performance.now() > end) throw new Error(`not so in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
