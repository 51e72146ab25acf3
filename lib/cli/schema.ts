/**
 * Ring 3. `deno task schema`: schema.json, written from PostgreSQL's catalog,
 * and its tables, put into the migrations.
 *
 * Promise: the migrations configure exactly what schema.json says, or `--check`
 * reports that they do not.
 *
 * @module
 */

import { SyncError } from "../errors.ts";
import { parseSchema, type Schema, schemaHash } from "../schema.ts";
import { findDifferences } from "./catalog_differences.ts";
import { type CatalogTable, refusalOf, tableValue } from "./catalog_table.ts";
import { type Command, runCommand, UsageError } from "./command.ts";
import { formatJson } from "./format_json.ts";
import {
  findLastBuild,
  FOLDER,
  type Listed,
  readBuild,
  readLists,
  readNames,
  readSchemaValue,
  stampAfter,
} from "./migration_files.ts";
import { configureStatement, writeSchema } from "./migration_text.ts";

const USAGE = `Usage: deno task schema [--from postgres TABLE...] [--migration]
       deno task schema --check

Builds the migration in ${FOLDER}, as deno task migration does,
with the tables of schema.json.

  --from postgres TABLE...  first write these tables into schema.json, as
                            PostgreSQL's catalog has them: all columns, the key,
                            the plain indexes; other tables stay as they are
  --migration               also write a new migration with the tables alone, for
                            a database that has the other ones already
  --check                   write nothing; exit 1 when schema.json and the
                            migrations differ, and with PGMQ_URL also when
                            PostgreSQL's tables or the schema in force do

  PGMQ_URL                  where PostgreSQL is
`;

/** What the command was asked to do. */
export interface SchemaOptions {
  /** The tables to read from the catalog; null where none was asked for. */
  readonly from: readonly string[] | null;
  /** Whether nothing is written, and differences are reported. */
  readonly check: boolean;
  /** Whether a new migration with the tables alone is written. */
  readonly migration: boolean;
}

/** What the command works with. */
export interface SchemaTask {
  /** The folder that holds schema.json and supabase/. */
  readonly root: URL;
  /** Where PostgreSQL is, if it is needed. */
  readonly pgmqUrl: string | undefined;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  /** Takes a line for standard output. */
  readonly print: (text: string) => void;
  /** Takes a line for standard error. */
  readonly printError: (text: string) => void;
}

/** schema.json's value. */
export interface SchemaValue {
  /** Its tables by name. */
  tables: Record<string, unknown>;
}

/**
 * Reads the command's arguments.
 *
 * @param args The arguments.
 * @returns What is asked for; null where it is not understood.
 */
export function parseSchemaArgs(args: readonly string[]): SchemaOptions | null {
  let from: string[] | null = null;
  const flags = new Set<string>();
  for (let i = 0; i < args.length; i++) {
    const arg = args[i]!;
    if (arg === "--from" && from === null && args[i + 1] === "postgres") {
      from = [];
      i++;
    } else if (/^--(check|migration)$/.test(arg) && !flags.has(arg)) {
      flags.add(arg);
    } else if (from !== null && !arg.startsWith("-") && !from.includes(arg)) {
      from.push(arg);
    } else return null;
  }
  const check = flags.has("--check");
  const migration = flags.has("--migration");
  if (from?.length === 0 || (check && (migration || from !== null))) {
    return null;
  }
  return { from, check, migration };
}

/**
 * Puts tables of the catalog into schema.json's value: in the place of those of
 * the same name, or after all others, by name.
 *
 * @param before schema.json's value.
 * @param tables The tables' values by name.
 * @returns The new value.
 */
export function mergeTables(
  before: SchemaValue,
  tables: Record<string, unknown>,
): SchemaValue {
  const merged = { ...before.tables };
  for (const name of Object.keys(tables).sort()) merged[name] = tables[name];
  return { ...before, tables: merged };
}

/**
 * Runs the command.
 *
 * @param args Its arguments.
 * @param task What it works with.
 * @returns Its exit code: 0 fine, 1 different or failed, 2 not understood.
 */
export async function runSchema(
  args: readonly string[],
  task: SchemaTask,
): Promise<number> {
  const options = parseSchemaArgs(args);
  if (options === null) {
    task.printError(USAGE);
    return 2;
  }
  if (options.from !== null && !task.pgmqUrl) {
    task.printError(`--from postgres expects PGMQ_URL.\n\n${USAGE}`);
    return 2;
  }
  try {
    if (options.from !== null) await readFrom(options.from, task);
    const schema = parseSchema(await readSchemaValue(task.root));
    if (options.check) return await check(schema, task);
    if (options.migration) await writeMigration(schema, task);
    else await writeBuild(schema, task);
    return 0;
  } catch (error) {
    if (
      !(error instanceof SyncError || error instanceof Deno.errors.NotFound)
    ) throw error;
    task.printError(error.message);
    return 1;
  }
}

/** Writes tables of the catalog into schema.json, all of them or none. */
async function readFrom(
  names: readonly string[],
  task: SchemaTask,
): Promise<void> {
  const { readCatalog } = await import("./catalog.ts");
  const before = await readSchemaValue(task.root).catch((error) => {
    if (error instanceof Deno.errors.NotFound) return { tables: {} };
    throw error;
  }) as SchemaValue;
  if (typeof before?.tables !== "object") parseSchema(before);
  const { tables } = await readCatalog(task.pgmqUrl!, names);
  const isFit = (table: CatalogTable) => refusalOf(table) === null;
  const fit = tables.filter(isFit);
  const after = mergeTables(
    before,
    Object.fromEntries(fit.map((table) => [table.name, tableValue(table)])),
  );
  const problems = tables.filter((table) => !isFit(table))
    .map((table) => `table ${JSON.stringify(table.name)} ${refusalOf(table)}`);
  const refused = problems.length === 0 || fit.length > 0
    ? problemOf(() => parseSchema(after))
    : [];
  if (problems.length + refused.length > 0) {
    throw new SyncError(
      "schema_invalid",
      `Cannot write schema.json: ${[...problems, ...refused].join("; ")}`,
    );
  }
  const text = formatJson(after);
  const path = new URL("schema.json", task.root);
  const old = await Deno.readTextFile(path).catch(() => "");
  if (text === old) {
    task.print("schema.json has these tables as PostgreSQL has them.");
    return;
  }
  await Deno.writeTextFile(path, text);
  for (const { name, columns } of fit) {
    task.print(describe(name, columns.map(({ name }) => name), before));
  }
}

/** What a new reading brought, as every column listed leaves PostgreSQL. */
function describe(
  name: string,
  columns: readonly string[],
  before: SchemaValue,
): string {
  const { columns: known } = (before.tables[name] ?? {}) as {
    columns?: Record<string, string>;
  };
  if (known === undefined) {
    return `schema.json: ${name} added, with ${columns.join(", ")}`;
  }
  const added = columns.filter((column) => !(column in known));
  const gone = Object.keys(known).filter((column) => !columns.includes(column));
  return `schema.json: ${name} read again${
    added.length > 0 ? `; new: ${added.join(", ")}` : ""
  }${gone.length > 0 ? `; gone: ${gone.join(", ")}` : ""}`;
}

/** Why schema.json's value cannot be used, without the heading. */
function problemOf(parse: () => void): string[] {
  try {
    parse();
    return [];
  } catch (error) {
    if (!(error instanceof SyncError)) throw error;
    return [error.message.replace("Cannot use schema.json: ", "")];
  }
}

/** Says where schema.json, the migrations and PostgreSQL differ. */
async function check(schema: Schema, task: SchemaTask): Promise<number> {
  const found: string[] = [];
  if (!await agrees(schema, task)) {
    found.push(
      "The migrations do not agree with schema.json: run `deno task schema`, or `deno task schema --migration` if they are deployed, and commit what it writes.",
    );
  }
  if (task.pgmqUrl) {
    const { readCatalog } = await import("./catalog.ts");
    const names = schema.tables.map(({ name }) => name);
    const catalog = await readCatalog(task.pgmqUrl, names);
    found.push(
      ...findDifferences(schema, catalog.tables).map((text) =>
        `PostgreSQL differs from schema.json: ${text}.`
      ),
    );
    const { installed, mayReadInstalled } = catalog;
    if (!mayReadInstalled) {
      found.push(
        "PostgreSQL does not tell which schema.json is in force: this role may not read libsql_sync.schemas; let PGMQ_URL name its owner.",
      );
    } else if (installed === null) {
      found.push(
        "PostgreSQL has no schema.json in force: run the migrations.",
      );
    } else if (installed !== await schemaHash(schema)) {
      found.push(
        "PostgreSQL has another schema.json in force: run the migrations.",
      );
    }
  }
  for (const text of found) task.printError(text);
  if (found.length > 0) return 1;
  task.print(
    task.pgmqUrl
      ? "The migrations and PostgreSQL agree with schema.json."
      : "The migrations agree with schema.json.",
  );
  return 0;
}

/** Whether the last build and the last list that runs are schema.json's. */
async function agrees(schema: Schema, { root }: SchemaTask): Promise<boolean> {
  const build = findLastBuild(await readNames(root));
  const text = await Deno.readTextFile(new URL(FOLDER + build, root));
  const newest = (await readLists(root)).at(-1);
  return newest?.statement === await configureStatement(schema) &&
    await writeSchema(text, schema) === text;
}

/** The last list that runs, if it runs after the build. */
async function readLater(
  build: string,
  { root }: SchemaTask,
): Promise<Listed | undefined> {
  const newest = (await readLists(root)).at(-1);
  return newest !== undefined && newest.name > build ? newest : undefined;
}

/** Builds the migration with the tables. */
async function writeBuild(schema: Schema, task: SchemaTask): Promise<void> {
  const name = findLastBuild(await readNames(task.root));
  const later = await readLater(name, task);
  if (
    later !== undefined && later.statement !== await configureStatement(schema)
  ) {
    throw new SyncError(
      "schema_invalid",
      `Cannot write the tables into ${FOLDER}${name}: ${later.name} runs after it, with a list of its own; run deno task schema --migration`,
    );
  }
  const path = new URL(FOLDER + name, task.root);
  const before = await Deno.readTextFile(path);
  const after = await readBuild(task.root, schema);
  if (after === before) {
    task.print(`${FOLDER}${later?.name ?? name} agrees with schema.json.`);
    return;
  }
  await Deno.writeTextFile(path, after);
  task.print(
    `Wrote the ${schema.tables.length} tables of schema.json into ${FOLDER}${name}.`,
  );
}

/**
 * Writes a migration with the tables alone. The build gets them too: a database
 * that has this file on record may still run a later release's build.
 */
async function writeMigration(schema: Schema, task: SchemaTask): Promise<void> {
  const newest = (await readLists(task.root)).at(-1);
  const statement = await configureStatement(schema);
  if (newest?.statement === statement) {
    throw new SyncError(
      "schema_invalid",
      `Cannot write a migration: nothing has changed since ${FOLDER}${newest.name}; if a database ran that one before it was changed, put back its old text first`,
    );
  }
  const names = await readNames(task.root);
  const build = findLastBuild(names);
  const built = await readBuild(task.root, schema);
  const name = `${stampAfter(names, task.now())}_libsql_sync_schema.sql`;
  const text = `-- LibSQL Sync Worker: the tables of schema.json, put in force.
--
-- What:  libsql_sync.configure() takes this list in the place of the one before,
--        and attaches the triggers of its tables.
-- Locks: SHARE ROW EXCLUSIVE on each table whose triggers are made, 3 s at most;
--        only where they are missing or differ.
-- Again: safe to run again, and twice at once.
-- Undo:  put back the schema.json before this one, then run
--        deno task schema --migration

${statement}
`;
  await Deno.writeTextFile(new URL(FOLDER + name, task.root), text, {
    createNew: true,
  });
  await Deno.writeTextFile(new URL(FOLDER + build, task.root), built);
  task.print(
    `Wrote the ${schema.tables.length} tables of schema.json into ${FOLDER}${name} and ${FOLDER}${build}.`,
  );
}

/** The command. */
export const command: Command = {
  usage: USAGE,
  run: async (args) => {
    if (parseSchemaArgs(args) === null) {
      throw new UsageError("the arguments are not as the usage says");
    }
    return await runSchema(args, {
      root: new URL("../../", import.meta.url),
      pgmqUrl: Deno.env.get("PGMQ_URL"),
      now: Date.now,
      print: (text) => console.log(text),
      printError: (text) => console.error(text),
    });
  },
};

if (import.meta.main) Deno.exit(await runCommand(command, Deno.args));
