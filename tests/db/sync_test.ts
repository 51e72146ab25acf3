import { assert, assertEquals } from "@std/assert";
import { Servers, Stack } from "./stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

Deno.test("sync() makes the replica equal after every operation on every table", async () => {
  await using stack = await Stack.start(servers);
  const { sql } = stack;
  await sql.unsafe(`
    insert into orgs (created_by, name, management_email) select gen_random_uuid(), 'Orgä ' || i, i || '@x.example' from generate_series(1, 20) i;
    insert into apps (app_id, icon_url, user_id, name, owner_org, transfer_history)
      select 'com.' || i, 'https://x/' || i, gen_random_uuid(), 'App ' || i, gen_random_uuid(), array['{"a": 1}', '"x"']::jsonb[] from generate_series(1, 20) i;
    insert into app_versions (owner_org, app_id, name) select gen_random_uuid(), 'com.' || i, '1.0.' || i from generate_series(1, 20) i;
    insert into channels (name, app_id, version, created_by, owner_org, public) select 'c' || i, 'com.' || i, i, gen_random_uuid(), gen_random_uuid(), i % 2 = 0 from generate_series(1, 20) i;
    insert into channel_devices (channel_id, app_id, device_id, owner_org) select i, 'com.' || i, 'd' || i, gen_random_uuid() from generate_series(1, 20) i;
    insert into stripe_info (customer_id, status) select 'cus_' || i, 'active' from generate_series(1, 20) i;
    insert into manifest (app_version_id, file_name, s3_path, file_hash) select i, 'f' || i, 's/' || i, md5(i::text) from generate_series(1, 20) i;
  `).simple();
  const body = await stack.drain();
  assertEquals(body.drained, true);
  assertEquals(await stack.assertEqual(), 140);
});
