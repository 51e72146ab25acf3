import { assertEquals } from "@std/assert";
import { command as backfill } from "../../lib/cli/backfill.ts";
import type { Command } from "../../lib/cli/command.ts";
import { command as deploy } from "../../lib/cli/deploy.ts";
import { command as dlq } from "../../lib/cli/dlq.ts";
import { command as doctor } from "../../lib/cli/doctor.ts";
import { command as migration } from "../../lib/cli/migration.ts";
import { command as nuke } from "../../lib/cli/nuke.ts";
import { command as schema } from "../../lib/cli/schema.ts";
import { command as status } from "../../lib/cli/status.ts";
import { command as token } from "../../lib/cli/token.ts";
import { command as verify } from "../../lib/cli/verify.ts";
import { command as dev } from "../../lib/dev/dev.ts";
import deno from "../../deno.json" with { type: "json" };
import { checkFlags, runBare } from "./check_flags.ts";

const COMMANDS: Readonly<Record<string, Command>> = {
  backfill,
  deploy,
  dev,
  dlq,
  doctor,
  migration,
  nuke,
  schema,
  status,
  token,
  verify,
};

Deno.test("every task that runs a file of lib/ is checked here", () => {
  const tasks: Record<string, { command: string }> = deno.tasks;
  const names = Object.keys(tasks).filter((name) =>
    /^deno run .* lib\/(cli|dev)\/\w+\.ts$/.test(tasks[name]!.command)
  );
  assertEquals(names.sort(), Object.keys(COMMANDS));
});

for (const [name, command] of Object.entries(COMMANDS)) {
  Deno.test({
    name: `${name} parses its flags strictly, before anything else`,
    permissions: "none",
    fn: () => checkFlags(name, command),
  });
}

Deno.test({
  name: "commands refuse words and flags that do not fit together",
  permissions: "none",
  fn: async () => {
    const cases: [Command, string, said: string][] = [
      [verify, "--table", "--table needs a value"],
      [verify, "--repair --repair", "--repair is given twice"],
      [doctor, "--json=1", "--json takes no value"],
      [token, "--days 0", "--days must be a whole number from 1 to 36500"],
      [token, "--days 1.5", "--days must be a whole number from 1 to 36500"],
      [dlq, "", "expected list, show <id>, redrive or discard"],
      [dlq, "list 1", "expected list, show <id>, redrive or discard"],
      [dlq, "show", "expected list, show <id>, redrive or discard"],
      [dlq, "show 1 2", "expected list, show <id>, redrive or discard"],
      [dlq, "show 1 --yes", "expected list, show <id>, redrive or discard"],
      [dlq, "redrive --yes", "expected list, show <id>, redrive or discard"],
      [dlq, "redrive 0", "expected the id of a dead letter, found 0"],
      [dlq, "redrive all", "expected the id of a dead letter, found all"],
      [dlq, "discard", "discard expects ids, or --yes for all of them"],
      [dlq, "discard 1 --yes", "discard expects ids, or --yes for all of them"],
      [deploy, "secrets", "expected secrets <file>, rollback, or no word"],
      [deploy, "secret x", "expected secrets <file>, rollback, or no word"],
      [
        deploy,
        "rollback --dry-run",
        "expected secrets <file>, rollback, or no word",
      ],
      [deploy, "secrets a b", "unexpected argument b"],
    ];
    for (const [command, line, said] of cases) {
      const ran = await runBare(command, line.split(" ").filter(Boolean));
      assertEquals(ran, {
        code: 2,
        out: "",
        err: `${said}\n\n${command.usage}\n`,
      }, line);
    }
    const fit: [Command, string][] = [
      [dlq, "list --json"],
      [dlq, "show 7 --json"],
      [dlq, "redrive"],
      [dlq, "redrive 7 8"],
      [dlq, "discard 7"],
      [dlq, "discard --yes"],
      [deploy, "rollback"],
      [deploy, "rollback a"],
      [deploy, "secrets a"],
      [schema, "--check"],
      [nuke, "--yes --no-refill --json"],
    ];
    for (const [command, line] of fit) {
      const ran = await runBare(command, line.split(" "));
      assertEquals(ran, { code: null, out: "", err: "" }, line);
    }
  },
});
