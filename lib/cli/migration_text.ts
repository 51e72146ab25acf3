/**
 * Ring 0. The text of a migration, made of the rooms in supabase/sql and of
 * schema.json.
 *
 * Promise: the same rooms, schema and release make the same text, byte for byte.
 *
 * @module
 */

import { SyncError } from "../errors.ts";
import { type Schema, schemaHash, schemaText } from "../schema.ts";

/** The line after which the build puts the statement of schema.json. */
export const BEGINS = "-- schema.json begins";
/** The line before which that statement ends. */
export const ENDS = "-- schema.json ends";

/** A file of supabase/sql. */
export interface Room {
  /** The file's name, which gives the order. */
  readonly name: string;
  /** Its text. */
  readonly text: string;
}

/** What a migration is made of. */
export interface Sources {
  /** The files of supabase/sql, in any order. */
  readonly rooms: readonly Room[];
  /** The tables to put in force. */
  readonly schema: Schema;
  /** The release that the header and the comment of schema libsql_sync name. */
  readonly release: string;
}

/**
 * Makes the text of a migration.
 *
 * @param sources The rooms in any order, the schema and the release.
 * @returns The text: a header, the rooms in the order of their names, each after
 * a line with its file, and a statement that records the release.
 * @throws {SyncError} `schema_invalid` if the rooms do not have each marker line
 * once and in order, or have something between them.
 */
export async function buildMigration(
  { rooms, schema, release }: Sources,
): Promise<string> {
  const sorted = rooms.toSorted((a, b) => a.name < b.name ? -1 : 1);
  const body = sorted.map(({ name, text }) =>
    `-- supabase/sql/${name}\n\n${text.trimEnd()}\n`
  ).join("\n");
  const lines = body.split("\n");
  if (onlyLine(lines, ENDS) > onlyLine(lines, BEGINS) + 1) {
    throw new SyncError(
      "schema_invalid",
      `Cannot build the migration: the lines between "${BEGINS}" and "${ENDS}" in supabase/sql must be empty; the build writes them`,
    );
  }
  return `-- LibSQL Sync Worker ${release}, the source's side.
--
-- Built by \`deno task migration\` from supabase/sql/ and schema.json: change
-- those and not this file.

${await writeSchema(body, schema)}
-- The release, for operators: \\dn+ in psql, or
-- select obj_description('libsql_sync'::regnamespace, 'pg_namespace')
comment on schema libsql_sync is 'LibSQL Sync Worker ${release}';
`;
}

/**
 * Puts a schema into a migration's text.
 *
 * @param migration The migration's text, which has each marker line once.
 * @param schema The schema.
 * @returns The same text, with one statement between the markers.
 * @throws {SyncError} `schema_invalid` if a marker line is missing or there more
 * than once, or if they are in the wrong order.
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

/**
 * Makes the statement that puts a schema in force.
 *
 * @param schema The schema.
 * @returns The statement, on one line.
 */
export async function configureStatement(schema: Schema): Promise<string> {
  const text = schemaText(schema);
  let tag = "$schema$";
  for (let i = 1; text.includes(tag); i++) tag = `$schema${i}$`;
  return `select libsql_sync.configure('${await schemaHash(
    schema,
  )}', ${tag}${text}${tag});`;
}

/**
 * Finds the statements of a migration that put a schema in force.
 *
 * @param migration The migration's text.
 * @returns The statements, in order.
 */
export function findConfigure(migration: string): string[] {
  return migration.split("\n").filter((line) =>
    line.startsWith("select libsql_sync.configure('")
  );
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
