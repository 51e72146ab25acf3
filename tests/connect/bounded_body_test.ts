import { assertEquals, assertRejects } from "@std/assert";
import { readBounded } from "../../lib/connect/bounded_body.ts";

/** A body of some chunks, which notes what is asked of it. */
function createBody(chunks: readonly number[], { fails = false } = {}) {
  const seen = { pulled: 0, isCancelled: false };
  const stream = new ReadableStream<Uint8Array<ArrayBuffer>>({
    pull: (controller) => {
      const size = chunks[seen.pulled++];
      if (size !== undefined) controller.enqueue(new Uint8Array(size).fill(1));
      else if (fails) controller.error(new TypeError("gone"));
      else controller.close();
    },
    cancel: () => {
      seen.isCancelled = true;
      return Promise.reject(new Error("cannot be cancelled"));
    },
  }, { highWaterMark: 0 });
  return { stream, seen };
}

Deno.test("readBounded() reads a body of exactly as many bytes as are allowed", async () => {
  const { stream, seen } = createBody([3, 0, 4]);
  const body = await readBounded(stream.getReader(), 7);
  assertEquals([body.size, seen.isCancelled, stream.locked], [7, false, false]);
});

Deno.test("readBounded() stops and cancels at the first chunk too many", async () => {
  const { stream, seen } = createBody(Array(100).fill(4));
  await assertRejects(() => readBounded(stream.getReader(), 7), RangeError);
  assertEquals([seen, stream.locked], [
    { pulled: 2, isCancelled: true },
    false,
  ]);
});

Deno.test("readBounded() throws what the body breaks off with, never a part of it", async () => {
  const { stream } = createBody([3], { fails: true });
  await assertRejects(() => readBounded(stream.getReader(), 7), TypeError);
  assertEquals(stream.locked, false);
});
