/**
 * Ring 3. schema.json of this folder, for the commands.
 *
 * @module
 */

import { CommandError } from "./command.ts";
import { SyncError } from "../errors.ts";
import { parseSchema, type Schema, schemaHash } from "../schema.ts";

/** A schema.json that was read. */
export interface SchemaFile {
  /** The schema. */
  readonly schema: Schema;
  /** Its hash, by which source, worker and replica name it. */
  readonly hash: string;
}

/**
 * Reads schema.json of this folder.
 *
 * @returns The schema and its hash.
 * @throws {CommandError} If it cannot be used.
 */
export async function readSchemaFile(): Promise<SchemaFile> {
  try {
    const file = new URL("../../schema.json", import.meta.url);
    const schema = parseSchema(JSON.parse(await Deno.readTextFile(file)));
    return { schema, hash: await schemaHash(schema) };
  } catch (error) {
    throw new CommandError(
      error instanceof SyncError
        ? error.message
        : "Cannot read schema.json: expected a JSON file beside deno.json",
      { cause: error },
    );
  }
}
