/**
 * Ring 3. The files in supabase/migrations, and what they are made of.
 *
 * A build is a file with all of supabase/sql: the first migration, and one for
 * each release since. Only the last build is written again. The earlier ones are
 * on record in databases, which skip them, and stay as they are. So the last
 * build always runs after the others and does everything.
 *
 * Other files put a schema.json in force, and nothing else.
 *
 * Promise: the last build is made of the sources alone.
 *
 * @module
 */

import { SyncError } from "../errors.ts";
import type { Schema } from "../schema.ts";
import { RELEASE } from "../version.ts";
import { buildMigration, findConfigure, type Room } from "./migration_text.ts";

/** The folder of the migrations. */
export const FOLDER = "supabase/migrations/";
const SOURCES = "supabase/sql/";
/** The migration that a database runs first. */
const FIRST = "20251031173352_libsql_replication_setup.sql";
const RELEASED = /^\d{14}_libsql_sync_(\d+\.\d+\.\d+)\.sql$/;

/** A list of tables in a migration. */
export interface Listed {
  /** The file's name. */
  readonly name: string;
  /** The statement that puts it in force. */
  readonly statement: string;
}

/**
 * Reads the names of the migrations.
 *
 * @param root The folder that holds supabase/.
 * @returns The names, in the order in which the files run.
 */
export async function readNames(root: URL): Promise<string[]> {
  return await readFolder(new URL(FOLDER, root), ".sql");
}

/**
 * Finds the last build, which `deno task migration` writes.
 *
 * @param names The names of the migrations, in order.
 * @returns The build's name.
 * @throws {SyncError} `schema_invalid` if it is the build of another release.
 */
export function findLastBuild(names: readonly string[]): string {
  const last = names.findLast((name) => RELEASED.test(name)) ?? FIRST;
  const release = RELEASED.exec(last)?.[1] ?? RELEASE;
  if (release !== RELEASE) {
    throw new SyncError(
      "schema_invalid",
      `Cannot build ${FOLDER}${last}: it is the build of ${release}, and lib/version.ts says ${RELEASE}; run deno task migration --release`,
    );
  }
  return last;
}

/**
 * Builds the migration from the files of supabase/sql.
 *
 * @param root The folder that holds supabase/.
 * @param schema The schema to put in force.
 * @returns The migration's text.
 * @throws {SyncError} `schema_invalid` if the files cannot be built.
 */
export async function readBuild(root: URL, schema: Schema): Promise<string> {
  const folder = new URL(SOURCES, root);
  const rooms: Room[] = [];
  for (const name of await readFolder(folder, ".sql")) {
    const text = await Deno.readTextFile(new URL(name, folder));
    rooms.push({ name, text });
  }
  return await buildMigration({ rooms, schema, release: RELEASE });
}

/**
 * Reads every list of tables in the migrations.
 *
 * @param root The folder that holds supabase/.
 * @returns The lists, in the order in which they are put in force.
 */
export async function readLists(root: URL): Promise<Listed[]> {
  const lists: Listed[] = [];
  for (const name of await readNames(root)) {
    const text = await Deno.readTextFile(new URL(FOLDER + name, root));
    lists.push(
      ...findConfigure(text).map((statement) => ({ name, statement })),
    );
  }
  return lists;
}

/**
 * Reads schema.json.
 *
 * @param root The folder that holds it.
 * @returns Its value.
 * @throws {SyncError} `schema_invalid` if it is not JSON.
 */
export async function readSchemaValue(root: URL): Promise<unknown> {
  const text = await Deno.readTextFile(new URL("schema.json", root));
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new SyncError(
      "schema_invalid",
      `Cannot read schema.json: it is no JSON (${(error as Error).message})`,
    );
  }
}

/**
 * Makes the stamp of a new migration: the time in UTC, or later if a migration
 * has that time already.
 *
 * @param names The names of the migrations, in order.
 * @param nowMs Milliseconds since 1970.
 * @returns 14 digits, after those of every migration.
 */
export function stampAfter(names: readonly string[], nowMs: number): string {
  const stampOf = (ms: number) =>
    new Date(ms).toISOString().replace(/\D/g, "").slice(0, 14);
  const newest = names.map((name) => name.slice(0, 14)).at(-1) ?? "";
  const parts = /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)$/.exec(newest);
  if (parts === null || stampOf(nowMs) > newest) return stampOf(nowMs);
  const [year, month, day, hour, minute, second] = parts.slice(1).map(Number);
  return stampOf(
    Date.UTC(year!, month! - 1, day!, hour!, minute!, second! + 1),
  );
}

/** The names of a folder's files, sorted. */
async function readFolder(folder: URL, end: string): Promise<string[]> {
  const names: string[] = [];
  for await (const { name } of Deno.readDir(folder)) {
    if (name.endsWith(end)) names.push(name);
  }
  return names.sort();
}
