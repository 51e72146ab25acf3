/**
 * Ring 3. `deno task doctor`: everything a deployment needs, looked at.
 *
 * Promise: it changes nothing (but by --sync, on request), goes on where one
 * look fails, and each finding that is not fine says how to mend it.
 *
 * @module
 */

import {
  ask,
  CommandError,
  describeRefusal,
  parseCall,
  post,
  printJson,
  type Query,
  readSchema,
  readSettings,
  runCommand,
  SETTINGS,
  type Settings,
  withSource,
} from "./command.ts";
import { oneLine } from "./table.ts";
import { parseConfig } from "../config/config.ts";
import { openDatabase } from "../connect/connect.ts";
import {
  describeConnections,
  type TriedConnection,
  tryConnections,
} from "../connect/try_connections.ts";
import { SyncError } from "../errors.ts";
import { INSPECT } from "../replica/layout.ts";
import type { OpenDatabase } from "../replica/libsql.ts";
import { bare } from "../replica/sql.ts";
import { indexName, type Schema } from "../schema.ts";
import { formatMs } from "../status/format.ts";

const USAGE = `Usage: deno task doctor [--all] [--sync] [--json]

Looks at everything a deployment needs, in PostgreSQL, at the worker and, where
LIBSQL_URL and LIBSQL_AUTH_TOKEN are set, in the replica. It changes nothing.
Exit code 1 when something is broken; warnings alone leave it at 0.

  --all   what is fine as well
  --sync  have the worker sync once, to see that it reaches both databases
  --json  everything as JSON

${SETTINGS}doctor`;

/** One thing that was looked at. */
interface Finding {
  readonly name: string;
  readonly level: "ok" | "warning" | "error";
  readonly found: string;
  /** How to mend it; null where it is fine. */
  readonly advice: string | null;
}

const ok = (name: string, found: string): Finding => ({
  name,
  level: "ok",
  found,
  advice: null,
});
const warning = (name: string, found: string, advice: string): Finding => ({
  name,
  level: "warning",
  found,
  advice,
});
const failure = (name: string, found: string, advice: string): Finding => ({
  name,
  level: "error",
  found,
  advice,
});

/** The cron's signature holds for 5 minutes either way. */
const SKEW_MAX_MS = 30_000;
const HEALTH_TIMEOUT_MS = 15_000;

/** What the source says of itself. */
interface Source {
  readonly now: number;
  readonly schema: string | null;
  readonly epoch: string;
  readonly position: number;
}

/** Looks at PostgreSQL; null where the rest cannot be known. */
async function lookAtSource(
  settings: Settings,
  add: (finding: Finding) => void,
): Promise<Source | null> {
  try {
    return await withSource(settings.pgmqUrl, async (query) => {
      const findings = await query<Finding>(
        "select name, level, found, advice from libsql_sync.doctor()",
      );
      for (const finding of findings) add(finding);
      await compareSecrets(query, settings, add);
      const [row] = await query<{ status: Omit<Source, "now">; now: number }>(
        "select libsql_sync.status() as status, extract(epoch from clock_timestamp())::float8 * 1000 as now",
      );
      const now = Date.now();
      add(skewOf("clock of PostgreSQL", row!.now - now));
      return { ...row!.status, now: row!.now };
    });
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    add(failure("PostgreSQL", error.message, "see the sentence before"));
    return null;
  }
}

/** Compares the Vault's secrets with those here, by their hashes. */
async function compareSecrets(
  query: Query,
  { workerUrl, secrets }: Settings,
  add: (finding: Finding) => void,
): Promise<void> {
  const hash = (secret: string) =>
    `encode(sha256(convert_to(${secret}, 'UTF8')), 'hex')`;
  const [row] = await query<{ signature: string | null; url: string | null }>(
    `select ${hash("public.get_libsql_webhook_signature()")} as signature, ${
      hash("public.get_libsql_sync_url()")
    } as url`,
  );
  const { signature, url } = row!;
  if (signature !== null) {
    const hashes = await Promise.all(secrets.map(sha256));
    add(
      hashes.includes(signature)
        ? ok("secret here", "the same as in the Vault")
        : failure(
          "secret here",
          "WEBHOOK_SIGNATURE is another one than in the Vault",
          "set both, and the worker's variable, to the same text",
        ),
    );
  }
  if (url !== null && url !== await sha256(`${workerUrl}/sync`)) {
    add(warning(
      "worker's address",
      "the Vault's libsql_sync_url is not WORKER_URL with /sync",
      "if cron shall call this worker, update the secret libsql_sync_url",
    ));
  }
}

async function sha256(text: string): Promise<string> {
  const digest = await crypto.subtle.digest(
    "SHA-256",
    new TextEncoder().encode(text),
  );
  return Array.from(
    new Uint8Array(digest),
    (byte) => byte.toString(16).padStart(2, "0"),
  ).join("");
}

function skewOf(name: string, ms: number): Finding {
  const text = `${ms < 0 ? "behind" : "ahead"} by ${formatMs(Math.abs(ms))}`;
  return Math.abs(ms) < SKEW_MAX_MS
    ? ok(name, "agrees with the one here")
    : warning(
      name,
      text,
      "set the clocks by NTP: ages in status are wrong otherwise, and over 5 minutes cron's calls are refused",
    );
}

/** Looks at the worker from outside. */
async function lookAtWorker(
  settings: Settings,
  add: (finding: Finding) => void,
): Promise<void> {
  const { workerUrl } = settings;
  try {
    const response = await fetch(`${workerUrl}/health`, {
      redirect: "manual",
      signal: AbortSignal.timeout(HEALTH_TIMEOUT_MS),
    });
    const text = await response.text();
    if (response.status !== 200 || text.trim() !== "OK") {
      add(failure(
        "worker",
        `/health answered HTTP ${response.status}`,
        "check WORKER_URL, and that the script is published",
      ));
      return;
    }
    const build = response.headers.get("x-libsql-sync-version") ?? "unknown";
    add(ok("worker", `/health answers, build ${oneLine(build, 40)}`));
    const date = Date.parse(response.headers.get("date") ?? "");
    if (!Number.isNaN(date)) {
      add(skewOf("clock of the worker", date - Date.now()));
    }
  } catch {
    add(failure(
      "worker",
      "/health does not answer",
      "check WORKER_URL, and that the script is published",
    ));
    return;
  }
  // No flow knows this query, which is read after the signature was checked
  // and before any database is touched.
  const path = "/verify?doctor=true";
  const right = await post(settings, path);
  if (right.status === 400) {
    add(ok("secret at the worker", "accepted"));
    await lookAtItsWays(settings, add);
  } else {
    add(failure(
      "secret at the worker",
      describeRefusal(right),
      right.status === 401
        ? "set the worker's WEBHOOK_SIGNATURE and the one here to the same text, and publish"
        : right.status === 404
        ? "deploy the newest worker"
        : "mend the worker's settings, and publish",
    ));
  }
  const wrong = await post({ workerUrl, secrets: ["wrong"] }, path);
  if (wrong.status !== 401) {
    add(failure(
      "wrong secret",
      `the worker answered ${wrong.status} instead of 401`,
      "see that nothing stands in between, and that WEBHOOK_SIGNATURE is set",
    ));
  }
}

/** Tries the ways to PostgreSQL from here. */
async function lookAtWays(
  { pgmqUrl }: Settings,
  add: (finding: Finding) => void,
): Promise<void> {
  const ways = await tryConnections({
    pgmqUrl,
    pgmqApiKey: "",
    pgmqToken: "",
    pgmqCa: "",
    libsqlUrl: "",
    libsqlAuthToken: "",
  });
  add(waysOf("ways from here", ways));
}

/** Has the worker try its own ways. */
async function lookAtItsWays(
  settings: Settings,
  add: (finding: Finding) => void,
): Promise<void> {
  const answer = await ask(settings, { method: "GET", path: "/doctor" });
  if (answer.status !== 200 || !Array.isArray(answer.body.ways)) {
    add(failure(
      "ways from the worker",
      describeRefusal(answer),
      "see the sentence before",
    ));
    return;
  }
  add(waysOf("ways from the worker", answer.body.ways));
}

function waysOf(name: string, ways: readonly TriedConnection[]): Finding {
  const found = describeConnections(ways);
  return ways.some(({ chosen, works }) => chosen && !works)
    ? failure(
      name,
      found,
      "take one that works: README, Which way to PostgreSQL",
    )
    : ok(name, found);
}

/** Has the worker sync. */
async function trySync(
  settings: Settings,
  add: (finding: Finding) => void,
): Promise<void> {
  const answer = await post(settings, "/sync");
  add(
    answer.status === 200
      ? ok("sync", answer.body.busy ? "another one is running" : "went well")
      : failure("sync", describeRefusal(answer), "see the sentence before"),
  );
}

/** What the replica has. */
interface Replica {
  readonly row: Record<string, unknown> | null;
  /** Table to columns. */
  readonly columns: Map<string, Set<string>>;
  readonly indexes: Set<string>;
  readonly guards: number;
}

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

/** Looks into the replica with the token given here. */
async function lookAtReplica(
  wanted: { schema: Schema; hash: string; source: Source | null },
  add: (finding: Finding) => void,
): Promise<void> {
  let database: OpenDatabase;
  try {
    const { libsqlUrl, libsqlAuthToken } = parseConfig((name) =>
      ({ PGMQ_URL: "postgres://unused", WEBHOOK_SIGNATURE: "unused" })[name] ??
        Deno.env.get(name)
    );
    database = openDatabase({ libsqlUrl, libsqlAuthToken }, {
      timeoutMs: HEALTH_TIMEOUT_MS,
    });
  } catch (error) {
    if (!(error instanceof SyncError)) throw error;
    const advice = "set it, or unset LIBSQL_URL to leave the replica out";
    add(failure("replica's settings", error.message, advice));
    return;
  }
  try {
    compareReplica(await readReplica(database), wanted, add);
  } catch (error) {
    const { cause } = error as { cause?: { status?: unknown } };
    add(failure(
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

/** Compares what the replica has with what it should have. */
function compareReplica(
  replica: Replica,
  { schema, hash, source }: {
    schema: Schema;
    hash: string;
    source: Source | null;
  },
  add: (finding: Finding) => void,
): void {
  const { row, columns, indexes, guards } = replica;
  const fine = "the next sync does it: deno task doctor --sync";
  if (row === null) {
    add(warning("replica here", "reachable, and not started", fine));
    return;
  }
  if (source !== null && row.epoch !== source.epoch) {
    add(warning(
      "replica here",
      "it does not follow the epoch in force",
      `${fine}; if it is refused, LIBSQL_URL names the replica of another source`,
    ));
  } else {
    const of = source === null ? "" : ` of ${source.position}`;
    add(ok("replica here", `reachable, at position ${row.position}${of}`));
  }
  if (row.schema_hash !== hash) {
    add(warning("replica's schema", "is not schema.json here", fine));
  }
  if (guards < 3) {
    add(failure(
      "replica's guard",
      `${guards} of 3 triggers are there`,
      "deno task nuke makes them anew; until then a late write can land",
    ));
  }
  const unindexed = JSON.parse(String(row.unindexed ?? "[]")) as string[];
  const missing: string[] = [];
  const bare: string[] = [];
  const extra: string[] = [];
  for (const table of schema.tables) {
    const there = columns.get(table.name);
    if (there === undefined) {
      missing.push(table.name);
      continue;
    }
    for (const { name } of table.columns) {
      if (!there.delete(name)) missing.push(`${table.name}.${name}`);
    }
    for (const name of there) extra.push(`${table.name}.${name}`);
    for (const index of table.indexes) {
      const name = indexName(table.name, index);
      if (!indexes.has(name)) bare.push(name);
    }
  }
  if (missing.length > 0) {
    add(failure("replica's tables", `lacks ${missing.join(", ")}`, fine));
  } else {
    add(ok("replica's tables", `${schema.tables.length}, with every column`));
  }
  if (bare.length > 0) {
    add(warning(
      "replica's indexes",
      `lacks ${bare.join(", ")}`,
      unindexed.length > 0
        ? "they are built when the table is full; over a million rows, run CREATE INDEX by hand"
        : "run their CREATE INDEX by hand",
    ));
  } else add(ok("replica's indexes", "every one is there"));
  if (extra.length > 0) {
    add(warning(
      "replica's columns",
      `schema.json does not list ${extra.join(", ")}: left alone`,
      "ALTER TABLE ... DROP COLUMN when no reader needs it",
    ));
  }
}

/** Prints what was found, for people. */
function print(findings: readonly Finding[], isAll: boolean): void {
  const shown = findings.filter(({ level }) => isAll || level !== "ok");
  const width = Math.max(0, ...shown.map(({ name }) => name.length));
  for (const { name, level, found, advice } of shown) {
    const head = `${level.padEnd(7)}  ${oneLine(name).padEnd(width)}  `;
    console.log(head + oneLine(found));
    if (advice !== null) {
      console.log(`${" ".repeat(9 + width)}  -> ${oneLine(advice)}`);
    }
  }
  const count = (level: string) =>
    findings.filter((finding) => finding.level === level).length;
  if (shown.length > 0) console.log("");
  console.log(
    `${findings.length} looked at: ${count("ok")} fine, ${
      count("warning")
    } warnings, ${count("error")} errors.`,
  );
}

async function run(args: readonly string[]): Promise<number> {
  const { flags } = parseCall(args, {
    all: "switch",
    sync: "switch",
    json: "switch",
  });
  const settings = readSettings((name) => Deno.env.get(name), [
    "PGMQ_URL",
    "WORKER_URL",
    "WEBHOOK_SIGNATURE",
  ]);
  const { schema, hash } = await readSchema();
  const findings: Finding[] = [];
  const add = (finding: Finding) => void findings.push(finding);
  const source = await lookAtSource(settings, add);
  if (source !== null) {
    add(
      source.schema === hash
        ? ok("schema.json here", "the one in force at the source")
        : failure(
          "schema.json here",
          "not the one in force at the source",
          "deno task schema, then the migration, then deploy; or check out the one that is deployed",
        ),
    );
  }
  const attempt = async (name: string, look: () => Promise<void>) => {
    try {
      await look();
    } catch (error) {
      if (!(error instanceof CommandError)) throw error;
      add(failure(name, error.message, "see the sentence before"));
    }
  };
  if (source !== null) await lookAtWays(settings, add);
  await attempt("worker", () => lookAtWorker(settings, add));
  if ("sync" in flags) await attempt("sync", () => trySync(settings, add));
  if (Deno.env.get("LIBSQL_URL") || Deno.env.get("BUNNY_DATABASE_URL")) {
    await lookAtReplica({ schema, hash, source }, add);
  } else add(ok("replica here", "left out: LIBSQL_URL is not set"));

  if ("json" in flags) printJson(findings);
  else print(findings, "all" in flags);
  return findings.some(({ level }) => level === "error") ? 1 : 0;
}

if (import.meta.main) {
  Deno.exit(await runCommand({ usage: USAGE, run }, Deno.args));
}
