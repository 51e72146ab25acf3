/** Whose replica it is: new ones, restored and cloned sources, foreign ones. */

import { assert, assertEquals, assertNotEquals } from "@std/assert";
import postgres from "postgres";
import { SUPERUSER } from "../../lib/dev/postgres.ts";
import {
  Hand,
  insertItems,
  rowsOf,
  standing,
  startChain,
  withWorker,
} from "../db/support/chain.ts";
import { Servers, Stack } from "../db/support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

Deno.test("bootstrap() never replaces what another worker started meanwhile", async () => {
  for (const wipe of [false, true]) {
    await using stack = await startChain(servers);
    const { epoch } = await standing(stack);
    if (wipe) {
      await stack.withParts(({ source }) =>
        source.reset({ expected: epoch, wipe, reason: "test" })
      );
    }
    await insertItems(stack, 1, 3);
    await stack.withParts(async (parts) => {
      const hand = new Hand(parts);
      const claim = await hand.claim();
      assertEquals([claim.do, "wipe" in claim && claim.wipe], [
        "bootstrap",
        wipe,
      ]);
      await hand.source.release(hand.lease);
      await stack.drain();
      const [row, rows] = [await stack.row(), await rowsOf(stack)];
      if (claim.do !== "bootstrap") throw new Error("no bootstrap");
      const late = await hand.replica.bootstrap(claim).then(
        ({ batch }) => batch,
        (error) => error.code,
      );
      assertEquals(late, "replica_moved");
      assertEquals(await stack.row(), row);
      assertEquals(await rowsOf(stack), rows);
    });
    // Several at once on nothing: one row, one chain.
    await stack.client.batch([
      "DROP TABLE _libsql_sync",
      "DROP TABLE item",
    ], "write");
    await stack.withParts((one) =>
      stack.withParts(async (two) => {
        const found = await Promise.all(
          [one, two].map(({ replica }) =>
            replica.bootstrap({ epoch: "e", wipe: false }).then(
              ({ epoch }) => epoch,
              (error) => error.code,
            )
          ),
        );
        assert(found.includes("e"), found.join());
        assertEquals((await stack.row()).position, 0);
      })
    );
  }
});

Deno.test("sync() bootstraps, and puts back what is on record, when the replica is new or empty", async () => {
  await using stack = await startChain(servers);
  for (const id of [1, 2, 3]) {
    await insertItems(stack, id, id);
    await stack.drain();
  }
  const { epoch } = await standing(stack);
  // Another database altogether.
  await stack.sqld.kill();
  await Deno.remove(`${stack.folder}/sqld`, { recursive: true });
  await Deno.mkdir(`${stack.folder}/sqld`);
  await stack.sqld.start();
  // Three positions come back, and fit into one.
  const result = await stack.drain();
  assertEquals([result.processed, result.batches], [3, 1]);
  const { batch, ...row } = await stack.row();
  assertEquals([row.epoch, row.position, row.drained], [epoch, 1, 1]);
  assertEquals(await stack.assertEqual(), 3);

  // The bookkeeping is gone, the tables are there.
  await stack.client.execute("DROP TABLE _libsql_sync");
  await stack.drain();
  const again = await stack.row();
  assertEquals([again.epoch, again.position], [epoch, 1]);
  assertNotEquals(again.batch, batch);
  assertEquals(await stack.assertEqual(), 3);
  const { queue, archive } = await standing(stack);
  assertEquals([queue, archive.length], [[], 3]);
});

/** Copies the source as it is now, as a restore or a clone would. */
async function copySource(stack: Stack, name: string): Promise<string> {
  const admin = postgres(
    stack.server.url({ user: SUPERUSER, database: "template1" }),
    { max: 1, onnotice: () => {} },
  );
  const copy = `${stack.database}_${name}`;
  try {
    // A template may have no other session.
    await admin`select pg_terminate_backend(pid) from pg_stat_activity where datname = ${stack.database}`;
    await admin`create database ${admin(copy)} template ${
      admin(stack.database)
    } owner postgres`;
  } finally {
    await admin.end();
  }
  return copy;
}

Deno.test("sync() answers 409 replica_ahead when the source was restored to an earlier time", async () => {
  await using stack = await startChain(servers);
  await insertItems(stack, 1, 2);
  await stack.drain();
  const earlier = await copySource(stack, "earlier");
  for (const id of [3, 4]) {
    await insertItems(stack, id, id);
    await stack.drain();
    const [row, rows] = [await stack.row(), await rowsOf(stack)];
    await withWorker(stack, { database: earlier }, async (port) => {
      const { status, body } = await stack.post("/sync", { port });
      assertEquals([status, body.error], [409, "replica_ahead"]);
    });
    assertEquals(await stack.row(), row);
    assertEquals(await rowsOf(stack), rows);
  }
});

Deno.test("sync() never mixes chains when the source was cloned and both went on", async () => {
  await using stack = await startChain(servers);
  await insertItems(stack, 1, 2);
  const { epoch } = await stack.drain();
  const clone = await copySource(stack, "clone");
  const other = postgres(stack.server.url({ database: clone }), { max: 1 });
  try {
    // The clone is as far as the replica: the first of the two to write wins.
    await other`insert into item values (50, 'of the clone', 1)`;
    await insertItems(stack, 3, 3);
    await stack.drain();
    const rows = await rowsOf(stack);
    await withWorker(stack, { database: clone }, async (port) => {
      const { status, body } = await stack.post("/sync", { port });
      assertEquals([status, body.error], [409, "replica_ahead"]);
    });
    assertEquals(await rowsOf(stack), rows);

    // The clone has a replica of its own and is ahead when it meets ours: the
    // ids differ, so it takes an epoch of its own, and ours is told.
    await using ownReplica = await startChain(servers);
    await withWorker(
      stack,
      { database: clone, libsqlUrl: ownReplica.sqld.url },
      async (port) => {
        for (const id of [51, 52, 53]) {
          await other`insert into item values (${id}, 'of the clone', 1)`;
          const { body } = await stack.post("/sync", { port });
          assertEquals(body.success, true, JSON.stringify(body));
        }
      },
    );
    const [mine] = await other`select position::int from libsql_sync.chain`;
    assert(mine!.position > Number((await stack.row()).position));
    await withWorker(stack, { database: clone }, async (port) => {
      const { body } = await stack.post("/sync", { port });
      assertNotEquals(body.epoch, epoch);
      assertEquals((await stack.row()).from_epoch, epoch);
    });
    const { status, body } = await stack.post("/sync");
    assertEquals([status, body.error], [409, "replica_foreign"]);
  } finally {
    await other.end();
  }
});

Deno.test("sync() answers 409 replica_foreign when the replica follows another source", async () => {
  await using ours = await startChain(servers);
  await using theirs = await startChain(servers);
  await insertItems(ours, 1, 2);
  await insertItems(theirs, 1, 3);
  await theirs.drain();
  const [row, rows] = [await theirs.row(), await rowsOf(theirs)];
  await withWorker(ours, { libsqlUrl: theirs.sqld.url }, async (port) => {
    const { status, body } = await ours.post("/sync", { port });
    assertEquals([status, body.error], [409, "replica_foreign"]);
    // It gave the lease back.
    assertEquals((await standing(ours)).lease, null);
  });
  assertEquals((await theirs.row()).batch, row.batch);
  assertEquals(await rowsOf(theirs), rows);
  await ours.drain();
  assertEquals(await ours.assertEqual(), 2);
});
