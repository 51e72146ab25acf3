import { createClient } from "@libsql/client/http";
import { assert, assertEquals } from "@std/assert";
import { SCHEMA, until, withWorker } from "../db/support/chain.ts";
import {
  configure,
  type RawSchema,
  Servers,
  Stack,
} from "../db/support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

const { item, part } = SCHEMA.tables as {
  item: RawSchema["tables"][string];
  part: RawSchema["tables"][string];
};
const ROWS = 6_000;
const SETUP = `
  create table item (id bigint primary key, name text, size numeric, extra boolean);
  create table part (item bigint, code text, note text, primary key (item, code), unique (code));
  create table late (id uuid primary key default gen_random_uuid(), doc jsonb);
  insert into item select i, 'item ' || i, i, i % 2 = 0 from generate_series(1, ${ROWS}) i;
  insert into part select i, 'code ' || i, 'note' from generate_series(1, ${ROWS}) i;
  insert into late (doc) select jsonb_build_object('i', i) from generate_series(1, ${ROWS}) i;
`;

/** Changes to the tables until stopped, rows before and after the walk's place. */
function startTraffic({ sql }: Stack) {
  let isStopped = false;
  const loop = (async () => {
    for (let i = 0; !isStopped; i++) {
      const id = 1 + (i * 37) % ROWS;
      await sql`update item set size = size + 1, name = name || '+' where id = ${id}`;
      await sql`insert into item values (${ROWS + 1 + i}, 'new', 1, null)`;
      await sql`delete from item where id = ${ROWS + 1 + i - 50}`;
      await sql`update part set note = ${`n${i}`} where item = ${id}`;
      await sql`delete from late where id = (select id from late limit 1)`;
    }
  })();
  return {
    async stop() {
      isStopped = true;
      await loop;
    },
  };
}

/** Every change: what it is called, the new schema, what readers never miss. */
const CHANGES: [name: string, schema: RawSchema, readable: string][] = [
  [
    "a table, a column and an index are added",
    {
      tables: {
        item: {
          ...item,
          columns: { ...item.columns, extra: "BOOLEAN" },
          indexes: ["name", "extra", ["size", "name"]],
        },
        part,
        late: { key: "id", columns: { id: "TEXT", doc: "JSON" }, indexes: [] },
      },
    },
    "item",
  ],
  [
    "a column changes its type",
    {
      tables: {
        item: { ...item, columns: { ...item.columns, size: "TEXT" } },
        part,
      },
    },
    "item",
  ],
  [
    "a key changes",
    { tables: { item, part: { ...part, key: "code" } } },
    "part",
  ],
  [
    "a column is dropped",
    {
      tables: {
        item: {
          key: "id",
          columns: { id: "INTEGER", size: "INTEGER" },
          indexes: [],
        },
        part,
      },
    },
    "item",
  ],
];

for (const [name, schema, readable] of CHANGES) {
  Deno.test(`sync() makes the replica equal under traffic when ${name}, and readers are served all the while`, async () => {
    await using stack = await Stack.start(servers, {
      schema: SCHEMA,
      setup: SETUP,
    });
    await stack.walk();
    await stack.assertEqual();
    const traffic = startTraffic(stack);
    const reader = createClient({ url: stack.sqld.url });
    let fewest = Infinity;
    try {
      await configure(stack.sql, schema);
      await withWorker(stack, { schema }, async (port) => {
        for (let syncs = 0;; syncs++) {
          assert(syncs < 40, "the walk ends");
          const { status, body } = await stack.post("/sync", { port });
          assertEquals(status, 200, JSON.stringify(body));
          const { rows } = await reader.execute(
            `SELECT count(*) AS n FROM ${readable}`,
          );
          fewest = Math.min(fewest, Number(rows[0]!.n));
          if (body.walk_done === true) break;
        }
      });
    } finally {
      await traffic.stop();
    }
    assert(fewest >= ROWS - 1_000, `readers saw ${fewest} rows`);
    await withWorker(stack, { schema }, async (port) => {
      for (let left = Infinity; left > 0;) {
        left = (await stack.post("/sync", { port })).body.queued as number;
      }
      const { body } = await stack.post("/verify", { port });
      assertEquals(
        [body.done, body.differences],
        [true, 0],
        JSON.stringify(body),
      );
    });
    if (name === "a column is dropped") {
      // Left alone, as somebody may still read it, until somebody drops it.
      const { rows } = await stack.client.execute(
        "SELECT count(name) AS n FROM item",
      );
      assert(Number(rows[0]!.n) > 0);
      await stack.client.batch([
        "DROP INDEX idx_item__name",
        "ALTER TABLE item DROP COLUMN name",
      ], "write");
    }
    await stack.assertEqual(schema);
    const row = await stack.row();
    assertEquals([row.fresh, row.unindexed, row.rebuilding], [
      "[]",
      "[]",
      "[]",
    ]);
    const { rows } = await stack.client.execute(
      "SELECT name FROM sqlite_master WHERE type = 'index' AND name LIKE 'idx_%' ORDER BY name",
    );
    const expected = Object.entries(schema.tables).flatMap((
      [table, { indexes }],
    ) =>
      indexes.map((index) => `idx_${[table, ...[index].flat()].join("__")}`)
    );
    const found = rows.map((row) => row.name);
    for (const index of expected) {
      assert(found.includes(index), `${index} in ${found}`);
    }
    const left = await stack.client.execute(
      "SELECT name FROM sqlite_master WHERE name LIKE '_libsql_sync_new_%'",
    );
    assertEquals(left.rows.length, 0);
  });
}

Deno.test("sync() adopts a replica that another tool filled, without emptying it, and repairs what differs", async () => {
  await using stack = await Stack.start(servers, {
    schema: SCHEMA,
    setup: SETUP,
  });
  const numbers =
    `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${ROWS}) SELECT`;
  await stack.client.batch([
    // Types as other tools declare them, a column too few, one too many.
    "CREATE TABLE item (id INTEGER PRIMARY KEY, name VARCHAR(200), other TEXT)",
    "CREATE TABLE part (item TEXT, code TEXT, note TEXT, PRIMARY KEY (item, code))",
    `INSERT INTO item (id, name, other) ${numbers} i, 'item ' || i, 'kept' FROM n`,
    "UPDATE item SET name = 'stale' WHERE id % 1000 = 0",
    "INSERT INTO item (id, name) VALUES (999999, 'ghost')",
    "INSERT INTO part VALUES ('1', 'code 1', 'note')",
  ], "write");
  await stack.walk();
  const { rows } = await stack.client.execute(
    "SELECT count(*) AS n FROM item WHERE other = 'kept'",
  );
  assertEquals(Number(rows[0]!.n), ROWS);
  await stack.client.execute("ALTER TABLE item DROP COLUMN other");
  await stack.assertEqual();
});

Deno.test("sync() walks again when attach() finds a table whose triggers were gone", async () => {
  await using stack = await Stack.start(servers, {
    schema: SCHEMA,
    setup: SETUP,
  });
  await stack.walk();
  await stack.sql`drop trigger replicate_item_libsql_update on item`;
  await stack.sql`update item set name = 'past the queue' where id = 1234`;
  await stack.sql`select libsql_sync.attach()`;
  const first = await stack.sync();
  assertEquals(
    first.walk_done,
    true,
    "a small table is walked within one sync",
  );
  await stack.assertEqual();
  const [walks] = await stack
    .sql`select count(*)::int as n from libsql_sync.walks where kind = 'backfill'`;
  assertEquals(walks!.n, 2);
});

Deno.test("a change made before its column was listed is not lost when it commits after the walk", async () => {
  await using stack = await Stack.start(servers, {
    schema: SCHEMA,
    setup: SETUP,
  });
  await stack.walk();
  await stack.sql`select libsql_sync.scrub(0)`;
  const schema = CHANGES[0]![1];
  const open = Promise.withResolvers<void>();
  const late = stack.sql.begin(async (tx) => {
    await tx`update item set extra = null where id = 5`;
    await open.promise;
  });
  let isListed = false;
  const listing = configure(stack.sql, schema).then(() => isListed = true);
  await until("the column is listed, or waits for the change", async () => {
    const [waits] = await stack.sql`
      select from pg_locks where not granted and relation = 'item'::regclass`;
    return isListed || waits !== undefined;
  });
  const walk = () =>
    withWorker(stack, { schema }, async (port) => {
      for (let isDone = false; !isDone;) {
        const { status, body } = await stack.post("/sync", { port });
        assertEquals(status, 200, JSON.stringify(body));
        isDone = body.walk_done === true && body.queued === 0;
      }
    });
  if (isListed) await walk();
  open.resolve();
  await late;
  await listing;
  await walk();
  await stack.assertEqual(schema);
});

Deno.test("a column that was renamed, and back again, is walked", async () => {
  await using stack = await Stack.start(servers, {
    schema: SCHEMA,
    setup: SETUP,
  });
  await stack.walk();
  await stack.sql`select libsql_sync.scrub(0)`;
  for (const [from, to] of [["name", "was"], ["was", "name"]] as const) {
    await stack.sql`alter table item rename ${stack.sql(from)} to ${
      stack.sql(to)
    }`;
    await stack.sql`select libsql_sync.attach()`;
    await stack.sql`update item set ${
      stack.sql({ [to]: `then ${to}` })
    } where id = ${to.length}`;
    await stack.walk();
    await stack.drain();
  }
  await stack.assertEqual();
});

Deno.test("the rows of a partition that was detached go with the next attach()", async () => {
  await using stack = await Stack.start(servers, {
    schema: SCHEMA,
    setup:
      `create table item (id bigint primary key, name text, size numeric) partition by range (id);
      create table item_low partition of item for values from (0) to (10);
      create table item_high partition of item for values from (10) to (100);
      insert into item select i, 'item ' || i, i from generate_series(1, 20) i;
      create table part (item bigint, code text, note text, primary key (item, code));`,
  });
  await stack.walk();
  await stack.sql`select libsql_sync.scrub(0)`;
  await stack.sql`alter table item detach partition item_high`;
  await stack.sql`select libsql_sync.attach()`;
  await stack.sql`insert into item_high values (50, 'nobody''s', 1)`;
  await stack.walk();
  assertEquals(await stack.assertEqual(), 9);
});
