import { assertEquals } from "@std/assert";
import type { Cell } from "../../lib/chain/message.ts";
import { createPlanner } from "../../lib/plan/plan.ts";
import { rowsOf } from "../../lib/plan/step.ts";
import { SCHEMA } from "./tables.ts";

const planBatch = createPlanner(SCHEMA);
const ALL = ["id", "name", "on_sale"];
const item = (id: string, ...rows: Cell[][]): [string, unknown] => [id, {
  v: 1,
  table: "item",
  columns: ALL,
  rows,
}];
const kinds = (messages: [string, unknown][]) =>
  planBatch({ messages, parked: [] }).steps.map(({ kind, table, json }) => [
    kind,
    table.name,
    json,
  ]);

Deno.test("createPlanner() truncates first, then deletes, then writes", () => {
  const message = {
    v: 1,
    table: "item",
    truncate: true,
    key: ["id"],
    deletes: [["9"]],
    columns: ALL,
    rows: [["1", "a", "true"]],
  };
  assertEquals(kinds([["1", message]]), [
    ["truncate", "item", "[]"],
    ["delete", "item", '[["9"]]'],
    ["upsert", "item", '[["1","a","1"]]'],
  ]);
});

Deno.test("createPlanner() orders new rows by the indexed columns, and deletes by key as numbers", () => {
  assertEquals(
    kinds([
      item("1", ["1", "b", null], ["2", "a", null], ["3", "a", "f"]),
      ["2", { v: 1, table: "item", key: ["id"], deletes: [["10"], ["9"]] }],
    ]),
    [
      ["delete", "item", '[["9"],["10"]]'],
      ["upsert", "item", '[["2","a",null],["3","a","0"],["1","b",null]]'],
    ],
  );
});

Deno.test("createPlanner() refuses a value that its column cannot hold, by key, and plans the rest", () => {
  const { steps, refusals } = planBatch({
    messages: [item("7", ["1", "a", "maybe"], ["2", "b", null])],
    parked: [],
  });
  assertEquals(steps.map(({ json }) => json), ['[["2","b",null]]']);
  assertEquals(refusals, [{
    msgId: "7",
    table: "item",
    key: ["1"],
    reason:
      "column on_sale: expected true or false: found text of 5 characters",
  }]);
});

Deno.test("createPlanner() leaves out what is parked, and refuses it no second time", () => {
  const refused = { msgId: "7", table: "item", key: ["1"], reason: "" };
  const planned = planBatch({
    messages: [item("7", ["1", "a", "maybe"], ["2", "b", null])],
    parked: [refused],
  });
  assertEquals(planned.refusals, []);
  assertEquals(planned.steps.map(({ count }) => count), [1]);
});

Deno.test("createPlanner() reads messages that came as one by each message's id", () => {
  const { steps } = planBatch({
    messages: [[["1", "2"], {
      v: 1,
      table: "item",
      columns: ALL,
      rows: [["5", "a", null], ["6", "b", null]],
    }]],
    parked: [],
  });
  assertEquals(
    rowsOf(steps[0]!).map(({ msgId, cells }) => [msgId, cells[0]]),
    [["1", "5"], ["2", "6"]],
  );
});

Deno.test("createPlanner() binds a row cell by cell when its JSON may pass one argument", () => {
  const large = "\\".repeat(2_100_000);
  const { steps, refusals } = planBatch({
    messages: [item("1", ["1", large, null])],
    parked: [],
  });
  assertEquals(refusals, []);
  assertEquals(steps.map(({ large, json }) => [large?.[1]?.length, json]), [
    [2_100_000, ""],
  ]);
});

Deno.test("createPlanner() refuses a row that libSQL cannot hold, and says its size", () => {
  const { steps, refusals } = planBatch({
    messages: [item("1", ["1", "x".repeat(4_990_001), null])],
    parked: [],
  });
  assertEquals(steps, []);
  assertEquals(
    refusals[0]!.reason,
    "row too large: expected at most 4990000 bytes, found 4990002",
  );
});
