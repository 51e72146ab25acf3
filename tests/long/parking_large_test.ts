import { assert, assertEquals } from "@std/assert";
import {
  insertItems,
  rowsOf,
  standing,
  startChain,
} from "../db/support/chain.ts";
import { Servers } from "../db/support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

Deno.test("sync() parks tens of thousands of rows at once, and what is updated of them later", async () => {
  await using stack = await startChain(servers);
  await stack
    .sql`insert into item select i, 'half', 0.5 from generate_series(1, 30000) i`;
  const { parked } = await stack.drain();
  assertEquals(parked, 30_000);
  assertEquals((await standing(stack)).dlq.length, 30_000);
  await stack.sql`update item set size = 1 where id <= 300`;
  await stack.drain();
  assertEquals((await rowsOf(stack)).length, 300);
  assertEquals((await standing(stack)).dlq.length, 29_700);
});

Deno.test("sync() finds and parks every update that the replica refuses", async () => {
  await using stack = await startChain(servers);
  await insertItems(stack, 1, 40);
  await stack.drain();
  await stack.client.execute(
    "CREATE TRIGGER by_hand BEFORE UPDATE ON item WHEN NEW.id % 10 = 7 BEGIN SELECT RAISE(ABORT, 'not this one'); END",
  );
  await stack.sql`update item set size = size + 1`;
  // A row whose JSON might be too large is written by itself, cell by cell.
  await stack
    .sql`update item set name = repeat('x', 4500000) where id in (1, 7)`;
  // What a message that is too large for one batch is about may come twice.
  assert(Number((await stack.drain()).parked) >= 4);
  assertEquals(
    (await stack.deadLetters()).map(({ key }) => (key as string[])[0]).sort(),
    ["17", "27", "37", "7"],
  );
  const rows = await rowsOf(stack) as { id: number; size: number }[];
  assertEquals(
    rows.filter(({ id, size }) => size === id).map(({ id }) => id),
    [7, 17, 27, 37],
  );
  await stack.client.execute("DROP TRIGGER by_hand");
  await stack.sql`update item set name = 'healed' where id % 10 = 7`;
  assertEquals((await stack.drain()).parked, 0);
  assertEquals(await stack.assertEqual(), 40);
});
