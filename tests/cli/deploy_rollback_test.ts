import { assertEquals, assertThrows } from "@std/assert";
import { CommandError } from "../../lib/cli/command.ts";
import { chooseRelease } from "../../lib/cli/deploy_rollback.ts";

const release = (uuid: string, day: number, isLive = false) => ({
  uuid,
  isLive,
  note: "",
  made: `2026-11-0${day}T00:00:00`,
});

Deno.test("chooseRelease() takes the newest before the live one, in any order", () => {
  const [a, b, live, later] = [
    release("a", 1),
    release("b", 2),
    release("live", 3, true),
    release("later", 4),
  ];
  for (const releases of [[a, b, live, later], [later, live, b, a]]) {
    assertEquals(chooseRelease(releases), b);
  }
  assertEquals(chooseRelease([a, live], "a"), a);
  // A release that was rolled back is published again by its name.
  assertEquals(chooseRelease([live, later], "later"), later);
});

Deno.test("chooseRelease() refuses when there is no such release", () => {
  for (
    const releases of [
      [],
      [release("a", 1)],
      [release("live", 1, true)],
      [release("live", 1, true), release("later", 2)],
      [release("live", 1, true), release("same time", 1)],
    ]
  ) {
    assertThrows(
      () => chooseRelease(releases),
      CommandError,
      "expected a release before the live one",
    );
  }
  assertThrows(
    () => chooseRelease([release("a", 1)], "b"),
    CommandError,
    "expected a release of this name",
  );
});
