/**
 * From each release to the present: its migration as it was kept, some use, and
 * the present migrations over it.
 */

import { assert, assertEquals } from "@std/assert";
import postgres from "postgres";
import { findLastBuild, readNames } from "../../lib/cli/migration_files.ts";
import { CONTRACT } from "../../lib/chain/claim.ts";
import { parseSchema, schemaHash } from "../../lib/schema.ts";
import schemaJson from "../../schema.json" with { type: "json" };
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
/** The function that a line of a shape is of. */
const functionIn = (line: string) =>
  /^(?:function|comment on) (libsql_sync\.\w+\()/.exec(line)?.[1];

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

/** Whether this worker works with the release's functions and its schema. */
async function canSync({ sql }: Stack): Promise<boolean> {
  const [found] = await sql`select libsql_sync.version() as contract,
    (select hash from libsql_sync.schemas order by generation desc limit 1) as hash`;
  const hash = await schemaHash(parseSchema(schemaJson));
  return found!.contract === CONTRACT && found!.hash === hash;
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
      await stack.run(`${insertOrgs("arrived")}
        insert into pgmq.q_replicate_data_libsql (vt, message) values (now(), '{"table": "unknown"}');`);
      const isSynced = await canSync(stack);
      if (isSynced) await stack.drain();
      await stack.run(
        `${insertOrgs("queued")} update orgs set name = name || '!';`,
      );
      await stack.run(OLDER);
      const kept = await readKept(stack.sql);
      assertEquals(kept.letters?.length, isSynced ? 1 : undefined);

      const url = stack.server.url({ database });
      const owner = postgres(url, { max: 1, onnotice: () => {} });
      try {
        for (const text of await presentMigrations()) await run(owner, text);
      } finally {
        await owner.end({ timeout: 5 });
      }
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
      assertEquals(await stack.assertEqual(), 6);
      const letters = await stack.deadLetters();
      assertEquals(letters.map(({ message }) => message), [
        { table: "unknown" },
      ]);
    });
  }
}
