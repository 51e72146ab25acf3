import { assert, assertEquals } from "@std/assert";
import {
  ARGUMENT_LENGTH_MAX,
  byIndexes,
  byKey,
  chunk,
  createGroups,
  emptyGroup,
} from "../../lib/plan/chunk.ts";
import { rowsOf } from "../../lib/plan/step.ts";
import { ITEM } from "./tables.ts";

const ALL = ["id", "name", "on_sale"];
const groupOf = (rows: (string | null)[][], length = 10) => ({
  ...emptyGroup("upsert", ALL),
  rows: rows.map((cells) => ({ msgId: null, key: null, cells })),
  lengths: rows.map(() => length),
});

Deno.test("chunk() loses no row and repeats none when a group fills several arguments", () => {
  const rows = Array.from({ length: 50 }, (_, i) => [String(i), "a", null]);
  const group = groupOf(rows, ARGUMENT_LENGTH_MAX / 4);
  const steps = chunk(ITEM, group, byKey(ITEM, group));
  assertEquals(steps.length, 13);
  assertEquals(
    steps.flatMap((step) => rowsOf(step)).map(({ cells }) => cells[0]),
    rows.map(([id]) => id!),
  );
});

Deno.test("chunk() halves an argument whose JSON is longer than its cells", () => {
  const rows = Array.from({ length: 4 }, (_, i) => [
    String(i),
    "\u0001".repeat(140_000),
    null,
  ]);
  const group = groupOf(rows, 140_000);
  const steps = chunk(ITEM, group, byKey(ITEM, group));
  for (const { json } of steps) assert(json.length <= 2_000_000);
  assertEquals(steps.reduce((sum, { count }) => sum + count, 0), 4);
});

Deno.test("byKey() orders integers as numbers", () => {
  const group = groupOf([["10", null, null], ["9", null, null]]);
  assert(byKey(ITEM, group)(1, 0) < 0);
});

Deno.test("byIndexes() orders by the first index's columns, then the next", () => {
  const group = groupOf([["1", "a", "1"], ["2", "a", "0"], ["3", null, "1"]]);
  const order = byIndexes(ITEM, group);
  assert(order(1, 0) < 0 && order(2, 1) < 0);
});

Deno.test("createGroups() keeps rows of the same columns together, and kinds apart", () => {
  const groups = createGroups();
  assertEquals(
    groups.of("upsert", ["a", "b"]),
    groups.of("upsert", ["a", "b"]),
  );
  assert(groups.of("upsert", ["a"]) === groups.of("upsert", ["a"]));
  assert(groups.of("update", ["a"]) !== groups.of("upsert", ["a"]));
  assert(groups.of("upsert", ["a", "b"]) !== groups.of("upsert", ["b", "a"]));
});
