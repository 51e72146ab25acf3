/**
 * Ring 3. What doctor checks in PostgreSQL.
 *
 * @module
 */

import { CommandError } from "./command.ts";
import {
  AS_SAID,
  failure,
  type Finding,
  ok,
  type Report,
  skewOf,
  warning,
} from "./finding.ts";
import { type Query, withSource } from "./query_source.ts";
import type { Settings } from "./settings.ts";
import { sha256Hex } from "../bytes.ts";

/** What the source says about itself. */
export interface Source {
  /** The hash of the schema.json in force; null if there is none. */
  readonly schema: string | null;
  /** The epoch in force. */
  readonly epoch: string;
  /** The position of the newest batch. */
  readonly position: number;
}

/**
 * Checks PostgreSQL: what the source's own doctor() finds, the secrets in its
 * Vault, its clock, its schema.json.
 *
 * @param settings How to reach it, and what its Vault should hold.
 * @param options The hash of schema.json here, and where findings are sent.
 * @returns What the source says about itself; null if it cannot be asked.
 */
export async function checkSource(
  settings: Settings,
  { hash, report }: { hash: string; report: Report },
): Promise<Source | null> {
  try {
    return await withSource(settings.pgmqUrl, async (query) => {
      const findings = await query<Finding>(
        "select name, level, found, advice from libsql_sync.doctor()",
      );
      for (const finding of findings) report(finding);
      await compareSecrets(query, { settings, report });
      const [row] = await query<{ status: Source; now: number }>(
        "select libsql_sync.status() as status, extract(epoch from clock_timestamp())::float8 * 1000 as now",
      );
      report(skewOf("clock of PostgreSQL", row!.now - Date.now()));
      report(compareSchema(row!.status, hash));
      return row!.status;
    });
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    report(failure("PostgreSQL", error.message, AS_SAID));
    return null;
  }
}

function compareSchema({ schema }: Source, hash: string): Finding {
  const name = "schema.json here";
  return schema === hash ? ok(name, "in force at the source") : failure(
    name,
    "not the one in force at the source",
    "run deno task schema, then the migration, then deploy; or check out the schema.json that is deployed",
  );
}

/** Compares the Vault's secrets with those here, by their hashes. */
async function compareSecrets(
  query: Query,
  { settings, report }: { settings: Settings; report: Report },
): Promise<void> {
  const { workerUrl, secrets } = settings;
  const hashOf = (secret: string) =>
    `encode(sha256(convert_to(${secret}, 'UTF8')), 'hex')`;
  const [row] = await query<{ signature: string | null; url: string | null }>(
    `select ${hashOf("public.get_libsql_webhook_signature()")} as signature, ${
      hashOf("public.get_libsql_sync_url()")
    } as url`,
  );
  const { signature, url } = row!;
  if (signature !== null) {
    const hashes = await Promise.all(secrets.map(sha256Hex));
    report(
      hashes.includes(signature)
        ? ok("secret here", "the same as in the Vault")
        : failure(
          "secret here",
          "WEBHOOK_SIGNATURE differs from the secret in the Vault",
          "set both, and the worker's WEBHOOK_SIGNATURE, to the same text",
        ),
    );
  }
  if (url !== null && url !== await sha256Hex(`${workerUrl}/sync`)) {
    report(warning(
      "worker's address",
      "libsql_sync_url in the Vault is not WORKER_URL followed by /sync",
      "if the cron should call this worker, change libsql_sync_url in the Vault",
    ));
  }
}
