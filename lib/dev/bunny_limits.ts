/**
 * Ring 3. What a script on Bunny may use, and the count of its sub-requests.
 *
 * Source of every number: Bunny documentation, scripting/limits. Of the modules:
 * scripting/node-tls, scripting/node-fs and scripting/environment-variables; the
 * documentation speaks of "a subset" and names no others. The virtual file
 * system is not here: every access is refused.
 *
 * @module
 */

import { AsyncLocalStorage } from "node:async_hooks";

/** The limits of Bunny Edge Scripting. */
export const LIMITS = {
  /** "CPU Time per request". */
  cpuMs: 30_000,
  /** "Active memory". */
  memoryBytes: 128 * 1_048_576,
  /** "Subrequests". */
  subRequests: 50,
  /** "Script size". */
  scriptBytes: 10_000_000,
  /** "Startup time". */
  startMs: 500,
  /** "Environment variables per Script". */
  variables: 128,
  /** "Environment variable size". */
  variableBytes: 2_048,
} as const;

/** The modules that the documentation names. */
export const MODULES: readonly string[] = [
  "node:process",
  "node:tls",
  "node:fs",
  "node:fs/promises",
];

const requests = new AsyncLocalStorage<{ spent: number }>();

/**
 * Runs something as one request: what it spends, however late, is its own.
 *
 * @param run What to run.
 * @returns What it returned.
 */
export function asRequest<T>(run: () => T): T {
  return requests.run({ spent: 0 }, run);
}

/**
 * Counts a sub-request.
 *
 * @throws {TypeError} It is one too many.
 */
export function spend(): void {
  const request = requests.getStore();
  if (request === undefined) return;
  request.spent += 1;
  if (request.spent > LIMITS.subRequests) {
    throw new TypeError(
      `more than ${LIMITS.subRequests} sub-requests in one request`,
    );
  }
}
