import { assertEquals, assertThrows } from "@std/assert";
import type { TableRows } from "../../lib/chain/rows.ts";
import { SyncError } from "../../lib/errors.ts";
import { createPlanner } from "../../lib/plan/plan.ts";
import { parseSchema } from "../../lib/schema.ts";
import { ITEM, SCHEMA } from "./tables.ts";

const plan = createPlanner(SCHEMA);
const tableRows = (table: string, of: Partial<TableRows>): TableRows => ({
  table,
  truncate: false,
  columns: [],
  rows: [],
  gone: [],
  broken: [],
  ...of,
});
const item = (of: Partial<TableRows>) =>
  tableRows("item", { columns: ["id", "name", "on_sale"], ...of });
const part = (of: Partial<TableRows>) =>
  tableRows("part", { columns: ["item", "code", "note"], ...of });
const kinds = (...tables: TableRows[]) =>
  plan(tables, []).steps.map(({ kind, table, json }) => [
    kind,
    table.name,
    json,
  ]);

Deno.test("createPlanner() truncates first, then deletes, then writes", () => {
  assertEquals(
    kinds(part({
      truncate: true,
      gone: [["9", "x"]],
      rows: [["1", "a", null]],
    })),
    [
      ["truncate", "part", "[]"],
      ["delete", "part", '[["9","x"]]'],
      ["upsert", "part", '[["1","a",null]]'],
    ],
  );
});

Deno.test("createPlanner() writes rows of a table with indexes in two steps over the same rows, in the indexes' order", () => {
  const json = '[["2","a","0"],["1","b",null]]';
  assertEquals(
    kinds(item({ rows: [["2", "a", "f"], ["1", "b", null]] })),
    [["update", "item", json], ["write", "item", json]],
  );
});

Deno.test("createPlanner() needs one step where no column beside the key has an index that the source has", () => {
  const schema = parseSchema({
    tables: {
      t: { key: "id", columns: { id: "TEXT", a: "TEXT" }, indexes: ["id"] },
    },
  });
  const rows = { columns: ["id", "a"], rows: [["1", "a"]] };
  const { steps } = createPlanner(schema)([tableRows("t", rows)], []);
  assertEquals(steps.map(({ kind }) => kind), ["upsert"]);
  const fewer = item({ columns: ["id"], rows: [["1"]] });
  assertEquals(kinds(fewer), [["upsert", "item", '[["1"]]']]);
});

Deno.test("createPlanner() deletes keys as the replica stores them, in their order, and none that it cannot hold", () => {
  const gone = [["10.00"], ["9"], ["9.5"], ["x"]];
  assertEquals(kinds(item({ gone })), [["delete", "item", '[["9"],["10"]]']]);
  assertEquals(plan([item({ gone })], []).refusals, []);
});

Deno.test("createPlanner() refuses a value that its column cannot hold, by the source's key, and plans the rest", () => {
  const rows = [["1.0", "a", "maybe"], ["2", "b", null], ["x", "c", null]];
  const { steps, refusals } = plan([item({ rows })], []);
  assertEquals(steps.map(({ json }) => json), [
    '[["2","b",null]]',
    '[["2","b",null]]',
  ]);
  assertEquals(refusals, [
    {
      table: "item",
      key: ["1.0"],
      reason:
        "column on_sale: expected true or false: found text of 5 characters",
    },
    {
      table: "item",
      key: ["x"],
      reason:
        "column id: expected an exact integer of 64 bits: found text of 1 character",
    },
  ]);
});

Deno.test("createPlanner() refuses a row without a key, of which SQLite would make one", () => {
  const { steps, refusals } = plan([item({ rows: [[null, "a", null]] })], []);
  assertEquals([steps, refusals.map(({ key, reason }) => [key, reason])], [
    [],
    [[[null], "column id: expected a key, found NULL"]],
  ]);
});

Deno.test("createPlanner() refuses what the source could not read, and messages without a key", () => {
  const broken = [{ key: ["7"], reason: "SQLSTATE XX001" }];
  const { steps, refusals } = plan([item({ broken })], [
    { table: null, reason: "no table" },
    { table: "item", reason: "no key" },
  ]);
  assertEquals(steps, []);
  assertEquals(refusals, [
    { table: null, key: null, reason: "no table" },
    { table: "item", key: null, reason: "no key" },
    { table: "item", key: ["7"], reason: "SQLSTATE XX001" },
  ]);
});

Deno.test("createPlanner() binds a row cell by cell when its JSON may pass one argument, in one step", () => {
  const large = "\\".repeat(2_100_000);
  const { steps, refusals } = plan([item({ rows: [["1", large, null]] })], []);
  assertEquals(refusals, []);
  assertEquals(
    steps.map(({ kind, large, json }) => [kind, large?.[1]?.length, json]),
    [["upsert", 2_100_000, ""]],
  );
});

Deno.test("createPlanner() refuses a row that libSQL cannot hold, and says its size", () => {
  const rows = [["1", "x".repeat(4_990_001), null]];
  const { steps, refusals } = plan([item({ rows })], []);
  assertEquals(steps, []);
  assertEquals(
    refusals[0]!.reason,
    "row too large: expected at most 4990000 bytes, found 4990002",
  );
});

Deno.test("createPlanner() takes no table, column or key that is not the schema's", () => {
  for (
    const rows of [
      tableRows("nowhere", {}),
      item({ columns: ["id", "mail"] }),
      item({ columns: ["id", "id"] }),
      item({ columns: ["name"], rows: [["a"]] }),
      part({ gone: [["1"]] }),
      part({ broken: [{ key: ["1", "a", "b"], reason: "" }] }),
    ]
  ) {
    const error = assertThrows(() => plan([rows], []), SyncError, rows.table);
    assertEquals(error.code, "source_failed");
  }
  assertEquals(kinds(tableRows(ITEM.name, {})), []);
});
