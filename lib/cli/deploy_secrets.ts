/**
 * Ring 3. `deno task deploy secrets`: sets the worker's variables.
 *
 * Promise: either every variable of the file can be used, or none is set; no
 * value is shown.
 *
 * @module
 */

import { parseEnv } from "node:util";
import { UsageError } from "./command.ts";
import { putSecret, type Script } from "./deploy_api.ts";
import type { Print } from "./deploy_target.ts";
import { parseConfig } from "../config/config.ts";
import { SyncError } from "../errors.ts";

/** Bunny's limit for a variable. */
const VALUE_BYTES_MAX = 2048;

/** The variables of an env file. */
export interface Secrets {
  /** Those that the worker reads, with their values. */
  readonly given: Readonly<Record<string, string>>;
  /** The names of all others. */
  readonly others: readonly string[];
}

/**
 * Sets the worker's variables from an env file.
 *
 * @param script The script at Bunny.
 * @param options The file's text, and what prints a line for each step.
 * @throws {UsageError} If the worker could not use one of them; none is set then.
 * @throws {CommandError} If Bunny refuses one.
 */
export async function deploySecrets(
  script: Script,
  { text, print }: { text: string; print: Print },
): Promise<void> {
  const { given, others } = parseSecrets(text);
  for (const [name, value] of Object.entries(given)) {
    await putSecret(script, { name, value });
    print(`set        ${name}`);
  }
  if (others.length > 0) {
    const names = others.filter((name) => /^\w{1,80}$/.test(name));
    print(`skipped    ${names.join(", ")}: not settings of the worker`);
  }
  print("These take effect with the next deployment: deno task deploy");
}

/**
 * Reads an env file, and checks the settings in it as the worker does.
 *
 * @param text The file's text: NAME=value, line by line.
 * @returns The variables.
 * @throws {UsageError} If the worker could not use one of them.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(parseSecrets("NUKE_SIGNATURE=n\nHOME=/\nPGMQ_URL="), {
 *   given: { NUKE_SIGNATURE: "n" },
 *   others: ["HOME"],
 * });
 * ```
 */
export function parseSecrets(text: string): Secrets {
  const known = settingNames();
  const given: Record<string, string> = {};
  const others: string[] = [];
  for (const [name, value] of Object.entries(parseEnv(text))) {
    if (!known.includes(name)) others.push(name);
    else if (value) given[name] = value;
  }
  checkGiven(given);
  return { given, others };
}

/** The variables the worker reads, except those that Bunny or a port sets. */
function settingNames(): string[] {
  const names = new Set<string>();
  try {
    parseConfig((name) => void names.add(name));
  } catch (error) {
    if (!(error instanceof SyncError)) throw error;
  }
  return [...names].filter((name) => !/^(BUNNY_.*|PORT)$/.test(name));
}

/** Valid values for settings that the file does not change. */
const UNCHANGED: Record<string, string> = {
  LIBSQL_URL: "http://unchanged",
  PGMQ_URL: "postgres://unchanged",
  WEBHOOK_SIGNATURE: "unchanged",
};

function checkGiven(given: Readonly<Record<string, string>>): void {
  if (Object.keys(given).length === 0) {
    throw new UsageError(
      "Cannot set variables: expected settings of the worker, found none in the file",
    );
  }
  try {
    parseConfig((name) => given[name] ?? UNCHANGED[name]);
  } catch (error) {
    if (!(error instanceof SyncError)) throw error;
    throw new UsageError(error.message);
  }
  for (const [name, value] of Object.entries(given)) {
    if (new TextEncoder().encode(value).length > VALUE_BYTES_MAX) {
      throw new UsageError(
        `Cannot set ${name}: expected ${VALUE_BYTES_MAX} bytes at most`,
      );
    }
  }
}
