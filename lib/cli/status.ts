/**
 * Ring 3. `deno task status`: how source and replica stand.
 *
 * Promise: exit code 0 only if nothing needs to be done; it stays fast with a
 * large queue, and does not ask the replica.
 *
 * @module
 */

import {
  type Command,
  CommandError,
  parseCall,
  printJson,
  runCommand,
} from "./command.ts";
import { formatStatus } from "./format_status.ts";
import { withSource } from "./query_source.ts";
import { readSchemaFile } from "./schema_file.ts";
import { readSettings, SETTINGS } from "./settings.ts";
import type { SourceStatus } from "../source/report.ts";
import { reportStatus } from "../status/status.ts";

const USAGE = `Usage: deno task status [--json]

Shows how far the replica is: lag, queue, dead letters, the open walk, the last
full pass, the schema. Exit code 1 if you have to do something; it says what.

  --json  print it as JSON

${SETTINGS}status`;

async function run(args: readonly string[]): Promise<number> {
  const { flags } = parseCall(args, { json: "switch" });
  const { pgmqUrl } = readSettings((name) => Deno.env.get(name), ["PGMQ_URL"]);
  const { hash } = await readSchemaFile();
  const row = await withSource(pgmqUrl, async (query) => {
    const [row] = await query<{ status: SourceStatus | null; now: number }>(
      "select libsql_sync.status() as status, extract(epoch from clock_timestamp())::float8 * 1000 as now",
    );
    return row!;
  });
  if (row.status === null) {
    throw new CommandError(
      "Cannot read the status: the migration did not finish; run it again",
    );
  }
  const report = reportStatus(row.status, { now: row.now, here: hash });
  if ("json" in flags) printJson(report);
  else for (const line of formatStatus(report)) console.log(line);
  return report.fine ? 0 : 1;
}

/** The command. */
export const command: Command = { usage: USAGE, run };

if (import.meta.main) Deno.exit(await runCommand(command, Deno.args));
