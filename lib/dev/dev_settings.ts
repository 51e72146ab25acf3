/**
 * Ring 3. What `deno task dev` was asked for: flags and ports.
 *
 * Promise: every problem is reported before anything is started, with what to
 * change.
 *
 * @module
 */

import { parseCall } from "../cli/command.ts";

/** What --help prints. */
export const USAGE = `Usage: deno task dev [--fresh] [--once]

Runs everything locally: PostgreSQL with PGMQ and sample tables, sqld, the
worker, a cron that calls it every 2 seconds, and a small steady traffic.

  --fresh   forget the data of earlier runs
  --once    end when the sample data has arrived and was compared: exit code 0
            if it is equal, else 1

  PORT              the worker's port; default 8000
  DEV_PG_PORT       PostgreSQL's port; default 54322
  DEV_LIBSQL_PORT   sqld's port; default 8080
  DEV_FOLDER        where the data is kept; default .dev`;

/** The parts that listen, the variable of each and its port unless set. */
const PORTS = {
  worker: { variable: "PORT", port: 8000 },
  postgres: { variable: "DEV_PG_PORT", port: 54322 },
  libsql: { variable: "DEV_LIBSQL_PORT", port: 8080 },
} as const;

/** A port for each part. */
export type Ports = Record<keyof typeof PORTS, number>;

/** The flags given. */
export interface Flags {
  readonly fresh: boolean;
  readonly once: boolean;
}

/**
 * Reads the command's arguments.
 *
 * @param args The arguments.
 * @returns The flags.
 * @throws {UsageError} For an argument that the usage does not name.
 */
export function parseFlags(args: readonly string[]): Flags {
  const { flags } = parseCall(args, { fresh: "switch", once: "switch" });
  return { fresh: "fresh" in flags, once: "once" in flags };
}

/** Whether a port can be listened on, at every address the parts use. */
function isFree(port: number): boolean {
  for (const hostname of ["127.0.0.1", "0.0.0.0"]) {
    try {
      Deno.listen({ hostname, port }).close();
    } catch (error) {
      if (error instanceof Deno.errors.AddrInUse) return false;
      throw error;
    }
  }
  return true;
}

/**
 * Reads the ports from the environment and looks whether they are free.
 *
 * @param env Gives a variable's value.
 * @returns The ports, and the problems found: none when all is well.
 */
export function readPorts(
  env: (name: string) => string | undefined,
): { ports: Ports; problems: string[] } {
  const problems: string[] = [];
  const owners = new Map<number, string>();
  const ports = Object.entries(PORTS).map(([part, { variable, port }]) => {
    const text = env(variable) || String(port);
    const number = Number(text);
    const other = owners.get(number);
    if (!/^\d{1,5}$/.test(text) || number < 1 || number > 65535) {
      problems.push(`${variable} must be a port from 1 to 65535`);
    } else if (other) {
      problems.push(
        `${other} and ${variable} are both ${number}: set one of them to another port`,
      );
    } else if (!isFree(number)) {
      problems.push(
        `port ${number} is taken by another program: set ${variable} to a free port, or end ` +
          `that program (perhaps an earlier "deno task dev")`,
      );
    }
    owners.set(number, variable);
    return [part, number] as const;
  });
  return { ports: Object.fromEntries(ports) as Ports, problems };
}
