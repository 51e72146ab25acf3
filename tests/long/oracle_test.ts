/** Random sessions under random faults on real databases; the seed is in the message. */

import { assertEquals, assertRejects } from "@std/assert";
import { Servers } from "../db/support/stack.ts";
import { noCounts, progressLine } from "../oracle/counts.ts";
import { describeFailure, Session, SETTINGS } from "../oracle/session.ts";

const servers = new Servers({ settings: SETTINGS });
Deno.test.afterAll(() => servers.stop());

const FIRST = Number(Deno.env.get("SEED") ?? 20251122);
const SESSIONS = Number(Deno.env.get("SESSIONS") ?? 3);
const ROUND_MS = Number(Deno.env.get("SECONDS") ?? 10) * 1_000;

for (let seed = FIRST; seed < FIRST + SESSIONS; seed++) {
  Deno.test(`every promised state equals the source at its snapshot, with any faults (SEED=${seed})`, async () => {
    const counts = noCounts();
    await using session = await Session.start(servers, {
      seed,
      rounds: 1,
      roundMs: ROUND_MS,
    }, counts);
    try {
      await session.run();
    } catch (error) {
      throw new Error(describeFailure(session), { cause: error });
    }
    console.log(progressLine(counts));
  });
}

/** A session without writers, faults and scrub, at rest. */
async function quiet(): Promise<Session> {
  const session = await Session.start(servers, {
    seed: 1,
    rounds: 0,
    roundMs: 0,
    faults: false,
  }, noCounts());
  await session.warmUp();
  await session.stack.sql`select libsql_sync.scrub(0)`;
  await session.checker.judge(await session.read());
  assertEquals(session.checker.checked.equal, 1);
  return session;
}

Deno.test("the oracle reports a cell changed by hand in the replica, with its row's history", async () => {
  await using session = await quiet();
  await session.stack.client.execute(
    "UPDATE hot SET name = 'wrong' WHERE id = 7",
  );
  const error = await assertRejects(async () =>
    session.checker.judge(await session.read())
  );
  assertEquals(
    String(error).split("\n").slice(1, 3).map((line) => line.slice(0, 66)),
    [
      'hot 7: name: source text "row 7", replica text "wrong"',
      "the last entries of hot 7:",
    ],
  );
});

Deno.test("the oracle reports a row and a ghost made by hand in the replica", async () => {
  await using session = await quiet();
  await session.stack.client.batch([
    "DELETE FROM parent WHERE id = 3",
    "INSERT INTO pair VALUES (1, 'ghost', NULL)",
  ], "write");
  const error = await assertRejects(async () =>
    session.checker.judge(await session.read())
  );
  assertEquals(String(error).split("\n").slice(1, 3), [
    'pair ["1","ghost"]: a ghost in the replica',
    "parent 3: missing in the replica",
  ]);
});

Deno.test("the oracle reports a message that was lost on the way", async () => {
  await using session = await quiet();
  const { sql } = session.stack;
  await sql`update swap set label = 'lost' where id = 3`;
  await sql`delete from pgmq.q_replicate_data_libsql`;
  await sql`update swap set label = 'sent' where id = 4`;
  await session.stack.drain();
  const error = await assertRejects(async () =>
    session.checker.judge(await session.read())
  );
  assertEquals(
    String(error).split("\n")[1],
    'swap 3: label: source text "lost", replica text "s3"',
  );
});

Deno.test("the oracle reports a transaction of which half is there", async () => {
  await using session = await quiet();
  const { sql } = session.stack;
  await sql.begin(async (tx) => {
    await tx`update swap set label = 'one' where id = 3`;
    await tx`update hot set name = 'two' where id = 3`;
  });
  await sql`
    delete from pgmq.q_replicate_data_libsql where message ->> 'table' = 'hot'`;
  await session.stack.drain();
  const error = await assertRejects(async () =>
    session.checker.judge(await session.read())
  );
  assertEquals(
    String(error).split("\n")[1],
    'hot 3: name: source text "two", replica text "row 3"',
  );
});

Deno.test("the oracle reports a row that went back to what it was", async () => {
  await using session = await quiet();
  const { order, stack } = session;
  const nobody = () => false;
  const look = async () => (await session.read())!;
  order.note(await look(), 0);
  await stack.sql`update swap set label = 'newer' where id = 3`;
  await stack.drain();
  const newer = await look();
  order.note(newer, 0);
  await stack.sql`update swap set label = 'newest' where id = 3`;
  await stack.drain();
  const newest = await look();
  order.note(newest, 0);
  assertEquals(await order.judge(stack.sql, nobody), []);
  order.note(newest, 0);
  const row = { ...newer.row, position: Number(newest.row.position) + 1 };
  order.note({ ...newer, row }, 0);
  const found = await order.judge(stack.sql, nobody);
  assertEquals(found.map(({ table, key }) => [table, key]), [["swap", "3"]]);
});

Deno.test("the oracle reports a row that never was whole, and one of no key, though the replica is not walked", async () => {
  await using session = await quiet();
  const { order, stack } = session;
  await stack.sql`update hot set name = 'new', size = 77 where id = 7`;
  // One column of the row as it is, the others of the row as it was.
  await stack.client.batch([
    "UPDATE hot SET name = 'new' WHERE id = 7",
    "INSERT INTO swap VALUES (9000, 'nobody''s')",
  ], "write");
  const state = (await session.read())!;
  order.note({ ...state, row: { ...state.row, walk_done: 0 } }, 0);
  const found = await order.judge(stack.sql, () => false);
  assertEquals(
    found.map(({ table, key, what }) => [
      table,
      key,
      what.replace(/.*(a row that never was).*/, "$1"),
    ]).sort(),
    [
      ["hot", "7", "a row that never was"],
      ["swap", "9000", "a row that never was"],
    ],
  );
});

Deno.test("the oracle reports a row that cannot be held and has no letter, and one that can be and is not there", async () => {
  await using session = await quiet();
  const { stack, checker } = session;
  await stack.sql`insert into strict values (1, 0.5, 'true'), (2, 2, 'true')`;
  await stack.drain();
  const state = (await session.read())!;
  await checker.judge(state);
  const row = { ...state.row, dead_letters: 0 };
  const missing = await assertRejects(() => checker.judge({ ...state, row }));
  assertEquals(
    String(missing).replace(/.*: (\d+ rows)/, "$1"),
    "1 rows cannot be held, and dead_letters is 0",
  );
  state.tables.get("strict")!.delete("2");
  const wrong = await assertRejects(() => checker.judge(state));
  assertEquals(
    String(wrong).split("\n")[1],
    "strict 2: missing in the replica",
  );
});
