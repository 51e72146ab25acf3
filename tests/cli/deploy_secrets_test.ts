import { assert, assertEquals, assertThrows } from "@std/assert";
import { UsageError } from "../../lib/cli/command.ts";
import { parseSecrets } from "../../lib/cli/deploy_secrets.ts";

Deno.test("parseSecrets() takes the worker's settings alone, and no empty one", () => {
  assertEquals(
    parseSecrets(`# a comment
WEBHOOK_SIGNATURE="old-hunter2-hunter2, new-hunter2-hunter2"
LIBSQL_AUTH_TOKEN=
BUNNY_DATABASE_URL=libsql://x
PORT=8000
HOME=/`),
    {
      given: {
        WEBHOOK_SIGNATURE: "old-hunter2-hunter2, new-hunter2-hunter2",
      },
      others: ["BUNNY_DATABASE_URL", "PORT", "HOME"],
    },
  );
});

Deno.test("parseSecrets() refuses what the worker or Bunny could not use, and shows no value", () => {
  const long = "x".repeat(2049);
  for (
    const [text, said] of [
      ["", "found none in the file"],
      ["AWS_SECRET_ACCESS_KEY=hunter2", "found none in the file"],
      ["PGMQ_URL=mysql://hunter2\nNUKE_SIGNATURE=n", "PGMQ_URL must be"],
      ["PGMQ_URL=https://p.example.com/rest/v1", "PGMQ_TOKEN must be a JWT"],
      [
        `NUKE_SIGNATURE=${long}`,
        "Cannot set NUKE_SIGNATURE: expected 2048 bytes at most",
      ],
    ] as const
  ) {
    const error = assertThrows(() => parseSecrets(text), UsageError);
    assert(error.message.includes(said), error.message);
    assert(!/hunter2|xxx/.test(error.message), error.message);
  }
  assertEquals(
    parseSecrets(`NUKE_SIGNATURE=${long.slice(1)}`).given.NUKE_SIGNATURE,
    long.slice(1),
  );
});
