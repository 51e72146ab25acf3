import { assertEquals } from "@std/assert";
import { formatCount, formatMs } from "../../lib/status/format.ts";

Deno.test("formatCount() puts a comma at each thousand", () => {
  for (
    const [count, text] of [
      [0, "0"],
      [999, "999"],
      [1_000, "1,000"],
      [10_000, "10,000"],
      [100_000, "100,000"],
      [1_234_567, "1,234,567"],
      [12_345_678, "12,345,678"],
    ] as const
  ) assertEquals(formatCount(count), text);
});

Deno.test("formatMs() names the two largest units, and leaves out one that is zero", () => {
  const day = 86_400_000;
  for (
    const [ms, text] of [
      [-5, "0 s"],
      [0, "0 s"],
      [999, "0 s"],
      [1_000, "1 s"],
      [59_999, "59 s"],
      [60_000, "1 min"],
      [3_599_000, "59 min 59 s"],
      [3_600_000, "1 h"],
      [3_661_000, "1 h 1 min"],
      [3_601_000, "1 h"],
      [day, "1 d"],
      [day + 60_000, "1 d"],
      [day + 7_200_000, "1 d 2 h"],
      [400 * day, "400 d"],
    ] as const
  ) assertEquals(formatMs(ms), text, String(ms));
});
