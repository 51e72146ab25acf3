/**
 * Ring 3. `deno task nuke`: empties the replica and begins a new epoch.
 *
 * Promise: nothing is asked of the worker before somebody typed the word, or
 * said --yes.
 *
 * @module
 */

import {
  CommandError,
  describeRefusal,
  parseCall,
  post,
  printJson,
  readSettings,
  runCommand,
  SETTINGS,
  type Settings,
  UsageError,
  type WorkerAnswer,
} from "./command.ts";

const WORD = "nuke";
const USAGE = `Usage: deno task nuke [--yes] [--no-refill] [--json]

Empties the replica, whichever source it followed, and begins a new epoch. The
next syncs fill it again by themselves; readers see it fill up.

  --yes        do not ask
  --no-refill  leave it empty but for new changes, until deno task backfill
  --json       the answer as JSON

Where the worker has a NUKE_SIGNATURE, it is needed here in the place of
WEBHOOK_SIGNATURE.

${SETTINGS}nuke`;

/** Asks on the terminal; returns whether the word was typed. */
function ask(host: string): boolean {
  console.log(`Every row of the replica behind ${host} goes.`);
  return prompt(`Type ${WORD} to go on:`)?.trim() === WORD;
}

/**
 * Names the epoch that ends, so that nobody who sees the request can send it
 * again. Which one it is, the worker says when it is asked to end none.
 */
async function nuke(settings: Settings, path: string): Promise<WorkerAnswer> {
  const answer = await post(settings, `${path}&epoch=none`);
  const { error, message } = answer.body;
  const [epoch] = /[0-9a-f]{8}-[0-9a-f-]{27}/.exec(String(message)) ?? [];
  if (error !== "epoch_moved" || epoch === undefined) return answer;
  return await post(settings, `${path}&epoch=${epoch}`);
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
        "Cannot ask without a terminal: say --yes to empty the replica",
      );
    }
    if (!ask(new URL(settings.workerUrl).host)) {
      throw new CommandError("Nothing was done.");
    }
  }
  const isRefilled = !("no-refill" in flags);
  const answer = await nuke(settings, `/nuke?refill=${isRefilled}`);
  if ("json" in flags) printJson(answer.body);
  else if (answer.status === 200) {
    console.log(
      isRefilled
        ? "The replica is empty, and the next syncs fill it. At once: deno task backfill"
        : "The replica is empty, and stays so but for new changes: deno task backfill",
    );
  }
  if (answer.status !== 200) throw new CommandError(describeRefusal(answer));
  return 0;
}

if (import.meta.main) {
  Deno.exit(await runCommand({ usage: USAGE, run }, Deno.args));
}
