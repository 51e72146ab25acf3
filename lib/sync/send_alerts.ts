/**
 * Ring 2. Tells the alert webhook what began and what is over.
 *
 * Promise: whatever becomes of it, it fails nothing; what was not taken is told
 * again by the next sync.
 *
 * @module
 */

import type { Due } from "../chain/alert.ts";
import { formatAlerts } from "../status/alert.ts";
import type { Parts } from "./progress.ts";

/** The post, and the call that keeps it. */
const CALLS = 2;

/**
 * Tells what is due, by one request, and has the source keep that it was told.
 *
 * @param parts What to work with.
 * @param due What is due, if anything is.
 */
export async function tell(
  { alert, source, budget, log }: Parts,
  due: Due | null,
): Promise<void> {
  if (due === null || alert === null || budget.callsLeft() < CALLS) return;
  const names = due.alerts.map(({ name }) => name).join(" ");
  try {
    const status = await alert(JSON.stringify(formatAlerts(due.alerts)));
    if (status < 200 || status > 299) {
      log("warn", "alert", { alerts: names, told: false, status });
      return;
    }
    log("info", "alert", { alerts: names, told: true });
    await source.release("", { alerted: due.alerted });
  } catch {
    log("warn", "alert", { alerts: names, told: false });
  }
}
