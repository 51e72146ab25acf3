/**
 * Ring 3. What doctor checks at the worker, and which connections work.
 *
 * @module
 */

import { callWorker, describeRefusal } from "./call_worker.ts";
import {
  AS_SAID,
  failure,
  type Finding,
  ok,
  type Report,
  skewOf,
} from "./finding.ts";
import type { Settings } from "./settings.ts";
import { oneLine } from "./table.ts";
import {
  describeConnections,
  type TriedConnection,
  tryConnections,
} from "../connect/try_connections.ts";

const HEALTH_MS_MAX = 15_000;
/**
 * No route knows this query: the worker checks the signature, refuses the query
 * with 400, and touches no database.
 */
const HARMLESS = "/verify?doctor=true";

/**
 * Checks the worker from outside.
 *
 * @param settings Its address and secrets.
 * @param report Where findings are sent.
 * @throws {CommandError} If the worker stops answering meanwhile.
 */
export async function checkWorker(
  settings: Settings,
  report: Report,
): Promise<void> {
  if (!await checkHealth(settings, report)) return;
  const right = await callWorker(settings, HARMLESS);
  if (right.status === 400) {
    report(ok("secret at the worker", "accepted"));
    await checkItsConnections(settings, report);
  } else {
    report(failure(
      "secret at the worker",
      describeRefusal(right),
      right.status === 401
        ? "set WEBHOOK_SIGNATURE at the worker and here to the same text, and publish the worker"
        : right.status === 404
        ? "deploy the newest worker"
        : "correct the worker's settings, and publish it",
    ));
  }
  const wrong = await callWorker(
    { workerUrl: settings.workerUrl, secrets: ["wrong"] },
    HARMLESS,
  );
  if (wrong.status !== 401) {
    report(failure(
      "wrong secret",
      `the worker answered ${wrong.status} instead of 401`,
      "check that no proxy answers for the worker, and that its WEBHOOK_SIGNATURE is set",
    ));
  }
}

/** Checks /health; returns whether it answers as a worker does. */
async function checkHealth(
  { workerUrl }: Settings,
  report: Report,
): Promise<boolean> {
  const broken = (found: string) =>
    report(failure(
      "worker",
      `/health ${found}`,
      "check WORKER_URL, and that the script is published",
    ));
  let response: Response;
  let text: string;
  try {
    response = await fetch(`${workerUrl}/health`, {
      redirect: "manual",
      signal: AbortSignal.timeout(HEALTH_MS_MAX),
    });
    text = await response.text();
  } catch {
    broken("does not answer");
    return false;
  }
  if (response.status !== 200 || text.trim() !== "OK") {
    broken(`answered HTTP ${response.status}`);
    return false;
  }
  const build = response.headers.get("x-libsql-sync-version") ?? "unknown";
  report(ok("worker", `/health answers, build ${oneLine(build, 40)}`));
  const date = Date.parse(response.headers.get("date") ?? "");
  if (!Number.isNaN(date)) {
    report(skewOf("clock of the worker", date - Date.now()));
  }
  return true;
}

/**
 * Tries the connections to PostgreSQL from here.
 *
 * @param settings The connection string.
 * @param report Where findings are sent.
 */
export async function checkConnections(
  { pgmqUrl }: Settings,
  report: Report,
): Promise<void> {
  const tried = await tryConnections({
    pgmqUrl,
    pgmqApiKey: "",
    pgmqToken: "",
    pgmqCa: "",
    libsqlUrl: "",
    libsqlAuthToken: "",
  });
  report(judgeConnections("connections from here", tried));
}

/** Has the worker try its own connections. */
async function checkItsConnections(
  settings: Settings,
  report: Report,
): Promise<void> {
  const name = "connections from the worker";
  const answer = await callWorker(settings, "/doctor", { method: "GET" });
  report(
    answer.status === 200 && Array.isArray(answer.body.ways)
      ? judgeConnections(name, answer.body.ways)
      : failure(name, describeRefusal(answer), AS_SAID),
  );
}

function judgeConnections(
  name: string,
  tried: readonly TriedConnection[],
): Finding {
  const found = describeConnections(tried);
  return tried.some(({ chosen, works }) => chosen && !works)
    ? failure(name, found, "change the settings to a connection that works")
    : ok(name, found);
}

/**
 * Makes the worker sync once.
 *
 * @param settings Its address and secrets.
 * @param report Where findings are sent.
 * @throws {CommandError} If the worker does not answer.
 */
export async function checkSync(
  settings: Settings,
  report: Report,
): Promise<void> {
  const answer = await callWorker(settings, "/sync");
  report(
    answer.status === 200
      ? ok(
        "sync",
        answer.body.busy ? "another sync is running" : "succeeded",
      )
      : failure("sync", describeRefusal(answer), AS_SAID),
  );
}
