import { assertEquals } from "@std/assert";
import { type RawSchema, Servers, Stack } from "../db/support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

Deno.test("sync() carries rows of megabytes, and parks the one that no libSQL row can hold", async () => {
  const schema: RawSchema = {
    tables: {
      big: {
        key: "id",
        columns: { id: "INTEGER", a: "TEXT", b: "TEXT", c: "TEXT" },
        indexes: [],
      },
    },
  };
  await using stack = await Stack.start(servers, {
    walks: false,
    schema,
    setup: "create table big (id bigint primary key, a text, b text, c text);",
  });
  const { sql } = stack;
  const random = (bytes: number) =>
    `(select string_agg(md5(i::text), '') from generate_series(1, ${
      bytes / 32
    }) i)`;
  await sql.unsafe(`
    insert into big values (1, ${random(3_000_000)});
    insert into big values (2, ${random(1_500_000)}, ${random(1_500_000)}, ${
    random(1_500_000)
  });
    insert into big values (3, ${random(4_900_000)});
    insert into big values (4, repeat(E'\\u0001"\\\\\\n', 1100000));
    insert into big values (5, repeat('é🙂', 800000));
    insert into big values (6, ${random(6_000_000)}), (7, 'small');
    insert into big select i, ${
    random(3_000_000)
  } from generate_series(10, 13) i;
    insert into big values (20, ${random(4_992_000)});
  `).simple();
  const body = await stack.drain();
  assertEquals(body.success, true);
  const letters = await stack.deadLetters();
  assertEquals(
    letters.map(({ table, key, reason }) => [table, key, reason]),
    [
      [
        "big",
        ["6"],
        "row too large: expected at most 5,000,000 bytes, libSQL's limit of a row",
      ],
      [
        "big",
        ["20"],
        "row too large: expected at most 4990000 bytes, found 4992002",
      ],
    ],
  );
  const found = await stack.client.execute("select id from big order by id");
  assertEquals(found.rows.map((row) => row.id), [
    1,
    2,
    3,
    4,
    5,
    7,
    10,
    11,
    12,
    13,
  ]);
  await sql`update big set a = 'mended' where id in (6, 20)`;
  await sql`update big set c = 'more' where id = 4`;
  await stack.drain();
  assertEquals(await stack.assertEqual(), 12);
});
