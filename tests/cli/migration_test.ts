import { assert, assertEquals, assertRejects } from "@std/assert";
import deno from "../../deno.json" with { type: "json" };
import { findLastBuild, stampAfter } from "../../lib/cli/migration_files.ts";
import {
  buildMigration,
  configureStatement,
  findConfigure,
} from "../../lib/cli/migration_text.ts";
import { SyncError } from "../../lib/errors.ts";
import { parseSchema } from "../../lib/schema.ts";
import { RELEASE } from "../../lib/version.ts";

const schema = parseSchema({
  tables: { t: { key: "a", columns: { a: "TEXT" } } },
});
const MARKERS = "-- schema.json begins\n-- schema.json ends\n";
const BEGIN = { name: "00_begin.sql", text: "select 1;\n" };
const FINISH = { name: "90_finish.sql", text: `${MARKERS}select 9;\n` };
const FIRST = "20251031173352_libsql_replication_setup.sql";

Deno.test("buildMigration() puts the rooms together in the order of their names, each after its file's name", async () => {
  const made = await buildMigration({
    rooms: [FINISH, { name: "10_b.sql", text: "select 2;\n\n\n" }, BEGIN],
    schema,
    release: "1.2.3",
  });
  assertEquals(
    made,
    `-- LibSQL Sync Worker 1.2.3, the source's side.
--
-- Built by \`deno task migration\` from supabase/sql/ and schema.json: change
-- those and not this file.

-- supabase/sql/00_begin.sql

select 1;

-- supabase/sql/10_b.sql

select 2;

-- supabase/sql/90_finish.sql

-- schema.json begins
${await configureStatement(schema)}
-- schema.json ends
select 9;

-- The release, for operators: \\dn+ in psql, or
-- select obj_description('libsql_sync'::regnamespace, 'pg_namespace')
comment on schema libsql_sync is 'LibSQL Sync Worker 1.2.3';
`,
  );
  assertEquals(findConfigure(made), [await configureStatement(schema)]);
});

Deno.test("buildMigration() refuses rooms when the markers are missing, doubled, misplaced or not empty", async () => {
  const broken = [
    "select 9;\n",
    MARKERS + MARKERS,
    "-- schema.json ends\n-- schema.json begins\n",
    MARKERS.replace("\n", "\nselect 1;\n"),
  ];
  for (const text of broken) {
    const rooms = [BEGIN, { ...FINISH, text }];
    const error = await assertRejects(
      () => buildMigration({ rooms, schema, release: "1.2.3" }),
      SyncError,
    );
    assertEquals(error.code, "schema_invalid");
  }
});

Deno.test("findLastBuild() finds the first migration until a release has one of its own", () => {
  const schemaAlone = "20260101000000_libsql_sync_schema.sql";
  const released = `20260102000000_libsql_sync_${RELEASE}.sql`;
  const later = "20260103000000_libsql_sync_schema.sql";
  assertEquals(findLastBuild([FIRST, schemaAlone]), FIRST);
  assertEquals(
    findLastBuild([FIRST, schemaAlone, released, later]),
    released,
  );
});

Deno.test("findLastBuild() refuses the build of another release, which databases may have run", () => {
  const other = "20260102000000_libsql_sync_0.0.9.sql";
  let message = "";
  try {
    findLastBuild([FIRST, other]);
  } catch (error) {
    message = (error as SyncError).message;
  }
  assert(message.endsWith("run deno task migration --release"), message);
});

Deno.test("stampAfter() is the time, or a second after the newest migration when that is later", () => {
  const now = Date.UTC(2026, 10, 22, 9, 8, 7);
  assertEquals(stampAfter([], now), "20261122090807");
  assertEquals(stampAfter([FIRST], now), "20261122090807");
  assertEquals(
    stampAfter([FIRST, "20261122090807_a.sql"], now),
    "20261122090808",
  );
  assertEquals(
    stampAfter([FIRST, "20261231235959_a.sql"], now),
    "20270101000000",
  );
});

Deno.test("deno.json has the version of lib/version.ts", () => {
  assertEquals(deno.version, RELEASE);
});
