/**
 * Ring 2. Sends alerts to the webhook.
 *
 * Promise: a failure to send fails nothing else, and the next sync sends the
 * same alerts again.
 *
 * @module
 */

import type { Due } from "../chain/alert.ts";
import { formatAlerts } from "../status/alert.ts";
import type { Parts } from "./progress.ts";

/** The post, and the call that records it. */
const CALLS = 2;

/**
 * Sends what is due in one request, and has the source record that it was sent.
 *
 * @param parts What to work with.
 * @param due The alerts that are due; null if there are none.
 */
export async function sendAlerts(
  { alert, source, budget, log }: Parts,
  due: Due | null,
): Promise<void> {
  if (due === null || alert === null || budget.callsLeft() < CALLS) return;
  const alerts = due.alerts.map(({ name }) => name).join(" ");
  try {
    const status = await alert(JSON.stringify(formatAlerts(due.alerts)));
    if (status < 200 || status > 299) {
      log("warn", "alert", { alerts, sent: false, status });
      return;
    }
    log("info", "alert", { alerts, sent: true });
    await source.release("", { alerted: due.alerted });
  } catch {
    log("warn", "alert", { alerts, sent: false });
  }
}
