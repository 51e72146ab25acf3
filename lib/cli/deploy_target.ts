/**
 * Ring 3. Where a deployment goes, and how it is seen to arrive.
 *
 * Promise: it has arrived only when the worker's own address answers with its
 * version.
 *
 * @module
 */

import { CommandError, UsageError } from "./command.ts";
import type { Script } from "./deploy_api.ts";
import { healthOf } from "./deploy_bundle.ts";
import { sleep } from "./wait.ts";

/** Where a deployment goes, and how long to wait for it. */
export interface Target {
  /** The script at Bunny. */
  readonly script: Script;
  /** The worker's address. */
  readonly workerUrl: string;
  /** How long the new version may take to arrive. */
  readonly arrivalMsMax: number;
}

/** Prints one line. */
export type Print = (line: string) => void;

/** New code takes 2 to 5 s to arrive. */
export const ARRIVAL_MS_MAX = 60_000;

const POLL_MS = 500;
const NOTE = "libsql-sync ";

/**
 * Writes the note by which a release is known to be ours.
 *
 * @param version The version in the bundle.
 * @returns The note.
 */
export function noteOf(version: string): string {
  return NOTE + version;
}

/**
 * Reads the version from a release's note.
 *
 * @param note The note.
 * @returns The version; null if the release was not deployed by this command.
 */
export function versionIn(note: string): string | null {
  return note.startsWith(NOTE) ? note.slice(NOTE.length) : null;
}

/**
 * Waits until the worker's address answers with a version.
 *
 * @param target The address, and how long to wait.
 * @param options The version, and what prints a line when it has arrived.
 * @throws {CommandError} If it does not arrive in time.
 */
export async function awaitVersion(
  { workerUrl, arrivalMsMax }: Target,
  { version, print }: { version: string; print: Print },
): Promise<void> {
  const started = performance.now();
  for (;;) {
    const found = await healthOf(workerUrl);
    const ms = performance.now() - started;
    if (found === version) {
      print(
        `arrived    /health answers version ${version} after ${
          Math.round(ms)
        } ms`,
      );
      return;
    }
    if (ms > arrivalMsMax) {
      throw new CommandError(
        `Published, but not arrived: expected /health of ${
          new URL(workerUrl).host
        } to answer version ${version} within ${
          arrivalMsMax / 1000
        } s, found ${found}. Check WORKER_URL and the script's log; to go back: deno task deploy rollback`,
      );
    }
    await sleep(POLL_MS);
  }
}

/**
 * Reads from the environment how to reach the script.
 *
 * @param get Reads one variable.
 * @returns The script at Bunny.
 * @throws {UsageError} If a setting is missing or malformed.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const settings: Record<string, string> = { BUNNY_SCRIPT_ID: "7", BUNNY_ACCESS_KEY: "k" };
 * assertEquals(readScript((name) => settings[name]), {
 *   apiUrl: "https://api.bunny.net",
 *   id: "7",
 *   accessKey: "k",
 *   deploymentKey: "",
 * });
 * ```
 */
export function readScript(get: (name: string) => string | undefined): Script {
  const read = (name: string) => (get(name) ?? "").trim();
  const id = read("BUNNY_SCRIPT_ID");
  if (!/^\d{1,18}$/.test(id)) {
    throw new UsageError("BUNNY_SCRIPT_ID must be the script's number");
  }
  const accessKey = read("BUNNY_ACCESS_KEY");
  const deploymentKey = read("BUNNY_DEPLOYMENT_KEY");
  if (accessKey + deploymentKey === "") {
    throw new UsageError("Set BUNNY_DEPLOYMENT_KEY or BUNNY_ACCESS_KEY");
  }
  if (!/^[\x21-\x7e]*$/.test(accessKey + deploymentKey)) {
    throw new UsageError("A key must consist of visible ASCII characters");
  }
  // Tests set it to their stand-in.
  const apiUrl = read("BUNNY_API_URL") || "https://api.bunny.net";
  if (!URL.canParse(apiUrl)) {
    throw new UsageError("Cannot parse BUNNY_API_URL as a URL");
  }
  return { apiUrl, id, accessKey, deploymentKey };
}
