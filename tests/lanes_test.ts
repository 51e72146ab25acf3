import { assertEquals, assertThrows } from "@std/assert";
import { PARTS, readCount, sortIntoParts } from "./lanes.ts";

const sorted = (...paths: string[]) =>
  Object.fromEntries(
    [...sortIntoParts(paths)].map(([{ name }, files]) => [name, files]),
  );

Deno.test("sortIntoParts() puts each file into the part of its folder", () => {
  assertEquals(
    sorted(
      "tests/log_test.ts",
      "tests/plan/convert_test.ts",
      "tests/sim/schedules_test.ts",
      "tests/db/sync_test.ts",
      "tests/long/oracle_test.ts",
    ),
    {
      pure: ["tests/log_test.ts", "tests/plan/convert_test.ts"],
      simulation: ["tests/sim/schedules_test.ts"],
      databases: ["tests/db/sync_test.ts"],
      long: ["tests/long/oracle_test.ts"],
    },
  );
});

Deno.test("sortIntoParts() throws when a file is in no lane", () => {
  assertThrows(
    () => sorted("tests/log_test.ts", "lib/plan/fold_test.ts"),
    Error,
    "lib/plan/fold_test.ts: it is in no lane",
  );
});

Deno.test("each folder is the folder of one part", () => {
  const folders = PARTS.map(({ folder }) => folder);
  assertEquals(folders.length, new Set(folders).size);
});

Deno.test("readCount() reads deno test's last line and no other", () => {
  for (
    const [line, count] of [
      ["ok | 12 passed | 0 failed (2s)", { passed: 12, failed: 0 }],
      ["ok | 1 passed (3 steps) | 0 failed | 1 ignored (1m2s)", {
        passed: 1,
        failed: 0,
      }],
      ["FAILED | 559 passed (112 steps) | 1 failed (18m35s)", {
        passed: 559,
        failed: 1,
      }],
      ["sync() does what it says ... ok (2s)", null],
    ] as const
  ) assertEquals(readCount(line), count);
});
