import { assert, assertEquals, assertRejects } from "@std/assert";
import { drainBaseline } from "../bench/baseline.ts";
import { PARTS, runBench } from "../bench/bench.ts";
import { assertEqual } from "../bench/equal.ts";
import { GOALS } from "../bench/found.ts";
import { Lab } from "../bench/lab.ts";
import { table } from "../bench/report.ts";
import { TOY } from "../bench/sizes.ts";

const quiet = () => {};

Deno.test("bench measures every figure of the table, with every replica equal", async () => {
  const { figures, cost } = await runBench({
    // The bundle has a test of its own.
    parts: PARTS.filter(({ name }) => name !== "bundle"),
    sizes: TOY,
    log: quiet,
  });
  const wanted = Object.keys(GOALS)
    .filter((key) => key !== "bundle_kb" && key !== "start_ms");
  assertEquals(Object.keys(figures), wanted);
  for (const [key, value] of Object.entries(figures)) {
    assert(Number.isFinite(value), key);
  }
  assertEquals(figures.noop_messages, 0);
  assertEquals(table(figures).length, 1 + wanted.length);
  for (const [what, value] of Object.entries(cost)) {
    assert(value > 0, what);
  }
});

Deno.test("assertEqual() reports a changed cell, another type, a missing row and a ghost", async () => {
  await using lab = new Lab(quiet);
  await using pair = await lab.filled({ capture: "baseline", rows: 100 });
  const { sql, client } = pair;
  assertEquals(await assertEqual(sql, client), 100);
  for (
    const [broken, told, mended] of [
      [
        "UPDATE app_versions SET name = name || ' ' WHERE id = 7",
        "app_versions.name: value at key 7",
        "UPDATE app_versions SET name = rtrim(name) WHERE id = 7",
      ],
      [
        "UPDATE app_versions SET deleted = CAST(deleted AS BLOB) WHERE id = 7",
        "app_versions.deleted: type at key 7",
        "UPDATE app_versions SET deleted = CAST(CAST(deleted AS TEXT) AS INTEGER) WHERE id = 7",
      ],
      [
        "INSERT INTO app_versions (id) VALUES (101)",
        "app_versions: ghost at key 101",
        "DELETE FROM app_versions WHERE id = 101",
      ],
      [
        "DELETE FROM app_versions WHERE id = 100",
        "app_versions: missing at key 100",
        "",
      ],
    ] as const
  ) {
    await client.execute(broken);
    await assertRejects(() => assertEqual(sql, client), Error, told);
    if (mended) {
      await client.execute(mended);
      assertEquals(await assertEqual(sql, client), 100);
    }
  }
});

Deno.test("drainBaseline() brings inserts, updates and deletes, plain and tuned", async () => {
  await using lab = new Lab(quiet);
  for (const isTuned of [false, true]) {
    await using pair = await lab.filled({ capture: "baseline", rows: 100 });
    const { sql, client, url } = pair;
    await sql`delete from app_versions where id % 10 = 0`;
    await sql`update app_versions set id = id + 1000, user_id = null where id % 10 = 1`;
    await sql`insert into app_versions (id, owner_org, app_id, name)
      values (10, gen_random_uuid(), 'a "quoted" ü', '1')`;
    const drained = await drainBaseline({
      url,
      client,
      messages: 1e6,
      isTuned,
    });
    assertEquals(drained, 21);
    // A key that changes leaves its old row behind: the ancestor's fault, not ours.
    await client.execute(
      "DELETE FROM app_versions WHERE id % 10 = 1 AND id < 1000",
    );
    assertEquals(await assertEqual(sql, client), 91);
  }
});
