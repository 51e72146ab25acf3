import { assert, assertEquals } from "@std/assert";
import type { BatchSize } from "../../lib/chain/claim.ts";
import {
  halfSize,
  newPace,
  nextSize,
  PAGE_MAX,
} from "../../lib/sync/batch_size.ts";

const SIZE: BatchSize = { rows: 4_000, bytes: 1_000_000 };

/** The size after an apply of so many milliseconds. */
const next = (ms: number, latencyMs = 0, size = SIZE) =>
  nextSize(size, { ms, latencyMs });

Deno.test("nextSize() aims at a second, by at most eight times or half", () => {
  assertEquals(
    [1_000, 500, 125, 1, 0, 2_000, 30_000].map((ms) => next(ms).rows),
    [4_000, 8_000, 32_000, 32_000, 32_000, 2_000, 2_000],
  );
  assertEquals(next(500), { rows: 8_000, bytes: 2_000_000 });
});

Deno.test("nextSize() does not take the latency for the size, and grows no more than twice by it", () => {
  // A distant replica: all but 100 ms is the way there and back.
  assertEquals(next(2_000, 1_900).rows, 8_000);
  assertEquals(next(700, 600).rows, Math.floor(4_000 * 2 / 0.7));
  // A latency above the apply itself was measured too high.
  assertEquals(next(2_000, 9_000).rows, 8_000);
});

Deno.test("nextSize() stays below the largest size, and at a small one if it is slow", () => {
  const large: BatchSize = { rows: 49_000, bytes: 5_000_000 };
  assertEquals(next(100, 0, large), { rows: 50_000, bytes: 5_500_000 });
  assertEquals(
    nextSize(large, { ms: 100, latencyMs: 0 }, PAGE_MAX).bytes,
    2_800_000,
  );
  for (const rows of [16, 100, 1_000]) {
    const small: BatchSize = { rows, bytes: 20_000 };
    assertEquals(next(60_000, 0, small), small);
    assert(next(10, 0, small).rows > rows, "it grows again");
  }
  assertEquals(next(60_000, 0, { rows: 1_500, bytes: 300_000 }), {
    rows: 1_000,
    bytes: 262_144,
  });
});

Deno.test("nextSize() reaches a second from the first pace, for slow and fast replicas", () => {
  for (const rowsPerS of [500, 5_000, 40_000]) {
    let { size } = newPace();
    let ms = 0;
    for (let batch = 0; batch < 12; batch++) {
      ms = 20 + size.rows / rowsPerS * 1_000;
      size = nextSize(size, { ms, latencyMs: 20 });
    }
    const isSmallest = size.rows <= 1_000;
    assert(isSmallest || Math.abs(ms - 1_000) < 100, `${rowsPerS}: ${ms} ms`);
  }
});

Deno.test("halfSize() halves down to the smallest size, and makes no size larger", () => {
  assertEquals(halfSize(SIZE), { rows: 2_000, bytes: 500_000 });
  let size = SIZE;
  for (let times = 0; times < 20; times++) size = halfSize(size);
  assertEquals(size, { rows: 6, bytes: 16_384 });
  assertEquals(halfSize({ rows: 3, bytes: 100 }), {
    rows: 3,
    bytes: 100,
  });
});

Deno.test("newPace() gives each worker a pace of its own", () => {
  const pace = newPace();
  pace.size = { rows: 1, bytes: 1 };
  assertEquals(newPace().size.rows, 4_000);
});
