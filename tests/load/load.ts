/**
 * Ring 3. The command `deno task load`: the loads at their full size, in a table.
 *
 * @module
 */

import { formatTable } from "../../lib/cli/table.ts";
import { Servers } from "../db/support/stack.ts";
import { FULL, type Load, REDUCED, runLoads } from "./loads.ts";

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

const servers = new Servers();
const loads: Load[] = [];
try {
  const sizes = Deno.args.includes("--quick") ? REDUCED : FULL;
  await runLoads(servers, sizes, (load) => {
    loads.push(load);
    console.error(`${load.what}${load.note && `: ${load.note}`}`);
  });
} finally {
  await servers.stop();
}
console.log(formatTable(HEADING, loads.map(rowOf)).join("\n"));
