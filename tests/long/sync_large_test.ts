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
      const { length } = message.keys as unknown[];
      assert(length <= 1000, `${length} keys in a message`);
    }
    const body = await stack.drain();
    assertEquals(body.queued, 0);
    await stack.assertEqual();
  }
  assertEquals(await stack.assertEqual(), 5000);
});

Deno.test("a claim brings rows however long the head of the queue takes to be read", async () => {
  await using stack = await Stack.start(servers);
  const { sql } = stack;
  await stack.walk();
  // Longer than a claim may take to read rows.
  await sql.unsafe(`
    alter function libsql_sync.head_keys rename to head_keys_at_once;
    do $$
    begin
      execute format('create function libsql_sync.head_keys(lowest bigint, ahead libsql_sync.batches, busy text[], keys_max integer)
        returns %s language plpgsql stable as %L',
        (select pg_get_function_result(oid) from pg_proc where oid = 'libsql_sync.head_keys_at_once'::regproc),
        'begin perform pg_sleep(1.6); return query select * from libsql_sync.head_keys_at_once($1, $2, $3, $4); end');
    end $$`).simple();
  await sql`insert into orgs (created_by, name, management_email)
    select gen_random_uuid(), 'late', 'e' from generate_series(1, 40)`;
  const { queued, batches } = await stack.sync();
  assertEquals(queued, 0, `after ${batches} batches`);
  await stack.assertEqual();
});
