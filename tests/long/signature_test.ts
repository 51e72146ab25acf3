/** The cron's signature: made in SQL, judged by the worker, changed under way. */

import { assert, assertEquals } from "@std/assert";
import { parseConfig } from "../../lib/config/config.ts";
import { SUPERUSER } from "../../lib/dev/postgres.ts";
import { putSecret } from "../../lib/dev/supabase.ts";
import { startTicker } from "../../lib/dev/ticker.ts";
import { judge } from "../../lib/http/auth.ts";
import { createWorker } from "../../lib/worker.ts";
import schemaJson from "../../schema.json" with { type: "json" };
import { until } from "../db/support/chain.ts";
import { SECRET, Servers, Stack } from "../db/support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

const SEED = Number(Deno.env.get("SEED") ?? 1);
const WRITE =
  "insert into manifest (app_version_id, file_name, s3_path, file_hash) values (1, 'f', 's', 'h')";

Deno.test("hmac() is pgcrypto's when keys and messages are of any length", async () => {
  await using stack = await Stack.start(servers);
  const lengths = [0, 1, 31, 32, 63, 64, 65, 128, 300];
  const [found] = await stack.sql.unsafe<{ made: number; other: number }[]>(`
    select count(*)::int as made,
      count(*) filter (where libsql_sync.hmac(key, message) <> extensions.hmac(message, key, 'sha256'))::int as other
    from (
      select k.n as key_length, substring(r.noise from 1 for k.n) as key, substring(r.noise from 7 for m.n) as message
      from unnest(array[${lengths}]) k (n) cross join unnest(array[${lengths}]) m (n)
      cross join lateral (
        select string_agg(sha256(convert_to(concat(${SEED}, s, i), 'UTF8')), '') as noise
        from generate_series(1, 3) s, generate_series(1, 12) i group by s) r
    ) cases`);
  assertEquals(found, { made: 3 * lengths.length ** 2, other: 0 });
});

Deno.test("sign() makes what the worker judges as authentic, for any address and secret", async () => {
  await using stack = await Stack.start(servers);
  const secrets = [SECRET, "s", "\"'\\ $1 %s", "x".repeat(65), "ä✓"];
  const addresses = {
    "https://worker.example/sync": "/sync",
    "http://127.0.0.1:8000/sync": "/sync",
    "https://worker.example": "/",
    "https://worker.example/": "/",
    "https://worker.example?a=1": "/?a=1",
    "https://worker.example/a/b.c?d=e&f=%20#g": "/a/b.c?d=e&f=%20",
  };
  for (const secret of secrets) {
    for (const [url, path] of Object.entries(addresses)) {
      const body = '{"n": 1}';
      const [row] = await stack
        .sql`select libsql_sync.sign(${secret}, ${url}, ${body}::text::jsonb::text) as header`;
      const verdict = (method: string, path: string) =>
        judge(row!.header, {
          secrets: [secret],
          request: {
            method,
            path,
            readBody: () => Promise.resolve(new TextEncoder().encode(body)),
          },
          now: Date.now(),
        });
      assertEquals(await verdict("POST", path), "authentic", url);
      assertEquals(await verdict("GET", path), "wrong");
      assertEquals(await verdict("POST", "/nuke"), "wrong");
      assertEquals(new URL(url).pathname + new URL(url).search, path);
    }
  }
});

Deno.test("process_libsql_replication_batch() shows the secret to no role, and is let in, with pgcrypto and without", async () => {
  await using stack = await Stack.start(servers);
  const { sql, server, database } = stack;
  // The calls are made by hand here.
  await sql`select cron.unschedule('process_libsql_replication')`;
  for (const step of ["", "drop extension pgcrypto cascade"]) {
    if (step !== "") await stack.run(step, { user: SUPERUSER });
    await stack.run(WRITE);
    const [call] =
      await sql`select public.process_libsql_replication_batch() as id`;
    // Any role may read what waits there.
    const seen = await sql.begin(async (tx) => {
      await tx`set local role anon`;
      return await tx`select r::text as text from net.http_request_queue r`;
    });
    assertEquals(seen.length, 1);
    assert(seen[0]!.text.includes("v1="));
    for (const text of [SECRET, btoa(SECRET), toHex(SECRET)]) {
      assert(!seen[0]!.text.includes(text));
    }
    const ticker = startTicker({
      url: server.url({ user: SUPERUSER, database }),
      cronEveryMs: 60_000,
      log: () => {},
    });
    try {
      await until("an answer", async () => {
        const [answer] =
          await sql`select status_code from net._http_response where id = ${
            call!.id
          }`;
        if (answer === undefined) return false;
        assertEquals(answer.status_code, 200);
        return true;
      });
    } finally {
      await ticker.stop();
    }
    await stack.drain();
    await sql`truncate net._http_response`;
  }
  await stack.assertEqual();
});

function toHex(text: string): string {
  return Array.from(
    new TextEncoder().encode(text),
    (byte) => byte.toString(16).padStart(2, "0"),
  ).join("");
}

Deno.test("a secret is changed as lib/README.md says, and no /sync fails on the way", async () => {
  await using stack = await Stack.start(servers);
  const { sql, server, database } = stack;
  const FRESH = "another-webhook-signature";
  let secret = SECRET;
  const lines: Record<string, unknown>[] = [];
  const worker = createWorker({
    config: () =>
      parseConfig((name) =>
        ({
          LIBSQL_URL: stack.sqld.url,
          LIBSQL_AUTH_TOKEN: "test",
          PGMQ_URL: stack.workerUrl,
          WEBHOOK_SIGNATURE: secret,
        })[name]
      ),
    schema: schemaJson,
    log: (level, event, fields) => lines.push({ level, event, ...fields }),
    now: Date.now,
  });
  await using web = Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen: () => {} },
    worker,
  );
  await putSecret(sql, {
    name: "libsql_sync_url",
    value: `http://127.0.0.1:${web.addr.port}/sync`,
  });
  // Five more, and all that was sent before is answered as well.
  const moreAnswers = async () => {
    const [{ sent }] = await sql<[{ sent: number }]>`
      select case when is_called then last_value else 0 end::int as sent from net.http_request_queue_id_seq`;
    await until("more answers", async () => {
      await stack.run(WRITE);
      const [found] = await sql`
        select count(*) filter (where id <= ${sent}) = ${sent} and count(*) filter (where id > ${sent}) >= 5 as all
        from net._http_response`;
      return found!.all;
    }, 30_000);
  };
  const ticker = startTicker({
    url: server.url({ user: SUPERUSER, database }),
    cronEveryMs: 20,
    log: () => {},
  });
  try {
    await moreAnswers();
    // 1. The worker knows both.
    secret = `${SECRET}, ${FRESH}`;
    await moreAnswers();
    // 2. The Vault has the new one; what was sent with the old one is answered.
    await putSecret(sql, { name: "libsql_webhook_signature", value: FRESH });
    await moreAnswers();
    // 3. The worker forgets the old one.
    secret = FRESH;
    await moreAnswers();
  } finally {
    await ticker.stop();
  }
  const answers =
    await sql`select distinct status_code, content::json ->> 'success' as success from net._http_response`;
  assertEquals([...answers], [{ status_code: 200, success: "true" }]);
  assertEquals(lines.filter(({ level }) => level !== "info"), []);
  const post = (given: string) =>
    fetch(`http://127.0.0.1:${web.addr.port}/sync`, {
      method: "POST",
      headers: { "x-webhook-signature": given },
    });
  const [old, fresh] = [await post(SECRET), await post(FRESH)];
  assertEquals([old.status, fresh.status], [401, 200]);
  await old.body?.cancel();
  await fresh.body?.cancel();
  await stack.drain();
  assert(await stack.assertEqual() > 0);
});

Deno.test("doctor() reports when the cron sends the secret itself", async () => {
  await using stack = await Stack.start(servers);
  const look = async () => {
    const rows = await stack.sql`
      select level from libsql_sync.doctor(array['secrets']) where name = 'signature'`;
    return rows.map(({ level }) => level);
  };
  assertEquals(await look(), ["ok"]);
  await stack.run(`
    create or replace function public.process_libsql_replication_batch() returns bigint language sql as $$
      select net.http_post(public.get_libsql_sync_url(),
        headers := jsonb_build_object('x-webhook-signature', public.get_libsql_webhook_signature()))
    $$`);
  assertEquals(await look(), ["warning"]);
});
