import { assert, assertEquals } from "@std/assert";
import { BULK, BULK_SETUP } from "../db/support/capture_cases.ts";
import { Servers, Stack } from "../db/support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

Deno.test("capture() bounds its messages when statements have 10,000 rows", async (t) => {
  await using stack = await Stack.start(servers, {
    schema: BULK,
    setup: BULK_SETUP,
  });
  const { sql } = stack;
  for (
    const [title, text, rows] of [
      [
        "insert",
        "insert into bulk select i, 'row ' || i, nullif(i, 1 + i / 7 * 7) from generate_series(1, 10000) i",
        10_000,
      ],
      ["update", "update bulk set n = n + 1", 10_000],
      ["key change", "update bulk set id = id + 20000", 10_000],
      [
        "rows of 2 kB",
        "insert into bulk select -i, repeat(md5(i::text), 64), i from generate_series(1, 10000) i",
        20_000,
      ],
      ["delete", "delete from bulk where id % 2 = 0", 10_000],
    ] as const
  ) {
    await t.step(title, async () => {
      await sql.unsafe(text);
      for (const message of await stack.messages()) {
        const { keys } = message as { keys: string[][] };
        assert(keys.length <= 1000);
        const bytes = new TextEncoder().encode(JSON.stringify(message)).length;
        assert(bytes < 20_000, `${bytes} bytes`);
      }
      assertEquals(await stack.settle(), rows);
    });
  }
  await t.step("copy", async () => {
    const writable =
      await sql`copy bulk (id, a, n) from stdin with (format csv)`.writable();
    const lines = Array.from(
      { length: 10_000 },
      (_, i) => `${100_000 + i},"copied ""${i}""",\n`,
    );
    await new Promise<void>((resolve, reject) => {
      writable.on("error", reject).on("finish", resolve);
      writable.end(lines.join(""));
    });
    assertEquals(await stack.settle(), 20_000);
  });
  await t.step("truncate of several tables", async () => {
    await sql.unsafe(
      "insert into more values (1, 'a'); insert into most values (1, 'a'), (2, 'b');",
    ).simple();
    assertEquals(await stack.settle(), 20_003);
    await sql`truncate bulk, more restart identity`;
    assertEquals((await stack.messages()).length, 2);
    assertEquals(await stack.settle(), 2);
  });
});
