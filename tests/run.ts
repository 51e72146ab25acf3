/**
 * Ring 3. The commands `deno task test` and `deno task test:long`: run a lane
 * part by part, and print a line for each.
 *
 * Promise: exit code 0 only when every test has passed and each part had some;
 * its last line has the counts of all parts.
 *
 * @module
 */

import { join } from "node:path";
import { parseArgs } from "node:util";
import { startChild } from "../lib/dev/child.ts";
import {
  type Count,
  type Lane,
  type Part,
  PARTS,
  readCount,
  sortIntoParts,
} from "./lanes.ts";

const ROOT = join(import.meta.dirname!, "..");
const LOGS = join(ROOT, ".dev/test");
const USAGE = `Usage: deno task test [--filter TEXT]
       deno task test:long [--filter TEXT]

test is for every change; test:long is the rest. One file:
deno test -A tests/db/sync_test.ts
`;

/** Folders without tests of this project. */
const SKIPPED = [".git", ".dev", "node_modules"];
/** Lines of `deno test` that are worth reading at once. */
const NEWS = /\.\.\. FAILED|has been running for over/;
/** What is printed of a part that failed without saying where its errors begin. */
const LINES_MAX = 100;

/** Finds every test file, in the order of its names. */
async function findTests(folder = ""): Promise<string[]> {
  const found: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(join(ROOT, folder))) {
    const path = folder + name;
    if (isDirectory && !SKIPPED.includes(name)) {
      found.push(...await findTests(`${path}/`));
    } else if (/_test\.[jt]sx?$/.test(name)) found.push(path);
  }
  return found.sort();
}

/** Seconds since a moment, for a person. */
function since(started: number): string {
  const seconds = Math.round((performance.now() - started) / 1000);
  const rest = String(seconds % 60).padStart(2, "0");
  return `${Math.floor(seconds / 60)}:${rest} min`;
}

/** Runs a part; all of its output goes to a file, and its errors to the terminal. */
async function runPart(
  part: Part,
  files: readonly string[],
  filter: string | undefined,
): Promise<Count & { isFine: boolean }> {
  const started = performance.now();
  const path = join(LOGS, `${part.name}.log`);
  console.log(`${part.name}: ${part.what} ...`);
  using log = await Deno.open(path, {
    create: true,
    write: true,
    truncate: true,
  });
  const encoder = new TextEncoder();
  const lines: string[] = [];
  let count: Count = { passed: 0, failed: 0 };
  const child = startChild({
    name: part.name,
    command: Deno.execPath(),
    args: [
      "test",
      ...part.flags,
      ...(filter === undefined ? [] : ["--filter", filter]),
      ...files,
      ...part.besides,
    ],
    env: { ...Deno.env.toObject(), NO_COLOR: "1" },
    cwd: ROOT,
    log: (line) => {
      log.writeSync(encoder.encode(`${line}\n`));
      lines.push(line);
      count = readCount(line) ?? count;
      if (NEWS.test(line)) console.log(`  ${line}`);
    },
  });
  const { success } = await child.ended;
  const isFine = success && (count.passed > 0 || filter !== undefined);
  if (!isFine) {
    const errors = lines.indexOf(" ERRORS ");
    for (const line of lines.slice(errors < 0 ? -LINES_MAX : errors)) {
      console.log(line);
    }
    if (count.passed === 0) console.log(`${part.name}: no test has passed`);
  }
  console.log(
    `${part.name}: ${count.passed} passed, ${count.failed} failed in ${
      since(started)
    } (all lines: .dev/test/${part.name}.log)`,
  );
  return { ...count, isFine };
}

/** Runs a lane and returns the exit code. */
async function runLane(lane: Lane, filter?: string): Promise<number> {
  const started = performance.now();
  const sorted = sortIntoParts(await findTests());
  await Deno.mkdir(LOGS, { recursive: true });
  let [passed, failed, isFine] = [0, 0, true];
  for (const part of PARTS.filter((part) => part.lane === lane)) {
    const found = await runPart(part, sorted.get(part)!, filter);
    passed += found.passed;
    failed += found.failed;
    isFine &&= found.isFine;
  }
  console.log(
    `${lane}: ${passed} passed, ${failed} failed in ${since(started)}`,
  );
  return isFine && passed > 0 && failed === 0 ? 0 : 1;
}

/** Reads the arguments; null when they make no sense. */
function parse(args: string[]): { lane: Lane; filter?: string } | null {
  try {
    const { positionals: [lane, ...more], values } = parseArgs({
      args,
      allowPositionals: true,
      options: { filter: { type: "string" } },
    });
    if (lane !== "test" && lane !== "test:long" || more.length > 0) return null;
    return { lane, filter: values.filter };
  } catch {
    return null;
  }
}

if (import.meta.main) {
  if (Deno.args.includes("--help")) {
    console.log(USAGE);
    Deno.exit(0);
  }
  const wanted = parse(Deno.args);
  if (wanted === null) {
    console.error(USAGE);
    Deno.exit(2);
  }
  Deno.exit(await runLane(wanted.lane, wanted.filter));
}
