import { assertEquals, assertRejects } from "@std/assert";
import { withLimit } from "../../lib/cli/wait.ts";

Deno.test("withLimit() takes what comes in time, and leaves no timer behind", async () => {
  const limitMs = 3_600_000;
  assertEquals(await withLimit(Promise.resolve(7), { limitMs }), 7);
  await assertRejects(
    () => withLimit(Promise.reject(new TypeError("no")), { limitMs }),
    TypeError,
  );
});

Deno.test("withLimit() gives up when the limit passes first", async () => {
  const never = new Promise<never>(() => {});
  const error = await assertRejects(
    () => withLimit(never, { limitMs: 1 }),
    DOMException,
  );
  assertEquals(error.name, "TimeoutError");
});
