import { assertEquals } from "@std/assert";
import type { Alert } from "../../lib/chain/alert.ts";
import { formatAlerts } from "../../lib/status/alert.ts";

/** Every alert: what it says when it begins, and when it is over. */
const TEXTS: Record<Alert["name"], [begins: string, over: string]> = {
  parked: [
    "parked changes: 7 (deno task dlq list)",
    "over: no change is parked any more",
  ],
  drift: [
    "a walk found rows that differ: 7 (deno task status)",
    "over: the rows that differed are repaired",
  ],
  stale: ["no sync for 7 (deno task doctor)", "over: syncs are back"],
  rewind: [
    "the replica lost batches, now put back: 7 (nothing to do unless it happens again)",
    "over: the replica has the lost batches again",
  ],
  epoch: [
    "the chain was broken: 7 (deno task status)",
    "over: the replica follows its chain",
  ],
};

for (
  const [name, [begins, over]] of Object.entries(TEXTS) as [
    Alert["name"],
    [string, string],
  ][]
) {
  Deno.test(`formatAlerts() says that ${name} begins with its detail and advice, and that it is over`, () => {
    const texts = [{ name, detail: "7" }, { name, detail: null }].map((alert) =>
      formatAlerts([alert]).text
    );
    assertEquals(texts, [`LibSQL Sync: ${begins}`, `LibSQL Sync: ${over}`]);
  });
}

Deno.test("formatAlerts() has a line for each alert, and the alerts themselves for a program", () => {
  const alerts: Alert[] = [
    { name: "stale", detail: null },
    { name: "parked", detail: "0" },
  ];
  const { text, alerts: listed } = formatAlerts(alerts);
  assertEquals(text.split("\n").map((line) => line.slice(0, 30)), [
    "LibSQL Sync: over: syncs are b",
    "LibSQL Sync: parked changes: 0",
  ]);
  assertEquals(listed, alerts);
});
