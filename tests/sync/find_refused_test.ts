import { assertEquals } from "@std/assert";
import type { Cell } from "../../lib/chain/rows.ts";
import { rowsOf, type Step, stepOf } from "../../lib/plan/step.ts";
import { findRefused } from "../../lib/sync/find_refused.ts";

const TABLE = { name: "apps", key: ["id"], columns: [], indexes: [] };

/** An upsert of rows with these ids. */
const upsert = (ids: readonly Cell[]) =>
  stepOf(
    "upsert",
    TABLE,
    ["id"],
    ids.map((id) => ({ key: null, cells: [id] })),
  );

/** Rows from 0 up. */
const idsTo = (count: number) =>
  Array.from({ length: count }, (_, n) => `${n}`);

/** A replica that refuses the first step with one of these ids. */
function replicaRefusing(ids: readonly string[]) {
  const asked: Step[][] = [];
  return {
    asked,
    refusedOf: (steps: readonly Step[]) => {
      asked.push([...steps]);
      const at = steps.findIndex((step) =>
        "json" in step &&
        rowsOf(step).some(({ cells }) => ids.includes(String(cells[0])))
      );
      return Promise.resolve(at === -1 ? null : at);
    },
  };
}

const search = (
  ids: readonly string[],
  steps: readonly Step[],
  triesMax = 100,
) => {
  const replica = replicaRefusing(ids);
  const options = { code: "SQLITE_CONSTRAINT", triesMax, rebuilding: [] };
  return findRefused(replica, steps, options).then((found) => ({
    ids: found.map(({ key }) => key![0]),
    found,
    asked: replica.asked,
  }));
};

Deno.test("findRefused() names every refused row of many, with the replica's code", async () => {
  const { ids, found } = await search(["3", "700", "999"], [
    upsert(idsTo(1_000)),
  ]);
  assertEquals(ids, ["3", "700", "999"]);
  assertEquals(found[0], {
    table: "apps",
    key: ["3"],
    reason: "libSQL refused the row with SQLITE_CONSTRAINT",
  });
});

Deno.test("findRefused() tries no row that it found again, and the steps before it each time", async () => {
  const before = upsert(["before"]);
  const { ids, asked } = await search(["5"], [before, upsert(idsTo(10))]);
  assertEquals(ids, ["5"]);
  // One try to find the row among ten pieces of one, one that accepts the rest.
  assertEquals(asked.map((steps) => steps.length), [11, 10]);
  assertEquals(asked.every(([first]) => first === before), true);
});

Deno.test("findRefused() names what it found when the tries are spent", async () => {
  const { ids, asked } = await search(["1", "2", "3"], [upsert(idsTo(10))], 2);
  assertEquals([ids, asked.length], [["1", "2"], 2]);
});

Deno.test("findRefused() blames no row when the replica accepts the step now, or refuses one before it", async () => {
  assertEquals((await search([], [upsert(idsTo(10))])).ids, []);
  const before = upsert(["before"]);
  const steps = [before, upsert(idsTo(10))];
  assertEquals((await search(["before"], steps)).ids, []);
});

Deno.test("findRefused() asks nothing about a step that writes no rows", async () => {
  const swap: Step = { kind: "rename", table: TABLE };
  const compare: Step = {
    ...upsert(["1"]),
    kind: "compare",
    of: "upsert",
    walk: { walkGen: 1, table: TABLE },
  };
  for (const step of [swap, compare]) {
    const { ids, asked } = await search(["1"], [step]);
    assertEquals([ids, asked], [[], []]);
  }
});
