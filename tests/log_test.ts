import { assertEquals } from "@std/assert";
import { createLog, type LogFields } from "../lib/log.ts";

const NOW = Date.UTC(2025, 9, 31, 17, 33, 52, 7);

function capture(now = () => NOW) {
  const lines: string[] = [];
  return { lines, log: createLog((line) => void lines.push(line), now) };
}

Deno.test("createLog() writes one JSON line with time, level and event first when an event has fields", () => {
  const { lines, log } = capture();
  log("info", "sync", {
    processed: 3,
    drained: true,
    epoch: null,
    parked: undefined,
    note: 'a\n\u2028"b"',
  });
  assertEquals(lines, [
    `{"time":"2025-10-31T17:33:52.007Z","level":"info","event":"sync",` +
    `"processed":3,"drained":true,"epoch":null,"note":"a\\n\u2028\\"b\\""}`,
  ]);
  assertEquals(lines[0]?.includes("\n"), false);
});

Deno.test("createLog() keeps time, level and event when a field is named so", () => {
  const { lines, log } = capture();
  log("warn", "sync", { event: "other", time: 0, level: "none", code: "x" });
  assertEquals(lines, [
    `{"time":"2025-10-31T17:33:52.007Z","level":"warn","event":"sync","code":"x"}`,
  ]);
});

Deno.test("createLog() never throws when the line cannot be made or written", () => {
  const failing: LogFields = {
    get code(): string {
      throw new Error("getter");
    },
  };
  const { lines, log } = capture();
  log("error", "sync", failing);
  log("error", "sync", { bytes: 1n } as unknown as LogFields);
  capture(() => NaN).log("error", "sync", {});
  createLog(() => {
    throw new Error("write");
  }, () => NOW)("error", "sync", {});
  assertEquals(lines, []);
});
