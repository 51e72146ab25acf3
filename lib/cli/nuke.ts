/**
 * Ring 3. `deno task nuke`: empties the replica and begins a new epoch.
 *
 * Promise: it sends nothing to the worker before the operator typed the word,
 * or gave --yes.
 *
 * @module
 */

import {
  callWorker,
  describeRefusal,
  type WorkerAnswer,
} from "./call_worker.ts";
import {
  type Command,
  CommandError,
  parseCall,
  printJson,
  runCommand,
  UsageError,
} from "./command.ts";
import { readSettings, SETTINGS, type Settings } from "./settings.ts";

const WORD = "nuke";
const USAGE = `Usage: deno task nuke [--yes] [--no-refill] [--json]

Empties the replica, even if it followed another source, and begins a new epoch.
The next syncs fill it again; readers see it fill up.

  --yes        do not ask
  --no-refill  do not fill it; it gets new changes only, until deno task backfill
  --json       print the answer as JSON

If the worker has a NUKE_SIGNATURE, set it here instead of WEBHOOK_SIGNATURE.

${SETTINGS}nuke`;

/** Asks on the terminal; returns whether the word was typed. */
function confirm(host: string): boolean {
  console.log(`This deletes every row of the replica behind ${host}.`);
  return prompt(`Type ${WORD} to go on:`)?.trim() === WORD;
}

/**
 * Names the epoch that ends, so that a copy of the request cannot end another
 * one. The worker says which epoch it is when it is asked to end none.
 */
async function nuke(settings: Settings, path: string): Promise<WorkerAnswer> {
  const answer = await callWorker(settings, `${path}&epoch=none`);
  const { error, message } = answer.body;
  const [epoch] = /[0-9a-f]{8}-[0-9a-f-]{27}/.exec(String(message)) ?? [];
  if (error !== "epoch_moved" || epoch === undefined) return answer;
  return await callWorker(settings, `${path}&epoch=${epoch}`);
}

async function run(args: readonly string[]): Promise<number> {
  const { flags } = parseCall(args, {
    yes: "switch",
    "no-refill": "switch",
    json: "switch",
  });
  const settings = readSettings((name) => Deno.env.get(name), [
    "WORKER_URL",
    Deno.env.get("NUKE_SIGNATURE") ? "NUKE_SIGNATURE" : "WEBHOOK_SIGNATURE",
  ]);
  if (!("yes" in flags)) {
    if (!Deno.stdin.isTerminal()) {
      throw new UsageError(
        "Cannot ask without a terminal: use --yes to empty the replica",
      );
    }
    if (!confirm(new URL(settings.workerUrl).host)) {
      throw new CommandError("Nothing was done.");
    }
  }
  const isRefilled = !("no-refill" in flags);
  const answer = await nuke(settings, `/nuke?refill=${isRefilled}`);
  if ("json" in flags) printJson(answer.body);
  if (answer.status !== 200) throw new CommandError(describeRefusal(answer));
  if (!("json" in flags)) {
    console.log(
      isRefilled
        ? "The replica is empty, and the next syncs fill it. To fill it now: deno task backfill"
        : "The replica is empty, and gets new changes only. To fill it: deno task backfill",
    );
  }
  return 0;
}

/** The command. */
export const command: Command = { usage: USAGE, run };

if (import.meta.main) Deno.exit(await runCommand(command, Deno.args));
