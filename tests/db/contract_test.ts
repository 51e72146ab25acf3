/** The functions in PostgreSQL do what the contract says, and what the model of
 * the simulation does. */

import { assertEquals } from "@std/assert";
import postgres from "postgres";
import { startSqld } from "../../lib/dev/sqld.ts";
import { openLibsql } from "../../lib/replica/libsql.ts";
import { bare } from "../../lib/replica/sql.ts";
import { compareSources } from "../contract/differential.ts";
import { makeModel } from "../contract/model.ts";
import { makePostgres, TABLES } from "../contract/postgres.ts";
import { testReplica } from "../contract/replica.ts";
import { testSource } from "../contract/source.ts";
import { Servers } from "./support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

const SEED = Number(Deno.env.get("SEED") ?? 1);
const SEQUENCES = Number(Deno.env.get("SEQUENCES") ?? 24);
const STEPS = 40;

let url: Promise<string> | undefined;

async function prepare(): Promise<string> {
  const database = await servers.database();
  const made = (await servers.postgres()).url({ database });
  const sql = postgres(made, { max: 1, onnotice: () => {} });
  await sql.unsafe(TABLES).simple();
  await sql.end();
  return made;
}

/** What a run must have compared at least once. */
const ANSWERS = [
  ...["granted", "busy", "other_version", "bootstrap", "adopt", "alter"],
  ...["batch new", "batch again", "batch replay", "idle", "settled", "none"],
  ...["stop replica_foreign", "stop replica_ahead", "stop schema_outdated"],
  ...["stop schema_unknown", "parked", "gone", "begun", "moved"],
  ...["requested", "unknown_table", "page forward", "page back", "page keys"],
  ...["page backfill", "page verify", "page scrub", "page redrive"],
];

const make = async () => await makePostgres(await (url ??= prepare()));

testSource("PostgreSQL", make);

testReplica("sqld", async () => {
  const sqld = await startSqld({ dataDir: `${await servers.folder()}/sqld` });
  const database = openLibsql({ url: sqld.url, authToken: "test", fetch });
  return {
    database,
    async read(sql) {
      const { rows } = await database.execute(bare(sql));
      return rows.map((row) => Array.from(row as ArrayLike<unknown>));
    },
    async close() {
      database.close();
      await sqld.kill();
    },
  };
});

Deno.test("the model answers as PostgreSQL does, whatever is called", async () => {
  const answered = new Map<string, number>();
  for (let seed = SEED; seed < SEED + SEQUENCES; seed++) {
    const model = makeModel();
    const real = await make();
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
