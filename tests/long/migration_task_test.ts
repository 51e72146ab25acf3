import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import postgres from "postgres";
import { CommandError, UsageError } from "../../lib/cli/command.ts";
import { command, runMigration } from "../../lib/cli/migration.ts";
import { runSchema } from "../../lib/cli/schema.ts";
import { migrate } from "../../lib/dev/supabase.ts";
import { parseSchema, schemaHash } from "../../lib/schema.ts";
import { RELEASE } from "../../lib/version.ts";
import { type RawSchema, Servers } from "../db/support/stack.ts";
import { copyProject, FIRST } from "../db/support/project.ts";
import { readRelease } from "../db/support/releases.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

const NOW = Date.UTC(2026, 10, 22, 9, 8, 7);
const SCHEMA_1 = "20261122090807_libsql_sync_schema.sql";
const RELEASED = `20261122090808_libsql_sync_${RELEASE}.sql`;
const SCHEMA_2 = "20261122090809_libsql_sync_schema.sql";
const EARLIER = "tests/db/releases/0.0.9.sql.gz";

/** A copy of the project, and the commands that write migrations. */
class Project implements AsyncDisposable {
  readonly root: URL;
  private constructor(private readonly folder: string) {
    this.root = new URL(`file://${folder}/`);
  }

  static async create(): Promise<Project> {
    const project = new Project(await Deno.makeTempDir());
    await copyProject(project.root);
    await project.write("CHANGELOG.md", `## [${RELEASE}] - unreleased\n`);
    return project;
  }

  async migration(...args: string[]): Promise<void> {
    const task = { root: this.root, now: () => NOW, print: () => {} };
    assertEquals(await runMigration(args, task), 0);
  }

  async schema(...args: string[]): Promise<void> {
    const said: string[] = [];
    const code = await runSchema(args, {
      root: this.root,
      pgmqUrl: undefined,
      now: () => NOW,
      print: () => {},
      printError: (text) => said.push(text),
    });
    assertEquals(code, 0, said.join("\n"));
  }

  /** Both checks of `deno task ok` pass. */
  async mustAgree(): Promise<void> {
    await this.migration("--check");
    await this.schema("--check");
  }

  /** Lists a column less in schema.json; returns its hash. */
  async drop(table: string, column: string): Promise<string> {
    const raw: RawSchema = JSON.parse(await this.read("schema.json"));
    delete raw.tables[table]!.columns[column];
    await this.write("schema.json", JSON.stringify(raw));
    return await schemaHash(parseSchema(raw));
  }

  async read(path: string): Promise<string> {
    return await Deno.readTextFile(new URL(path, this.root));
  }

  async write(path: string, text: string): Promise<void> {
    const file = new URL(path, this.root);
    await Deno.mkdir(new URL(".", file), { recursive: true });
    await Deno.writeTextFile(file, text);
  }

  async names(): Promise<string[]> {
    const names: string[] = [];
    const folder = new URL("supabase/migrations/", this.root);
    for await (const { name } of Deno.readDir(folder)) names.push(name);
    return names.sort();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.folder, { recursive: true });
  }
}

/** A database that runs migrations of a project, as `supabase db push` does. */
class Database implements AsyncDisposable {
  private constructor(
    private readonly project: Project,
    private readonly url: string,
    private readonly sql: postgres.Sql,
  ) {}

  static async create(project: Project): Promise<Database> {
    const database = await servers.database({ migrated: false });
    const url = (await servers.postgres()).url({ database });
    const sql = postgres(url, { max: 1, onnotice: () => {} });
    await sql.file(new URL("../../lib/dev/sample.sql", import.meta.url))
      .simple();
    return new Database(project, url, sql);
  }

  async run(...names: string[]): Promise<void> {
    for (const name of names) {
      await this.sql.unsafe(
        await this.project.read(`supabase/migrations/${name}`),
      ).simple();
    }
  }

  async runAll(): Promise<string[]> {
    const folder = new URL("supabase/migrations/", this.project.root);
    return await migrate(this.url, { folder });
  }

  async inForce(): Promise<string> {
    const [newest] = await this
      .sql`select hash from libsql_sync.schemas order by generation desc limit 1`;
    return newest!.hash;
  }

  async release(): Promise<string> {
    const [found] = await this
      .sql`select obj_description('libsql_sync'::regnamespace, 'pg_namespace') as said`;
    return found!.said;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.sql.end({ timeout: 5 });
  }
}

Deno.test("runMigration() --check fails when a source changed, until it is built", async () => {
  await using project = await Project.create();
  await project.migration("--check");
  const room = "supabase/sql/01_queues.sql";
  const changes = [
    async () => await project.write(room, await project.read(room) + "-- x\n"),
    () => project.drop("orgs", "logo"),
  ];
  for (const change of changes) {
    await change();
    await assertRejects(
      () => project.migration("--check"),
      CommandError,
      "run deno task migration",
    );
    await project.migration();
    await project.mustAgree();
  }
  assertEquals(await project.names(), [FIRST]);
});

Deno.test("runMigration() --release keeps the first release, which is the first migration", async () => {
  await using project = await Project.create();
  await project.migration("--release");
  assertEquals(await project.names(), [FIRST]);
  const folder = new URL("tests/db/releases/", project.root);
  assertEquals(
    await readRelease(RELEASE, folder),
    await project.read(`supabase/migrations/${FIRST}`),
  );
});

Deno.test("runMigration() --release writes nothing when the release is there, or the changelog does not have it", async () => {
  await using project = await Project.create();
  await project.write(EARLIER, "");
  await project.write("CHANGELOG.md", `## [Unreleased]\n\n## [${RELEASE}0]\n`);
  await assertRejects(
    () => project.migration("--release"),
    CommandError,
    `CHANGELOG.md has no entry "## [${RELEASE}]"`,
  );
  assertEquals(await project.names(), [FIRST]);
  await project.write("CHANGELOG.md", `## [${RELEASE}] - 2026-11-22\n`);
  await project.migration("--release");
  const names = await project.names();
  assertEquals(names.length, 2);
  await assertRejects(
    () => project.migration("--release"),
    CommandError,
    "it is released already",
  );
  await Deno.remove(
    new URL(`tests/db/releases/${RELEASE}.sql.gz`, project.root),
  );
  await assertRejects(
    () => project.migration("--release"),
    CommandError,
    "it is released already",
  );
  assertEquals(await project.names(), names);
});

Deno.test("schema.json is in force after a fresh install and after each upgrade, whatever ran before", async () => {
  await using project = await Project.create();
  await project.write(EARLIER, "");
  await using old = await Database.create(project);
  await old.run(FIRST);
  await using older = await Database.create(project);
  await older.run(FIRST);

  // A list of its own after the first migration, and a release after it.
  await project.drop("orgs", "logo");
  await project.schema("--migration");
  await old.run(SCHEMA_1);
  const released = await project.drop("apps", "icon_url");
  await project.migration("--release");
  assertEquals(await project.names(), [FIRST, SCHEMA_1, RELEASED]);
  await project.mustAgree();
  await old.run(RELEASED);
  await older.run(SCHEMA_1, RELEASED);
  await using fresh = await Database.create(project);
  assertEquals(await fresh.runAll(), await project.names());
  for (const database of [old, older, fresh]) {
    assertEquals(await database.inForce(), released);
    assertEquals(await database.release(), `LibSQL Sync Worker ${RELEASE}`);
  }

  // From now on the release's migration is the one that is built.
  const before = await project.read(`supabase/migrations/${FIRST}`);
  await project.drop("orgs", "management_email");
  await project.schema();
  await project.mustAgree();

  // A list after the release. A database that got that list first, and the release
  // late, ends with the same.
  await using late = await Database.create(project);
  await late.run(FIRST, SCHEMA_1);
  const newest = await project.drop("apps", "default_upload_channel");
  await project.schema("--migration");
  assertEquals(await project.names(), [FIRST, SCHEMA_1, RELEASED, SCHEMA_2]);
  await project.mustAgree();
  assertEquals(await project.read(`supabase/migrations/${FIRST}`), before);
  await old.run(SCHEMA_2);
  await late.run(SCHEMA_2, RELEASED);
  await fresh.runAll();
  for (const database of [old, late, fresh]) {
    assertEquals(await database.inForce(), newest);
  }
});

Deno.test("CHANGELOG.md has an entry for the version of lib/version.ts", async () => {
  const text = await Deno.readTextFile(
    new URL("../../CHANGELOG.md", import.meta.url),
  );
  assertStringIncludes(text, `\n## [${RELEASE}]`);
});

Deno.test("command refuses flags that exclude each other or that it does not know", async () => {
  for (const args of [["--check", "--release"], ["--nonsense"], ["word"]]) {
    await assertRejects(() => command.run(args), UsageError);
  }
});
