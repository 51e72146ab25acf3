/**
 * Ring 3. `deno task backfill`: fills the replica.
 *
 * @module
 */

import { type Command, parseCall, runCommand } from "./command.ts";
import { runWalk } from "./run_walk.ts";
import { SETTINGS } from "./settings.ts";

const USAGE = `Usage: deno task backfill [--table <name>] [--json]

Walks over every row of every table and writes those that the replica lacks or
has with other values, while changes keep flowing. A new replica is filled
without this command.

  --table <name>  only this table
  --json          print the result as JSON, and no progress

${SETTINGS}backfill`;

/** The command. */
export const command: Command = {
  usage: USAGE,
  run: async (args) => {
    const { flags } = parseCall(args, { table: "text", json: "switch" });
    return await runWalk(
      { kind: "backfill", table: flags.table, repair: true },
      { isJson: "json" in flags },
    );
  },
};

if (import.meta.main) Deno.exit(await runCommand(command, Deno.args));
