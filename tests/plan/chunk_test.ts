import { assert, assertEquals } from "@std/assert";
import { ARGUMENT_LENGTH_MAX, chunk } from "../../lib/plan/chunk.ts";
import { rowsOf } from "../../lib/plan/step.ts";
import { ITEM } from "./tables.ts";

const ALL = ["id", "name", "on_sale"];
const groupOf = (rows: (string | null)[][], length = 10) => ({
  kind: "upsert" as const,
  columns: ALL,
  rows: rows.map((cells) => ({ key: null, cells })),
  lengths: rows.map(() => length),
});

Deno.test("chunk() loses no row and repeats none when a group fills several arguments", () => {
  const rows = Array.from({ length: 50 }, (_, i) => [String(i), "a", null]);
  const group = groupOf(rows, ARGUMENT_LENGTH_MAX / 4);
  const steps = chunk(ITEM, group);
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
  const steps = chunk(ITEM, group);
  for (const { json } of steps) assert(json.length <= 2_000_000);
  assertEquals(steps.reduce((sum, { count }) => sum + count, 0), 4);
});

Deno.test("chunk() orders rows by key: integers as numbers, text as text", () => {
  const group = groupOf([["10", null, null], ["-3", null, null], [
    "9",
    null,
    null,
  ]]);
  assertEquals(
    chunk(ITEM, group).flatMap(rowsOf).map(({ cells }) => cells[0]),
    ["-3", "9", "10"],
  );
  const TEXT = { ...ITEM, key: ["name"] };
  const texts = groupOf([["1", "b", null], ["2", "B", null], ["3", "a", null]]);
  assertEquals(
    chunk(TEXT, texts).flatMap(rowsOf).map(({ cells }) => cells[1]),
    ["B", "a", "b"],
  );
});
