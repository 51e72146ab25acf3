/**
 * Ring 3. The loads: each puts more before a worker than one request can take,
 * and says what it took.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { WORKER_LOGIN } from "../../lib/dev/supabase.ts";
import { type Servers, Stack } from "../db/support/stack.ts";
import { type Measured, withWorker } from "./drive.ts";

/** How much each load is. */
export interface Sizes {
  readonly queue: number;
  readonly rowBytes: number;
  readonly statementRows: number;
  readonly statements: number;
  readonly atOnce: number;
  readonly delayMs: number;
  /** Messages for the replica that is slow. */
  readonly delayed: number;
}

/** What design.md names. */
export const FULL: Sizes = {
  queue: 1_000_000,
  rowBytes: 4_000_000,
  statementRows: 500_000,
  statements: 100_000,
  atOnce: 100,
  delayMs: 3_000,
  delayed: 20_000,
};

/** As much as a CI run has time for. */
export const REDUCED: Sizes = {
  queue: 30_000,
  rowBytes: 4_000_000,
  statementRows: 20_000,
  statements: 3_000,
  atOnce: 100,
  delayMs: 600,
  delayed: 5_000,
};

/** What a load took. */
export interface Load {
  readonly what: string;
  readonly measured: Measured;
  /** What else is worth a line. */
  readonly note: string;
}

const COLUMNS = "id, app_version_id, file_name, s3_path, file_hash";
const VALUES = "n, n % 1000, 'file ' || n, 'path/' || n, md5(n::text)";
/** A message of ours may have so many keys, and bytes of them. */
const MESSAGE_KEYS_MAX = 1_000;
const MESSAGE_BYTES_MAX = 20_000;

/** A queue of single-row messages, made where the queue is. */
async function longQueue(stack: Stack, { queue }: Sizes): Promise<Load> {
  const { sql } = stack;
  await sql.unsafe(
    `insert into manifest (${COLUMNS}) select ${VALUES} from generate_series(1, ${queue}) n`,
  );
  await sql`truncate pgmq.q_replicate_data_libsql`;
  await sql.unsafe(`
    insert into pgmq.q_replicate_data_libsql (vt, message)
    select now(), jsonb_build_object('v', 2, 'table', 'manifest', 'keys', jsonb_build_array(jsonb_build_array(id::text)))
    from manifest order by id`);
  return await withWorker(stack, {}, async (driven) => {
    const measured = await driven.drain();
    const { first } = measured;
    // Exact up to 10,000, then a lower bound: no count over it all.
    if (queue > 400_000) {
      assertEquals([first.queued, first.queued_exact], [10_000, false]);
    }
    return {
      what: `a queue of ${queue.toLocaleString("en")} messages`,
      measured,
      note: `${first.processed} messages in the first request`,
    };
  });
}

/** One row near the size that libSQL takes. */
async function largeRow(stack: Stack, { rowBytes }: Sizes): Promise<Load> {
  // Quotes, so that its JSON is twice as long.
  await stack
    .sql`insert into manifest (app_version_id, file_name, s3_path, file_hash)
    values (1, repeat('"', ${rowBytes}::int / 4), repeat('x', ${rowBytes}::int / 2), repeat('é', ${rowBytes}::int / 8)),
      (2, 'f', 's', 'h')`;
  return await withWorker(stack, {}, async (driven) => ({
    what: `a row of ${rowBytes.toLocaleString("en")} bytes`,
    measured: await driven.drain(),
    note: "",
  }));
}

/** One statement that changes many rows. */
async function largeStatement(
  stack: Stack,
  { statementRows }: Sizes,
): Promise<Load> {
  const { sql } = stack;
  await sql.unsafe(
    `insert into manifest (${COLUMNS}) select ${VALUES} from generate_series(1, ${statementRows}) n`,
  );
  await withWorker(stack, {}, (driven) => driven.drain());
  await sql`update manifest set s3_path = s3_path || '!'`;
  const [found] = await sql`
    select count(*)::int as messages, max(jsonb_array_length(message -> 'keys'))::int as keys,
      max(octet_length(message::text))::int as bytes
    from pgmq.q_replicate_data_libsql`;
  assert(found!.keys <= MESSAGE_KEYS_MAX, `${found!.keys} keys in a message`);
  assert(found!.bytes <= MESSAGE_BYTES_MAX, `a message of ${found!.bytes}`);
  return await withWorker(stack, {}, async (driven) => ({
    what: `a statement of ${statementRows.toLocaleString("en")} rows`,
    measured: await driven.drain(),
    note: `${found!.messages} messages of ${found!.bytes} bytes at most`,
  }));
}

/** One transaction of many statements, each with its message. */
async function longTransaction(
  stack: Stack,
  { statements }: Sizes,
): Promise<Load> {
  const started = performance.now();
  await stack.sql.unsafe(`do $$ begin
    for n in 1..${statements} loop
      insert into manifest (${COLUMNS}) values (${VALUES});
    end loop;
  end $$`);
  const ms = Math.round(performance.now() - started);
  const [found] = await stack
    .sql`select count(*)::int as messages from pgmq.q_replicate_data_libsql`;
  assertEquals(found!.messages, statements);
  return await withWorker(stack, {}, async (driven) => ({
    what: `a transaction of ${statements.toLocaleString("en")} statements`,
    measured: await driven.drain(),
    note: `the transaction itself took ${ms} ms`,
  }));
}

/** How many connections the worker's role has at once, at most. */
async function watchConnections(
  { sql }: Stack,
  isDone: () => boolean,
): Promise<number> {
  let most = 0;
  while (!isDone()) {
    const [found] = await sql`select count(*)::int as connections
      from pg_stat_activity where usename = ${WORKER_LOGIN}`;
    most = Math.max(most, found!.connections);
  }
  return most;
}

/** Many syncs at the same time: one works, the others answer at once. */
async function manyAtOnce(stack: Stack, { atOnce }: Sizes): Promise<Load> {
  await stack.sql.unsafe(
    `insert into manifest (${COLUMNS}) select ${VALUES} from generate_series(1, 20000) n`,
  );
  return await withWorker(stack, {}, async (driven) => {
    const before = driven.calls();
    let isDone = false;
    const connections = watchConnections(stack, () => isDone);
    const answers = await Promise.all(
      Array.from({ length: atOnce }, () => driven.post("/sync")),
    );
    isDone = true;
    const after = driven.calls();
    assertEquals(answers.filter(({ status }) => status !== 200), []);
    const busy = answers.filter(({ body }) => body.busy === true).length;
    assert(busy >= atOnce / 2, `${busy} of ${atOnce} were busy`);
    // A small plan has 60, and they are for its users.
    const connectionsMax = await connections;
    // Four, and those whose backend has not ended yet.
    assert(connectionsMax <= 20, `${connectionsMax} connections at once`);
    // sqld locks up with three writers or more.
    assert(driven.atOnceMax() <= 2, `${driven.atOnceMax()} writers at once`);
    const source = after.source - before.source;
    // The busy ones ask once; whoever came later found a replica to look at.
    assert(
      source <= busy + 45 * (atOnce - busy),
      `${source} calls to the source`,
    );
    const measured = await driven.drain();
    return {
      what: `${atOnce} syncs at once`,
      measured,
      note:
        `${busy} busy; ${connectionsMax} connections; ${source} calls to the source and ${
          after.replica - before.replica
        } to the replica in all`,
    };
  });
}

/** A replica that takes its time for every answer. */
async function slowReplica(
  stack: Stack,
  { delayMs, delayed }: Sizes,
): Promise<Load> {
  await stack.sql.unsafe(`do $$ begin
    for n in 1..${delayed} loop
      insert into manifest (${COLUMNS}) values (${VALUES});
    end loop;
  end $$`);
  return await withWorker(stack, { delayMs }, async (driven) => ({
    what: `a replica that answers in ${delayMs} ms`,
    measured: await driven.drain(),
    note: `${delayed} messages`,
  }));
}

const LOADS = [
  longQueue,
  largeRow,
  largeStatement,
  longTransaction,
  manyAtOnce,
  slowReplica,
];

/**
 * Runs every load on databases of its own; each must leave the replica equal.
 *
 * @param servers Where the databases are made.
 * @param sizes How much each is.
 * @param told Called with what a load took, as soon as it is known.
 */
export async function runLoads(
  servers: Servers,
  sizes: Sizes,
  told: (load: Load) => void,
): Promise<void> {
  for (const load of LOADS) {
    await using stack = await Stack.start(servers, { walks: false });
    await stack.drain();
    told(await load(stack, sizes));
    const [letter] = await stack.deadLetters();
    assertEquals(letter?.reason, undefined, load.name);
    await stack.assertEqual();
  }
}
