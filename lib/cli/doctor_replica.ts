/**
 * Ring 3. What doctor checks in the replica, with the token given here.
 *
 * @module
 */

import { compareReplica, type Replica } from "./compare_replica.ts";
import type { Source } from "./doctor_source.ts";
import { failure, type Report } from "./finding.ts";
import type { SchemaFile } from "./schema_file.ts";
import { parseConfig } from "../config/config.ts";
import { openDatabase } from "../connect/connect.ts";
import { SyncError } from "../errors.ts";
import { INSPECT } from "../replica/layout.ts";
import type { OpenDatabase } from "../replica/libsql.ts";
import { bare } from "../replica/sql.ts";

const ANSWER_MS_MAX = 15_000;
/** Settings of the worker that are not needed here. */
const UNUSED: Record<string, string> = {
  PGMQ_URL: "postgres://unused",
  WEBHOOK_SIGNATURE: "unused",
};

/**
 * Checks the replica: its row, tables, indexes and triggers.
 *
 * @param expected What the replica should have.
 * @param report Where findings are sent.
 */
export async function checkReplica(
  expected: SchemaFile & { source: Source | null },
  report: Report,
): Promise<void> {
  let database: OpenDatabase;
  try {
    const config = parseConfig((name) => UNUSED[name] ?? Deno.env.get(name));
    database = openDatabase(config, { timeoutMs: ANSWER_MS_MAX });
  } catch (error) {
    if (!(error instanceof SyncError)) throw error;
    report(failure(
      "replica's settings",
      error.message,
      "correct it, or unset LIBSQL_URL to skip the replica",
    ));
    return;
  }
  try {
    const replica = await readReplica(database);
    for (const finding of compareReplica(replica, expected)) report(finding);
  } catch (error) {
    const { cause } = error as { cause?: { status?: unknown } };
    report(failure(
      "replica here",
      typeof cause?.status === "number"
        ? `libSQL answered HTTP ${cause.status}`
        : "libSQL does not answer",
      "check LIBSQL_URL and LIBSQL_AUTH_TOKEN here; the worker has its own",
    ));
  } finally {
    database.close();
  }
}

/** Reads what the replica has. */
async function readReplica(database: OpenDatabase): Promise<Replica> {
  const names = await database.execute(INSPECT);
  const guards = await database.execute(bare(
    "SELECT count(*) FROM sqlite_master WHERE type = 'trigger' AND tbl_name = '_libsql_sync'",
  ));
  const columns = new Map<string, Set<string>>();
  const indexes = new Set<string>();
  for (const [table, name] of names.rows.map((row) => [row[0], row[1]])) {
    if (table === null) indexes.add(String(name));
    else {
      const known = columns.get(String(table)) ?? new Set();
      columns.set(String(table), known.add(String(name)));
    }
  }
  const row = columns.has("_libsql_sync")
    ? (await database.execute(bare("SELECT * FROM _libsql_sync"))).rows[0]
    : undefined;
  return {
    row: row === undefined ? null : { ...row },
    columns,
    indexes,
    guards: Number(guards.rows[0]![0]),
  };
}
