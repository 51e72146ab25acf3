/**
 * Ring 3. `deno task migration`: the migration, built from supabase/sql and
 * schema.json.
 *
 * Promise: the last build in supabase/migrations is what the sources make, or
 * `--check` reports that it is not.
 *
 * @module
 */

import { SyncError } from "../errors.ts";
import { parseSchema, type Schema } from "../schema.ts";
import { RELEASE } from "../version.ts";
import {
  type Command,
  CommandError,
  parseCall,
  runCommand,
  UsageError,
} from "./command.ts";
import {
  findLastBuild,
  FOLDER,
  readBuild,
  readNames,
  readSchemaValue,
  stampAfter,
} from "./migration_files.ts";

/** What each release installed; the upgrade test runs the current build over it. */
const RELEASES = "tests/db/releases/";

const USAGE = `Usage: deno task migration [--check | --release]

Builds the last of the migrations in ${FOLDER} that hold
everything, from supabase/sql/*.sql and schema.json.

  --check    write nothing; exit 1 if the file differs from what the sources make
  --release  release the version in lib/version.ts: keep its build in
             ${RELEASES}, and write it into a new migration
             for databases that have run the earlier ones; the first release
             is the first migration`;

/** What the command works with. */
export interface MigrationTask {
  /** The folder that holds schema.json, CHANGELOG.md and supabase/. */
  readonly root: URL;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  /** Takes a line for standard output. */
  readonly print: (text: string) => void;
}

/**
 * Runs the command.
 *
 * @param args Its arguments.
 * @param task What it works with.
 * @returns Its exit code, 0.
 * @throws {UsageError} If the arguments are not as the usage says.
 * @throws {CommandError} If the build differs, is refused or cannot be made.
 */
export async function runMigration(
  args: readonly string[],
  task: MigrationTask,
): Promise<number> {
  const { flags } = parseCall(args, { check: "switch", release: "switch" });
  if ("check" in flags && "release" in flags) {
    throw new UsageError("--check and --release exclude each other");
  }
  try {
    const schema = parseSchema(await readSchemaValue(task.root));
    if ("check" in flags) await check(schema, task);
    else if ("release" in flags) await release(schema, task);
    else await build(schema, task);
    return 0;
  } catch (error) {
    if (
      error instanceof SyncError || error instanceof Deno.errors.NotFound
    ) throw new CommandError(error.message, { cause: error });
    throw error;
  }
}

async function check(schema: Schema, task: MigrationTask): Promise<void> {
  const name = findLastBuild(await readNames(task.root));
  const found = await Deno.readTextFile(new URL(FOLDER + name, task.root));
  if (found !== await readBuild(task.root, schema)) {
    throw new CommandError(
      `${FOLDER}${name} differs from what supabase/sql and schema.json make: run deno task migration and commit what it writes`,
    );
  }
  task.print(`${FOLDER}${name} is what supabase/sql and schema.json make.`);
}

async function build(schema: Schema, task: MigrationTask): Promise<void> {
  const name = findLastBuild(await readNames(task.root));
  const text = await readBuild(task.root, schema);
  await Deno.writeTextFile(new URL(FOLDER + name, task.root), text);
  task.print(`Built ${FOLDER}${name}.`);
}

async function release(
  schema: Schema,
  { root, now, print }: MigrationTask,
): Promise<void> {
  const names = await readNames(root);
  const kept = await readReleases(root);
  const suffix = `_libsql_sync_${RELEASE}.sql`;
  if (
    kept.includes(`${RELEASE}.sql.gz`) ||
    names.some((name) => name.endsWith(suffix))
  ) {
    throw new CommandError(
      `Cannot release ${RELEASE}: it is released already; raise the version in lib/version.ts`,
    );
  }
  const changelog = await Deno.readTextFile(new URL("CHANGELOG.md", root));
  if (!changelog.split("\n").some((line) => isEntry(line))) {
    throw new CommandError(
      `Cannot release ${RELEASE}: CHANGELOG.md has no entry "## [${RELEASE}]"; write what the release changes`,
    );
  }
  const text = await readBuild(root, schema);
  // Nothing was released before: a database that runs the first migration has
  // this release.
  const name = kept.length === 0
    ? findLastBuild(names)
    : stampAfter(names, now()) + suffix;
  await Deno.writeTextFile(new URL(FOLDER + name, root), text);
  await keepRelease(root, text);
  print(
    `Released ${RELEASE}: ${FOLDER}${name}, kept as ${RELEASES}${RELEASE}.sql.gz.`,
  );
}

/** Whether a line of the changelog is the heading of the release. */
function isEntry(line: string): boolean {
  return line.trim().split(" - ")[0] === `## [${RELEASE}]`;
}

async function readReleases(root: URL): Promise<string[]> {
  const names: string[] = [];
  try {
    for await (const { name } of Deno.readDir(new URL(RELEASES, root))) {
      if (name.endsWith(".sql.gz")) names.push(name);
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return names;
}

/** Compressed, so that a search of the repository finds the sources alone. */
async function keepRelease(root: URL, text: string): Promise<void> {
  await Deno.mkdir(new URL(RELEASES, root), { recursive: true });
  const stream = new Blob([text]).stream()
    .pipeThrough(new CompressionStream("gzip"));
  await Deno.writeFile(new URL(`${RELEASES}${RELEASE}.sql.gz`, root), stream);
}

/** The command. */
export const command: Command = {
  usage: USAGE,
  run: (args) =>
    runMigration(args, {
      root: new URL("../../", import.meta.url),
      now: Date.now,
      print: (text) => console.log(text),
    }),
};

if (import.meta.main) Deno.exit(await runCommand(command, Deno.args));
