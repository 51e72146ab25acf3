/**
 * Ring 3. `deno task deploy`: brings the bundle to Bunny.
 *
 * Promise: exit code 0 means that the worker's address answered with the new
 * version; nothing is uploaded that was not built, checked and tried here.
 *
 * @module
 */

import {
  type Call,
  type Command,
  parseCall,
  runCommand,
  UsageError,
} from "./command.ts";
import { publish, upload } from "./deploy_api.ts";
import { buildBundle, checkBundle, tryBundle } from "./deploy_bundle.ts";
import { rollback } from "./deploy_rollback.ts";
import { deploySecrets } from "./deploy_secrets.ts";
import {
  ARRIVAL_MS_MAX,
  awaitVersion,
  noteOf,
  type Print,
  readScript,
  type Target,
} from "./deploy_target.ts";
import { readSettings } from "./settings.ts";

const USAGE = `Usage: deno task deploy [--dry-run]
       deno task deploy secrets <file>
       deno task deploy rollback [<release>]

Builds dist.js, checks and tries it here, uploads and publishes it, and waits
until the worker's address answers with its version.

  --dry-run  everything except the upload
  secrets    set the worker's variables from an env file, and no others
  rollback   publish the release before, or the one named; the database stays as
             it is, and a worker older than its schema.json stops

Settings are read from the environment:
  BUNNY_SCRIPT_ID       the number in the script's address on the dashboard
  BUNNY_DEPLOYMENT_KEY  the script's deployment key; or
  BUNNY_ACCESS_KEY      the account's API key, for secrets and rollback too
  WORKER_URL            the worker's address, such as https://name.bunny.run
or from a file: deno task --env-file=<file> deploy`;

/**
 * Deploys the bundle.
 *
 * @param target Where it goes; null to build, check and try it only.
 * @param print Prints a line for each step.
 * @throws {CommandError} If a step fails; the message says which.
 */
export async function deploy(
  target: Target | null,
  print: Print,
): Promise<void> {
  const bundle = await buildBundle();
  const { version } = bundle;
  print(
    `built      dist.js, ${
      (bundle.bytes / 1024).toFixed(1)
    } KB, version ${version}`,
  );
  const { warning, imports } = await checkBundle(bundle);
  if (warning !== null) print(`warning    ${warning}`);
  print(`checked    it imports ${imports.join(", ")}`);
  await tryBundle(bundle);
  print("tried      /health answers with this version");
  if (target === null) {
    print("nothing was uploaded: --dry-run");
    return;
  }
  await upload(target.script, bundle.text);
  print("uploaded");
  await publish(target.script, { note: noteOf(version) });
  print("published");
  await awaitVersion(target, { version, print });
}

/** What was asked for. */
type Asked =
  | { readonly verb: "deploy"; readonly isDry: boolean }
  | { readonly verb: "secrets"; readonly file: string }
  | { readonly verb: "rollback"; readonly uuid: string | undefined };

/** Reads the verb and what it takes. */
function parseAsked({ flags, words: [verb, word] }: Call): Asked {
  const isDry = "dry-run" in flags;
  if (verb === undefined) return { verb: "deploy", isDry };
  if (!isDry && verb === "secrets" && word !== undefined) {
    return { verb, file: word };
  }
  if (!isDry && verb === "rollback") return { verb, uuid: word };
  throw new UsageError("expected secrets <file>, rollback, or no word");
}

async function run(args: readonly string[]): Promise<number> {
  const asked = parseAsked(
    parseCall(args, { "dry-run": "switch" }, { wordsMax: 2 }),
  );
  const get = (name: string) => Deno.env.get(name);
  const print = console.log;
  if (asked.verb === "deploy" && asked.isDry) {
    await deploy(null, print);
    return 0;
  }
  const script = readScript(get);
  if (asked.verb === "secrets") {
    const text = await Deno.readTextFile(asked.file).catch(() => {
      throw new UsageError("Cannot read the file");
    });
    await deploySecrets(script, { text, print });
    return 0;
  }
  const { workerUrl } = readSettings(get, ["WORKER_URL"]);
  const target = { script, workerUrl, arrivalMsMax: ARRIVAL_MS_MAX };
  if (asked.verb === "rollback") {
    await rollback(target, { uuid: asked.uuid, print });
  } else await deploy(target, print);
  return 0;
}

/** The command. */
export const command: Command = { usage: USAGE, run };

if (import.meta.main) Deno.exit(await runCommand(command, Deno.args));
