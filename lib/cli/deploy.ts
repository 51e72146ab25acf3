/**
 * Ring 3. `deno task deploy`: the bundle to Bunny, its settings, and back.
 *
 * Promise: 0 says that the address itself told the new version; nothing is
 * uploaded that was not built, checked and tried here, and no value is shown.
 *
 * @module
 */

import { parseEnv } from "node:util";
import {
  CommandError,
  parseCall,
  readSettings,
  runCommand,
  UsageError,
} from "./command.ts";
import {
  listReleases,
  publish,
  putSecret,
  type Script,
  upload,
} from "./deploy_api.ts";
import {
  buildBundle,
  checkBundle,
  healthOf,
  tryBundle,
} from "./deploy_bundle.ts";
import { parseConfig } from "../config/config.ts";
import { SyncError } from "../errors.ts";

const USAGE = `Usage: deno task deploy [--dry-run]
       deno task deploy secrets <file>
       deno task deploy rollback [<release>]

Builds dist.js, checks and tries it here, uploads and publishes it, and waits
until the worker's address tells its version.

  --dry-run  everything but the upload
  secrets    sets the worker's variables from an env file, and no others
  rollback   publishes the release before, or the one named; the database stays
             as it is, and a worker older than its schema.json stops

Settings are read from the environment:
  BUNNY_SCRIPT_ID       the number in the script's address on the dashboard
  BUNNY_DEPLOYMENT_KEY  the script's deployment key; or
  BUNNY_ACCESS_KEY      the account's API key, for secrets and rollback too
  WORKER_URL            the worker's address, such as https://name.bunny.run
or from a file: deno task --env-file=<file> deploy`;

/** New code takes 2 to 5 s to arrive. */
const ARRIVAL_MS_MAX = 60_000;
const POLL_MS = 500;
/** Bunny's bounds for variables. */
const VALUE_BYTES_MAX = 2048;
const NOTE = "libsql-sync ";

/** Where a deployment goes, and how long it is waited for. */
export interface Target {
  readonly script: Script;
  readonly workerUrl: string;
  readonly arrivalMsMax: number;
}

/** Takes one line for each step. */
type Print = (line: string) => void;

/**
 * Deploys the bundle.
 *
 * @param target Where to; null tries it here and ends.
 * @param print Where each step is told.
 * @throws {CommandError} Where a step fails; the message says which.
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
  await publish(target.script, { note: NOTE + version });
  print("published");
  await awaitVersion(target, { version, print });
}

/**
 * Sets the worker's variables from a file.
 *
 * @param script Where to.
 * @param options The file's text, NAME=value line by line; where each step is
 * told.
 * @throws {UsageError} Where the worker could not use them; none is set then.
 * @throws {CommandError} Where Bunny refuses one.
 */
export async function deploySecrets(
  script: Script,
  { text, print }: { text: string; print: Print },
): Promise<void> {
  const known = settingNames();
  const given: Record<string, string> = {};
  const others: string[] = [];
  for (const [name, value] of Object.entries(parseEnv(text))) {
    if (!known.includes(name)) others.push(name);
    else if (value) given[name] = value;
  }
  checkSecrets(given);
  for (const [name, value] of Object.entries(given)) {
    await putSecret(script, { name, value });
    print(`set        ${name}`);
  }
  if (others.length > 0) {
    const names = others.filter((name) => /^\w{1,80}$/.test(name));
    print(`left out   ${names.join(", ")}: the worker reads no such`);
  }
  print("In force with the next deployment: deno task deploy");
}

/** The variables the worker reads, but for those that Bunny or a port sets. */
function settingNames(): string[] {
  const names = new Set<string>();
  try {
    parseConfig((name) => void names.add(name));
  } catch (error) {
    if (!(error instanceof SyncError)) throw error;
  }
  return [...names].filter((name) => !/^(BUNNY_.*|PORT)$/.test(name));
}

/** What stands for settings that a file leaves as they are. */
const UNCHANGED: Record<string, string> = {
  LIBSQL_URL: "http://unchanged",
  PGMQ_URL: "postgres://unchanged",
  WEBHOOK_SIGNATURE: "unchanged",
};

function checkSecrets(given: Record<string, string>): void {
  if (Object.keys(given).length === 0) {
    throw new UsageError("Cannot set variables: the file has none of ours");
  }
  try {
    parseConfig((name) => given[name] ?? UNCHANGED[name]);
  } catch (error) {
    if (!(error instanceof SyncError)) throw error;
    throw new UsageError(error.message);
  }
  for (const [name, value] of Object.entries(given)) {
    if (new TextEncoder().encode(value).length > VALUE_BYTES_MAX) {
      throw new UsageError(
        `Cannot set ${name}: expected ${VALUE_BYTES_MAX} bytes at most`,
      );
    }
  }
}

/**
 * Publishes an earlier release.
 *
 * @param target Where to.
 * @param options The release, the one before the live one unless told; where
 * each step is told.
 * @throws {CommandError} Where there is none, or it does not arrive.
 */
export async function rollback(
  target: Target,
  { uuid, print }: { uuid?: string; print: Print },
): Promise<void> {
  const releases = await listReleases(target.script);
  const live = releases.find(({ isLive }) => isLive);
  const release = uuid === undefined
    ? releases.filter(({ isLive, made }) =>
      !isLive && live !== undefined && made < live.made
    ).sort((a, b) => a.made < b.made ? 1 : -1)[0]
    : releases.find((release) => release.uuid === uuid);
  if (release === undefined) {
    throw new CommandError(
      uuid === undefined
        ? "Cannot roll back: expected a release before the live one, found none"
        : "Cannot roll back: expected a release of this name, found none",
    );
  }
  await publish(target.script, { uuid: release.uuid });
  print(`published  release ${release.uuid} of ${release.made}`);
  if (release.note.startsWith(NOTE)) {
    await awaitVersion(target, {
      version: release.note.slice(NOTE.length),
      print,
    });
  } else {
    print(
      "its version is not known: it was not deployed by this command",
    );
  }
}

/** Asks the address until it tells the version. */
async function awaitVersion(
  { workerUrl, arrivalMsMax }: Target,
  { version, print }: { version: string; print: Print },
): Promise<void> {
  const started = performance.now();
  for (;;) {
    const found = await healthOf(workerUrl);
    const ms = performance.now() - started;
    if (found === version) {
      print(`arrived    /health tells ${version}, ${Math.round(ms)} ms later`);
      return;
    }
    if (ms > arrivalMsMax) {
      throw new CommandError(
        `Published, and not arrived: expected /health of ${
          new URL(workerUrl).host
        } to tell version ${version} within ${
          arrivalMsMax / 1000
        } s, found ${found}. Check WORKER_URL and the script's log; back: deno task deploy rollback`,
      );
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

/** Reads how to reach the script. */
function readScript(get: (name: string) => string | undefined): Script {
  const read = (name: string) => (get(name) ?? "").trim();
  const id = read("BUNNY_SCRIPT_ID");
  if (!/^\d{1,18}$/.test(id)) {
    throw new UsageError("BUNNY_SCRIPT_ID must be the script's number");
  }
  const keys = [read("BUNNY_ACCESS_KEY"), read("BUNNY_DEPLOYMENT_KEY")];
  if (keys.every((key) => key === "")) {
    throw new UsageError("Set BUNNY_DEPLOYMENT_KEY or BUNNY_ACCESS_KEY");
  }
  if (keys.some((key) => !/^[\x21-\x7e]*$/.test(key))) {
    throw new UsageError("A key must be of visible ASCII characters");
  }
  // The stand-in of the tests.
  const apiUrl = read("BUNNY_API_URL") || "https://api.bunny.net";
  if (!URL.canParse(apiUrl)) throw new UsageError("BUNNY_API_URL is no URL");
  return {
    apiUrl,
    id,
    accessKey: keys[0]!,
    deploymentKey: keys[1]!,
  };
}

async function run(args: readonly string[]): Promise<number> {
  const { flags, words } = parseCall(args, { "dry-run": "switch" }, {
    wordsMax: 2,
  });
  const [verb, word] = words;
  const isDry = "dry-run" in flags;
  if (
    (verb !== undefined &&
      (isDry || !["secrets", "rollback"].includes(verb))) ||
    (verb === "secrets" && word === undefined)
  ) {
    throw new UsageError("expected secrets <file>, rollback, or no word");
  }
  const get = (name: string) => Deno.env.get(name);
  const print = console.log;
  if (isDry) {
    await deploy(null, print);
    return 0;
  }
  const script = readScript(get);
  if (verb === "secrets") {
    const text = await Deno.readTextFile(word!).catch(() => {
      throw new UsageError("Cannot read the file");
    });
    await deploySecrets(script, { text, print });
    return 0;
  }
  const { workerUrl } = readSettings(get, ["WORKER_URL"]);
  const target = { script, workerUrl, arrivalMsMax: ARRIVAL_MS_MAX };
  if (verb === "rollback") await rollback(target, { uuid: word, print });
  else await deploy(target, print);
  return 0;
}

if (import.meta.main) {
  Deno.exit(await runCommand({ usage: USAGE, run }, Deno.args));
}
