import { assertEquals } from "@std/assert";
import type { Due } from "../../lib/chain/alert.ts";
import type { Source } from "../../lib/source/source.ts";
import type { Parts } from "../../lib/sync/progress.ts";
import { sendAlerts } from "../../lib/sync/send_alerts.ts";

const DUE: Due = {
  alerts: [{ name: "parked", detail: "3" }, { name: "drift", detail: null }],
  alerted: { parked: 3 },
};

/** Sends to a webhook that answers so; returns what happened, in order. */
async function send(
  answer: (() => Promise<number>) | null,
  { due = DUE as Due | null, callsLeft = 2, recorded = Promise.resolve() } = {},
) {
  const events: unknown[] = [];
  const source: Pick<Source, "release"> = {
    release: async (lease, options) => {
      events.push(["recorded", lease, options]);
      await recorded;
      return { queued: 0, queuedExact: true, due: null };
    },
  };
  await sendAlerts({
    source,
    budget: { callsLeft: () => callsLeft, msLeft: () => 0 },
    log: (level, event, fields) => void events.push([level, event, fields]),
    alert: answer && ((body) => {
      events.push(["posted", Object.keys(JSON.parse(body))]);
      return answer();
    }),
  } as Parts, due);
  return events;
}

const POSTED = ["posted", ["text", "alerts"]];
const alerts = "parked drift";

Deno.test("sendAlerts() has the source record what the webhook took, after it took it", async () => {
  assertEquals(await send(() => Promise.resolve(204)), [
    POSTED,
    ["info", "alert", { alerts, sent: true }],
    ["recorded", "", { alerted: { parked: 3 } }],
  ]);
});

Deno.test("sendAlerts() records nothing that the webhook refused, redirected or did not answer, and fails nothing", async () => {
  for (const status of [199, 302, 500]) {
    assertEquals(await send(() => Promise.resolve(status)), [
      POSTED,
      ["warn", "alert", { alerts, sent: false, status }],
    ]);
  }
  assertEquals(await send(() => Promise.reject(new Error("secret"))), [
    POSTED,
    ["warn", "alert", { alerts, sent: false }],
  ]);
});

Deno.test("sendAlerts() fails nothing when the source cannot record it", async () => {
  const recorded = Promise.reject(new Error("gone"));
  recorded.catch(() => {});
  const events = await send(() => Promise.resolve(200), { recorded });
  assertEquals(events.length, 4);
});

Deno.test("sendAlerts() posts nothing when nothing is due, no webhook is set, or it could not be recorded", async () => {
  const taken = () => Promise.resolve(200);
  assertEquals(await send(taken, { due: null }), []);
  assertEquals(await send(null), []);
  assertEquals(await send(taken, { callsLeft: 1 }), []);
});
