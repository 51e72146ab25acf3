import { assertEquals } from "@std/assert";
import {
  formatWalk,
  sumFound,
  unreadIn,
  walkExitCode,
  type WalkReport,
} from "../../lib/cli/walk_report.ts";

const found = (rows: number, differing = 0, ghosts = 0) => ({
  rows,
  differing,
  ghosts,
  ended: true,
});
const reportOf = (
  tables: WalkReport["tables"],
  options: Partial<WalkReport> = {},
): WalkReport => ({
  kind: "verify",
  walk: 3,
  repair: false,
  ...sumFound(tables),
  parked: 0,
  seconds: 1.2,
  unread: unreadIn(tables),
  tables,
  ...options,
});
const DRIFT = {
  orgs: found(1040, 2, 1),
  apps: found(60),
  keys: found(0, 0, 1),
};

Deno.test("formatWalk() shows tables by name, and what came of the comparison", () => {
  assertEquals(formatWalk(reportOf(DRIFT)), [
    "table   rows  different  ghosts",
    "apps      60          0       0",
    "keys       0          0       1",
    "orgs   1,040          2       1",
    "",
    "1,100 rows compared in 1.2 s: 4 differences, in orgs, keys. Repair: deno task verify --repair",
  ]);
  const last = (report: WalkReport) => formatWalk(report).at(-1);
  assertEquals(
    last(reportOf(DRIFT, { repair: true })),
    "1,100 rows compared in 1.2 s: 4 differences found and repaired, in orgs, keys.",
  );
  assertEquals(
    last(reportOf({ apps: found(5, 1) })),
    "5 rows compared in 1.2 s: 1 difference, in apps. Repair: deno task verify --repair",
  );
  assertEquals(
    last(reportOf({ apps: found(5) })),
    "5 rows compared in 1.2 s: no difference.",
  );
  assertEquals(
    last(reportOf(DRIFT, { kind: "backfill", repair: true })),
    "1,100 rows compared in 1.2 s, 4 written or removed.",
  );
});

Deno.test("formatWalk() never calls a table equal that was not read, and names parked changes", () => {
  const tables = {
    gone: { ...found(0), failed: "42P01" },
    broken: { ...found(0), failed: "XX001" },
  };
  assertEquals(formatWalk(reportOf(tables)).slice(-2), [
    "Table gone does not exist in PostgreSQL: nothing to compare.",
    "Table broken could not be read (SQLSTATE XX001) and was not compared: deno task doctor",
  ]);
  for (
    const [parked, line] of [
      [1, "1 change was parked: deno task dlq list"],
      [1200, "1,200 changes were parked: deno task dlq list"],
    ] as const
  ) assertEquals(formatWalk(reportOf({}, { parked })).at(-1), line);
});

Deno.test("walkExitCode() is 0 only when nothing is left to do", () => {
  const failed = (code: string) => ({ t: { ...found(0), failed: code } });
  for (
    const [report, code] of [
      [reportOf({ t: found(9) }), 0],
      [reportOf(DRIFT), 1],
      [reportOf(DRIFT, { repair: true }), 0],
      [reportOf({ t: found(9) }, { parked: 1, repair: true }), 1],
      // A table that is not there yet has nothing to compare.
      [reportOf(failed("42P01")), 0],
      [reportOf(failed("42703")), 1],
      [reportOf(failed("42703"), { repair: true }), 1],
    ] as const
  ) assertEquals(walkExitCode(report), code, JSON.stringify(report));
});
