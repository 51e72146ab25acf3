import { assertEquals } from "@std/assert";
import { apart, runsOf } from "../../lib/plan/merged.ts";

Deno.test("runsOf() leaves messages with one set of columns together", () => {
  const message = { v: 1, table: "t", columns: ["id"], rows: [["1"], ["2"]] };
  assertEquals(runsOf(["8", "9"], message), [[["8", "9"], message]]);
});

Deno.test("runsOf() cuts where the columns or the field change, and keeps the order", () => {
  const runs = runsOf(["5", "6", "7"], {
    v: 1,
    table: "t",
    kinds: [
      { columns: ["id"], field: "rows" },
      { columns: ["id", "a"], field: "updates" },
    ],
    of: [0, 1, 1],
    rows: [["1"], ["2", "x"], ["3", "y"]],
  });
  assertEquals(runs, [
    [["5"], { v: 1, table: "t", columns: ["id"], rows: [["1"]] }],
    [["6", "7"], {
      v: 1,
      table: "t",
      columns: ["id", "a"],
      updates: [["2", "x"], ["3", "y"]],
    }],
  ]);
});

Deno.test("apart() gives each message its own row and its own id", () => {
  assertEquals(
    apart(["5", "6"], { v: 1, columns: ["id"], updates: [["1"], ["2"]] }),
    [
      ["5", { v: 1, columns: ["id"], updates: [["1"]] }],
      ["6", { v: 1, columns: ["id"], updates: [["2"]] }],
    ],
  );
});
