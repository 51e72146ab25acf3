import { fileURLToPath } from "node:url";
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { Servers, Stack } from "./stack.ts";
import { WorkerProcess } from "./worker_process.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

const ROOT = new URL("../../", import.meta.url);

/** Runs deno to its end. */
async function deno(...args: string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command(Deno.execPath(), {
    args,
    cwd: fileURLToPath(ROOT),
    stdout: "null",
    stderr: "piped",
  }).output();
  assert(success, new TextDecoder().decode(stderr));
}

Deno.test("dist.js is one file that imports node: builtins alone, serves and syncs under Deno.serve and under Bunny.v1.serve", async () => {
  const folder = await Deno.makeTempDir();
  const dist = `${folder}/dist.js`;
  // The command of `deno task build`, into a folder of this test.
  const { tasks } = JSON.parse(
    await Deno.readTextFile(new URL("deno.json", ROOT)),
  );
  const command: string[] = tasks.build.command.replace("dist.js", dist).split(
    " ",
  ).slice(1);
  await deno(...command);

  const text = await Deno.readTextFile(dist);
  const imports = [...text.matchAll(/(?:\bfrom|\bimport)\s*"([\w@./:-]+)"/g)]
    .map(([, name]) => name!);
  assert(imports.length > 0);
  assertEquals(imports.filter((name) => !name.startsWith("node:")), []);
  assertEquals(text.includes("import("), false, "no module is loaded later");
  assert(text.length < 10_000_000, "Bunny takes scripts of 10 MB");

  // Bunny has its own server: this stands in for it, and for nothing else of Bunny.
  const bunny = `${folder}/bunny.js`;
  await Deno.writeTextFile(
    bunny,
    `const { serve } = Deno;
delete Deno.serve;
globalThis.Bunny = { v1: { serve: (handler) => serve({ port: Number(Deno.env.get("PORT")) }, (request) => handler(request)) } };
await import("./dist.js");
`,
  );
  await using stack = await Stack.start(servers);
  const env = {
    LIBSQL_URL: stack.sqld.url,
    LIBSQL_AUTH_TOKEN: "test",
    PGMQ_URL: stack.workerUrl,
    WEBHOOK_SIGNATURE: "test-webhook-signature",
  };
  for (const [at, file] of [dist, bunny].entries()) {
    await using worker = await WorkerProcess.start(file, env);
    await stack
      .sql`insert into manifest (app_version_id, file_name, s3_path, file_hash) values (${at}, 'f', 's', 'h')`;
    const { status, body } = await stack.post("/sync", { port: worker.port });
    assertEquals(status, 200);
    assertEquals(body.processed, 1);
    assertEquals(await stack.assertEqual(), at + 1);
  }
  await Deno.remove(folder, { recursive: true });
});

Deno.test("main.ts answers /health, and tells every problem at once, when settings are missing", async () => {
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
