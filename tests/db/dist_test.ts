import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { Servers, Stack } from "./stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

const DEADLINE_MS = 20_000;
const ROOT = new URL("../../", import.meta.url);

/** Runs deno to its end. */
async function deno(...args: string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command(Deno.execPath(), {
    args,
    cwd: ROOT.pathname,
    stdout: "null",
    stderr: "piped",
  }).output();
  assert(success, new TextDecoder().decode(stderr));
}

/** The bundle in a process of its own, until disposed. */
class Worker implements AsyncDisposable {
  private constructor(
    readonly port: number,
    readonly process: Deno.ChildProcess,
  ) {}

  static async start(
    file: string,
    env: Record<string, string>,
  ): Promise<Worker> {
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const port = listener.addr.port;
    listener.close();
    // The bundle needs nothing beside it: no import map, no packages.
    const config = file.endsWith("main.ts") ? [] : ["--no-config"];
    const process = new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "--quiet",
        ...config,
        "--allow-net",
        "--allow-env",
        "--allow-sys",
        file,
      ],
      env: { ...env, PORT: String(port) },
      stdout: "null",
      stderr: "inherit",
    }).spawn();
    const worker = new Worker(port, process);
    for (const end = Date.now() + DEADLINE_MS; Date.now() < end;) {
      const answer = await fetch(`http://127.0.0.1:${port}/health`).catch(() =>
        null
      );
      if (answer !== null) {
        assertEquals(await answer.text(), "OK");
        return worker;
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    await worker[Symbol.asyncDispose]();
    throw new Error("the bundle did not answer /health in time");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.process.kill("SIGKILL");
    } catch {
      // It ended by itself.
    }
    await this.process.status;
  }
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
    PGMQ_URL: stack.server.url({ database: stack.database }),
    WEBHOOK_SIGNATURE: "test-webhook-signature",
  };
  for (const [at, file] of [dist, bunny].entries()) {
    await using worker = await Worker.start(file, env);
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
  await using worker = await Worker.start(new URL("main.ts", ROOT).pathname, {
    LIBSQL_URL: "",
    BUNNY_DATABASE_URL: "",
    PGMQ_URL: "mysql://user:secret@host/db",
    WEBHOOK_SIGNATURE: "",
  });
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
