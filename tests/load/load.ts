/**
 * Ring 3. The command `deno task load`: the loads at their full size, in a table.
 *
 * @module
 */

import { type Command, parseCall, runCommand } from "../../lib/cli/command.ts";
import { formatTable } from "../../lib/cli/table.ts";
import { Servers } from "../db/support/stack.ts";
import { FULL, type Load, REDUCED, runLoads } from "./loads.ts";

const USAGE = `Usage: deno task load [--quick]

Puts large queues, rows and statements and many requests before a worker, and
prints what each load took.

  --quick  the sizes of the tests, about a minute`;

const HEADING = [
  "load",
  "requests",
  "messages",
  "calls <= 45",
  "longest s",
  "all s",
  "worker MB",
  "rows MB <= 2",
  "argument MB <= 5",
];

function rowOf({ what, measured }: Load): (string | number)[] {
  const { requests, processed, callsMax, wallMsMax, totalMs } = measured;
  const round = (value: number) => value.toFixed(2);
  return [
    what,
    requests,
    processed,
    callsMax,
    round(wallMsMax / 1000),
    round(totalMs / 1000),
    Math.round(measured.peakMb),
    round(measured.rowsMb),
    round(measured.argumentMb),
  ];
}

async function run(args: readonly string[]): Promise<number> {
  const { flags } = parseCall(args, { quick: "switch" });
  const servers = new Servers();
  const loads: Load[] = [];
  try {
    await runLoads(servers, "quick" in flags ? REDUCED : FULL, (load) => {
      loads.push(load);
      console.error(`${load.what}${load.note && `: ${load.note}`}`);
    });
  } finally {
    await servers.stop();
  }
  console.log(formatTable(HEADING, loads.map(rowOf)).join("\n"));
  return 0;
}

/** The command. */
export const command: Command = { usage: USAGE, run };

if (import.meta.main) Deno.exit(await runCommand(command, Deno.args));
