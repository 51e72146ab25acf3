/**
 * Ring 3. `deno task verify`: compares every cell of the replica, and repairs.
 *
 * @module
 */

import { type Command, parseCall, runCommand } from "./command.ts";
import { runWalk } from "./run_walk.ts";
import { SETTINGS } from "./settings.ts";

const USAGE = `Usage: deno task verify [--table <name>] [--repair] [--json]

Compares every cell of every table, source with replica, while both are in use.
Exit code 1 if they differ.

  --table <name>  only this table
  --repair        repair what differs; then exit code 0
  --json          print the result as JSON, and no progress

${SETTINGS}verify`;

/** The command. */
export const command: Command = {
  usage: USAGE,
  run: async (args) => {
    const { flags } = parseCall(args, {
      table: "text",
      repair: "switch",
      json: "switch",
    });
    return await runWalk(
      { kind: "verify", table: flags.table, repair: "repair" in flags },
      { isJson: "json" in flags },
    );
  },
};

if (import.meta.main) Deno.exit(await runCommand(command, Deno.args));
