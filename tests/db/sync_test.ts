import { assert, assertEquals } from "@std/assert";
import { SUPERUSER } from "../../lib/dev/postgres.ts";
import { startTicker } from "../../lib/dev/ticker.ts";
import { type RawSchema, Servers, Stack } from "./support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

/** Each table: values for n new rows, and what an update changes. */
const TABLES: Record<string, { insert: string; update: string }> = {
  orgs: {
    insert: `(created_by, name, management_email)
      select gen_random_uuid(), 'Orgä ' || i, i || '@x.example' from generate_series(1, $n) i`,
    update: "name = name || ' ✓', logo = null",
  },
  apps: {
    insert: `(app_id, icon_url, user_id, name, owner_org, transfer_history)
      select gen_random_uuid(), 'https://x/' || i, gen_random_uuid(), 'App ' || i, gen_random_uuid(),
        array['{"a": 1}', '"x"']::jsonb[] from generate_series(1, $n) i`,
    update:
      "retention = retention - 1, transfer_history = transfer_history || 'null'::jsonb",
  },
  app_versions: {
    insert: `(owner_org, app_id, name)
      select gen_random_uuid(), 'com.' || i, '1.0.' || i from generate_series(1, $n) i`,
    update: "deleted = not deleted, checksum = md5(id::text)",
  },
  channels: {
    insert: `(name, app_id, version, created_by, owner_org, public)
      select 'c' || i, 'com.' || i, i, gen_random_uuid(), gen_random_uuid(), i % 2 = 0
      from generate_series(1, $n) i`,
    update: "disable_auto_update = 'minor', ios = not ios",
  },
  channel_devices: {
    insert: `(channel_id, app_id, device_id, owner_org)
      select i, 'com.' || i, 'd''"' || i, gen_random_uuid() from generate_series(1, $n) i`,
    update: "channel_id = channel_id + 1",
  },
  stripe_info: {
    insert: `(customer_id, status)
      select gen_random_uuid(), 'active' from generate_series(1, $n) i`,
    update:
      "trial_at = trial_at + interval '1 day 1 microsecond', is_good_plan = null",
  },
  manifest: {
    insert: `(app_version_id, file_name, s3_path, file_hash)
      select i, E'line\\n' || i, 's/' || i, md5(i::text) from generate_series(1, $n) i`,
    update: "file_name = ''",
  },
};

/** A third of a table's rows, by its key. */
const THIRD: (table: string) => string = (table) =>
  `id in (select id from ${table} order by md5(id::text) limit (select count(*) / 3 from ${table}))`;

Deno.test("POST /sync makes the replica equal after every operation on every table", async () => {
  await using stack = await Stack.start(servers);
  const { sql } = stack;
  let processed = 0;
  for (const [table, { insert, update }] of Object.entries(TABLES)) {
    const newKey = table === "apps" || table === "orgs"
      ? "gen_random_uuid()"
      : "id + 1000000";
    const steps = [
      `insert into ${table} ${insert.replace("$n", "30")}`,
      `update ${table} set ${update} where ${THIRD(table)}`,
      `update ${table} set id = ${newKey} where ${THIRD(table)}`,
      `delete from ${table} where ${THIRD(table)}`,
      `begin; delete from ${table}; rollback`,
      `begin; savepoint a; delete from ${table}; rollback to a;
        insert into ${table} ${insert.replace("$n", "1")}; commit`,
    ];
    for (const step of steps) {
      await stack.run(step);
      const before = await stack.messages();
      const body = await stack.drain();
      assertEquals(body.processed, before.length, step);
      assertEquals(before.some((message) => "walk" in message), false, step);
      processed += before.length;
      await stack.assertEqual();
    }
  }
  assert(processed > 0);
  assertEquals(await stack.assertEqual(), 7 * 21);

  // One sync over everything at once, and a table emptied between its changes.
  for (const [table, { insert, update }] of Object.entries(TABLES)) {
    await stack.run(`
      update ${table} set ${update};
      truncate ${table};
      insert into ${table} ${insert.replace("$n", "40")};
      update ${table} set ${update} where ${THIRD(table)};
    `);
  }
  await stack.drain();
  assertEquals(await stack.assertEqual(), 7 * 40);
  assertEquals(await stack.deadLetters(), []);
  const archived =
    await sql`select count(*)::int as n from pgmq.a_replicate_data_libsql`;
  assert(
    archived[0]!.n >= processed,
    "what left the queue stays for the replay window",
  );
});

Deno.test("POST /sync answers by the contract: counts, position, what it parked", async () => {
  await using stack = await Stack.start(servers, { walks: false });
  const { sql } = stack;
  const first = await stack.sync();
  assertEquals(first.processed, 0);
  assertEquals(first.queued, 0);
  assertEquals(first.drained, true);
  await sql`insert into manifest (app_version_id, file_name, s3_path, file_hash) values (1, 'f', 's', 'h')`;
  await sql`select pgmq.send('replicate_data_libsql', '{"v": 2, "table": "nowhere", "truncate": true}')`;
  await sql`insert into manifest (app_version_id, file_name, s3_path, file_hash) values (2, 'f', 's', 'h')`;
  const body = await stack.sync();
  assertEquals(body.success, true);
  assertEquals(body.processed, 3);
  assertEquals(body.queued, 0);
  assertEquals(body.queued_exact, true);
  assertEquals(body.parked, 1);
  assertEquals(body.position, Number(first.position) + 1);
  assertEquals(await stack.assertEqual(), 2);
  const [letter] = await stack.deadLetters();
  assertEquals(
    [letter!.table, letter!.key, letter!.reason],
    [null, null, 'table "nowhere" is not in schema.json'],
  );
});

Deno.test("the cron job brings changes to the replica, and makes no call when there are none", async () => {
  await using stack = await Stack.start(servers);
  const { sql, server, database } = stack;
  await sql`insert into manifest (app_version_id, file_name, s3_path, file_hash) values (1, 'f', 's', 'h')`;
  const ticker = startTicker({
    url: server.url({ user: SUPERUSER, database }),
    cronEveryMs: 50,
    log: () => {},
  });
  try {
    const until = async (what: string, isTrue: () => Promise<boolean>) => {
      for (const end = Date.now() + 20_000; Date.now() < end;) {
        if (await isTrue()) return;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      throw new Error(`not in time: ${what}`);
    };
    const count = async (of: string) =>
      Number((await sql.unsafe(`select count(*) as n from ${of}`))[0]!.n);
    await until(
      "an answer",
      async () => await count("net._http_response where status_code = 200") > 0,
    );
    await until("a replica that is walked", async () => {
      const [row] = await sql`select not libsql_sync.has_work() as idle`;
      return row!.idle;
    });
    await stack.assertEqual();
    const sent = async () =>
      (await sql`select last_value::int as n from net.http_request_queue_id_seq`)[
        0
      ]!.n;
    const idleRuns = async () => {
      const runs = await count(
        "cron.job_run_details where status = 'succeeded'",
      );
      await until(
        "idle runs",
        async () =>
          await count("cron.job_run_details where status = 'succeeded'") >
            runs + 3,
      );
    };
    // A tick may have looked while an earlier call was at work.
    await until("idle ticks that call nobody", async () => {
      const before = await sent();
      await idleRuns();
      return await sent() === before;
    });
  } finally {
    await ticker.stop();
  }
});

Deno.test("sync() applies statements of any length, with column names in any alphabet", async () => {
  // Texts between 5,000 bytes and 5,000 characters are among them.
  const counts = [10, 20, 30, 40, 50, 60, 70];
  const columns = (count: number) =>
    Array.from({ length: count }, (_, i) => `${"ü".repeat(12)} ${i}`);
  const schema: RawSchema = {
    tables: Object.fromEntries(counts.map((count) => [`wide_${count}`, {
      key: "id",
      columns: {
        id: "INTEGER",
        ...Object.fromEntries(columns(count).map((name) => [name, "TEXT"])),
      },
      indexes: [],
    }])),
  };
  await using stack = await Stack.start(servers, {
    schema,
    setup: counts.map((count) =>
      `create table wide_${count} (id bigint primary key, ${
        columns(count).map((name) => `"${name}" text default 'x'`).join(", ")
      });`
    ).join("\n"),
  });
  for (const count of counts) {
    await stack.sql`insert into ${stack.sql(`wide_${count}`)} (id) values (1)`;
  }
  await stack.walk();
  await stack.drain();
  assertEquals(await stack.assertEqual(), counts.length);
});
