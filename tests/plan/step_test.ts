import { assertEquals } from "@std/assert";
import type { CompareStep, Step } from "../../lib/plan/step.ts";
import { rowsOf, stepOf, without } from "../../lib/plan/step.ts";
import { ITEM, PART } from "./tables.ts";

const WALK = { walkGen: 1, table: ITEM };
const refusal = (table: string, ...key: string[]) => ({
  table,
  key,
  reason: "",
});
const idsIn = (steps: readonly Step[]): unknown[] =>
  steps.map((step) =>
    "json" in step ? rowsOf(step).map(({ cells }) => cells[0]) : step.kind
  );

Deno.test("without() takes a parked row out of every step of its table, by the key as the source rendered it", () => {
  const rows = [
    { key: ["1.0"], cells: ["1", "a"] },
    { key: null, cells: ["2", "b"] },
  ];
  const update = stepOf("update", ITEM, ["id", "name"], rows);
  const compare: CompareStep = {
    ...update,
    kind: "compare",
    of: "repair",
    walk: WALK,
  };
  const steps: Step[] = [
    stepOf("truncate", ITEM, [], []),
    update,
    { ...update, kind: "write" },
    compare,
    { kind: "strays", table: ITEM, repair: true, walk: WALK },
  ];
  const left = [[], ["2"], ["2"], ["2"], "strays"];
  assertEquals(idsIn(without(steps, [refusal("item", "1.0")])), left);
  assertEquals(without(steps, [refusal("item", "1")]), steps);
  assertEquals(without(steps, [refusal("part", "1.0")]), steps);
});

Deno.test("without() compares whole keys, and keeps a step of which no row is left: what follows counts its changes", () => {
  const columns = ["item", "code", "note"];
  const steps = [
    stepOf("upsert", PART, columns, [{ key: null, cells: ["1", "a", "x"] }]),
    stepOf("upsert", PART, columns, [
      { key: null, cells: ["1", "b", "x"] },
    ], true),
  ];
  const parked = [refusal("part", "1", "a"), refusal("part", "1", "b")];
  assertEquals(without(steps, [refusal("part", "1")]), steps);
  assertEquals(
    without(steps, parked).map((step) =>
      "json" in step ? [step.count, step.json, step.large, step.keys] : null
    ),
    [[0, "[]", null, null], [0, "[]", null, null]],
  );
});
