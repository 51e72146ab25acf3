import { assertEquals, assertThrows } from "@std/assert";
import { readRow } from "../../lib/replica/read_row.ts";
import { SCHEMA } from "../plan/tables.ts";

const ROW = {
  epoch: "e",
  position: 4,
  batch: "b",
  schema_hash: "h",
  walk_gen: 2,
  walk_at: null,
  walk_done: 1,
  fresh: "[]",
  unindexed: "[]",
  rebuilding: "[]",
  drained: 1,
};
const read = (fields: Record<string, unknown>) =>
  readRow({ ...ROW, ...fields }, { schema: SCHEMA, schemaHash: "h" });

Deno.test("readRow() takes a row as it was left", () => {
  const row = read({});
  assertEquals([row.damaged, row.drained, row.walk_done], [undefined, 1, 1]);
});

Deno.test("readRow() takes a field of the walk that it cannot use for damaged, and the walk for not begun", () => {
  for (
    const [field, value] of [
      ["walk_gen", "2"],
      ["walk_done", null],
      ["fresh", "{}"],
      ["unindexed", '["nowhere"]'],
      ["rebuilding", 5],
      ["walk_at", "{"],
      ["walk_at", '{"table": "part", "half": "back", "after": ["1"]}'],
      ["walk_at", '{"table": "nowhere", "half": "back"}'],
    ] as const
  ) {
    const row = read({ [field]: value });
    assertEquals(row.damaged, true, `${field}: ${value}`);
    assertEquals(row.walk_at, null);
  }
});

Deno.test("readRow() leaves the tables of another schema alone", () => {
  const row = read({ schema_hash: "other", fresh: '["nowhere"]' });
  assertEquals([row.damaged, row.fresh], [undefined, '["nowhere"]']);
});

Deno.test("readRow() never takes another value than 1 for drained", () => {
  for (const drained of ["1", 2, true, null]) {
    assertEquals(read({ drained }).drained, 0);
  }
});

Deno.test("readRow() refuses a row that does not say where it stands", () => {
  for (const field of ["epoch", "position", "batch", "schema_hash"]) {
    assertThrows(() => read({ [field]: null }), Error, "where it stands");
  }
});
