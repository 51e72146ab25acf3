/**
 * Ring 3. `deno task backfill`: fills the replica, or fills it up.
 *
 * Promise: it ends when the walk it asked for is through every table;
 * interrupted, the walk goes on with the cron's syncs.
 *
 * @module
 */

import { parseCall, readSettings, runCommand, SETTINGS } from "./command.ts";
import { createWatcher, printWalk, runWalk } from "./verify.ts";

const USAGE = `Usage: deno task backfill [--table <name>] [--json]

Walks over every row of every table and writes what the replica lacks or has
otherwise, while changes keep flowing. A new replica is filled without it.

  --table <name>  one table
  --json          the result as JSON, no progress

${SETTINGS}backfill`;

async function run(args: readonly string[]): Promise<number> {
  const { flags } = parseCall(args, { table: "text", json: "switch" });
  const settings = readSettings((name) => Deno.env.get(name), [
    "PGMQ_URL",
    "WORKER_URL",
    "WEBHOOK_SIGNATURE",
  ]);
  const isJson = "json" in flags;
  const report = await runWalk(
    settings,
    { kind: "backfill", table: flags.table, repair: true },
    createWatcher({ isJson }),
  );
  return printWalk(report, { isJson });
}

if (import.meta.main) {
  Deno.exit(await runCommand({ usage: USAGE, run }, Deno.args));
}
