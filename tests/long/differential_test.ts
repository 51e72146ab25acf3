/** The functions in PostgreSQL do what the model of the simulation does. */

import { assertEquals } from "@std/assert";
import postgres from "postgres";
import { compareSources } from "../contract/differential.ts";
import { makeModel } from "../contract/model.ts";
import { makePostgres, TABLES } from "../contract/postgres.ts";
import { Servers } from "../db/support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

const SEED = Number(Deno.env.get("SEED") ?? 1);
const SEQUENCES = Number(Deno.env.get("SEQUENCES") ?? 24);
const STEPS = 40;

/** What a run must have compared at least once. */
const ANSWERS = [
  ...["granted", "busy", "other_version", "bootstrap", "adopt", "alter"],
  ...["batch", "reopen", "put back", "truncate", "idle", "settled", "none"],
  ...["stop replica_foreign", "stop replica_ahead", "stop schema_outdated"],
  ...["stop schema_unknown", "parked", "gone", "begun", "moved"],
  ...["requested", "unknown_table", "page forward", "page back", "page keys"],
  ...["page backfill", "page verify", "page scrub", "page redrive"],
];

async function prepare(): Promise<string> {
  const database = await servers.database();
  const url = (await servers.postgres()).url({ database });
  const sql = postgres(url, { max: 1, onnotice: () => {} });
  await sql.unsafe(TABLES).simple();
  await sql.end();
  return url;
}

Deno.test("the model answers as PostgreSQL does, for any calls", async () => {
  const url = await prepare();
  const answered = new Map<string, number>();
  for (let seed = SEED; seed < SEED + SEQUENCES; seed++) {
    const model = makeModel();
    const real = await makePostgres(url);
    try {
      await compareSources(seed, {
        sources: [model, real],
        steps: STEPS,
        answered,
      });
    } finally {
      await real.close();
    }
  }
  const missing = ANSWERS.filter((answer) => !answered.has(answer));
  assertEquals(missing, [], `SEED=${SEED}`);
});
