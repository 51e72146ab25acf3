import { assert, assertEquals, assertThrows } from "@std/assert";
import { UsageError } from "../../lib/cli/command.ts";
import { readSettings } from "../../lib/cli/settings.ts";

Deno.test("readSettings() names everything that is missing at once, and shows no secret", () => {
  const read = (settings: Record<string, string>) =>
    readSettings((name) => settings[name], [
      "PGMQ_URL",
      "WORKER_URL",
      "WEBHOOK_SIGNATURE",
    ]);
  const none = assertThrows(() => read({}), UsageError);
  for (const name of ["PGMQ_URL", "WORKER_URL", "WEBHOOK_SIGNATURE"]) {
    assert(none.message.includes(`${name} must be`), none.message);
  }
  assert(!none.message.includes("LIBSQL"));

  const good = {
    PGMQ_URL: "postgres://u:hunter2@h/db",
    WORKER_URL: "https://x.example/",
    WEBHOOK_SIGNATURE: "hunter2",
  };
  assertEquals(read(good), {
    pgmqUrl: good.PGMQ_URL,
    workerUrl: "https://x.example",
    secrets: ["hunter2"],
  });
  for (
    const url of [
      "",
      "x.example",
      "ftp://x.example",
      "https://x.example/sync",
      "https://u:hunter2@x.example",
      "https://x.example?hunter2",
    ]
  ) {
    const error = assertThrows(
      () => read({ ...good, WORKER_URL: url, PGMQ_URL: "hunter2" }),
      UsageError,
    );
    assert(error.message.includes("WORKER_URL must be"), url);
    assert(error.message.includes("PGMQ_URL must be"), url);
    assert(!error.message.includes("hunter2"), error.message);
  }
});

Deno.test("readSettings() ignores what a command does not need", () => {
  const settings = readSettings(
    (name) => ({ PGMQ_URL: "postgres://h", WORKER_URL: "nonsense" })[name],
    ["PGMQ_URL"],
  );
  assertEquals(settings, {
    pgmqUrl: "postgres://h",
    workerUrl: "",
    secrets: [],
  });
});

Deno.test("readSettings() refuses https:// in PGMQ_URL, which only the worker can use", () => {
  const settings: Record<string, string> = {
    PGMQ_URL: "https://p.supabase.co/rest/v1",
    PGMQ_TOKEN: "eyJhbGciOiJub25lIn0.eyJyb2xlIjoiciJ9.c2ln",
  };
  const error = assertThrows(
    () => readSettings((name) => settings[name], ["PGMQ_URL"]),
    UsageError,
  );
  assert(
    error.message.includes("PGMQ_URL must be postgres:// here"),
    error.message,
  );
});

Deno.test("readSettings() takes NUKE_SIGNATURE in the place of WEBHOOK_SIGNATURE", () => {
  const settings: Record<string, string> = {
    NUKE_SIGNATURE: "n",
    WEBHOOK_SIGNATURE: "w",
  };
  const read = (name: "NUKE_SIGNATURE" | "WEBHOOK_SIGNATURE") =>
    readSettings((name) => settings[name], [name]).secrets;
  assertEquals(read("NUKE_SIGNATURE"), ["n"]);
  assertEquals(read("WEBHOOK_SIGNATURE"), ["w"]);
});
