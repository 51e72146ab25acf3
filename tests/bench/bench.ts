/**
 * Ring 3. Measures the worker against the plain algorithm and the physical
 * limit, side by side on the real local stack.
 *
 * Promise: a contender that leaves its replica unequal fails the run.
 *
 * @module
 */

import { childrenOf, killAll } from "../../lib/dev/process_tree.ts";
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
 * @param options What, how large, and where progress is told.
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

/** What the command was asked for; null when it makes no sense. */
function parseArguments(args: readonly string[]) {
  let sizes = FULL;
  let isJson = false;
  let names: string[] | null = null;
  for (let at = 0; at < args.length; at++) {
    const argument = args[at]!;
    if (argument === "--quick") sizes = QUICK;
    else if (argument === "--json") isJson = true;
    else if (argument === "--only" && at + 1 < args.length) {
      names = args[++at]!.split(",");
    } else return null;
  }
  const isNamed = (name: string) =>
    PARTS.some((part) => part.name === name || part.keys.includes(name));
  if (names !== null && !names.every(isNamed)) return null;
  const parts = PARTS.filter(({ name, keys }) =>
    names === null ||
    names.some((wanted) => wanted === name || keys.includes(wanted))
  );
  return { sizes, isJson, parts };
}

/** Numbers for programs, without digits that mean nothing. */
const rounded = (_: string, value: unknown) =>
  typeof value === "number" && !Number.isInteger(value)
    ? Number(value.toPrecision(4))
    : value;

const SIGNALS = ["SIGINT", "SIGTERM"] as const;

/** Ends what this process started: a Ctrl-C in the terminal reaches us alone. */
async function endChildren(): Promise<void> {
  const children = await childrenOf(Deno.pid);
  const theirs = await Promise.all(children.map(childrenOf));
  await killAll([...children, ...theirs.flat()]);
}

async function main(args: readonly string[]): Promise<number> {
  const wanted = parseArguments(args);
  if (wanted === null) {
    console.error(
      `deno task bench [--quick] [--json] [--only NAME[,NAME]]\nNames: ${
        PARTS.flatMap(({ name, keys }) => [name, ...keys])
          .filter((name, at, all) => all.indexOf(name) === at).join(", ")
      }`,
    );
    return 2;
  }
  const { sizes, isJson, parts } = wanted;
  const started = performance.now();
  const seconds = () => Math.round((performance.now() - started) / 1000);
  const log = (line: string) =>
    console.error(`${String(seconds()).padStart(4)} s  ${line}`);
  const loadBefore = Deno.loadavg().map(round);
  let isInterrupted = false;
  const onInterrupt = () => {
    isInterrupted = true;
    for (const signal of SIGNALS) {
      Deno.removeSignalListener(signal, onInterrupt);
    }
    // Without them the run fails, and cleans up.
    endChildren();
  };
  for (const signal of SIGNALS) Deno.addSignalListener(signal, onInterrupt);
  let result: Result;
  try {
    result = await runBench({ parts, sizes, log });
  } catch (error) {
    if (isInterrupted) return 130;
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

if (import.meta.main) Deno.exit(await main(Deno.args));
