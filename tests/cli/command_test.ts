import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  describeRefusal,
  parseCall,
  readSettings,
  UsageError,
} from "../../lib/cli/command.ts";

const FLAGS = { json: "switch", table: "text" } as const;

Deno.test("parseCall() reads flags and words in any order", () => {
  assertEquals(parseCall([], FLAGS), { flags: {}, words: [] });
  assertEquals(
    parseCall(["show", "--table=a=b", "7", "--json"], FLAGS, { wordsMax: 2 }),
    { flags: { table: "a=b", json: "" }, words: ["show", "7"] },
  );
  assertEquals(parseCall(["--table", "-x"], FLAGS).flags, { table: "-x" });
});

Deno.test("parseCall() refuses what no command knows", () => {
  for (
    const [args, said] of [
      [["--what"], "unknown flag --what"],
      [["--constructor"], "unknown flag --constructor"],
      [["-j"], "unknown flag -j"],
      [["--"], "unknown flag --"],
      [["--json", "--json"], "--json is given twice"],
      [["--json=yes"], "--json takes no value"],
      [["--table"], "--table needs a value"],
      [["--table="], "--table needs a value"],
      [["--table", "--json"], "--table needs a value"],
      [["word"], "unexpected argument word"],
      [["a\u001b[2J"], "unexpected argument a�[2J"],
    ] as const
  ) {
    const error = assertThrows(() => parseCall(args, FLAGS), UsageError);
    assertEquals(error.message, said);
  }
});

Deno.test("readSettings() tells everything that is missing at once, and no secret", () => {
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

Deno.test("readSettings() leaves alone what a command does not need", () => {
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

Deno.test("describeRefusal() tells the worker's own words, or that it was none", () => {
  const headers = new Headers();
  assertEquals(
    describeRefusal({
      status: 409,
      headers,
      body: { error: "replica_foreign", message: "Cannot sync: ..." },
    }),
    "The worker answered 409 replica_foreign: Cannot sync: ...",
  );
  assert(
    describeRefusal({ status: 400, headers, body: {} }).endsWith(
      "found HTTP 400 of something else; check WORKER_URL",
    ),
  );
});
