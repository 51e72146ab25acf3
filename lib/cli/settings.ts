/**
 * Ring 3. The settings that commands read from the environment.
 *
 * Promise: what is returned was checked as the worker checks its own settings;
 * a message about them holds no secret and no URL.
 *
 * @module
 */

import { UsageError } from "./command.ts";
import { parseConfig } from "../config/config.ts";
import { SyncError } from "../errors.ts";

/** How settings are given; usage texts end with it and the command's name. */
export const SETTINGS = `Settings are read from the environment:
  PGMQ_URL           PostgreSQL, as the role that ran the migration
  WORKER_URL         the worker's address, such as https://name.bunny.run
  WEBHOOK_SIGNATURE  the secret that the worker expects
or from a file: deno task --env-file=<file> `;

/** A setting that a command may need. */
export type SettingName =
  | "PGMQ_URL"
  | "WORKER_URL"
  | "WEBHOOK_SIGNATURE"
  | "NUKE_SIGNATURE";

/** The settings that a command asked for; the others are empty. */
export interface Settings {
  /** PostgreSQL's connection string. */
  readonly pgmqUrl: string;
  /** The worker's address, without a slash at the end. */
  readonly workerUrl: string;
  /** The secrets that requests are signed with. */
  readonly secrets: readonly string[];
}

/** Valid values for settings that a command does not need. */
const UNUSED: Record<string, string> = {
  LIBSQL_URL: "http://unused",
  PGMQ_URL: "postgres://unused",
  WEBHOOK_SIGNATURE: "unused",
};

/**
 * Reads the settings that a command needs.
 *
 * @param get Reads one variable of the environment.
 * @param needs The settings' names.
 * @returns The settings.
 * @throws {UsageError} All that is missing or malformed, in one message.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const get = (name: string) => ({ WORKER_URL: "https://x.example/" })[name];
 * assertEquals(readSettings(get, ["WORKER_URL"]).workerUrl, "https://x.example");
 * ```
 */
export function readSettings(
  get: (name: string) => string | undefined,
  needs: readonly SettingName[],
): Settings {
  const isNeeded = (name: string) => needs.includes(name as SettingName);
  const isRead = (name: string) =>
    isNeeded(name) || isNeeded("PGMQ_URL") && /^PGMQ_/.test(name);
  const problems: string[] = [];
  let config;
  try {
    config = parseConfig((name) => isRead(name) ? get(name) : UNUSED[name]);
  } catch (error) {
    if (!(error instanceof SyncError)) throw error;
    problems.push(error.message.replace("Cannot use the settings: ", ""));
  }
  const workerUrl = isNeeded("WORKER_URL")
    ? parseWorkerUrl(get("WORKER_URL") ?? "", problems)
    : "";
  if (isNeeded("PGMQ_URL") && /^https?:/.test(config?.pgmqUrl ?? "")) {
    problems.push(
      "PGMQ_URL must be postgres:// here: found https://, which only the worker can use; set it to the connection string of the role that ran the migration.",
    );
  }
  if (config === undefined || problems.length > 0) {
    throw new UsageError(`Cannot use the settings: ${problems.join(" ")}`);
  }
  return {
    pgmqUrl: isNeeded("PGMQ_URL") ? config.pgmqUrl : "",
    workerUrl,
    secrets: config.nukeSecrets ??
      (isNeeded("WEBHOOK_SIGNATURE") ? config.webhookSecrets : []),
  };
}

/** Reads the worker's address; adds to the problems if it cannot be used. */
function parseWorkerUrl(text: string, problems: string[]): string {
  const address = text.trim().replace(/\/+$/, "");
  const url = URL.parse(address);
  if (
    url !== null && /^https?:$/.test(url.protocol) && url.pathname === "/" &&
    url.search + url.hash + url.username + url.password === ""
  ) return url.origin;
  problems.push(
    `WORKER_URL must be https:// or http:// and a host, without a path: found ${
      address === "" ? "nothing" : "another text"
    }; set it to the worker's address.`,
  );
  return "";
}
