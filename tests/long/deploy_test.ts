/** `deno task deploy` against a stand-in for Bunny's API. */

import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { CommandError, UsageError } from "../../lib/cli/command.ts";
import { deploy } from "../../lib/cli/deploy.ts";
import { rollback } from "../../lib/cli/deploy_rollback.ts";
import { deploySecrets } from "../../lib/cli/deploy_secrets.ts";
import {
  type Bundle,
  checkBundle,
  tryBundle,
} from "../../lib/cli/deploy_bundle.ts";
import {
  ACCESS_KEY,
  BunnyApi,
  DEPLOYMENT_KEY,
  SCRIPT_ID,
} from "../db/support/bunny_api.ts";

const ROOT = new URL("../../", import.meta.url);

/** Runs the task as an operator does. */
async function command(
  env: Record<string, string>,
  ...args: string[]
): Promise<{ code: number; out: string; err: string }> {
  const { tasks } = JSON.parse(
    await Deno.readTextFile(new URL("deno.json", ROOT)),
  );
  const [, ...words] = tasks.deploy.command.split(" ");
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [...words, ...args],
    cwd: ROOT,
    clearEnv: true,
    env: { HOME: Deno.env.get("HOME") ?? "/", NO_COLOR: "1", ...env },
    stdin: "null",
  }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  const ran = { code, out: text(stdout), err: text(stderr) };
  for (const secret of [ACCESS_KEY, DEPLOYMENT_KEY, "hunter2"]) {
    assert(!(ran.out + ran.err).includes(secret), "it shows a secret");
  }
  return ran;
}

const scriptOf = (bunny: BunnyApi) => ({
  apiUrl: bunny.apiUrl,
  id: SCRIPT_ID,
  accessKey: ACCESS_KEY,
  deploymentKey: DEPLOYMENT_KEY,
});

/** A published script that answers with a version and nothing else. */
const scriptTelling = (version: string) =>
  `Bunny.v1.serve(() => new Response("OK", { headers: { "x-libsql-sync-version": "${version}" } }));`;

/** Publishes code behind the back of the command. */
async function publishByHand(bunny: BunnyApi, code: string, note: string) {
  for (
    const [path, body] of [["code", { Code: code }], ["publish", {
      Note: note,
    }]]
  ) {
    const response = await fetch(
      `${bunny.apiUrl}/compute/script/${SCRIPT_ID}/${path}`,
      {
        method: "POST",
        headers: { AccessKey: ACCESS_KEY },
        body: JSON.stringify(body),
      },
    );
    assertEquals(response.status, 204);
  }
}

Deno.test("deploy uploads, publishes, and ends when the address answers with the new version; --dry-run uploads nothing", async () => {
  await using bunny = new BunnyApi();
  await publishByHand(bunny, scriptTelling("0ld"), "by hand");
  bunny.calls.length = 0;
  const env = {
    BUNNY_API_URL: bunny.apiUrl,
    BUNNY_SCRIPT_ID: SCRIPT_ID,
    BUNNY_DEPLOYMENT_KEY: DEPLOYMENT_KEY,
    WORKER_URL: bunny.workerUrl,
  };
  const dry = await command(env, "--dry-run");
  assertEquals([dry.code, bunny.calls], [0, []], dry.err);
  assertMatch(dry.out, /^tried /m);

  const { code, out, err } = await command(env);
  assertEquals([code, err], [0, ""], out);
  const [, version] = /^built +dist\.js, [\d.]+ KB, version (0\.1\.0\+\w{12})$/m
    .exec(out) ?? [];
  assert(version !== undefined, out);
  assert(dry.out.includes(version), "the same code has the same version");
  const arrived = new RegExp(
    `^arrived +/health answers version ${RegExp.escape(version)} `,
    "m",
  );
  assertMatch(out, arrived);
  // The key that can do less did it all.
  assertEquals(bunny.calls, [
    { method: "POST", path: "code", key: "deployment" },
    { method: "POST", path: "publish", key: "deployment" },
  ]);
  assertEquals(bunny.releases[0]!.Note, `libsql-sync ${version}`);
  assertEquals(
    bunny.releases[0]!.Code,
    await Deno.readTextFile(new URL("dist.js", ROOT)),
  );
  const health = await fetch(`${bunny.workerUrl}/health`);
  assertEquals(
    [health.headers.get("x-libsql-sync-version"), await health.text()],
    [version, "OK"],
  );

  // And back, which needs the list of releases.
  const back = await command(env, "rollback");
  assertEquals([back.code, back.out], [1, ""]);
  assertMatch(back.err, /set BUNNY_ACCESS_KEY/);
  const account = { ...env, BUNNY_ACCESS_KEY: ACCESS_KEY };
  const rolled = await command(account, "rollback");
  assertEquals(rolled.code, 0, rolled.err);
  assertMatch(rolled.out, /^published +release .*\nits version is not known/);
  assertEquals(bunny.releases.map(({ Status }) => Status), [0, 1]);
  const again = await command(account, "rollback");
  assertEquals(again.code, 1);
  assertMatch(again.err, /expected a release before the live one/);
  const forth = await command(account, "rollback", bunny.releases[0]!.Uuid);
  assertEquals(forth.code, 0, forth.err);
  assertMatch(forth.out, arrived);
});

Deno.test("deploy fails when the new version does not arrive, and says what to do", async () => {
  await using bunny = new BunnyApi();
  bunny.requestsBehind = 0;
  await publishByHand(bunny, scriptTelling("0ld"), "by hand");
  bunny.requestsBehind = Infinity;
  const lines: string[] = [];
  const target = {
    script: scriptOf(bunny),
    workerUrl: bunny.workerUrl,
    arrivalMsMax: 1,
  };
  const error = await assertRejects(
    () => deploy(target, (line) => lines.push(line)),
    CommandError,
  );
  assertMatch(error.message, /^Published, but not arrived: .* found 0ld\./);
  assertMatch(error.message, /deno task deploy rollback/);
  assertEquals(lines.at(-1), "published");
});

Deno.test("rollback() waits for the version in the release's note", async () => {
  await using bunny = new BunnyApi();
  for (const version of ["first", "second", "third"]) {
    await publishByHand(
      bunny,
      scriptTelling(version),
      `libsql-sync ${version}`,
    );
  }
  const target = {
    script: scriptOf(bunny),
    workerUrl: bunny.workerUrl,
    arrivalMsMax: 20_000,
  };
  for (const version of ["second", "first"]) {
    const lines: string[] = [];
    await rollback(target, { print: (line) => lines.push(line) });
    assert(
      lines[1]!.includes(`/health answers version ${version}`),
      lines.join("\n"),
    );
  }
  await assertRejects(
    () => rollback(target, { uuid: "none", print: () => {} }),
    CommandError,
    "expected a release of this name",
  );
});

Deno.test("a call reports Bunny's status and what to check, and nothing of its answer", async () => {
  await using bunny = new BunnyApi();
  const text = "WEBHOOK_SIGNATURE=hunter2-hunter2-hunter2";
  const set = (script = scriptOf(bunny)) =>
    deploySecrets(script, { text, print: () => {} });
  for (
    const [status, advice] of [
      [401, "check BUNNY_ACCESS_KEY"],
      [404, "check BUNNY_SCRIPT_ID"],
      [302, "try again later"],
      [500, "try again later"],
    ] as const
  ) {
    bunny.failure = status;
    const error = await assertRejects(set, CommandError);
    assertEquals(
      error.message.split(",")[0],
      `Cannot set WEBHOOK_SIGNATURE: Bunny answered HTTP ${status}; ${
        advice.split(",")[0]
      }`,
    );
  }
  await assertRejects(
    () => set({ ...scriptOf(bunny), apiUrl: "http://127.0.0.1:9" }),
    CommandError,
    "expected an answer of 127.0.0.1:9, found none",
  );
});

Deno.test("deploy secrets sets the worker's variables of a file, shows names alone, and sets none when one cannot be used", async () => {
  await using bunny = new BunnyApi();
  const file = await Deno.makeTempFile();
  const env = {
    BUNNY_API_URL: bunny.apiUrl,
    BUNNY_SCRIPT_ID: SCRIPT_ID,
    BUNNY_ACCESS_KEY: ACCESS_KEY,
  };
  await Deno.writeTextFile(
    file,
    `# what the worker needs
WEBHOOK_SIGNATURE="old-hunter2-hunter2, new-hunter2-hunter2"
PGMQ_URL=postgres://worker:hunter2@source.example.com/db?sslmode=require
LIBSQL_AUTH_TOKEN=
AWS_SECRET_ACCESS_KEY=hunter2
BUNNY_DATABASE_URL=libsql://hunter2
PORT=8000
`,
  );
  const { code, out, err } = await command(env, "secrets", file);
  assertEquals([code, err], [0, ""]);
  assertEquals(out.split("\n"), [
    "set        WEBHOOK_SIGNATURE",
    "set        PGMQ_URL",
    "skipped    AWS_SECRET_ACCESS_KEY, BUNNY_DATABASE_URL, PORT: not settings of the worker",
    "These take effect with the next deployment: deno task deploy",
    "",
  ]);
  assertEquals([...bunny.secrets], [
    ["WEBHOOK_SIGNATURE", "old-hunter2-hunter2, new-hunter2-hunter2"],
    [
      "PGMQ_URL",
      "postgres://worker:hunter2@source.example.com/db?sslmode=require",
    ],
  ]);

  // {"alg":"none"} and {"role":"r"}
  const token = "eyJhbGciOiJub25lIn0.eyJyb2xlIjoiciJ9.c2ln";
  await Deno.writeTextFile(
    file,
    `PGMQ_URL=https://p.supabase.co/rest/v1
PGMQ_API_KEY=sb_publishable_x
PGMQ_TOKEN=${token}
`,
  );
  const rest = await command(env, "secrets", file);
  assertEquals([rest.code, rest.err], [0, ""]);
  assertEquals(bunny.secrets.get("PGMQ_TOKEN"), token);
  assertEquals(bunny.secrets.get("PGMQ_API_KEY"), "sb_publishable_x");

  bunny.calls.length = 0;
  for (
    const [text, said] of [
      [`PGMQ_URL=https://p.example.com/rest/v1`, /PGMQ_TOKEN must be a JWT/],
      ["PGMQ_URL=mysql://hunter2\nNUKE_SIGNATURE=n", /PGMQ_URL must be/],
      ["AWS_SECRET_ACCESS_KEY=hunter2", /found none in the file/],
      [`NUKE_SIGNATURE=${"x".repeat(2049)}`, /expected 2048 bytes at most/],
    ] as const
  ) {
    await Deno.writeTextFile(file, text);
    const refused = await command(env, "secrets", file);
    assertEquals([refused.code, refused.out], [2, ""]);
    assertMatch(refused.err, said);
  }
  assertEquals(bunny.calls, []);
  await Deno.remove(file);
  await assertRejects(
    () => deploySecrets(scriptOf(bunny), { text: "", print: () => {} }),
    UsageError,
  );
});

Deno.test("deploy answers missing settings and an unreadable file with exit code 2", async () => {
  for (
    const [env, args, said] of [
      [{}, [], /BUNNY_SCRIPT_ID must be/],
      [
        { BUNNY_SCRIPT_ID: "1", BUNNY_DEPLOYMENT_KEY: "hunter2\u00e9" },
        [],
        /A key must consist of/,
      ],
      [
        { BUNNY_SCRIPT_ID: "1", BUNNY_DEPLOYMENT_KEY: "k" },
        [],
        /WORKER_URL must be/,
      ],
      [
        { BUNNY_SCRIPT_ID: "1", BUNNY_ACCESS_KEY: "k" },
        ["secrets", "/nowhere"],
        /Cannot read the file/,
      ],
    ] as const
  ) {
    const ran = await command(env, ...args);
    assertEquals([ran.code, ran.out], [2, ""], ran.err);
    assertMatch(ran.err, said);
    assertMatch(ran.err, /Usage: deno task deploy/);
  }
});

/** A bundle of any text. */
const bundleOf = (text: string): Bundle => ({
  text,
  version: "abc",
  bytes: text.length,
});

Deno.test("checkBundle() refuses what Bunny would not run, and warns of what is large", async () => {
  const good =
    'import a from "node:process"; export * from "node:tls"; // import "x"\n`import("y")`; a;';
  assertEquals(await checkBundle(bundleOf(good)), {
    warning: null,
    imports: ["node:process", "node:tls"],
  });
  assertMatch(
    (await checkBundle(bundleOf(good + " ".repeat(160_000)))).warning!,
    /larger than 150 KB/,
  );
  for (
    const [text, said] of [
      [" ".repeat(10_000_001), /10000000 bytes at most, found 10000001/],
      ['import "crypto";', /an import: crypto/],
      ['import "node:nothing";', /an import: node:nothing/],
      // Deno has it, and Bunny's documentation does not name it.
      ['import "node:net";', /an import: node:net/],
      ['export * from "./other.js";', /an import: \.\/other\.js/],
      ['import "npm:postgres";', /an import: npm:postgres/],
      ['import "https://x.example/y.js";', /an import: https:/],
      ['await import("node:fs");', /a module loaded later: node:fs/],
      ["import {", /not JavaScript/],
    ] as const
  ) {
    const error = await assertRejects(
      () => checkBundle(bundleOf(text)),
      CommandError,
    );
    assertMatch(error.message, said);
  }
});

Deno.test("tryBundle() refuses a bundle that does not serve, or answers with another version", async () => {
  await tryBundle(bundleOf(scriptTelling("abc")));
  for (
    const [text, found] of [
      ["", "HTTP 400 with another body"],
      ["throw new Error('hunter2')", "HTTP 400 with another body"],
      // There is no such server on Bunny.
      [
        "Deno.serve(() => new Response('OK'))",
        "HTTP 400 with another body",
      ],
      [scriptTelling("other"), "other"],
      [
        "Bunny.v1.serve(() => new Response('OK'))",
        "a worker without a version",
      ],
      [
        "Bunny.v1.serve(() => new Response('no', { status: 500 }))",
        "HTTP 500 with another body",
      ],
    ] as const
  ) {
    await assertRejects(
      () => tryBundle(bundleOf(text)),
      CommandError,
      `with version abc, found ${found}`,
    );
  }
});
