import { assertEquals } from "@std/assert";
import { formatProgress } from "../../lib/cli/progress.ts";

Deno.test("formatProgress() has a bar only with a total, and never a full one", () => {
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
  // The estimate was too low: there is no time left to show.
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
    "50 %  5 of about 10 rows  500/s  3 different  checking apps for ghosts",
  );
});
