import { assertEquals } from "@std/assert";
import { formatPairs, formatTable, oneLine } from "../../lib/cli/table.ts";
import { formatCount, formatMs } from "../../lib/status/format.ts";

Deno.test("oneLine() leaves a terminal nothing to obey", () => {
  assertEquals(
    oneLine("a\u001b[31mred\r\n\u009b2J\u2028b"),
    "a�[31mred���2J�b",
  );
  assertEquals(oneLine("😀😀😀", 2), "😀…");
  assertEquals(oneLine("😀😀", 2), "😀😀");
});

Deno.test("formatTable() aligns texts left and counts right, with any characters", () => {
  assertEquals(
    formatTable(["name", "rows", "note"], [
      ["größe", 1, "x"],
      ["n", 1234567, ""],
      ["a\nb", 0, "y"],
    ]),
    [
      "name        rows  note",
      "größe          1  x",
      "n      1,234,567",
      "a�b            0  y",
    ],
  );
  assertEquals(formatTable(["a", "b"], []), ["a  b"]);
});

Deno.test("formatPairs() aligns the texts behind the names", () => {
  assertEquals(formatPairs([["a", "1"], ["long", "2\n3"], ["b", ""]]), [
    "a     1",
    "long  2�3",
    "b",
  ]);
  assertEquals(formatPairs([]), []);
});

Deno.test("formatCount() and formatMs() say numbers as people do", () => {
  for (
    const [count, text] of [
      [0, "0"],
      [999, "999"],
      [1000, "1,000"],
      [300000, "300,000"],
      [12345678, "12,345,678"],
    ] as const
  ) assertEquals(formatCount(count), text);
  for (
    const [ms, text] of [
      [-5, "0 s"],
      [999, "0 s"],
      [59_999, "59 s"],
      [60_000, "1 min"],
      [3_599_000, "59 min 59 s"],
      [3_600_000, "1 h"],
      [3_605_000, "1 h"],
      [90_061_000, "1 d 1 h"],
    ] as const
  ) assertEquals(formatMs(ms), text);
});
