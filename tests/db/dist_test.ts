import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { fileURLToPath } from "node:url";
import { bundleWorker } from "./support/bundle.ts";
import { Servers, Stack } from "./support/stack.ts";
import { WorkerProcess } from "./support/worker_process.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

const ROOT = new URL("../../", import.meta.url);

Deno.test("dist.js is one file that imports what Bunny documents alone, and serves and syncs under Deno.serve too", async () => {
  const dist = await bundleWorker();
  const text = await Deno.readTextFile(dist);
  const imports = [...text.matchAll(/(?:\bfrom|\bimport)\s*"([\w@./:-]+)"/g)]
    .map(([, name]) => name!);
  assertEquals([...new Set(imports)].sort(), ["node:process", "node:tls"]);
  assertEquals(text.includes("import("), false, "no module is loaded later");
  assert(text.length < 10_000_000, "Bunny takes scripts of 10 MB");

  await using stack = await Stack.start(servers);
  await using worker = await WorkerProcess.start(dist, {
    LIBSQL_URL: stack.sqld.url,
    LIBSQL_AUTH_TOKEN: "test",
    PGMQ_URL: stack.workerUrl,
    WEBHOOK_SIGNATURE: "test-webhook-signature",
  });
  await stack
    .sql`insert into manifest (app_version_id, file_name, s3_path, file_hash) values (1, 'f', 's', 'h')`;
  const { status, body } = await stack.post("/sync", { port: worker.port });
  assertEquals([status, body.processed], [200, 1]);
  assertEquals(await stack.assertEqual(), 1);
});

Deno.test("main.ts answers /health, and reports every problem at once, when settings are missing", async () => {
  await using worker = await WorkerProcess.start(
    fileURLToPath(new URL("main.ts", ROOT)),
    {
      LIBSQL_URL: "",
      BUNNY_DATABASE_URL: "",
      PGMQ_URL: "mysql://user:secret@host/db",
      WEBHOOK_SIGNATURE: "",
    },
  );
  const response = await fetch(`http://127.0.0.1:${worker.port}/sync`, {
    method: "POST",
    headers: { "x-webhook-signature": "anything" },
  });
  assertEquals(response.status, 500);
  assertEquals(response.headers.get("cache-control"), "no-store");
  const body = await response.json();
  assertEquals(body.success, false);
  assertEquals(body.error, "config_invalid");
  for (const name of ["LIBSQL_URL", "PGMQ_URL", "WEBHOOK_SIGNATURE"]) {
    assertStringIncludes(body.message, name);
  }
  assertEquals(body.message.includes("secret@"), false);
});
