import { assert, assertEquals } from "@std/assert";
import { Servers, Stack } from "../db/support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

/** What changes texts of rows without a write to them: no trigger fires. */
const CHANGES: Record<string, [columns: string, value: string, ddl: string]> = {
  "a coarser numeric": [
    "n numeric(10,4)",
    "1.2345",
    "alter table x alter n type numeric(10,2)",
  ],
  "numeric to float8": [
    "n numeric",
    "1.10",
    "alter table x alter n type float8",
  ],
  "json to jsonb": [
    "n json",
    `'{"b":1,  "a":2}'`,
    "alter table x alter n type jsonb",
  ],
  "the same type, using another value": [
    "n text",
    "'abc'",
    "alter table x alter n type text using upper(n)",
  ],
  "dropped and added with a default": [
    "n text",
    "'abc'",
    "alter table x drop n; alter table x add n text default 'new'",
  ],
  "two columns that trade names": [
    "n text, m text default 'other'",
    "'abc'",
    "alter table x rename n to o; alter table x rename m to n; alter table x rename o to m",
  ],
  "a table that takes the name": [
    "n text",
    "'abc'",
    "create table y (id bigint primary key, n text); insert into y values (1, 'y'); alter table x rename to z; alter table y rename to x",
  ],
  "an enum's value renamed": [
    "n mood",
    "'sad'",
    "alter type mood rename value 'sad' to 'unhappy'",
  ],
  "an enum's value renamed, below an array of a domain": [
    "n of_mood[]",
    "'{sad}'",
    "alter type mood rename value 'sad' to 'unhappy'",
  ],
  "a composite type's field renamed": [
    "n pair",
    "'(1,2)'",
    "alter type pair rename attribute a to c",
  ],
};
const TYPES =
  `create type mood as enum ('sad', 'ok'); create domain of_mood as mood;
  create type pair as (a int, b int);`;

for (const [name, [columns, value, ddl]] of Object.entries(CHANGES)) {
  Deno.test(`a claim walks again after a change that no trigger sees: ${name}`, async () => {
    await using stack = await Stack.start(servers, {
      schema: {
        tables: {
          x: { key: "id", columns: { id: "INTEGER", n: "TEXT" }, indexes: [] },
        },
      },
      setup: `${TYPES} create table x (id bigint primary key, ${columns})`,
    });
    await stack.sql`update libsql_sync.chain set scrub_rows = 0`;
    await stack.walk();
    await stack.run(
      `insert into x (id, n) values (1, ${value}), (2, ${value})`,
    );
    await stack.settle();
    await stack.run(ddl);
    await stack.drain();
    assertEquals((await stack.row()).walk_done, 1);
    await stack.assertEqual();
  });
}

const PARTED = {
  tables: {
    x: {
      key: ["id", "d"],
      columns: { id: "INTEGER", d: "INTEGER", n: "TEXT" },
      indexes: [],
    },
  },
};
const PARTITIONS: Record<string, string> = {
  "attached":
    "create table x3 (id bigint not null, d int not null, n text, primary key (id, d)); insert into x3 values (9, 3, 'new'); alter table x attach partition x3 for values in (3)",
  "detached": "alter table x detach partition x1",
  "dropped": "drop table x1",
};
for (const [how, ddl] of Object.entries(PARTITIONS)) {
  Deno.test(`a claim walks again after a partition was ${how}`, async () => {
    await using stack = await Stack.start(servers, {
      schema: PARTED,
      setup:
        `create table x (id bigint, d int, n text, primary key (id, d)) partition by list (d);
        create table x1 partition of x for values in (1); create table x2 partition of x for values in (2)`,
    });
    await stack.sql`update libsql_sync.chain set scrub_rows = 0`;
    await stack.walk();
    await stack.run("insert into x values (1, 1, 'a'), (2, 2, 'b')");
    await stack.settle();
    await stack.run(ddl);
    await stack.drain();
    assertEquals((await stack.row()).walk_done, 1);
    await stack.assertEqual();
  });
}

Deno.test("a claim does not walk again after what changes no row: a rewrite, statistics, an index, an empty table", async () => {
  await using stack = await Stack.start(servers, {
    schema: {
      tables: {
        x: { key: "id", columns: { id: "INTEGER", n: "TEXT" }, indexes: [] },
      },
    },
    setup: "create table x (id bigint primary key, n text, other text)",
  });
  await stack.sql`update libsql_sync.chain set scrub_rows = 0`;
  await stack.walk();
  await stack.run("insert into x values (1, 'a', 'b')");
  await stack.settle();
  const before = await stack.row();
  for (
    const ddl of [
      "vacuum full x",
      "analyze x",
      "create index on x (n)",
      "alter table x drop other",
      "truncate x",
    ]
  ) await stack.run(ddl);
  await stack.drain();
  const after = await stack.row();
  assertEquals([after.walk_gen, after.walk_done], [before.walk_gen, 1]);
  assert(Number(after.position) > Number(before.position));
  await stack.assertEqual();
});
