/**
 * Ring 0. A PostgreSQL connection string as libpq would read it.
 *
 * Promise: what is said stays as it is said; what is not said is what libpq
 * does, never less.
 *
 * @module
 */

/** Where a PostgreSQL server is, who asks, and how the way there is guarded. */
export interface PostgresAddress {
  /** A name or an IP address. */
  readonly host: string;
  /** The port. */
  readonly port: number;
  /** The role that logs in. */
  readonly user: string;
  /** Its password; empty if there is none. */
  readonly password: string;
  /** The database. */
  readonly database: string;
  /** Whether TLS begins with the first byte. */
  readonly direct: boolean;
  /** Whether TLS is left out, taken where it is offered, or insisted on. */
  readonly tls: "disable" | "prefer" | "require";
  /** Whether the server must prove who it is. */
  readonly verify: boolean;
  /** Settings of the session. */
  readonly settings: Readonly<Record<string, string>>;
}

const MODES = [
  "disable",
  "allow",
  "prefer",
  "require",
  "verify-ca",
  "verify-full",
];

/**
 * Reads a connection string.
 *
 * TLS from the first byte (`sslnegotiation=direct`, PostgreSQL 17: the way for
 * runtimes that have `node:tls` alone) is verified, if `sslmode` does not ask for less,
 * and so is all TLS where there is a CA to verify by; without either, TLS is
 * used where the server offers it. `verify-ca` checks the name as well.
 * Parameters that only other clients understand are left out.
 *
 * @param text The connection string.
 * @param options Whether a CA is set.
 * @returns The address.
 * @throws {RangeError} With what it may not hold; no part of it is shown.
 *
 * @example
 * ```ts
 * import { assertEquals, assertThrows } from "@std/assert";
 *
 * const { host, port, tls, verify } = parsePostgresUrl("postgres://u:p@h:6543/db?pgbouncer=true");
 * assertEquals([host, port, tls, verify], ["h", 6543, "prefer", false]);
 * const direct = parsePostgresUrl("postgres://u:p@h/db?sslnegotiation=direct");
 * assertEquals([direct.direct, direct.tls, direct.verify], [true, "require", true]);
 * assertThrows(() => parsePostgresUrl("postgres://u:p@h/db?sslmode=maybe"), RangeError, "sslmode");
 * ```
 */
export function parsePostgresUrl(
  text: string,
  options: { hasCa?: boolean } = {},
): PostgresAddress {
  const url = new URL(text);
  const read = (name: string) => url.searchParams.get(name);
  if (url.hostname.includes(",")) throw new RangeError("more than one host");
  const negotiation = read("sslnegotiation");
  if (negotiation !== null && !/^(direct|postgres)$/.test(negotiation)) {
    throw new RangeError("an unknown sslnegotiation");
  }
  const session = read("target_session_attrs");
  if (session !== null && !/^(any|read-write|primary)$/.test(session)) {
    throw new RangeError("a target_session_attrs that is no primary's");
  }
  const direct = negotiation === "direct";
  const mode = read("sslmode") ?? read("ssl");
  if (mode !== null && !MODES.includes(mode)) {
    throw new RangeError("an unknown sslmode");
  }
  if (direct && mode !== null && /^(disable|allow|prefer)$/.test(mode)) {
    throw new RangeError(
      "sslnegotiation=direct with an sslmode below require",
    );
  }
  const isGuarded = direct || options.hasCa === true;
  const verify = mode === null ? isGuarded : mode.startsWith("verify-") ||
    mode === "require" && options.hasCa === true;
  const settings: Record<string, string> = {
    application_name: read("application_name") ?? "libsql-sync",
  };
  const given = read("options");
  if (given !== null) settings.options = given;
  const user = decodeURIComponent(url.username);
  return {
    // The driver wants an IPv6 address without its brackets.
    host: decodeURIComponent(url.hostname).replace(/^\[(.*)\]$/, "$1"),
    port: url.port === "" ? 5432 : Number(url.port),
    user,
    password: decodeURIComponent(url.password),
    database: decodeURIComponent(url.pathname.slice(1)) || user,
    direct,
    tls: mode === "disable"
      ? "disable"
      : verify || isGuarded || mode === "require"
      ? "require"
      : "prefer",
    verify,
    settings,
  };
}

/**
 * Fills in how to encrypt for the driver of the commands, and drops what only
 * other tools understand.
 *
 * Without `sslmode`, TLS is used where the server offers it; with
 * `sslnegotiation=direct` it is required. `pgbouncer=true`, which dashboards
 * put into strings for poolers, is dropped: a server refuses it.
 *
 * @param text The connection string.
 * @returns The connection string for the driver.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(
 *   completePostgresUrl("postgres://u:p@h:6543/db?pgbouncer=true"),
 *   "postgres://u:p@h:6543/db?sslmode=prefer",
 * );
 * assertEquals(
 *   completePostgresUrl("postgres://u:p@h/db?sslnegotiation=direct"),
 *   "postgres://u:p@h/db?sslnegotiation=direct&sslmode=require",
 * );
 * ```
 */
export function completePostgresUrl(text: string): string {
  const url = new URL(text);
  url.searchParams.delete("pgbouncer");
  if (!url.searchParams.has("sslmode") && !url.searchParams.has("ssl")) {
    const direct = url.searchParams.get("sslnegotiation") === "direct";
    url.searchParams.set("sslmode", direct ? "require" : "prefer");
  }
  return url.href;
}
