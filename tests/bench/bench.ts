/**
 * Ring 3. Measures the worker against the plain algorithm and the physical
 * limit, side by side on the real local stack.
 *
 * Promise: a contender that leaves its replica unequal fails the run.
 *
 * @module
 */

import {
  type Command,
  parseCall,
  runCommand,
  UsageError,
} from "../../lib/cli/command.ts";
import { oneLine } from "../../lib/cli/table.ts";
import { ALONE } from "./alone.ts";
import { BUNDLE } from "./bundle.ts";
import { CALLS } from "./calls.ts";
import { CAPTURE_BULK } from "./capture_bulk.ts";
import { CAPTURE_SINGLE } from "./capture_single.ts";
import { CLAIM } from "./claim.ts";
import { DRAINS } from "./drain.ts";
import { FILL } from "./fill.ts";
import { GOALS, type Part } from "./found.ts";
import { Lab } from "./lab.ts";
import { LAG } from "./lag.ts";
import { MEMORY } from "./memory.ts";
import { round, table } from "./report.ts";
import { FULL, QUICK, type Sizes } from "./sizes.ts";
import { WAN } from "./wan.ts";

/** Every part, in the order they run. */
export const PARTS: readonly Part[] = [
  BUNDLE,
  ...DRAINS,
  ALONE,
  CALLS,
  WAN,
  MEMORY,
  CLAIM,
  FILL,
  CAPTURE_BULK,
  ...CAPTURE_SINGLE,
  LAG,
];

/** What a bench found. */
export interface Result {
  readonly figures: Record<string, number>;
  readonly details: Record<string, unknown>;
  readonly cost: Record<string, number>;
}

/**
 * Runs parts of the bench.
 *
 * @param options The parts, their sizes, and what prints progress.
 * @returns The figures and what they come from.
 * @throws {Error} When a contender fails, or leaves its replica unequal.
 */
export async function runBench(
  options: {
    parts: readonly Part[];
    sizes: Sizes;
    log: (line: string) => void;
  },
): Promise<Result> {
  const { parts, sizes, log } = options;
  const found: Record<string, number> = {};
  const details: Record<string, unknown> = {};
  const cost: Record<string, number> = {};
  await using lab = new Lab(log);
  for (const part of parts) {
    const one = await part.run(lab, { sizes, log });
    details[part.name] = one.details;
    Object.assign(cost, one.cost);
    for (const [key, value] of Object.entries(one.figures)) {
      found[key] = Math.max(value, found[key] ?? -Infinity);
    }
  }
  const figures = Object.fromEntries(
    Object.keys(GOALS).filter((key) => key in found).map((
      key,
    ) => [key, found[key]!]),
  );
  return { figures, details, cost };
}

/** The names that --only takes. */
const NAMES = [
  ...new Set(PARTS.flatMap(({ name, keys }) => [name, ...keys])),
];

const USAGE = `Usage: deno task bench [--quick] [--json] [--only NAME[,NAME]]

Measures the worker against the plain algorithm and the physical limit, side by
side on real databases.

  --quick        small sizes, under a minute
  --json         print one line of JSON and no table
  --only NAME    only these parts: ${NAMES.join(", ")}`;

function parseArguments(args: readonly string[]) {
  const { flags } = parseCall(args, {
    quick: "switch",
    json: "switch",
    only: "text",
  });
  const wanted = flags.only?.split(",") ?? NAMES;
  const unknown = wanted.find((name) => !NAMES.includes(name));
  if (unknown !== undefined) {
    throw new UsageError(`--only does not know ${oneLine(unknown, 40)}`);
  }
  return {
    sizes: "quick" in flags ? QUICK : FULL,
    isJson: "json" in flags,
    parts: PARTS.filter(({ name, keys }) =>
      [name, ...keys].some((each) => wanted.includes(each))
    ),
  };
}

/** Numbers for programs, without digits that mean nothing. */
const rounded = (_: string, value: unknown) =>
  typeof value === "number" && !Number.isInteger(value)
    ? Number(value.toPrecision(4))
    : value;

async function main(args: readonly string[]): Promise<number> {
  const { sizes, isJson, parts } = parseArguments(args);
  const started = performance.now();
  const seconds = () => Math.round((performance.now() - started) / 1000);
  const log = (line: string) =>
    console.error(`${String(seconds()).padStart(4)} s  ${line}`);
  const loadBefore = Deno.loadavg().map(round);
  let result: Result;
  try {
    result = await runBench({ parts, sizes, log });
  } catch (error) {
    console.error(error);
    return 1;
  }
  const { figures, details, cost } = result;
  if (!isJson) {
    for (const line of table(figures)) console.log(line);
    for (const [what, value] of Object.entries(cost)) {
      console.log(`${what}: ${round(value)}`);
    }
  }
  const machine = {
    cores: navigator.hardwareConcurrency,
    memory_mb: Math.round(Deno.systemMemoryInfo().total / 1_048_576),
    load_before: loadBefore,
    load_after: Deno.loadavg().map(round),
    os: Deno.build.target,
    deno: Deno.version.deno,
  };
  console.log(JSON.stringify(
    { ...figures, cost, details, machine, sizes, seconds: seconds() },
    rounded,
  ));
  return 0;
}

/** The command. */
export const command: Command = { usage: USAGE, run: main };

if (import.meta.main) Deno.exit(await runCommand(command, Deno.args));
