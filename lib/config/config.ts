/**
 * Ring 0. The settings, read from the environment by a function handed in.
 *
 * Promise: what is returned can be used as it is; the problems are reported in
 * one message, a sentence for each setting, which shows no secret and no URL.
 *
 * @module
 */

import { SyncError } from "../errors.ts";
import { foundScheme, lengthOf, type Report } from "./found.ts";
import { type LibsqlSettings, parseLibsql } from "./replica.ts";
import { parseSecrets } from "./secrets.ts";
import { parsePgmq, type PgmqSettings } from "./source.ts";

/** The worker's settings. */
export interface Config extends LibsqlSettings, PgmqSettings {
  /** The secrets a webhook may use: one, or an old and a new one. */
  readonly webhookSecrets: readonly string[];
  /** Those for /nuke alone; null if the webhook's secrets are valid for it too. */
  readonly nukeSecrets: readonly string[] | null;
  /** The address that alerts are posted to; empty if none are sent. */
  readonly alertWebhookUrl: string;
  /** The port to listen on; 0 lets the system choose. */
  readonly port: number;
}

/** Reads one variable of the environment. */
export type GetSetting = (name: string) => string | undefined;

const PORT_DEFAULT = 8000;

/**
 * Reads and checks the settings.
 *
 * An empty variable counts as one that is not set. {@linkcode parseLibsql} and
 * {@linkcode parsePgmq} say which of a side's settings are read.
 *
 * @param get Reads one variable of the environment.
 * @returns The settings.
 * @throws {SyncError} `config_invalid`, with a sentence for each problem.
 *
 * @example
 * ```ts
 * import { assertEquals, assertThrows } from "@std/assert";
 *
 * const settings: Record<string, string> = {
 *   LIBSQL_URL: "libsql://replica.example.com",
 *   LIBSQL_AUTH_TOKEN: "token",
 *   PGMQ_URL: "postgres://worker:password@source.example.com:5432/postgres",
 *   WEBHOOK_SIGNATURE: "secret",
 * };
 * const config = parseConfig((name) => settings[name]);
 * assertEquals(config.libsqlUrl, "https://replica.example.com");
 * assertThrows(() => parseConfig(() => undefined), Error, "PGMQ_URL must be");
 * ```
 */
export function parseConfig(get: GetSetting): Config {
  const problems: string[] = [];
  const report: Report = (problem) => void problems.push(problem);
  const read = (name: string) => get(name) ?? "";
  const config = {
    ...parseLibsql(read, report),
    ...parsePgmq(read, report),
    webhookSecrets: parseSecrets("WEBHOOK_SIGNATURE", read, report),
    nukeSecrets: read("NUKE_SIGNATURE") === ""
      ? null
      : parseSecrets("NUKE_SIGNATURE", read, report),
    alertWebhookUrl: parseAlertUrl(read("ALERT_WEBHOOK_URL").trim(), report),
    port: parsePort(read("PORT").trim(), report),
  };
  if (problems.length > 0) {
    throw new SyncError(
      "config_invalid",
      `Cannot use the settings: ${problems.join(" ")}`,
    );
  }
  return config;
}

function parseAlertUrl(text: string, report: Report): string {
  const url = URL.parse(text);
  if (
    text === "" ||
    url !== null && /^https?:$/.test(url.protocol) && url.username === "" &&
      url.password === ""
  ) return text;
  report(
    `ALERT_WEBHOOK_URL must be https:// or http:// and a host, without a user: found ${
      foundScheme(text)
    }; leave it out to send no alerts.`,
  );
  return "";
}

function parsePort(text: string, report: Report): number {
  if (text === "") return PORT_DEFAULT;
  const port = /^[0-9]{1,5}$/.test(text) ? Number(text) : Infinity;
  if (port > 65535) {
    report(
      `PORT must be a whole number from 0 to 65535: found ${
        lengthOf(text)
      }; leave it out for ${PORT_DEFAULT}.`,
    );
  }
  return port;
}
