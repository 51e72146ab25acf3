import { assertEquals } from "@std/assert";
import {
  formatPairs,
  formatProgress,
  formatTable,
  oneLine,
} from "../../lib/cli/table.ts";
import { formatCount, formatMs } from "../../lib/status/format.ts";

Deno.test("oneLine() leaves a terminal nothing to obey", () => {
  assertEquals(
    oneLine("a\u001b[31mred\r\n\u009b2J\u2028b"),
    "a�[31mred���2J�b",
  );
  assertEquals(oneLine("😀😀😀", 2), "😀…");
  assertEquals(oneLine("😀😀", 2), "😀😀");
});

Deno.test("formatTable() aligns texts left and counts right, whatever the characters", () => {
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

Deno.test("formatPairs() aligns what stands behind the names", () => {
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

Deno.test("formatProgress() has a bar only with a total, and is full never", () => {
  const differences = 0;
  const line = (
    rows: number,
    rowsTotal: number | null,
    watched: { rows: number; ms: number },
  ) =>
    formatProgress({ rows, rowsTotal, differences, ghostsOf: null, watched }, {
      barWidth: 10,
    });
  const watched = { rows: 500, ms: 1000 };
  assertEquals(line(500, null, watched), "500 rows  500/s  0 different");
  assertEquals(line(500, 0, watched), "500 rows  500/s  0 different");
  assertEquals(
    line(500, 1000, watched),
    "[#####     ]  50 %  500 of about 1,000 rows  500/s  1 s left  0 different",
  );
  // The estimate was too low: nothing is said of the time left.
  assertEquals(
    line(2000, 1000, watched),
    "[######### ]  99 %  2,000 of about 2,000 rows  500/s  0 different",
  );
  assertEquals(
    line(0, 1000, { rows: 0, ms: 0 }),
    "[          ]   0 %  0 of about 1,000 rows  0 different",
  );
  const rest = { rows: 5, rowsTotal: 10, differences: 3, watched };
  assertEquals(
    formatProgress({ ...rest, ghostsOf: null }, { barWidth: 0 }),
    "50 %  5 of about 10 rows  500/s  0 s left  3 different",
  );
  assertEquals(
    formatProgress({ ...rest, ghostsOf: "apps" }, { barWidth: 0 }),
    "50 %  5 of about 10 rows  500/s  3 different  ghosts of apps?",
  );
});
