/** POST /nuke: a new epoch, an empty replica, whatever stood there before. */

import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { sign } from "../../lib/http/auth.ts";
import { nuke } from "../../lib/sync/nuke.ts";
import {
  Hand,
  insertItems,
  rowsOf,
  saveReplica,
  standing,
  startChain,
  until,
  withWorker,
} from "../db/support/chain.ts";
import { isApply, Proxy } from "../db/support/http_proxy.ts";
import { SECRET, Servers, Stack } from "../db/support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

const DONE = [200, {
  success: true,
  message: "Data nuked and schema reinitialized",
}];

/** One /nuke that must succeed. */
async function postNuke(stack: Stack, port?: number): Promise<void> {
  const { status, body } = await stack.post(
    "/nuke?refill=false",
    port ? { port } : {},
  );
  assertEquals([status, body], DONE);
}

Deno.test("nuke() empties the replica and creates the schema again", async () => {
  await using stack = await startChain(servers);
  await insertItems(stack, 1, 5);
  await stack.sql`insert into part values (1, 'a', 'x')`;
  const { epoch } = await stack.drain();
  // What does not belong there goes with the tables.
  await stack.client.batch([
    "CREATE UNIQUE INDEX by_hand ON item (size)",
    "ALTER TABLE item ADD COLUMN by_hand TEXT",
    "DROP TABLE part",
  ], "write");
  await stack.sql`insert into item values (6, 'queued before', 6)`;

  await postNuke(stack);
  assertEquals(await rowsOf(stack), []);
  const row = await stack.row();
  assertNotEquals(row.epoch, epoch);
  assertEquals(
    [row.from_epoch, row.position, row.batch, row.drained, row.walk_done],
    [epoch, 0, row.epoch, 0, 0],
  );
  const { rows } = await stack.client.execute(
    "SELECT name FROM pragma_table_info('item') ORDER BY cid",
  );
  assertEquals(rows.map(({ name }) => name), ["id", "name", "size"]);
  const after = await standing(stack);
  assertEquals(
    [after.position, after.queue.length, after.lease],
    [0, 1, null],
  );

  // Queued messages are applied after it, and a walk brings the rest.
  const result = await stack.drain();
  assertEquals([result.processed, result.epoch], [1, row.epoch]);
  assertEquals((await rowsOf(stack)).length, 1);
  await stack.sql`update item set name = name || '!'`;
  await stack.sql`select libsql_sync.backfill()`;
  await stack.walk();
  assertEquals(await stack.assertEqual(), 7);

  // Twice is as good as once.
  await postNuke(stack);
  await postNuke(stack);
  assertEquals(await rowsOf(stack), []);
  assertEquals((await standing(stack)).epochs.length, 4);
});

Deno.test("nuke() wipes tables of our names when there is no bookkeeping row", async () => {
  await using stack = await startChain(servers);
  await stack.client.batch([
    "CREATE TABLE item (id TEXT, other BLOB)",
    "INSERT INTO item VALUES ('by hand', x'00')",
    "CREATE TABLE unrelated (a)",
    "INSERT INTO unrelated VALUES (1)",
  ], "write");
  await insertItems(stack, 1, 2);
  await postNuke(stack);
  assertEquals(await rowsOf(stack), []);
  await stack.drain();
  assertEquals(await stack.assertEqual(), 2);
  const { rows } = await stack.client.execute("SELECT * FROM unrelated");
  assertEquals(rows.length, 1);
});

Deno.test("nuke() works on a replica that was never started", async () => {
  await using stack = await startChain(servers);
  await postNuke(stack);
  assertEquals((await stack.row()).position, 0);
  await insertItems(stack, 1, 2);
  await stack.drain();
  assertEquals(await stack.assertEqual(), 2);
});

Deno.test("nuke() takes over the replica of another source, which then gets an error", async () => {
  await using ours = await startChain(servers);
  await using theirs = await startChain(servers);
  await insertItems(theirs, 101, 103);
  const { epoch } = await theirs.drain();
  await insertItems(ours, 1, 2);
  await theirs.sql`insert into item values (104, 'queued', 1)`;
  const failOver = await saveReplica(theirs);

  await withWorker(ours, { libsqlUrl: theirs.sqld.url }, async (port) => {
    const refused = await ours.post("/sync", { port });
    assertEquals([refused.status, refused.body.error], [
      409,
      "replica_foreign",
    ]);
    assert((refused.body.message as string).includes("POST /nuke"));
    await postNuke(ours, port);
    const row = await theirs.row();
    assertEquals([row.from_epoch, row.position], [epoch, 0]);
    assertEquals(await rowsOf(theirs), []);
    assertEquals((await ours.post("/sync", { port })).body.processed, 2);
    assertEquals((await rowsOf(theirs)).length, 2);

    const told = await theirs.post("/sync");
    assertEquals([told.status, told.body.error], [409, "replica_foreign"]);
    assertEquals((await standing(theirs)).queue.length, 1);

    // A failover loses the take-over itself: it is carried out again, and the
    // rows of the other source are not shown as ours.
    await failOver();
    await ours.sql`insert into item values (3, 'three', 3)`;
    const again = await ours.post("/sync", { port });
    assertEquals(again.status, 200, JSON.stringify(again.body));
    const items = (await rowsOf(theirs)) as { id: number }[];
    assert(items.every(({ id }) => id <= 3), "rows of two sources");
  });
});

Deno.test("nuke() repairs a replica that is ahead of its source", async () => {
  await using stack = await startChain(servers);
  await insertItems(stack, 1, 2);
  await stack.drain();
  await insertItems(stack, 3, 4);
  await stack.drain();
  // As a restore to an earlier time leaves it.
  await stack
    .sql`update libsql_sync.chain set position = 0, batch = epoch, handed = 0`;
  await stack.sql`delete from libsql_sync.batches`;
  const refused = await stack.post("/sync");
  assertEquals([refused.status, refused.body.error], [409, "replica_ahead"]);
  assert((refused.body.message as string).includes("POST /nuke"));
  await postNuke(stack);
  await stack.sql`select libsql_sync.backfill()`;
  await stack.walk();
  assertEquals(await stack.assertEqual(), 4);
});

Deno.test("nuke() while a sync runs lets no batch of the old epoch land after", async () => {
  await using stack = await startChain(servers);
  await stack.drain();
  const before = await standing(stack);
  await insertItems(stack, 1, 16_000);
  await using proxy = new Proxy(() => stack.sqld.url);
  const open = Promise.withResolvers<void>();
  let applies = 0;
  proxy.decide = async (body) => {
    // The second batch is on its way, and stays there.
    if (isApply(body) && ++applies === 2) await open.promise;
    return undefined;
  };
  await withWorker(stack, { libsqlUrl: proxy.url }, async (port) => {
    const running = stack.post("/sync", { port });
    await until("a batch is held back", () => applies === 2);
    const nuked = stack.post("/nuke?refill=false");
    await until(
      "the new epoch is recorded",
      async () => (await standing(stack)).epoch !== before.epoch,
    );
    open.resolve();
    const [sync, answer] = await Promise.all([running, nuked]);
    assertEquals(sync.status, 200, JSON.stringify(sync.body));
    assertEquals([answer.status, answer.body], DONE);
  });
  const after = await standing(stack);
  assertEquals((await stack.row()).epoch, after.epoch);
  assertEquals((await stack.row()).from_epoch, before.epoch);
  await stack.drain();
  // Rows of the batch that was settled before are gone until a walk brings them;
  // nothing else is missing, and every message was counted once.
  const settled = after.batches.filter((b) =>
    b.epoch === before.epoch && b.state === "settled"
  ).reduce((sum, b) => sum + Number(b.messages), 0);
  assertEquals((await rowsOf(stack)).length, 16_000 - settled);
  assert(settled > 0 && settled < 16_000);
  await stack.sql`select libsql_sync.backfill()`;
  await stack.walk();
  assertEquals(await stack.assertEqual(), 16_000);
});

Deno.test("nuke() is carried out by the next sync when its worker died", async () => {
  await using stack = await startChain(servers);
  await insertItems(stack, 1, 3);
  await stack.drain();
  await stack.sql`insert into item values (4, 'four', 4)`;
  await stack.withParts(async (parts) => {
    const stalled = new Hand(parts);
    const batch = await stalled.batch();
    await stalled.source.release(stalled.lease);
    const outcome = await stack.withParts((dying) =>
      nuke({
        ...dying,
        replica: {
          ...dying.replica,
          adopt: () => Promise.reject(new Error("died")),
        },
      }, { refill: false })
    ).then(() => "done", (error) => error.message);
    assertEquals(outcome, "died");
    const { batches } = await standing(stack);
    assertEquals(batches.filter((b) => b.state === "handed"), []);
    // The replica did not follow yet: the old batch may still land, and goes.
    assertEquals(await stalled.apply(batch), "applied");
    assertEquals((await rowsOf(stack)).length, 4);
    await stack.drain();
    assertEquals(await stalled.apply(batch), "replica_moved");
  });
  assertEquals(
    (await rowsOf(stack)).map((row) => (row as { id: number }).id),
    [4],
  );
});

Deno.test("nuke() is not forgotten when another epoch begins before the replica follows", async () => {
  await using stack = await startChain(servers);
  await insertItems(stack, 1, 3);
  await stack.drain();
  await stack.withParts(async ({ source }) => {
    let { epoch: expected } = await standing(stack);
    for (const wipe of [true, false]) {
      const reset = await source.reset({ expected, wipe, reason: "test" });
      assertEquals(reset.do, "begun");
      const late = await source.reset({ expected, wipe, reason: "test" });
      assertEquals([late.do, late.epoch], ["moved", reset.epoch]);
      expected = reset.epoch;
    }
  });
  await stack.drain();
  assertEquals(await rowsOf(stack), []);
});

Deno.test("nuke() answers 503 nuke_pending when a sync keeps the replica for too long", async () => {
  await using stack = await startChain(servers);
  await insertItems(stack, 1, 3);
  await stack.drain();
  await stack.withParts(async (parts) => {
    await parts.source.lease("somebody else's");
    const outcome = await stack.withParts((waiting) => {
      let calls = 0;
      return nuke({
        ...waiting,
        sleep: () => Promise.resolve(),
        budget: { ...waiting.budget, msLeft: () => ++calls > 3 ? 0 : 1 },
      }, { refill: false });
    }).then(() => "done", (error) => error.code);
    assertEquals(outcome, "nuke_pending");
    assertEquals((await rowsOf(stack)).length, 3);
    await parts.source.release("somebody else's");
  });
  await stack.drain();
  assertEquals(await rowsOf(stack), []);
});

Deno.test("nuke() at the same time twice ends in one empty replica", async () => {
  await using stack = await startChain(servers);
  await insertItems(stack, 1, 3);
  await stack.drain();
  const answers = await Promise.all(
    [1, 2].map(() => stack.post("/nuke?refill=false")),
  );
  for (const { status, body } of answers) assertEquals([status, body], DONE);
  assertEquals(await rowsOf(stack), []);
  assertEquals((await stack.row()).epoch, (await standing(stack)).epoch);
  assertEquals((await standing(stack)).lease, null);
});

Deno.test("nuke() ends the epoch that was named and no other: the same request again is refused", async () => {
  await using stack = await startChain(servers);
  await insertItems(stack, 1, 3);
  const { epoch } = await stack.drain();
  const before = await standing(stack);
  const unknown = await stack.post("/nuke?epoch=none");
  assertEquals([unknown.status, unknown.body.error], [409, "epoch_moved"]);
  assert(String(unknown.body.message).includes(String(epoch)));
  assertEquals(await standing(stack), before, "the lease is given back");

  // As somebody saw it pass by.
  const path = `/nuke?refill=false&epoch=${epoch}`;
  const signature = await sign(
    [SECRET],
    { method: "POST", path, body: new Uint8Array() },
    Date.now(),
  );
  const send = async () => {
    const response = await fetch(
      `http://127.0.0.1:${stack.worker.addr.port}${path}`,
      { method: "POST", headers: { "x-webhook-signature": signature } },
    );
    return [response.status, await response.json()] as const;
  };
  assertEquals([...await send()], DONE);
  assertEquals(await rowsOf(stack), []);
  await stack.sql`select libsql_sync.backfill()`;
  await stack.walk();
  assertEquals((await rowsOf(stack)).length, 3);
  const [status, { error }] = await send();
  assertEquals([status, error], [409, "epoch_moved"]);
  assertEquals((await rowsOf(stack)).length, 3);
  assertEquals(await stack.assertEqual(), 3);
});

Deno.test("nuke() of a named epoch leaves the one that began meanwhile", async () => {
  await using stack = await startChain(servers);
  await insertItems(stack, 1, 3);
  const { epoch } = await stack.drain();
  const outcome = await stack.withParts((parts) =>
    nuke({
      ...parts,
      source: {
        ...parts.source,
        reset: async (request) => {
          // Somebody else is faster.
          await parts.source.reset({ ...request, wipe: false });
          return await parts.source.reset(request);
        },
      },
    }, { refill: false, epoch: String(epoch) })
  ).then(() => "done", (error) => error.code);
  assertEquals(outcome, "epoch_moved");
  await stack.drain();
  assertEquals((await rowsOf(stack)).length, 3);
});
