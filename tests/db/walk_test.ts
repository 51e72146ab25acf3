import { assertEquals } from "@std/assert";
import { SUPERUSER } from "../../lib/dev/postgres.ts";
import { Servers, Stack } from "./stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

Deno.test("sync() fills an empty replica by itself", async () => {
  await using stack = await Stack.start(servers);
  await stack.run(
    `
    set session_replication_role = replica;
    insert into app_versions (owner_org, app_id, name) select gen_random_uuid(), 'com.' || i, '1.0.' || i from generate_series(1, 50000) i;
    insert into orgs (created_by, name, management_email) select gen_random_uuid(), 'Orgä ' || i, i || '@x.example' from generate_series(1, 3000) i;
  `,
    { user: SUPERUSER },
  );
  let body;
  for (let i = 0; i < 20; i++) {
    const t = performance.now();
    body = await stack.sync();
    console.log(Math.round(performance.now() - t), body);
    if (body.walk_done) break;
  }
  console.log(stack.log, await stack.row());
  assertEquals(await stack.assertEqual(), 53000);
});
