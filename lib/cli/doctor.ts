/**
 * Ring 3. `deno task doctor`: checks everything that a deployment needs.
 *
 * Promise: it changes nothing, unless --sync is given; a check that fails does
 * not stop the others; every finding that is not fine says how to repair it.
 *
 * @module
 */

import {
  type Command,
  CommandError,
  parseCall,
  printJson,
  runCommand,
} from "./command.ts";
import { checkReplica } from "./doctor_replica.ts";
import { checkSource } from "./doctor_source.ts";
import { checkConnections, checkSync, checkWorker } from "./doctor_worker.ts";
import { AS_SAID, failure, type Finding, ok, type Report } from "./finding.ts";
import { formatFindings } from "./format_findings.ts";
import { readSchemaFile } from "./schema_file.ts";
import { readSettings, SETTINGS } from "./settings.ts";

const USAGE = `Usage: deno task doctor [--all] [--sync] [--json]

Checks everything that a deployment needs: in PostgreSQL, at the worker and, if
LIBSQL_URL and LIBSQL_AUTH_TOKEN are set, in the replica. It changes nothing.
Exit code 1 if something is broken; warnings alone leave it at 0.

  --all   print the checks that found nothing wrong as well
  --sync  make the worker sync once, which shows that it reaches both databases
  --json  print every check as JSON

${SETTINGS}doctor`;

async function run(args: readonly string[]): Promise<number> {
  const { flags } = parseCall(args, {
    all: "switch",
    sync: "switch",
    json: "switch",
  });
  const findings = await check({ isSyncing: "sync" in flags });
  if ("json" in flags) printJson(findings);
  else {
    const lines = formatFindings(findings, { isAll: "all" in flags });
    for (const line of lines) console.log(line);
  }
  return findings.some(({ level }) => level === "error") ? 1 : 0;
}

/** Runs every check, in the order of the data's way. */
async function check(options: { isSyncing: boolean }): Promise<Finding[]> {
  const settings = readSettings((name) => Deno.env.get(name), [
    "PGMQ_URL",
    "WORKER_URL",
    "WEBHOOK_SIGNATURE",
  ]);
  const file = await readSchemaFile();
  const findings: Finding[] = [];
  const report: Report = (finding) => void findings.push(finding);
  const attempt = async (name: string, run: () => Promise<void>) => {
    try {
      await run();
    } catch (error) {
      if (!(error instanceof CommandError)) throw error;
      report(failure(name, error.message, AS_SAID));
    }
  };
  const source = await checkSource(settings, { hash: file.hash, report });
  if (source !== null) await checkConnections(settings, report);
  await attempt("worker", () => checkWorker(settings, report));
  if (options.isSyncing) {
    await attempt("sync", () => checkSync(settings, report));
  }
  if (Deno.env.get("LIBSQL_URL") || Deno.env.get("BUNNY_DATABASE_URL")) {
    await checkReplica({ ...file, source }, report);
  } else report(ok("replica here", "skipped: LIBSQL_URL is not set"));
  return findings;
}

/** The command. */
export const command: Command = { usage: USAGE, run };

if (import.meta.main) Deno.exit(await runCommand(command, Deno.args));
