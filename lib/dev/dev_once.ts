/**
 * Ring 3. `deno task dev --once`: waits until the sample data has arrived.
 *
 * Promise: it says equal only after every cell was compared.
 *
 * @module
 */
import { createClient } from "@libsql/client/http";
import postgres from "postgres";
import { withinMs } from "./child.ts";
import {
  compareTables,
  type Comparison,
  describeDifferences,
} from "./compare.ts";
import type { Dev } from "./dev_stack.ts";

/** From here on it has not arrived. */
const DEADLINE_MS = 120_000;
const PAUSE_MS = 500;

/** Whether every table was there on both sides, with rows, and no cell differs. */
function isEqual(found: Comparison): boolean {
  return found.rows > 0 && found.differences.length === 0 &&
    found.skipped.length === 0;
}

/**
 * Waits until the replica equals the source.
 *
 * @param dev What runs.
 * @param signal Ends the wait early.
 * @param print Takes the lines to print.
 * @returns The exit code: 0 when they became equal, else 1.
 */
export async function arrival(
  dev: Dev,
  signal: AbortSignal,
  print: (line: string) => void,
): Promise<number> {
  const schema = JSON.parse(
    await Deno.readTextFile(new URL("../../schema.json", import.meta.url)),
  );
  const sql = postgres(dev.pgUrl, {
    max: 1,
    fetch_types: false,
    onnotice: () => {},
  });
  const client = createClient({ url: dev.libsqlUrl, authToken: "dev" });
  const until = Date.now() + DEADLINE_MS;
  let last: Comparison | undefined;
  let failure = "";
  try {
    while (!signal.aborted && Date.now() < until) {
      const compared = compareTables({ sql, client, schema })
        .then(
          (found) => void (last = found),
          (error) => void (failure = error.message),
        );
      await withinMs(compared, until - Date.now());
      if (last && isEqual(last)) {
        print(`equal: ${last.rows} rows, compared cell by cell`);
        return 0;
      }
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  } finally {
    client.close();
    await sql.end({ timeout: 1 });
  }
  if (signal.aborted) return 1;
  print(
    `error: source and replica are not equal after ${DEADLINE_MS / 1000} s`,
  );
  for (const line of last ? describeDifferences(last) : [failure]) {
    print(`  ${line}`);
  }
  return 1;
}
