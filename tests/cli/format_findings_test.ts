import { assertEquals } from "@std/assert";
import { failure, ok, skewOf, warning } from "../../lib/cli/finding.ts";
import { formatFindings } from "../../lib/cli/format_findings.ts";

const FINDINGS = [
  ok("worker", "answers"),
  warning("clock", "5 min\u001b[2J", "set it"),
  failure("a longer name", "broken", "repair\nit"),
];

Deno.test("formatFindings() shows what is wrong with its advice, and counts all", () => {
  assertEquals(formatFindings(FINDINGS, { isAll: false }), [
    "warning  clock          5 min\ufffd[2J",
    "                        -> set it",
    "error    a longer name  broken",
    "                        -> repair\ufffdit",
    "",
    "3 checks: 1 fine, 1 warning, 1 error.",
  ]);
  assertEquals(formatFindings(FINDINGS.slice(0, 1), { isAll: false }), [
    "1 check: 1 fine, 0 warnings, 0 errors.",
  ]);
  assertEquals(
    formatFindings(FINDINGS, { isAll: true })[0],
    "ok       worker         answers",
  );
});

Deno.test("skewOf() warns of a clock half a minute off, either way", () => {
  assertEquals(skewOf("c", 29_999).level, "ok");
  assertEquals(skewOf("c", -29_999).level, "ok");
  assertEquals(skewOf("c", 30_000).found, "30 s ahead of the clock here");
  assertEquals(skewOf("c", -90_000).found, "1 min 30 s behind the clock here");
});
