/**
 * Ring 3. The end of a round: no more faults, and everything must be equal.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { keyName } from "../../lib/dev/compare_source.ts";
import { isPromised } from "./checker.ts";
import { endPrepared, type Faults } from "./faults.ts";
import type { Session } from "./session.ts";
import { shadowAt } from "./shadow.ts";
import { sleep } from "./writer.ts";

const DEADLINE_MS = 90_000;
const FORGOTTEN =
  /^the replica at position \d+ holds a batch that is not on record, or whose past is not$/;
/** Reasons for a new epoch that faults give. */
const EPOCHS =
  /^(installed|nuke|position \d+ cannot be put back: messages of it are gone|the queue of \d+ MB was over its cap of 0 MB.*)$/;

/**
 * Stops the faults, drains, and compares.
 *
 * @param session The session; its writers have ended.
 * @param faults Its faults.
 * @throws {Error} Something differs, or does not come to rest in time.
 */
export async function settle(session: Session, faults: Faults): Promise<void> {
  const { stack, pool } = session;
  await faults.stop();
  await pool.killAll();
  await pool.start();
  await session.patiently(() => endPrepared(stack, "0 s"));
  await session.patiently(() => stack.sql`select libsql_sync.resume()`);
  await session.patiently(() =>
    stack
      .sql`update libsql_sync.chain set refill = true, lease_until = null, lease = null`
  );
  // What the replica refused is tried again when somebody says so.
  await session.patiently(() => stack.sql`select libsql_sync.redrive()`);
  await rest(session, faults);
  await promised(session, "after the faults");
  const { excused } = session;
  const back = await session.order.judge(
    stack.sql,
    (table, key) => excused.has(`${table}\0${key}`),
  );
  assertEquals(back, [], "rows that went back, or never were");
  const isExcused = excused.size > 0;
  const verified = await finish(session, "/verify");
  if (!isExcused) {
    assertEquals(verified.differences, 0, JSON.stringify(verified));
  }
  // Nobody's hand is in it any more once every cell was compared and mended. The
  // first may have been asked for long ago: it closes no letter opened since.
  await finish(session, "/backfill");
  await finish(session, "/backfill");
  excused.clear();
  session.order.forget();
  await rest(session, faults);
  await promised(session, "after a backfill");
  await stack.sql`select libsql_sync.scrub(0)`;
  await letters(session);
  const epochs = await stack.sql`select reason from libsql_sync.epochs`;
  for (const { reason } of epochs) {
    const { faults: befell } = session.counts;
    const isForgotten = FORGOTTEN.test(reason) &&
      (befell["versions forgotten"] ?? befell["replay window set"]) !==
        undefined;
    assert(
      EPOCHS.test(reason) || isForgotten,
      `an epoch was begun: ${reason}`,
    );
  }
}

/** Syncs until there is nothing to do. */
async function rest(session: Session, faults: Faults): Promise<void> {
  const end = performance.now() + DEADLINE_MS;
  let body: Record<string, unknown> = {};
  while (performance.now() < end) {
    body = await session.post(0, "/sync");
    if (session.failure !== null) throw session.failure;
    if (body.queued === 0 && body.drained === true && body.walk_done === true) {
      return;
    }
    await sleep(20);
    await faults.replica.tend();
  }
  throw new Error(
    `not at rest within ${DEADLINE_MS / 1000} s: ${JSON.stringify(body)}\n${
      session.pool.lines.slice(-30).join("\n")
    }`,
  );
}

/** Posts until a walk is done. */
async function finish(
  session: Session,
  path: string,
): Promise<Record<string, unknown>> {
  const end = performance.now() + DEADLINE_MS;
  while (performance.now() < end) {
    const body = await session.post(0, path);
    if (session.failure !== null) throw session.failure;
    if (body.done === true) return body;
    await sleep(20);
  }
  throw new Error(`${path} is not done within ${DEADLINE_MS / 1000} s`);
}

/** The replica promises to be equal, and is: to its snapshot, and to now. */
async function promised(session: Session, when: string): Promise<void> {
  const { stack, excused } = session;
  await session.judged();
  if (session.failure !== null) throw session.failure;
  const state = await session.read();
  assert(state !== null && isPromised(state), `no promise ${when}`);
  assertEquals(state.schema, session.schema);
  await session.checker.judge(state, {
    isExcused: (table, key) => excused.has(`${table}\0${key}`),
  });
  if (excused.size > 0) return;
  const { found } = session.compare(
    state,
    await shadowAt(stack.sql, { schema: session.schema, snapshot: null }),
  );
  assertEquals(found, [], `not equal to the source as it is ${when}`);
  // Beside the log: the tables themselves, cell by cell.
  const isRefused = await refusedKeys(session);
  const compared = await session.compareTables();
  const differing = compared.filter(({ table, key }) =>
    !isRefused.has(`${table}\0${key}`)
  );
  assertEquals(differing, [], `not equal cell by cell ${when}`);
}

/** Rows whose values the replica cannot hold, as they are now. */
async function refusedKeys(
  { stack, schema }: Session,
): Promise<Set<string>> {
  const shadow = await shadowAt(stack.sql, { schema, snapshot: null });
  const keys = new Set<string>();
  for (const [table, rows] of shadow) {
    for (const [key, { cells }] of rows) {
      if (Object.values(cells).some(({ type }) => type === "refused")) {
        keys.add(`${table}\0${key}`);
      }
    }
  }
  return keys;
}

/** Each row that cannot be held has its letter, and no other row has one. */
async function letters(session: Session): Promise<void> {
  const { stack } = session;
  const refused = await refusedKeys(session);
  const open = (await stack.deadLetters())
    .filter(({ table, key }) =>
      Array.isArray(key) && String(table) in session.schema.tables
    )
    .map(({ table, key }) => `${table}\0${keyName(key as string[])}`);
  const walks = await stack.sql`
    select walk_gen, kind, tables, repair, requested_at::text, ended_at::text, found from libsql_sync.walks order by walk_gen`;
  assertEquals(
    open.sort(),
    [...refused].sort(),
    `dead letters: ${JSON.stringify([await stack.deadLetters(), walks])}`,
  );
}
