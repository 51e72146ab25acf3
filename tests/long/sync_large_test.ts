import { assert, assertEquals } from "@std/assert";
import { Servers, Stack } from "../db/support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

Deno.test("POST /sync takes statements of 10,000 rows in bounded messages", async () => {
  await using stack = await Stack.start(servers);
  const { sql } = stack;
  for (
    const step of [
      `insert into app_versions (owner_org, app_id, name)
      select gen_random_uuid(), 'com.' || i, '1.0.' || i from generate_series(1, 10000) i`,
      "update app_versions set checksum = md5(id::text)",
      "update app_versions set checksum = checksum",
      "update app_versions set id = -id where id % 3 = 0",
      "delete from app_versions where id % 2 = 0",
    ]
  ) {
    await sql.unsafe(step);
    const messages = await stack.messages();
    for (const message of messages) {
      const { rows, updates, deletes } = message as Record<string, unknown[]>;
      const count = (rows ?? updates ?? deletes)!.length;
      assert(count <= 1000, `${count} rows in a message`);
    }
    const body = await stack.drain();
    assertEquals(body.queued, 0);
    await stack.assertEqual();
  }
  assertEquals(await stack.assertEqual(), 5000);
});
