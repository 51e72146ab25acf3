/** The operator's commands, run as processes against a real stack. */

import { assert, assertEquals, assertMatch } from "@std/assert";
import { parsePgmq } from "../../lib/config/source.ts";
import { SUPERUSER } from "../../lib/dev/postgres.ts";
import { SECRET, Servers, Stack } from "../db/support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

const ROOT = new URL("../../", import.meta.url);

/** What a command did. */
interface Ran {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** The environment an operator sets for a stack. */
function settingsOf(stack: Stack): Record<string, string> {
  return {
    PGMQ_URL: stack.server.url({ database: stack.database }),
    WORKER_URL: `http://127.0.0.1:${stack.worker.addr.port}`,
    WEBHOOK_SIGNATURE: SECRET,
  };
}

/** Runs a command with the permissions of its task. */
async function command(
  env: Record<string, string>,
  name: string,
  ...args: string[]
): Promise<Ran> {
  const { tasks } = JSON.parse(
    await Deno.readTextFile(new URL("deno.json", ROOT)),
  );
  const [, ...words] = tasks[name].command.split(" ");
  const HOME = Deno.env.get("HOME") ?? "/";
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [...words, ...args],
    cwd: ROOT,
    clearEnv: true,
    env: { HOME, NO_COLOR: "1", ...env },
    stdin: "null",
  }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  const ran = { code, out: text(stdout), err: text(stderr) };
  for (const secret of [SECRET, "postgres:postgres", "hunter2"]) {
    assert(!(ran.out + ran.err).includes(secret), `${name} shows a secret`);
  }
  return ran;
}

/** A stack with some rows on both sides, where nothing is repaired by itself. */
async function startFilled(): Promise<Stack> {
  const stack = await Stack.start(servers);
  await stack.run(`
    insert into orgs (created_by, name, management_email)
      select gen_random_uuid(), 'Org ' || i, i || '@x.example' from generate_series(1, 40) i;
    insert into app_versions (owner_org, app_id, name)
      select gen_random_uuid(), 'com.' || i, '1.0.' || i from generate_series(1, 60) i;
    analyze orgs, app_versions;
    select libsql_sync.scrub(0);
  `);
  await stack.drain();
  return stack;
}

/** Findings of doctor that are not fine, as "level name: found". */
async function troubles(
  stack: Stack,
  env: Record<string, string> = {},
): Promise<{ code: number; found: string[] }> {
  const { code, out, err } = await command(
    { ...settingsOf(stack), ...env },
    "doctor",
    "--json",
  );
  assertEquals(err, "");
  const findings: Record<string, string>[] = JSON.parse(out);
  for (const { level, advice } of findings) {
    assertEquals(advice === null, level === "ok", JSON.stringify(findings));
  }
  return {
    code,
    found: findings.filter(({ level }) => level !== "ok")
      .map(({ level, name, found }) => `${level} ${name}: ${found}`)
      // Nothing runs cron here.
      .filter((line) => line !== "warning cron runs: none yet"),
  };
}

Deno.test("verify finds planted drift and names the table, --repair repairs it", async () => {
  await using stack = await startFilled();
  const env = settingsOf(stack);
  const equal = await command(env, "verify");
  assertEquals([equal.code, equal.err], [0, ""], equal.out);
  assertMatch(equal.out, /100 rows compared in [\d.]+ s: no difference\./);

  await stack.client.batch([
    "UPDATE orgs SET name = 'planted' WHERE rowid IN (SELECT rowid FROM orgs LIMIT 2)",
    "DELETE FROM app_versions WHERE rowid IN (SELECT rowid FROM app_versions LIMIT 1)",
    "INSERT INTO orgs (id, name) VALUES ('ghost', 'ghost')",
  ], "write");
  const found = await command(env, "verify");
  assertEquals([found.code, found.err], [1, ""]);
  assertMatch(found.out, /^app_versions +60 +1 +0$/m);
  assertMatch(found.out, /^orgs +40 +2 +1$/m);
  assertMatch(
    found.out,
    /4 differences, in app_versions, orgs\. Repair: deno task verify --repair/,
  );

  const one = await command(env, "verify", "--table", "orgs", "--json");
  assertEquals(one.code, 1);
  const report = JSON.parse(one.out);
  assertEquals(
    [report.differences, Object.keys(report.tables), report.repair],
    [3, ["orgs"], false],
  );

  const repaired = await command(env, "verify", "--repair");
  assertEquals(repaired.code, 0, repaired.err);
  assertMatch(
    repaired.out,
    /4 differences found and repaired, in app_versions/,
  );
  assertEquals((await command(env, "verify")).code, 0);
  assertEquals(await stack.assertEqual(), 100);
});

Deno.test("backfill writes what the replica lacks, and says how much", async () => {
  await using stack = await startFilled();
  const env = settingsOf(stack);
  await stack.client.execute("DELETE FROM orgs");
  const { code, out, err } = await command(env, "backfill", "--table=orgs");
  assertEquals([code, err], [0, ""]);
  assertMatch(out, /40 rows compared in [\d.]+ s, 40 written or removed\./);
  assertEquals(await stack.assertEqual(), 100);

  const unknown = await command(env, "backfill", "--table", "nothing");
  assertEquals([unknown.code, unknown.out], [1, ""]);
  assertMatch(unknown.err, /400 bad_request: Cannot backfill/);
});

Deno.test("verify waits for a sync that is running", async () => {
  await using stack = await startFilled();
  await stack
    .sql`update libsql_sync.chain set lease = 'other', lease_until = now() + interval '3 s'`;
  const { code, out } = await command(settingsOf(stack), "verify", "--json");
  assertEquals(code, 0, out);
  const { rows, seconds } = JSON.parse(out);
  assertEquals([rows, seconds > 1], [100, true], out);
});

/** Runs something with a server in the worker's place. */
async function withStandIn(
  answer: (request: Request) => Promise<Response>,
  run: (url: string) => Promise<void>,
): Promise<void> {
  const server = Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen: () => {} },
    answer,
  );
  try {
    await run(`http://127.0.0.1:${server.addr.port}`);
  } finally {
    await server.shutdown();
  }
}

Deno.test("verify reads its result from the source when the cron ended the walk between two calls", async () => {
  for (const busy of [true, false]) {
    await using stack = await startFilled();
    await stack.client.execute("DELETE FROM orgs WHERE rowid < 3");
    let calls = 0;
    await withStandIn(async () => {
      calls += 1;
      const [row] = await stack.sql`select libsql_sync.verify() as walk`;
      const walk = Number(row!.walk);
      // The first answer comes early, and then somebody else goes on.
      if (calls === 1) await stack.drain();
      return Response.json({
        success: true,
        walk,
        done: false,
        tables: {},
        batches: 1,
        ...(busy ? { busy } : {}),
      });
    }, async (WORKER_URL) => {
      const env = { ...settingsOf(stack), WORKER_URL };
      const { code, out } = await command(env, "verify");
      assertEquals(code, 1);
      assertMatch(out, /100 rows compared in [\d.]+ s: 2 differences, in orgs/);
    });
    assertEquals(calls, busy ? 1 : 2);
  }
});

Deno.test("verify ends on Ctrl-C and leaves the walk to the cron", async () => {
  await using stack = await startFilled();
  const asked = Promise.withResolvers<void>();
  const over = Promise.withResolvers<void>();
  await withStandIn(async () => {
    await stack.sql`select libsql_sync.verify()`;
    asked.resolve();
    await over.promise;
    return Response.json({});
  }, async (WORKER_URL) => {
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--quiet", "lib/cli/verify.ts"],
      cwd: ROOT,
      env: { ...settingsOf(stack), WORKER_URL },
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    await asked.promise;
    child.kill("SIGINT");
    const { code, stderr } = await child.output();
    over.resolve();
    assertEquals(code, 130);
    assertMatch(new TextDecoder().decode(stderr), /continues with the cron/);
  });
  await stack.drain();
  const [walk] = await stack
    .sql`select kind, ended_at is not null as ended from libsql_sync.walks order by walk_gen desc limit 1`;
  assertEquals({ ...walk }, { kind: "verify", ended: true });
});

Deno.test("verify says why it cannot go on when the worker refuses", async () => {
  await using stack = await startFilled();
  const refused = await command(
    { ...settingsOf(stack), WEBHOOK_SIGNATURE: "hunter2" },
    "verify",
  );
  assertEquals([refused.code, refused.out], [1, ""]);
  assertMatch(refused.err, /401 unauthorized: .* Set WEBHOOK_SIGNATURE here/);
  const nobody = await command(
    { ...settingsOf(stack), WORKER_URL: "http://127.0.0.1:9" },
    "verify",
  );
  assertEquals(nobody.code, 1);
  assertMatch(nobody.err, /Cannot reach the worker: .* no connection/);
  await withStandIn(
    () => Promise.resolve(new Response("<html>", { status: 200 })),
    async (WORKER_URL) => {
      const env = { ...settingsOf(stack), WORKER_URL };
      const { code, err } = await command(env, "verify");
      assertEquals(code, 1);
      assertMatch(err, /found HTTP 200 with another body/);
    },
  );
});

Deno.test("status reports to people and programs, with exit code 1 when something needs to be done", async () => {
  await using stack = await startFilled();
  const env = settingsOf(stack);
  await command(env, "verify");
  const fine = await command(env, "status");
  assertEquals([fine.code, fine.err], [0, ""], fine.out);
  assertMatch(fine.out, /^replica +equal to the source as of 20/m);
  assertMatch(
    fine.out,
    /^last full pass +verify \d+, ended \d+ s ago: 100 rows, 0 different$/m,
  );

  await stack.sql`select libsql_sync.pause()`;
  await stack.sql`update orgs set name = 'later'`;
  const paused = await command(env, "status", "--json");
  assertEquals(paused.code, 1);
  const report = JSON.parse(paused.out);
  assertEquals(
    [report.fine, report.paused, report.queued, report.warnings.length],
    [false, true, 1, 1],
  );
  const walk = await command(env, "verify");
  assertEquals([walk.code, walk.out], [1, ""]);
  assertMatch(walk.err, /the worker is paused/);

  await stack.sql`select libsql_sync.resume()`;
  await stack
    .sql`update libsql_sync.chain set seen_at = now() - interval '31 minutes'`;
  const stale = await command(env, "status");
  assertEquals(stale.code, 1);
  assertMatch(
    stale.out,
    /! The last sync was 31 min \d* ?s? ?ago, though there is work/,
  );
  await stack.drain();
  assertEquals((await command(env, "status")).code, 0);
});

Deno.test("dlq lists, shows, redrives and discards", async () => {
  await using stack = await startFilled();
  const env = settingsOf(stack);
  assertEquals(
    (await command(env, "dlq", "list")).out,
    "There are no dead letters.\n",
  );
  await stack.client.execute(
    "CREATE TRIGGER by_hand BEFORE INSERT ON stripe_info BEGIN SELECT RAISE(ABORT, 'by hand'); END",
  );
  await stack.sql`select pgmq.send('replicate_data_libsql',
    '{"v": 1, "table": "nowhere", "columns": ["id"], "rows": [["hunter1"]]}'::jsonb)`;
  await stack
    .sql`insert into stripe_info (id, customer_id) values (77, 'hunter1')`;
  await stack.drain();
  await stack.client.execute("DROP TRIGGER by_hand");

  const listed = await command(env, "dlq", "list");
  assertEquals([listed.code, listed.err], [0, ""]);
  assertMatch(listed.out, /^id +parked +table +key +reason$/m);
  assertMatch(listed.out, /nowhere/);
  assertMatch(listed.out, /stripe_info +\["77"\]/);
  assert(!listed.out.includes("hunter1"));
  assertEquals((await command(env, "status")).code, 1);

  const letters: { id: string }[] = JSON.parse(
    (await command(env, "dlq", "list", "--json")).out,
  );
  const [nowhere, refused] = letters.map(({ id }) => id) as [string, string];
  const shown = await command(env, "dlq", "show", nowhere);
  assertEquals(shown.code, 0);
  assertMatch(shown.out, /^row now +-$/m);
  assert(!shown.out.includes("hunter1"));
  // As it is now, not as it was.
  await stack.sql`alter table stripe_info disable trigger user`;
  await stack.sql`update stripe_info set customer_id = 'another' where id = 77`;
  await stack.sql`alter table stripe_info enable trigger user`;
  assertMatch(
    (await command(env, "dlq", "show", refused)).out,
    /^row now +.*"customer_id":"another"/m,
  );

  const redriven = await command(env, "dlq", "redrive", refused);
  assertEquals([redriven.code, redriven.err], [0, ""]);
  await stack.drain();
  assertEquals((await stack.deadLetters()).length, 1);

  const hopeless = await command(env, "dlq", "redrive", nowhere);
  assertEquals(hopeless.code, 1);
  assertMatch(hopeless.err, /tables that schema\.json lists/);
  assertEquals((await command(env, "dlq", "discard")).code, 2);
  assertEquals(
    (await command(env, "dlq", "discard", nowhere, "--yes")).code,
    2,
  );
  const discarded = await command(env, "dlq", "discard", nowhere);
  assertEquals([discarded.code, discarded.out], [0, "1 discarded.\n"]);
  assertEquals((await command(env, "dlq", "discard", "--yes")).code, 0);
  const gone = await command(env, "dlq", "show", nowhere);
  assertEquals(gone.code, 1);
  assertMatch(gone.err, /no such dead letter/);
});

Deno.test("nuke asks before it acts, and fills again by default", async () => {
  await using stack = await startFilled();
  const env = settingsOf(stack);
  const { epoch } = await stack.row();
  const refused = await command(env, "nuke");
  assertEquals([refused.code, refused.out], [2, ""]);
  assertMatch(refused.err, /without a terminal/);
  assertEquals((await stack.row()).epoch, epoch);

  const empty = await command(env, "nuke", "--yes", "--no-refill");
  assertEquals([empty.code, empty.err], [0, ""]);
  await stack.drain();
  const count = async () =>
    (await stack.client.execute("SELECT count(*) AS n FROM orgs")).rows[0]!.n;
  assertEquals(await count(), 0);
  assertMatch((await command(env, "status")).out, /emptied and is not filled/);

  const { WEBHOOK_SIGNATURE: NUKE_SIGNATURE, WORKER_URL } = env;
  const filled = await command(
    { NUKE_SIGNATURE, WORKER_URL } as typeof env,
    "nuke",
    "--yes",
  );
  assertEquals(filled.code, 0, filled.err);
  await stack.drain();
  await stack.drain();
  assertEquals(await stack.assertEqual(), 100);
});

Deno.test("doctor finds nothing when all is well", async () => {
  await using stack = await startFilled();
  assertEquals(await troubles(stack), { code: 0, found: [] });
  const withReplica = {
    LIBSQL_URL: stack.sqld.url,
    LIBSQL_AUTH_TOKEN: "test",
  };
  assertEquals(await troubles(stack, withReplica), { code: 0, found: [] });
  const people = await command(settingsOf(stack), "doctor", "--all", "--sync");
  assertMatch(people.out, /^ok +sync +succeeded$/m);
  assertMatch(people.out, /^\d+ checks: \d+ fine, 1 warning, 0 errors\.$/m);
});

Deno.test("doctor names what was changed at the source", async () => {
  await using stack = await startFilled();
  const trigger = (table: string, suffix = "") =>
    `replicate_${table}_libsql${suffix}`;
  const cases: [name: string, breakIt: string, found: RegExp][] = [
    [
      "a dropped trigger",
      `drop trigger ${trigger("orgs", "_delete")} on orgs`,
      /^error table orgs: trigger replicate_orgs_libsql_delete is missing$/,
    ],
    [
      "a disabled trigger",
      `alter table apps disable trigger ${trigger("apps", "_update")}`,
      /^error table apps: trigger replicate_apps_libsql_update is disabled$/,
    ],
    [
      "a renamed column",
      "alter table channels rename column ios to iphone",
      /^warning table channels: lacks listed column\(s\) ios/,
    ],
    [
      "trigger functions older than the tables",
      "select 1",
      /^warning trigger functions: missing, or made before a change/,
    ],
    [
      "a dropped table",
      "drop table manifest",
      /^error table manifest: does not exist$/,
    ],
    [
      "a missing Vault secret",
      "delete from vault.secrets where name = 'libsql_sync_url'",
      /^error secret libsql_sync_url: not in the Vault/,
    ],
    [
      "a foreign grant",
      "grant execute on function libsql_sync.dead_letters() to authenticated",
      /^error grant: authenticated may execute libsql_sync\.dead_letters\(\)$/,
    ],
    [
      "a grant on the queue",
      "grant select on pgmq.q_replicate_data_libsql to anon",
      /^error grant: anon may use pgmq\.q_replicate_data_libsql$/,
    ],
    [
      "row level security off",
      "alter table libsql_sync.walks disable row level security",
      /^error row level security: off on libsql_sync\.walks$/,
    ],
    [
      "a leftover trigger",
      `create function public.old_capture() returns trigger language plpgsql as
        'begin perform pgmq.send(''replicate_data_libsql'', ''{}''); return new; end';
       create trigger old_one after insert on stripe_info for each row execute function public.old_capture()`,
      /^warning leftover: trigger old_one on (public\.)?stripe_info sends messages/,
    ],
    [
      "a second cron job",
      "select cron.schedule('old', '* * * * *', 'select public.process_libsql_replication_batch()')",
      /^warning leftover: cron job \d+ old calls the worker as well$/,
    ],
    [
      "no cron job",
      "select cron.unschedule('process_libsql_replication')",
      /^error cron job: process_libsql_replication is not scheduled$/,
    ],
    [
      "a pause",
      "select libsql_sync.pause()",
      /^warning paused: the worker is paused$/,
    ],
    [
      "an isolation the chain cannot use",
      `alter database ${stack.database} set default_transaction_isolation = 'serializable'`,
      /^error isolation: serializable$/,
    ],
  ];
  for (const [, breakIt] of cases) await stack.run(breakIt);
  const { code, found } = await troubles(stack);
  assertEquals(code, 1);
  for (const [name, , expected] of cases) {
    assert(
      found.some((line) => expected.test(line)),
      `${name}: ${found.join("\n")}`,
    );
  }
  // Status shows of it what concerns tables and triggers.
  const [{ catalog }] = await stack.sql<
    [{ catalog: { name: string; found: string }[] }]
  >`
    select libsql_sync.status() -> 'catalog' as catalog`;
  for (
    const expected of [
      "table orgs: trigger replicate_orgs_libsql_delete is missing",
      "table apps: trigger replicate_apps_libsql_update is disabled",
      "table manifest: does not exist",
    ]
  ) {
    assert(
      catalog.some(({ name, found }) => `${name}: ${found}` === expected),
      JSON.stringify(catalog),
    );
  }
  await stack.run(
    "alter table channel_devices drop constraint channel_devices_pkey",
  );
  const keyless = (await troubles(stack)).found;
  for (
    const expected of [
      "error table channel_devices: has no unique, not null key (id)",
      "error trigger functions: cannot be made anew while a table lacks its key",
    ]
  ) assert(keyless.includes(expected), keyless.join("\n"));
  // Following the advice repairs what it found.
  await stack.run(`
    alter database ${stack.database} set default_transaction_isolation = 'read committed';
    alter table channels rename column iphone to ios;
    create table manifest (id bigint primary key, app_version_id bigint, file_name text, s3_path text, file_hash text);
    alter table channel_devices add primary key (id);
    select libsql_sync.attach();
    select libsql_sync.lock_down();
    alter table libsql_sync.walks enable row level security;
    drop trigger old_one on stripe_info;
    select cron.unschedule('old');
    select cron.schedule('process_libsql_replication', '*/5 * * * *', 'select public.process_libsql_replication_batch()');
    select libsql_sync.resume();
    select vault.create_secret('http://127.0.0.1:${stack.worker.addr.port}/sync', 'libsql_sync_url');
  `);
  await stack.drain();
  assertEquals(await troubles(stack), { code: 0, found: [] });
});

Deno.test("doctor checks partitions and the queue's tables, and works without vault, cron and net", async () => {
  await using stack = await Stack.start(servers, {
    schema: {
      tables: {
        part: {
          key: "id",
          columns: { id: "INTEGER" },
          indexes: [],
        },
      },
    },
    setup: `
      create table part (id bigint primary key) partition by range (id);
      create table part_one partition of part for values from (0) to (10);`,
  });
  await stack.drain();
  await stack.run(
    "create table part_two partition of part for values from (10) to (20)",
  );
  await stack.run(
    "drop schema vault cascade; drop schema cron cascade; drop schema net cascade",
    { user: SUPERUSER },
  );
  const { code, found } = await troubles(stack);
  assertEquals(code, 1);
  for (
    const expected of [
      /^error pg_cron: not installed$/,
      /^error pg_net: not installed$/,
      /^error supabase_vault: not installed$/,
      /^error secret libsql_webhook_signature: not in the Vault/,
      /^error cron job: pg_cron is not here$/,
      /^error pg_net answers: pg_net is not here$/,
      /^error partition (public\.)?part_two: trigger replicate_part_libsql is missing$/,
      // schema.json here is another one.
      /^error schema\.json here: not the one in force/,
    ]
  ) {
    assert(found.some((line) => expected.test(line)), found.join("\n"));
  }
  await stack.run("drop table pgmq.a_replicate_data_libsql_dlq");
  const queue = await troubles(stack);
  assert(
    queue.found.some((line) =>
      /^error queue: pgmq\.a_replicate_data_libsql_dlq is not there/.test(line)
    ),
    queue.found.join("\n"),
  );
});

Deno.test("doctor names a wrong secret, a stopped worker and another database", async () => {
  await using stack = await startFilled();
  const wrong = await troubles(stack, { WEBHOOK_SIGNATURE: "hunter2" });
  assertEquals(wrong.code, 1);
  assertEquals(
    wrong.found.map((line) => line.split(":")[0]),
    ["error secret here", "error secret at the worker"],
  );
  // Nothing listens on the discard port.
  const stopped = await troubles(stack, { WORKER_URL: "http://127.0.0.1:9" });
  assertEquals(stopped.code, 1);
  assertEquals(stopped.found, [
    "warning worker's address: libsql_sync_url in the Vault is not WORKER_URL followed by /sync",
    "error worker: /health does not answer",
  ]);
  const elsewhere = await troubles(stack, {
    PGMQ_URL: "postgres://postgres:hunter2@127.0.0.1:9/postgres",
  });
  assertEquals(elsewhere.code, 1);
  assertMatch(
    elsewhere.found[0]!,
    /^error PostgreSQL: Cannot reach PostgreSQL/,
  );
  assertEquals(elsewhere.found.length, 1);
});

Deno.test("doctor compares the replica with schema.json", async () => {
  await using stack = await startFilled();
  await stack.client.batch([
    "DROP INDEX idx_orgs__name",
    "ALTER TABLE orgs ADD COLUMN by_hand TEXT",
    "DROP TABLE manifest",
    "DROP TRIGGER _libsql_sync_delete",
  ], "write");
  const { code, found } = await troubles(stack, {
    LIBSQL_URL: stack.sqld.url,
    LIBSQL_AUTH_TOKEN: "test",
  });
  assertEquals(code, 1);
  assertEquals(found, [
    "error replica's guard: has 2 of 3 triggers",
    "error replica's tables: lacks manifest",
    "warning replica's indexes: lacks idx_orgs__name",
    "warning replica's columns: schema.json does not list orgs.by_hand; the worker leaves them as they are",
  ]);
  const gone = await troubles(stack, {
    LIBSQL_URL: "http://127.0.0.1:9",
    LIBSQL_AUTH_TOKEN: "hunter2",
  });
  assertEquals(gone.found, ["error replica here: libSQL does not answer"]);
});

Deno.test("commands say that the migration is missing when it is", async () => {
  const server = await servers.postgres();
  const database = await servers.database({ migrated: false });
  const env = {
    PGMQ_URL: server.url({ database }),
    WORKER_URL: "http://127.0.0.1:9",
    WEBHOOK_SIGNATURE: SECRET,
  };
  for (const args of [["status"], ["dlq", "list"], ["verify"]] as const) {
    const { code, out, err } = await command(env, args[0], ...args.slice(1));
    assertEquals([code, out], [1, ""]);
    assertMatch(err, /run the migration in supabase\/migrations/);
  }
  const { code, out } = await command(env, "doctor");
  assertEquals(code, 1);
  assertMatch(
    out,
    /^error +PostgreSQL +Cannot query PostgreSQL.*run the migration/m,
  );
});

// Which calls are wrong, tests/cli/flags_test.ts says.
Deno.test("commands run as processes answer --help with 0, and a wrong call with 2", async () => {
  for (
    const name of [
      "status",
      "backfill",
      "verify",
      "nuke",
      "dlq",
      "doctor",
      "token",
      "deploy",
      "schema",
    ]
  ) {
    const help = await command({}, name, "--help");
    assertEquals([help.code, help.err], [0, ""]);
    assertMatch(help.out, new RegExp(`^Usage: deno task ${name}`));
  }
  const wrong = await command({}, "status", "--what");
  assertEquals([wrong.code, wrong.out], [2, ""]);
  assertMatch(wrong.err, /^unknown flag --what\n\nUsage: deno task status/);
  const unset = await command({}, "doctor");
  assertEquals([unset.code, unset.out], [2, ""]);
  for (const setting of ["PGMQ_URL", "WORKER_URL", "WEBHOOK_SIGNATURE"]) {
    assertMatch(unset.err, new RegExp(`${setting} must be`));
  }
});

Deno.test("token prints a PGMQ_TOKEN that the worker accepts, from a secret that is neither shown nor short", async () => {
  const JWT_SECRET = "hunter2-hunter2-hunter2-hunter2-hunter2";
  const made = await command({ JWT_SECRET }, "token", "--days", "1");
  assertEquals([made.code, made.err], [0, ""]);
  const token = made.out.trim();
  assertEquals(made.out.includes("hunter2"), false);
  const settings: Record<string, string> = {
    PGMQ_URL: "https://p.supabase.co/rest/v1",
    PGMQ_TOKEN: token,
  };
  const problems: string[] = [];
  const read = (name: string) => settings[name] ?? "";
  parsePgmq(read, (problem) => problems.push(problem));
  assertEquals(problems, []);
  const claims = JSON.parse(atob(token.split(".")[1]!));
  assertEquals(claims.role, "libsql_sync_worker");
  assert(claims.exp * 1000 < Date.now() + 86_400_000 + 1_000);
  for (
    const [env, args] of [
      [{ JWT_SECRET: "hunter2" }, []],
      [{}, []],
      [{ JWT_SECRET }, ["--days", "0"]],
    ] as const
  ) {
    const refused = await command({ ...env }, "token", ...args);
    assertEquals([refused.code, refused.out], [2, ""]);
    assertEquals(refused.err.includes("hunter2"), false);
  }
});
