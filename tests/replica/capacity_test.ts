import { assertEquals, assertStringIncludes } from "@std/assert";
import { hasRoom, noRoom, roomWarnings } from "../../lib/replica/capacity.ts";

const MB = 1_048_576;

Deno.test("hasRoom() ends at 95 % of the limit, and never without one", () => {
  assertEquals(hasRoom({ bytes: 95 * MB - 1 }, 100), true);
  assertEquals(hasRoom({ bytes: 95 * MB }, 100), false);
  assertEquals(hasRoom({ bytes: 1e12 }), true);
  assertEquals(hasRoom(null, 1), true);
});

Deno.test("roomWarnings() and noRoom() say how much the replica holds and may hold", () => {
  assertEquals(roomWarnings({ bytes: 80 * MB - 1 }, 100), []);
  assertStringIncludes(
    roomWarnings({ bytes: 90 * MB }, 100)[0]!,
    "90 MB of the 100 MB",
  );
  assertStringIncludes(noRoom({ bytes: 97 * MB }, 100).message, "found 97 MB");
});
