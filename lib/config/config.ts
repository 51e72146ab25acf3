/**
 * Ring 0. The settings, read from the environment by a function handed in.
 *
 * Promise: what is returned can be used as it is; what cannot be is told in one
 * message, a sentence for each setting, which shows no secret and no URL.
 *
 * @module
 */

import { foundScheme, lengthOf, type Report, schemeOf } from "./found.ts";
import { parsePgmq } from "./source.ts";
import { SyncError } from "../errors.ts";

/** The worker's settings. */
export interface Config {
  /** Where libSQL is, by http: or https:, without a slash at the end. */
  readonly libsqlUrl: string;
  /** The token for libSQL; empty where a local sqld asks for none. */
  readonly libsqlAuthToken: string;
  /** How large the replica may be, in MB of 1,048,576 bytes. */
  readonly libsqlMaxMb: number;
  /** PostgreSQL's connection string, or PostgREST's address without a slash at the end. */
  readonly pgmqUrl: string;
  /** The secrets a webhook may use: one, or an old and a new one. */
  readonly webhookSecrets: readonly string[];
  /** Those for /nuke alone; without them the webhook's are good for it too. */
  readonly nukeSecrets: readonly string[] | null;
  /** The key of the gateway before PostgREST; empty where there is none. */
  readonly pgmqApiKey: string;
  /** The JWT for PostgREST; empty for a connection string. */
  readonly pgmqToken: string;
  /** PEM of the CA that PostgreSQL's certificate is verified by; empty for the well-known ones. */
  readonly pgmqCa: string;
  /** Where alerts are posted; empty where nobody is told. */
  readonly alertWebhookUrl: string;
  /** The port to listen on; 0 lets the system choose. */
  readonly port: number;
}

/** Reads one variable of the environment. */
export type GetSetting = (name: string) => string | undefined;

const PORT_DEFAULT = 8000;
/** Of two secrets each must have as many, so that no long one is split by accident. */
const SECRET_LENGTH_MIN = 16;
/** What a Bunny Database may hold. */
const LIBSQL_MAX_MB_DEFAULT = 1024;
/**
 * Reads and checks the settings.
 *
 * LIBSQL_URL and LIBSQL_AUTH_TOKEN are one pair, BUNNY_DATABASE_URL and
 * BUNNY_DATABASE_AUTH_TOKEN, which a linked Bunny database sets, the other. The
 * second is used when LIBSQL_URL is not set, and then as a pair: the token of
 * one database is never sent to another. Only where both URLs name the same
 * database is the token of the second pair used for want of the first's.
 *
 * An empty variable counts as one that is not set. PGMQ_API_KEY and PGMQ_TOKEN
 * are read where PGMQ_URL is https://, PGMQ_CA where it is not.
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
    libsqlMaxMb: parseLibsqlMaxMb(read("LIBSQL_MAX_MB").trim(), report),
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

function parseLibsql(read: (name: string) => string, report: Report) {
  const own = read("LIBSQL_URL").trim();
  const linked = read("BUNNY_DATABASE_URL").trim();
  if (own === "" && linked !== "") {
    const libsqlUrl = parseLibsqlUrl("BUNNY_DATABASE_URL", linked, report);
    const token = "BUNNY_DATABASE_AUTH_TOKEN";
    return {
      libsqlUrl,
      libsqlAuthToken: parseToken(token, read(token), { libsqlUrl, report }),
    };
  }
  const libsqlUrl = parseLibsqlUrl("LIBSQL_URL", own, report);
  const isLinked = libsqlUrl !== "" &&
    libsqlUrl === parseLibsqlUrl("", linked, () => {});
  const token = isLinked && read("LIBSQL_AUTH_TOKEN") === ""
    ? "BUNNY_DATABASE_AUTH_TOKEN"
    : "LIBSQL_AUTH_TOKEN";
  return {
    libsqlUrl,
    libsqlAuthToken: parseToken(token, read(token), { libsqlUrl, report }),
  };
}

function parseLibsqlUrl(name: string, text: string, report: Report): string {
  const copy = "copy the address from the database's page";
  const refuse = (found: string, advice: string) => {
    report(
      `${name} must be libsql://, https:// or http:// and a host: found ${found}; ${advice}.`,
    );
    return "";
  };
  if (text === "") {
    return refuse(
      "nothing",
      `set it, or link a Bunny database, which sets BUNNY_DATABASE_URL`,
    );
  }
  const scheme = schemeOf(text);
  if (scheme !== "libsql" && scheme !== "https" && scheme !== "http") {
    return refuse(foundScheme(text), copy);
  }
  const url = URL.parse(text.replace(/^libsql:/i, "https:"));
  if (url === null) {
    return refuse(`text of ${lengthOf(text)} that is no URL`, copy);
  }
  if (
    url.username !== "" || url.password !== "" || url.search !== "" ||
    url.hash !== ""
  ) {
    return refuse(
      "a user, a password, a query or a fragment too",
      "leave them out: the token has a variable of its own",
    );
  }
  if (/[^/]/.test(url.pathname)) return refuse("a path too", copy);
  return url.origin;
}

function parseToken(
  name: string,
  token: string,
  { libsqlUrl, report }: { libsqlUrl: string; report: Report },
): string {
  const isOptional = libsqlUrl.startsWith("http:");
  if (!(isOptional ? /^[\x21-\x7e]*$/ : /^[\x21-\x7e]+$/).test(token)) {
    const found = token === ""
      ? "nothing"
      : `${lengthOf(token)}, some of them others`;
    const url = name.replace("AUTH_TOKEN", "URL");
    report(
      `${name} must be a token of visible ASCII characters: found ${found}; ` +
        `copy the token of the database that ${url} names (only an http:// address goes without).`,
    );
  }
  return token;
}

function parseLibsqlMaxMb(text: string, report: Report): number {
  if (text === "") return LIBSQL_MAX_MB_DEFAULT;
  const mb = /^[0-9]{1,7}$/.test(text) ? Number(text) : 0;
  if (mb === 0) {
    report(
      `LIBSQL_MAX_MB must be a whole number of megabytes from 1 to 9999999: found ${
        lengthOf(text)
      }; leave it out for ${LIBSQL_MAX_MB_DEFAULT}.`,
    );
  }
  return mb;
}

/**
 * The text itself is a secret, as it always was. A comma parts an old and a new
 * one where both are long; a comma with a space after it, which no generated
 * secret has, must part two.
 */
function parseSecrets(
  name: string,
  read: (name: string) => string,
  report: Report,
): readonly string[] {
  const text = read(name);
  // Of characters beyond ASCII, two senders make different bytes.
  if (text === "" || text !== text.trim() || !/^[\x20-\x7e]*$/.test(text)) {
    const found = text === ""
      ? "nothing"
      : text !== text.trim()
      ? `${lengthOf(text)} with space around them`
      : `${lengthOf(text)}, some of them others`;
    report(
      `${name} must be printable ASCII without space around it: found ${found}; ` +
        `set it to the secret which the webhook sends.`,
    );
    return [];
  }
  const parts = text.split(/, */);
  if (
    parts.length === 2 &&
    parts.every((part) => part.length >= SECRET_LENGTH_MIN)
  ) return [text, ...parts];
  if (text.includes(", ")) {
    report(
      `${name} must be one secret, or an old and a new one with a comma between them, each of ${SECRET_LENGTH_MIN} characters or more: found ${parts.length}, of ${
        parts.map(({ length }) => length).join(" and ")
      } characters; a shorter one is replaced in one step.`,
    );
  }
  return [text];
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
    } or no such URL; leave it out where nobody is to be told.`,
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
