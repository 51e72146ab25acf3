/**
 * Ring 0. A PostgreSQL connection string as libpq would read it.
 *
 * Promise: what is said stays as it is said; what is not said is what libpq
 * does, never less.
 *
 * @module
 */

/**
 * Fills in how to encrypt, and drops what only other tools understand.
 *
 * Without `sslmode`, TLS is used where the server offers it; with
 * `sslnegotiation=direct` (PostgreSQL 17: TLS from the first byte, the way for
 * runtimes that have `node:tls` alone) it is required. `pgbouncer=true`, which
 * dashboards put into strings for poolers, is dropped: a server refuses it, and
 * every call fits a transaction pooler as it is.
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
