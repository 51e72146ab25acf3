/**
 * Ring 0. The settings that say how the replica is reached.
 *
 * Promise: the token of one database is never sent to another.
 *
 * @module
 */

import { foundScheme, lengthOf, type Report, schemeOf } from "./found.ts";

/** The settings of the replica. */
export interface LibsqlSettings {
  /** The address of libSQL, by http: or https:, without a slash at the end. */
  readonly libsqlUrl: string;
  /** The token for libSQL; empty for a local sqld that asks for none. */
  readonly libsqlAuthToken: string;
  /** How large the replica may be, in MB of 1,048,576 bytes. */
  readonly libsqlMaxMb: number;
}

/** What a Bunny Database may hold. */
const LIBSQL_MAX_MB_DEFAULT = 1024;

/**
 * Reads and checks the settings of the replica.
 *
 * LIBSQL_URL and LIBSQL_AUTH_TOKEN are one pair; BUNNY_DATABASE_URL and
 * BUNNY_DATABASE_AUTH_TOKEN, which a linked Bunny database sets, are the other.
 * The second pair is used if LIBSQL_URL is not set, and then as a pair: the token
 * of one database is never sent to another. Only if both URLs name the same
 * database may the second token stand in for the first.
 *
 * @param read Reads a setting; empty if it is not set.
 * @param report Takes each problem.
 * @returns The settings, which may be used if nothing was reported.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const settings: Record<string, string> = { LIBSQL_URL: "http://127.0.0.1:8080/" };
 * const read = (name: string) => settings[name] ?? "";
 * assertEquals(parseLibsql(read, () => {}), {
 *   libsqlUrl: "http://127.0.0.1:8080",
 *   libsqlAuthToken: "",
 *   libsqlMaxMb: 1024,
 * });
 * ```
 */
export function parseLibsql(
  read: (name: string) => string,
  report: Report,
): LibsqlSettings {
  return {
    ...parseDatabase(read, report),
    libsqlMaxMb: parseMaxMb(read("LIBSQL_MAX_MB").trim(), report),
  };
}

function parseDatabase(
  read: (name: string) => string,
  report: Report,
): Omit<LibsqlSettings, "libsqlMaxMb"> {
  const own = read("LIBSQL_URL").trim();
  const linked = read("BUNNY_DATABASE_URL").trim();
  const pair = own === "" && linked !== "" ? "BUNNY_DATABASE" : "LIBSQL";
  const libsqlUrl = parseLibsqlUrl(`${pair}_URL`, own || linked, report);
  const isLinked = libsqlUrl !== "" &&
    libsqlUrl === parseLibsqlUrl("", linked, () => {});
  const tokenPair = isLinked && read("LIBSQL_AUTH_TOKEN") === ""
    ? "BUNNY_DATABASE"
    : pair;
  const name = `${tokenPair}_AUTH_TOKEN`;
  return {
    libsqlUrl,
    libsqlAuthToken: parseToken(name, read(name), { libsqlUrl, report }),
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
    return refuse(`${lengthOf(text)} that are not a URL`, copy);
  }
  if (url.username + url.password + url.search + url.hash !== "") {
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
      : `${lengthOf(token)}, not all of them such`;
    const url = name.replace("AUTH_TOKEN", "URL");
    report(
      `${name} must be a token of visible ASCII characters: found ${found}; ` +
        `copy the token of the database that ${url} names (only an http:// address needs none).`,
    );
  }
  return token;
}

function parseMaxMb(text: string, report: Report): number {
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
