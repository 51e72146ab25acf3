import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { fileURLToPath } from "node:url";
import postgres from "postgres";
import { runSchema } from "../../lib/cli/schema.ts";
import { migrate } from "../../lib/dev/supabase.ts";
import { parseSchema, schemaHash } from "../../lib/schema.ts";
import schemaJson from "../../schema.json" with { type: "json" };
import { copyProject } from "../db/support/project.ts";
import { type RawSchema, Servers } from "../db/support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

const SETUP = "20251031173352_libsql_replication_setup.sql";
const NOW = Date.UTC(2026, 10, 22, 9, 8, 7);
const MIGRATION = "20261122090807_libsql_sync_schema.sql";

/** A migration but for the list it puts in force. */
function withoutList(text: string): string {
  return text.replaceAll(/^select libsql_sync\.configure\(.*$/gm, "");
}

/** A project's folder with a database, and the command as a user runs it. */
class Project implements AsyncDisposable {
  out = "";
  private constructor(
    readonly folder: string,
    readonly root: URL,
    readonly url: string,
    readonly sql: postgres.Sql,
  ) {}

  static async create(
    options: { setup?: string; migrated?: boolean } = {},
  ): Promise<Project> {
    const database = await servers.database({
      migrated: options.migrated ?? false,
    });
    const server = await servers.postgres();
    const folder = await Deno.makeTempDir();
    const root = new URL(`file://${folder}/`);
    await copyProject(root);
    const url = server.url({ database });
    const sql = postgres(url, { max: 1, onnotice: () => {} });
    if (options.setup) await sql.unsafe(options.setup).simple();
    return new Project(folder, root, url, sql);
  }

  /** Runs the command; what it said is in `out`. */
  async run(
    line: string,
    options: { pgmqUrl?: string | null; now?: number } = {},
  ): Promise<number> {
    const { pgmqUrl = this.url, now = NOW } = options;
    const said: string[] = [];
    const code = await runSchema(line.split(" ").filter(Boolean), {
      root: this.root,
      pgmqUrl: pgmqUrl ?? undefined,
      now: () => now,
      print: (text) => said.push(text),
      printError: (text) => said.push(text),
    });
    this.out = said.join("\n");
    return code;
  }

  /** Runs it, and it must succeed. */
  async must(line: string): Promise<void> {
    assertEquals(await this.run(line), 0, this.out);
  }

  async read(path: string): Promise<string> {
    return await Deno.readTextFile(new URL(path, this.root));
  }

  async schema(): Promise<RawSchema> {
    return JSON.parse(await this.read("schema.json"));
  }

  async write(schema: RawSchema): Promise<void> {
    const text = JSON.stringify(schema);
    await Deno.writeTextFile(new URL("schema.json", this.root), text);
  }

  async migrations(): Promise<string[]> {
    const names: string[] = [];
    for await (
      const { name } of Deno.readDir(new URL("supabase/migrations/", this.root))
    ) names.push(name);
    return names.sort();
  }

  async migrate(): Promise<string[]> {
    return await migrate(this.url, {
      folder: new URL("supabase/migrations/", this.root),
    });
  }

  async inForce(): Promise<string | undefined> {
    const [newest] = await this
      .sql`select hash from libsql_sync.schemas order by generation desc limit 1`;
    return newest?.hash;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.sql.end({ timeout: 1 });
    await Deno.remove(this.folder, { recursive: true });
  }
}

const SETUP_SQL = `
  create type mood as enum ('good', 'bad');
  create type pair as (a int, b text);
  create domain cents as numeric(12, 0) check (value >= 0);
  create domain few as cents;
  create domain flag as boolean;
  create domain tags as text[];
  create table every_type (
    id bigint primary key, i2 smallint, i4 int, n0 numeric(18, 0), n0_long numeric(19, 0), n2 numeric(10, 2),
    n_any numeric, f8 float8, d_cents cents, d_few few, b boolean, d_flag flag,
    j json, jb jsonb, a int[], d_tags tags, c pair, e mood, t text, v varchar(5), u uuid,
    at timestamptz, by bytea, m money, r int4range, g int generated always as (i4 * 2) stored, dropped int,
    s_neg numeric(5, -2)
  );
  alter table every_type drop column dropped;
  create table "Ünïque ""Keys" (
    "a b" int not null, code text not null, note text, unique ("a b", code), unique (code), unique (note)
  );
  create table indexed (
    id int primary key, a int, b text, c text, "d-e" date, f int,
    unique (f), constraint twice unique (a, b)
  );
  create index on indexed (b);
  create index on indexed (c, a);
  create index on indexed (b, a desc);
  create index on indexed (b) include (c);
  create index on indexed (lower(c));
  create index on indexed (c) where a > 0;
  create index on indexed using hash (c);
  create index on indexed using brin (a);
  create index on indexed (id);
  create index on indexed ("d-e");
  create table parted (id int, day date, n text, primary key (id, day)) partition by range (day);
  create table parted_1 partition of parted for values from ('2026-01-01') to ('2027-01-01');
  create index on parted (n);
  create view a_view as select 1 as id;
  create materialized view a_matview as select 1 as id;
  create table no_key (a int unique, b text);
  create table partial_key (a int not null, b int not null);
  create unique index on partial_key (a) where b > 0;
  create unique index on partial_key ((a + b));
  create table parent (id int primary key);
  create table child (primary key (id)) inherits (parent);
  create sequence a_sequence;
  create table rowid_name (id int primary key, _rowid_ int);
`;

Deno.test("runSchema() writes tables as the catalog has them when they are named", async () => {
  await using project = await Project.create({ setup: SETUP_SQL });
  const kept = JSON.stringify(schemaJson.tables);
  await project.must("--from postgres parted indexed every_type");
  // A name with a blank, which a shell would quote.
  assertEquals(
    await runSchema(["--from", "postgres", 'Ünïque "Keys'], {
      root: project.root,
      pgmqUrl: project.url,
      now: () => NOW,
      print: () => {},
      printError: (text) => {
        throw new Error(text);
      },
    }),
    0,
  );
  const { tables } = await project.schema();
  assertEquals(Object.keys(tables).slice(7), [
    "every_type",
    "indexed",
    "parted",
    'Ünïque "Keys',
  ]);
  assertEquals(
    JSON.stringify(tables).slice(0, kept.length - 1),
    kept.slice(0, -1),
  );
  assertEquals(tables.every_type, {
    key: "id",
    columns: {
      id: "INTEGER",
      i2: "INTEGER",
      i4: "INTEGER",
      n0: "INTEGER",
      n0_long: "TEXT",
      n2: "TEXT",
      n_any: "TEXT",
      f8: "TEXT",
      d_cents: "INTEGER",
      d_few: "INTEGER",
      b: "BOOLEAN",
      d_flag: "BOOLEAN",
      j: "JSON",
      jb: "JSON",
      a: "JSON",
      d_tags: "JSON",
      c: "JSON",
      e: "TEXT",
      t: "TEXT",
      v: "TEXT",
      u: "TEXT",
      at: "TEXT",
      by: "TEXT",
      m: "TEXT",
      r: "TEXT",
      g: "INTEGER",
      s_neg: "TEXT",
    },
    indexes: [],
  });
  assertEquals(tables.indexed!.indexes, [
    "b",
    "d-e",
    "f",
    ["a", "b"],
    ["b", "a"],
    ["c", "a"],
  ]);
  assertEquals(tables.parted!.key, ["id", "day"]);
  assertEquals(tables.parted!.indexes, ["n"]);
  assertEquals(tables['Ünïque "Keys'], {
    key: "code",
    columns: { "a b": "INTEGER", code: "TEXT", note: "TEXT" },
    indexes: ["note", ["a b", "code"]],
  });

  // It says the same again, as deno fmt would write it, and the migration follows.
  const text = await project.read("schema.json");
  const setup = await project.read(`supabase/migrations/${SETUP}`);
  await project.must("--from postgres every_type parted");
  assertStringIncludes(project.out, "as PostgreSQL has them");
  assertEquals(await project.read("schema.json"), text);
  assertEquals(await project.read(`supabase/migrations/${SETUP}`), setup);
  const fmt = await new Deno.Command(Deno.execPath(), {
    args: [
      "fmt",
      "--check",
      fileURLToPath(new URL("schema.json", project.root)),
    ],
  }).output();
  assert(fmt.success, new TextDecoder().decode(fmt.stderr));
  assertStringIncludes(setup, await schemaHash(parseSchema(JSON.parse(text))));
  assertEquals(await project.run("--check", { pgmqUrl: null }), 0);

  // What it wrote can be installed, and attaches.
  await project.migrate();
  assertEquals(await project.run("--check"), 1);
  assertStringIncludes(
    project.out,
    `table "orgs": is not in PostgreSQL's schema public`,
  );
  const [made] = await project.sql`
    select count(distinct tgrelid)::int as n from pg_trigger where tgname ~ '^replicate_'`;
  assertEquals(made?.n, 5);
});

Deno.test("runSchema() refuses all at once and writes nothing when tables cannot be replicated", async () => {
  await using project = await Project.create({ setup: SETUP_SQL });
  const before = await project.read("schema.json");
  const code = await project.run(
    "--from postgres indexed a_view a_matview no_key partial_key child parent parted_1 a_sequence nowhere rowid_name",
  );
  assertEquals(code, 1);
  for (
    const text of [
      'table "a_view" is a view',
      'table "a_matview" is a materialized view',
      'table "no_key" has no primary key',
      'table "partial_key" has no primary key',
      'table "child" takes part in table inheritance',
      'table "parent" takes part in table inheritance',
      'table "parted_1" is a partition',
      'table "a_sequence" is no table',
      `table "nowhere" is not in PostgreSQL's schema public`,
      'table "rowid_name", column "_rowid_"',
    ]
  ) assertStringIncludes(project.out, text);
  assert(!project.out.includes("indexed"));
  assertEquals(await project.read("schema.json"), before);
});

Deno.test("runSchema() exits 2 when it is not understood, and 1 without the password when PostgreSQL is not there", async () => {
  await using project = await Project.create();
  assertEquals(await project.run("--nonsense"), 2);
  assertStringIncludes(project.out, "Usage: deno task schema");
  assertEquals(await project.run("--from postgres orgs", { pgmqUrl: null }), 2);
  assertStringIncludes(project.out, "PGMQ_URL");
  for (
    const pgmqUrl of [
      "postgres://u:hunter2@127.0.0.1:1/none",
      "postgres://u:hunter2@127.0.0.1:no/none",
      "hunter2",
    ]
  ) {
    assertEquals(await project.run("--from postgres orgs", { pgmqUrl }), 1);
    assertStringIncludes(project.out, "PGMQ_URL");
    assert(!project.out.includes("hunter2"), project.out);
  }
});

Deno.test("runSchema() --check says where PostgreSQL differs when a table changed", async () => {
  await using project = await Project.create({ migrated: true });
  const { sql } = project;
  await project.must("--check");
  // What is not listed is no difference, nor is another type under TEXT.
  await sql.unsafe(`
    alter table orgs add column secret text;
    alter table orgs alter column logo type integer using 1;
  `).simple();
  await project.must("--check");

  await sql.unsafe(`
    alter table manifest rename to manifest_2;
    alter table channels rename column name to title;
    alter table apps alter column retention type text;
    alter table stripe_info alter column is_good_plan type text;
    alter table channel_devices drop constraint channel_devices_pkey;
    alter table channels alter column version type numeric(10, 2);
    drop table orgs; create view orgs as select 1 as id;
  `).simple();
  assertEquals(await project.run("--check"), 1);
  const found = project.out.split("\n").sort();
  const of = (text: string) => `PostgreSQL differs from schema.json: ${text}.`;
  assertEquals(found, [
    of(
      'table "apps", column "retention": schema.json lists INTEGER, and PostgreSQL\'s type text is TEXT',
    ),
    of(
      'table "channel_devices": its key (id) is not unique and not null in PostgreSQL',
    ),
    of('table "channels", column "name": PostgreSQL does not have it'),
    of(
      'table "channels", column "version": schema.json lists INTEGER, and PostgreSQL\'s type numeric(10,2) is TEXT',
    ),
    of('table "manifest": is not in PostgreSQL\'s schema public'),
    of('table "orgs": is a view'),
    of(
      'table "stripe_info", column "is_good_plan": schema.json lists BOOLEAN, and PostgreSQL\'s type text is TEXT',
    ),
  ]);
  // Without PGMQ_URL it compares files alone.
  assertEquals(await project.run("--check", { pgmqUrl: null }), 0);
});

Deno.test("runSchema() --check says so when another schema is in force, none, or it may not look", async () => {
  await using project = await Project.create({ migrated: true });
  const schema = await project.schema();
  delete schema.tables.orgs!.columns.logo;
  await project.write(schema);
  assertEquals(await project.run("--check"), 1);
  assertStringIncludes(project.out, "The migrations do not agree");
  assertStringIncludes(project.out, "another schema.json in force");
  await project.must("");
  assertEquals(await project.run("--check"), 1);
  assert(!project.out.includes("The migrations do not agree"));
  await project.migrate();
  await project.must("--check");

  await project.sql.unsafe(
    "create role reader login password 'postgres'; grant usage on schema libsql_sync to reader",
  ).simple();
  const reader = new URL(project.url);
  reader.username = "reader";
  assertEquals(await project.run("--check", { pgmqUrl: reader.href }), 1);
  assertStringIncludes(project.out, "may not read libsql_sync.schemas");
  await using bare = await Project.create();
  assertEquals(await bare.run("--check"), 1);
  assertStringIncludes(bare.out, "has no schema.json in force");
});

Deno.test("runSchema() --migration writes a file that runs after the first, and only when something changed", async () => {
  await using project = await Project.create({ migrated: true });
  const { sql } = project;
  const setup = await project.read(`supabase/migrations/${SETUP}`);
  assertEquals(await project.run("--migration"), 1);
  assertStringIncludes(project.out, "nothing has changed");
  assertEquals(await project.migrations(), [SETUP]);

  await sql`create table extra (id bigint primary key, a text)`;
  await project.must("--from postgres extra --migration");
  assertEquals(await project.migrations(), [SETUP, MIGRATION]);
  // The build gets the new list too, and nothing else.
  const built = await project.read(`supabase/migrations/${SETUP}`);
  assertEquals(withoutList(built), withoutList(setup));
  const text = await project.read(`supabase/migrations/${MIGRATION}`);
  for (const part of ["-- What:", "-- Locks:", "-- Again:", "-- Undo:"]) {
    assertStringIncludes(text, part);
  }
  assertEquals(text.match(/^[^-\n].*$/gm)?.length, 1);

  const hash = await schemaHash(parseSchema(await project.schema()));
  assert(await project.inForce() !== hash);
  assertEquals(await project.run("--check", { pgmqUrl: null }), 0);
  // As deployed: the new file alone. As in a new database, and locally: all in order.
  await sql.unsafe(text);
  assertEquals(await project.inForce(), hash);
  await project.must("--check");
  for (let i = 0; i < 2; i++) {
    assertEquals(await project.migrate(), [SETUP, MIGRATION]);
    assertEquals(await project.inForce(), hash);
  }
  await sql`insert into extra values (1, 'a')`;
  const [message] =
    await sql`select message ->> 'table' as name from pgmq.q_replicate_data_libsql`;
  assertEquals(message?.name, "extra");

  // Nothing changed again; then the second list is the newest, and later still.
  assertEquals(await project.run("--migration"), 1);
  await project.must("");
  assertStringIncludes(project.out, `${MIGRATION} agrees`);
  const schema = await project.schema();
  delete schema.tables.orgs;
  await project.write(schema);
  assertEquals(await project.run("--check", { pgmqUrl: null }), 1);
  assertEquals(await project.run(""), 1);
  assertStringIncludes(project.out, "--migration");
  assertEquals(await project.run("--migration", { now: NOW - 86_400_000 }), 0);
  assertEquals(
    (await project.migrations()).at(-1),
    "20261122090808_libsql_sync_schema.sql",
  );
  assertEquals(
    withoutList(await project.read(`supabase/migrations/${SETUP}`)),
    withoutList(setup),
  );
  await project.migrate();
  await project.must("--check");
});
