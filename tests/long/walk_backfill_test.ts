import { assert, assertEquals } from "@std/assert";
import { fileURLToPath } from "node:url";
import { seededRandom } from "../../lib/dev/random.ts";
import { expireLease, saveReplica, syncWith } from "../db/support/chain.ts";
import { SECRET, Servers, Stack } from "../db/support/stack.ts";
import { WorkerProcess } from "../db/support/worker_process.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

const MAIN = fileURLToPath(new URL("../../main.ts", import.meta.url));
const SEED = Number(Deno.env.get("SEED") ?? 20251122);

/** Fills app_versions before the triggers see it. */
async function fill(stack: Stack, rows: number): Promise<void> {
  await stack.run(
    `alter table app_versions disable trigger all;
     insert into app_versions (owner_org, app_id, name, checksum)
     select md5(i::text)::uuid, 'com.app.' || i % 1000, '1.0.' || i, md5(i::text) from generate_series(1, ${rows}) i;
     alter table app_versions enable trigger all;`,
    { user: "supabase_admin" },
  );
}

/** Writers until stopped: rows come, change and go. */
function startWriter(stack: Stack, seed: number) {
  const random = seededRandom(seed);
  const { sql } = stack;
  const counts = { inserted: 0, updated: 0, deleted: 0 };
  let isStopped = false;
  const loop = (async () => {
    while (!isStopped) {
      const fresh = await sql`insert into app_versions (owner_org, app_id, name)
        select gen_random_uuid(), 'busy', 'v' || i from generate_series(1, 5) i returning id`;
      counts.inserted += fresh.length;
      const id = random.below(300_000);
      const updated = await sql`update app_versions set checksum = ${
        random.hex(32)
      }
        where id between ${id} and ${id + 9}`;
      counts.updated += updated.count;
      const gone = await sql`delete from app_versions where id in
        (select id from app_versions where app_id = 'busy' order by id limit 2)`;
      counts.deleted += gone.count;
    }
  })();
  return {
    counts,
    async stop() {
      isStopped = true;
      await loop;
    },
  };
}

Deno.test(`sync() fills 300,000 rows while writers are busy and the worker is killed 20 times, and writes no row twice (seed ${SEED})`, async () => {
  await using stack = await Stack.start(servers, { walks: false });
  const { client, sql } = stack;
  const rows = 300_000;
  await fill(stack, rows);
  await stack.sync();
  // The replica counts its own writes, in its own transactions.
  await client.batch([
    "CREATE TABLE written (kind TEXT PRIMARY KEY, n INTEGER NOT NULL)",
    "INSERT INTO written VALUES ('insert', 0), ('update', 0), ('delete', 0)",
    ...["insert", "update", "delete"].map((kind) =>
      `CREATE TRIGGER count_${kind} AFTER ${kind} ON app_versions BEGIN UPDATE written SET n = n + 1 WHERE kind = '${kind}'; END`
    ),
  ], "write");
  await sql`select libsql_sync.backfill()`;

  const random = seededRandom(SEED);
  const writer = startWriter(stack, SEED);
  let killedInside = 0;
  try {
    for (let kill = 0; kill < 20; kill++) {
      await using worker = await WorkerProcess.start(MAIN, {
        LIBSQL_URL: stack.sqld.url,
        LIBSQL_AUTH_TOKEN: "test",
        PGMQ_URL: stack.workerUrl,
        WEBHOOK_SIGNATURE: SECRET,
      });
      const answer = fetch(`http://127.0.0.1:${worker.port}/sync`, {
        method: "POST",
        headers: { "x-webhook-signature": SECRET },
      }).then(async (response) => {
        await response.body?.cancel();
        return "answered";
      }, () => "killed");
      await new Promise((resolve) =>
        setTimeout(resolve, 50 + random.below(700))
      );
      await worker[Symbol.asyncDispose]();
      if (await answer === "killed") killedInside += 1;
      await expireLease(stack);
    }
    await stack.walk();
  } finally {
    await writer.stop();
  }
  assert(killedInside >= 15, `${killedInside} of 20 kills met a running sync`);
  await stack.drain();
  const compared = await stack.assertEqual();
  const { inserted, updated, deleted } = writer.counts;
  assertEquals(compared, rows + inserted - deleted);
  const written = Object.fromEntries(
    (await client.execute("SELECT kind, n FROM written")).rows.map((
      row,
    ) => [row.kind, Number(row.n)]),
  );
  // A batch is kept whole or not at all: a row comes once, changes as often as
  // the writers changed it at most, and goes once at most.
  assertEquals(written.insert! - written.delete!, compared);
  assert(written.insert! <= rows + inserted, JSON.stringify(written));
  assert(written.update! <= updated, JSON.stringify({ written, updated }));
  const { differences } = await stack.finish("/verify?table=app_versions");
  assertEquals(differences, 0);
});

Deno.test(`sync() is equal again by the next syncs when sqld's data is put back inside a backfill (seed ${SEED})`, async () => {
  await using stack = await Stack.start(servers);
  const random = seededRandom(SEED);
  await fill(stack, 60_000);
  const writer = startWriter(stack, SEED);
  const advance = (calls: number) =>
    syncWith(stack, () => {
      let left = calls;
      return { budget: { callsLeft: () => left-- } };
    });
  try {
    for (let round = 0; round < 5; round++) {
      await advance(12 + random.below(30));
      const failOver = await saveReplica(stack);
      const before = Number((await stack.row()).position);
      await advance(12 + random.below(30));
      assert(Number((await stack.row()).position) > before);
      await failOver();
      assertEquals(Number((await stack.row()).position), before);
    }
  } finally {
    await writer.stop();
  }
  await stack.walk();
  await stack.drain();
  await stack.assertEqual();
  const [epochs] = await stack
    .sql`select count(*)::int as n from libsql_sync.epochs`;
  assertEquals(
    epochs!.n,
    1,
    "a rewind within the replay window needs no new epoch",
  );
});

Deno.test("sync() starts a new epoch without a wipe and walks when a rewind cannot be replayed", async () => {
  await using stack = await Stack.start(servers);
  await fill(stack, 5_000);
  await stack.walk();
  const failOver = await saveReplica(stack);
  await stack.sql`delete from app_versions where id <= 10`;
  await stack
    .sql`update app_versions set name = 'later' where id between 11 and 20`;
  await stack.drain();
  await failOver();
  await stack.sql`truncate pgmq.a_replicate_data_libsql`;
  // Readers never see an empty replica.
  const body = await stack.sync();
  const { rows } = await stack.client.execute(
    "SELECT count(*) AS n FROM app_versions",
  );
  assert(Number(rows[0]!.n) >= 4_990);
  await stack.walk();
  await stack.assertEqual();
  assertEquals(body.success, true);
  const adopted = stack.log.filter(({ event }) => event === "adopt");
  assertEquals(adopted.map(({ level, wipe }) => [level, wipe]), [[
    "warn",
    false,
  ]]);
});

Deno.test("sync() fills an empty table without its indexes and its ghosts' half, and builds them last", async () => {
  await using stack = await Stack.start(servers);
  await fill(stack, 20_000);
  const steps: string[] = [];
  for (let syncs = 0;; syncs++) {
    assert(syncs < 20, "the fill ends");
    const { walk_done } = await syncWith(stack, ({ source, replica }) => ({
      source: {
        async claim(request) {
          const claim = await source.claim(request);
          if (
            claim.do === "batch" && claim.page?.table === "app_versions" &&
            claim.page.kind === "backfill"
          ) {
            steps.push(claim.page.half);
          }
          return claim;
        },
      },
      replica: {
        buildIndexes(table, rowsMax) {
          steps.push(`index ${table}`);
          return replica.buildIndexes(table, rowsMax);
        },
      },
    }));
    if (walk_done) break;
  }
  assertEquals(new Set(steps), new Set(["forward", "index app_versions"]));
  assertEquals(steps.at(-1), "index app_versions");
  const { rows } = await stack.client.execute(
    "SELECT count(*) AS n FROM sqlite_master WHERE type = 'index' AND name LIKE 'idx_app_versions__%'",
  );
  assertEquals(Number(rows[0]!.n), 6);
  await stack.assertEqual();
});
