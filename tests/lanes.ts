/**
 * Ring 0. Which lane a test file is in: its folder says so.
 *
 * @module
 */

/** A command of deno.json. */
export type Lane = "test" | "test:long";

/** Test files that are run by one `deno test`. */
export interface Part {
  readonly name: string;
  /** What it tests, for the person who waits. */
  readonly what: string;
  readonly lane: Lane;
  /** Its files are those below it; a file is in the part with the longest one. */
  readonly folder: string;
  /** The flags of `deno test`. */
  readonly flags: readonly string[];
  /** What is tested beside its files. */
  readonly besides: readonly string[];
}

// Nothing is allowed: such code and the simulation reach nothing outside.
const PURE = ["--parallel", "--sanitize-ops", "--sanitize-resources"];
const ALL = ["--parallel", "--allow-all"];

/** Every part, in the order in which the parts of a lane are run. */
export const PARTS: readonly Part[] = [
  {
    name: "pure",
    what: "code that needs no database, and the examples in docstrings",
    lane: "test",
    folder: "tests/",
    flags: [...PURE, "--doc"],
    besides: ["lib/"],
  },
  {
    name: "simulation",
    what: "1,000 random schedules with faults, and planted bugs that are found",
    lane: "test",
    folder: "tests/sim/",
    flags: PURE,
    besides: [],
  },
  {
    name: "databases",
    what: "the worker on real PostgreSQL, PGMQ and sqld",
    lane: "test",
    folder: "tests/db/",
    flags: ALL,
    besides: [],
  },
  {
    name: "long",
    what: "20,000 schedules, the oracle, attacks, load, browser, deployment",
    lane: "test:long",
    folder: "tests/long/",
    flags: ALL,
    besides: [],
  },
];

/**
 * Sorts test files into parts.
 *
 * @param paths Test files, relative to the repository.
 * @returns The files of each part of {@linkcode PARTS}, in the order given.
 * @throws {Error} When a file is in no lane.
 */
export function sortIntoParts(paths: readonly string[]): Map<Part, string[]> {
  const sorted = new Map<Part, string[]>(PARTS.map((part) => [part, []]));
  for (const path of paths) {
    const [part] = PARTS.filter(({ folder }) => path.startsWith(folder))
      .sort((a, b) => b.folder.length - a.folder.length);
    if (part === undefined) {
      throw new Error(
        `Cannot run ${path}: it is in no lane. Move it below tests/`,
      );
    }
    sorted.get(part)!.push(path);
  }
  return sorted;
}

/** What a `deno test` counted. */
export interface Count {
  readonly passed: number;
  readonly failed: number;
}

/**
 * Reads the last line of `deno test`.
 *
 * @param line Any line of its output.
 * @returns What was counted; null when it is another line.
 */
export function readCount(line: string): Count | null {
  const found = /^(?:ok|FAILED) \| (\d+) passed.* \| (\d+) failed/.exec(line);
  return found === null
    ? null
    : { passed: Number(found[1]), failed: Number(found[2]) };
}
