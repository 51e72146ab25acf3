import { assertEquals, assertStringIncludes } from "@std/assert";
import {
  capacityError,
  capacityWarnings,
  hasCapacity,
} from "../../lib/replica/capacity.ts";

const MB = 1_048_576;

Deno.test("hasCapacity() ends at 95 % of the limit, and never without one", () => {
  assertEquals(hasCapacity({ bytes: 95 * MB - 1 }, 100), true);
  assertEquals(hasCapacity({ bytes: 95 * MB }, 100), false);
  assertEquals(hasCapacity({ bytes: 1e12 }), true);
  assertEquals(hasCapacity(null, 1), true);
});

Deno.test("capacityWarnings() and capacityError() say how much the replica holds and may hold", () => {
  assertEquals(capacityWarnings({ bytes: 80 * MB - 1 }, 100), []);
  assertStringIncludes(
    capacityWarnings({ bytes: 90 * MB }, 100)[0]!,
    "90 MB of the 100 MB",
  );
  assertStringIncludes(
    capacityError({ bytes: 97 * MB }, 100).message,
    "found 97 MB",
  );
});
