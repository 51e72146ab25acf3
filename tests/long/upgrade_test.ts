/**
 * From each release to the present: its migration as it was kept, some use, and
 * the present migrations over it.
 */

import { assert, assertEquals } from "@std/assert";
import postgres from "postgres";
import { findLastBuild, readNames } from "../../lib/cli/migration_files.ts";
import { expireLease, saveReplica } from "../db/support/chain.ts";
import { OldWorker } from "../db/support/old_worker.ts";
import { Servers, Stack } from "../db/support/stack.ts";
import { readRelease, readReleases } from "../db/support/releases.ts";
import { shape } from "../db/support/shape.ts";
import { splitStatements } from "../db/support/split_statements.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

const ROOT = new URL("../../", import.meta.url);
const SAMPLE = new URL("lib/dev/sample.sql", ROOT);

/** What a release may have had, and the present does not. */
const OLDER = `
  drop function if exists libsql_sync.has_work();
  create or replace function libsql_sync.queued() returns jsonb language sql as 'select null::jsonb';
  create function libsql_sync.obsolete(integer) returns integer language sql as 'select 1';
  drop trigger if exists replicate_orgs_libsql_truncate on orgs;
`;
/** The function that a line of a shape is of, with its arguments. */
const functionIn = (line: string) =>
  /^(?:function|comment on) libsql_sync\.\S+?\([^)]*\)/.exec(line)?.[0];

/** The migrations that a database with the releases before has not run. */
async function presentMigrations(): Promise<string[]> {
  const names = await readNames(ROOT);
  const from = findLastBuild(names);
  return await Promise.all(
    names.filter((name) => name >= from).map((name) =>
      Deno.readTextFile(new URL(`supabase/migrations/${name}`, ROOT))
    ),
  );
}

/** A database that runs a release, without a row. */
async function install(release: string): Promise<string> {
  const database = await servers.database({ migrated: false });
  const url = (await servers.postgres()).url({ database });
  const sql = postgres(url, { max: 1, onnotice: () => {} });
  try {
    await sql.file(SAMPLE).simple();
    await sql.unsafe(await readRelease(release)).simple();
  } finally {
    await sql.end({ timeout: 5 });
  }
  return database;
}

const insertOrgs = (name: string) =>
  `insert into orgs (created_by, name, management_email)
   select gen_random_uuid(), '${name}', 'b' from generate_series(1, 3);`;

/** What must outlast an upgrade. */
interface Kept {
  readonly queued: readonly unknown[];
  readonly letters: readonly unknown[] | null;
  readonly chain: readonly unknown[];
}

/** Reads what must outlast an upgrade. */
async function readKept(sql: postgres.Sql): Promise<Kept> {
  const [kept] = await sql`select
    (select jsonb_agg(to_jsonb(q) order by msg_id) from pgmq.q_replicate_data_libsql q) as queued,
    (select jsonb_agg(to_jsonb(d) order by msg_id) from pgmq.q_replicate_data_libsql_dlq d) as letters,
    (select jsonb_build_array(epoch, position, batch) from libsql_sync.chain) as chain`;
  return kept as Kept;
}

/** Runs the present migrations. */
async function upgrade(
  { server, database }: Stack,
  run: (sql: postgres.Sql, text: string) => Promise<void>,
): Promise<void> {
  const owner = postgres(server.url({ database }), {
    max: 1,
    onnotice: () => {},
  });
  try {
    for (const text of await presentMigrations()) await run(owner, text);
  } finally {
    await owner.end({ timeout: 5 });
  }
}

/** One that the worker of 0.1.0 filed: a whole message was kept in it. */
const OLD_LETTER = {
  table: "nowhere",
  key: null,
  reason: "expected a table of schema.json, found nowhere",
  msg_id: "1",
  message: { v: 1, table: "nowhere", columns: ["id"], rows: [["private"]] },
  parked_at: "2026-11-20T00:00:00+00:00",
};

const releases = await readReleases();
Deno.test("each release has its migration kept", () => {
  assert(releases.length > 0);
});

const WAYS = {
  "in one transaction": async (sql: postgres.Sql, text: string) => {
    await sql.unsafe(text).simple();
  },
  "statement by statement": async (sql: postgres.Sql, text: string) => {
    for (const statement of splitStatements(text)) await sql.unsafe(statement);
  },
};
for (const release of releases) {
  for (const [way, run] of Object.entries(WAYS)) {
    Deno.test(`the migration over ${release}, ${way}, leaves what a fresh install has, and loses nothing`, async () => {
      await using fresh = await Stack.start(servers);
      const expected = await shape(fresh.sql);

      const database = await install(release);
      await using stack = await Stack.start(servers, { database });
      await stack.run(
        `${insertOrgs("queued")} update orgs set name = name || '!';
        insert into pgmq.q_replicate_data_libsql (vt, message) values (now(), '{"table": "unknown"}');`,
      );
      await stack.run(OLDER);
      const kept = await readKept(stack.sql);
      await upgrade(stack, run);
      const found = await shape(stack.sql);
      // Only within one transaction the migration knows what it did not make: else
      // functions of the release that are gone now stay, and no other line.
      const functions = new Set(expected.map(functionIn));
      const isGone = (line: string) => !functions.has(functionIn(line));
      assertEquals(found.filter((line) => !isGone(line)), expected);
      assertEquals(
        found.some(isGone),
        way === "statement by statement",
        "functions that are gone",
      );
      assertEquals(await readKept(stack.sql), kept);

      await stack.drain();
      assertEquals(await stack.assertEqual(), 3);
      const letters = await stack.deadLetters();
      assertEquals(letters.map(({ table, key }) => [table, key]), [
        [null, null],
      ]);
    });
  }
}

/** Position, state and message count of what is on record. */
async function onRecord({ sql }: Stack) {
  const rows = await sql`
    select position::int, state, messages from libsql_sync.batches order by position`;
  return rows.map(({ position, state, messages }) => [
    position,
    state,
    messages,
  ]);
}

/** What befell the replica between the last call of the old worker and the first of the new one. */
const FATES = {
  "its pending batch landed": {
    lands: true,
    isLost: false,
    record: [[1, "settled", 1], [2, "settled", 1]],
    putBack: undefined,
  },
  "its pending batch did not land": {
    lands: false,
    isLost: false,
    record: [[1, "settled", 1], [2, "handed", 1]],
    putBack: undefined,
  },
  "a failover lost its acked batch": {
    lands: false,
    isLost: true,
    record: [[1, "handed", 1], [2, "handed", 1]],
    putBack: 1,
  },
};
for (
  const [fate, { lands, isLost, record, putBack }] of Object.entries(FATES)
) {
  Deno.test(`the worker of 0.1.0 was in the midst of it, ${fate}: the new one goes on with its epoch, and its letters keep no message`, async () => {
    const database = await install("0.1.0");
    await using stack = await Stack.start(servers, { database });
    const { sql } = stack;
    await sql`update libsql_sync.chain set refill = false, reopen = false, scrub_rows = 0`;
    await stack.withParts(async ({ replica }) => {
      const old = await OldWorker.start(sql, replica);
      await stack.run(insertOrgs("acked"));
      const first = await old.batch();
      const failOver = await saveReplica(stack);
      await old.apply(first);
      await stack.run(`update orgs set name = 'pending' where name = 'acked';`);
      const second = await old.batch();
      if (lands) await old.apply(second);
      if (isLost) await failOver();
    });
    await sql`insert into pgmq.q_replicate_data_libsql_dlq (vt, message) values (now(), ${
      sql.json(OLD_LETTER)
    })`;
    await stack.run(insertOrgs("queued"));
    await upgrade(stack, WAYS["in one transaction"]);
    await expireLease(stack);

    await stack.withParts(async ({ source, replica }) => {
      const lease = crypto.randomUUID();
      await source.lease(lease);
      const claim = await source.claim({
        lease,
        row: await replica.probe(),
        size: { rows: 0, bytes: 0 },
      });
      assertEquals([claim.do, claim.putBack], ["settled", putBack ?? 0]);
    });
    assertEquals(await onRecord(stack), record);
    await stack.drain();
    assertEquals(await stack.assertEqual(), 6);
    const { message: _, msg_id: __, ...letter } = OLD_LETTER;
    assertEquals(await stack.deadLetters(), [letter]);
    const [epochs] =
      await sql`select count(*)::int as n from libsql_sync.epochs`;
    assertEquals(epochs!.n, 1);
  });
}
