/** The worker as it is deployed, in an isolate like Bunny's, by every way to the source. */

import { assert, assertEquals } from "@std/assert";
import { type Bunny, serveBunny } from "../../lib/dev/bunny.ts";
import { bundleWorker } from "../db/support/bundle.ts";
import { SECRET, Servers, Stack } from "../db/support/stack.ts";
import {
  admitToken,
  settingsFor,
  TRANSPORTS,
} from "../db/support/transport.ts";

const servers = new Servers({ tls: true });
Deno.test.afterAll(() => servers.stop());

const SIGNED = { "x-webhook-signature": SECRET };

/** The answer to a signed POST; it must be 200. */
async function post(bunny: Bunny, path: string) {
  const response = await fetch(bunny.url + path, {
    method: "POST",
    headers: SIGNED,
  });
  const text = await response.text();
  assertEquals(response.status, 200, `${path}: ${text} ${bunny.ends}`);
  return JSON.parse(text) as Record<string, unknown>;
}

for (const transport of TRANSPORTS) {
  Deno.test(`dist.js syncs, fills, verifies and starts over in the isolate by ${transport}`, async () => {
    await using stack = await Stack.start(servers);
    await admitToken(stack.server, stack.database);
    const lines: string[] = [];
    await using bunny = serveBunny({
      script: () => bundleWorker(),
      env: {
        BUNNY_DATABASE_URL: stack.sqld.url,
        BUNNY_DATABASE_AUTH_TOKEN: "test",
        WEBHOOK_SIGNATURE: SECRET,
        ...await settingsFor(stack.workerUrl, transport),
      },
      // Plain TCP is neither offered there nor denied.
      modules: /tcp|pooler/.test(transport) ? ["node:net"] : [],
      onLine: (line) => void lines.push(line),
    });
    const drain = async () => {
      for (let syncs = 0; syncs < 20; syncs++) {
        const body = await post(bunny, "/sync");
        if (body.drained && body.walk_done && body.queued === 0) return;
      }
      throw new Error("not drained and walked in 20 syncs");
    };
    await drain();
    await stack.run(`
      insert into app_versions (owner_org, app_id, name)
        select gen_random_uuid(), 'com.' || i, '1.0.' || i from generate_series(1, 5000) i;
      do $$ begin for i in 1..500 loop
        insert into manifest (app_version_id, file_name, s3_path, file_hash)
          values (i, E'é "\\\\ 漢', 's', md5(i::text));
      end loop; end $$;
      update app_versions set checksum = md5(id::text) where id % 3 = 0;
      delete from manifest where id % 2 = 0;
    `);
    await drain();
    assertEquals(await stack.assertEqual(), 5_250);

    await stack.client.execute("DELETE FROM manifest WHERE id % 5 = 0");
    await stack.client.execute(
      "UPDATE app_versions SET name = 'x' WHERE id < 9",
    );
    let differences: unknown;
    for (let done = false; !done;) {
      const body = await post(bunny, "/verify?repair=true");
      done = body.done === true;
      differences = body.differences;
    }
    assert(Number(differences) > 8);
    assertEquals(await stack.assertEqual(), 5_250);

    assertEquals(
      (await post(bunny, "/nuke")).message,
      "Data nuked and schema reinitialized",
    );
    await drain();
    assertEquals(await stack.assertEqual(), 5_250);
    // One isolate did all of it, inside every limit, and told nothing else.
    assertEquals([bunny.ends, bunny.starts], [[], 1]);
    assertEquals(lines.filter((line) => !line.startsWith('{"time":')), []);
  });
}

Deno.test("dist.js says what is missing when a runtime has no plain TCP, and asks for no cache to keep it", async () => {
  await using stack = await Stack.start(servers);
  await using bunny = serveBunny({
    script: () => bundleWorker(),
    env: {
      LIBSQL_URL: stack.sqld.url,
      PGMQ_URL: stack.workerUrl,
      WEBHOOK_SIGNATURE: SECRET,
    },
  });
  const response = await fetch(`${bunny.url}/sync`, {
    method: "POST",
    headers: SIGNED,
  });
  const { error, message } = await response.json();
  assertEquals([response.status, error], [500, "config_invalid"]);
  assert(/no plain TCP; add sslnegotiation=direct/.test(message), message);
  for (const path of ["/health", "/health", "/sync", "/sync", "/x", "/x"]) {
    const answer = await fetch(bunny.url + path);
    await answer.body?.cancel();
    assertEquals(answer.headers.get("cdn-cache"), "MISS", path);
  }
});
