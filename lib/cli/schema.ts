/**
 * Ring 3. `deno task schema`: schema.json's tables, written into the migration.
 *
 * Promise: the migration configures exactly what schema.json says, or `--check`
 * tells that it does not; no other line of the migration is touched.
 *
 * @module
 */

import { SyncError } from "../errors.ts";
import { parseSchema, type Schema, schemaHash, schemaText } from "../schema.ts";

const MIGRATION =
  "supabase/migrations/20251031173352_libsql_replication_setup.sql";
const BEGINS = "-- schema.json begins";
const ENDS = "-- schema.json ends";
const USAGE = `Usage: deno task schema [--check]

Writes the tables of schema.json into ${MIGRATION},
between the lines "${BEGINS}" and "${ENDS}".

  --check  write nothing; exit 1 when the two differ
`;

/**
 * Puts a schema into a migration's text.
 *
 * @param migration The migration's text, which has each marker line once.
 * @param schema The schema.
 * @returns The same text, with one statement between the markers.
 * @throws {SyncError} `schema_invalid` when the marker lines are not there,
 * there more than once, or the wrong way round.
 */
export async function writeSchema(
  migration: string,
  schema: Schema,
): Promise<string> {
  const lines = migration.split("\n");
  const begins = onlyLine(lines, BEGINS);
  const ends = onlyLine(lines, ENDS);
  if (ends < begins) {
    throw new SyncError(
      "schema_invalid",
      `Cannot write the migration: the line "${ENDS}" comes before "${BEGINS}"`,
    );
  }
  const statement = await configureStatement(schema);
  return [...lines.slice(0, begins + 1), statement, ...lines.slice(ends)].join(
    "\n",
  );
}

async function configureStatement(schema: Schema): Promise<string> {
  const text = schemaText(schema);
  let tag = "$schema$";
  for (let i = 1; text.includes(tag); i++) tag = `$schema${i}$`;
  return `select libsql_sync.configure('${await schemaHash(
    schema,
  )}', ${tag}${text}${tag});`;
}

function onlyLine(lines: readonly string[], marker: string): number {
  const found = lines.flatMap((line, i) => line.trim() === marker ? [i] : []);
  if (found.length !== 1 || found[0] === undefined) {
    throw new SyncError(
      "schema_invalid",
      `Cannot write the migration: the line "${marker}" is expected once, and found ${found.length} times`,
    );
  }
  return found[0];
}

/** Runs the command; resolves to its exit code. */
async function main(args: readonly string[]): Promise<number> {
  if (args.some((arg) => arg !== "--check")) {
    console.error(USAGE);
    return 2;
  }
  const root = new URL("../../", import.meta.url);
  const path = new URL(MIGRATION, root);
  try {
    const schema = parseSchema(
      parseJson(await Deno.readTextFile(new URL("schema.json", root))),
    );
    const before = await Deno.readTextFile(path);
    const after = await writeSchema(before, schema);
    if (after === before) {
      console.log("The migration agrees with schema.json.");
    } else if (args.includes("--check")) {
      console.error(
        "The migration does not agree with schema.json: run `deno task schema` and commit what it writes.",
      );
      return 1;
    } else {
      await Deno.writeTextFile(path, after);
      console.log(
        `Wrote the ${schema.tables.length} tables of schema.json into ${MIGRATION}.`,
      );
    }
    return 0;
  } catch (error) {
    if (
      !(error instanceof SyncError || error instanceof Deno.errors.NotFound)
    ) throw error;
    console.error(error.message);
    return 1;
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new SyncError(
      "schema_invalid",
      `Cannot read schema.json: it is no JSON (${(error as Error).message})`,
    );
  }
}

if (import.meta.main) Deno.exit(await main(Deno.args));
