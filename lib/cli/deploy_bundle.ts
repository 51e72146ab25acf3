/**
 * Ring 3. The bundle: built, stamped with its version, checked and tried.
 *
 * Promise: a bundle that passed has answered with its version in an isolate
 * like Bunny's.
 *
 * @module
 */

import { fileURLToPath } from "node:url";
import { serveBunny } from "../dev/bunny.ts";
import { MODULES } from "../dev/bunny_limits.ts";
import { RELEASE } from "../version.ts";
import { CommandError } from "./command.ts";
import { sha256Hex } from "../bytes.ts";

/** A script to upload. */
export interface Bundle {
  /** Its code. */
  readonly text: string;
  /** The version with which its /health answers: `0.1.0+<build>`. */
  readonly version: string;
  /** The size of its code. */
  readonly bytes: number;
}

/** The text in main.ts that the build's hash replaces. */
const PLACEHOLDER = "unstamped-build";
/** Enough of the hash to tell two builds apart. */
const BUILD_DIGITS = 12;
/** Bunny takes scripts of 10 MB. */
const BYTES_MAX = 10_000_000;
/** Our own goal: each isolate parses the code before its first answer. */
const BYTES_AIM = 150 * 1024;
const ROOT = new URL("../../", import.meta.url);
const DIST = new URL("dist.js", ROOT);

/**
 * Builds dist.js and puts the build's hash into it: of the code, which includes
 * schema.json.
 *
 * @returns The bundle, which is in dist.js as well.
 * @throws {CommandError} If it cannot be built.
 */
export async function buildBundle(): Promise<Bundle> {
  await runDeno(["task", "build"], "Cannot build dist.js");
  const bundle = await stampBundle(await Deno.readTextFile(DIST));
  await Deno.writeTextFile(DIST, bundle.text);
  return bundle;
}

/**
 * Puts the build into a bundle.
 *
 * @param text What was built.
 * @returns The bundle.
 * @throws {CommandError} If the text has not exactly one place for it.
 */
export async function stampBundle(text: string): Promise<Bundle> {
  const [before, after, ...more] = text.split(PLACEHOLDER);
  if (after === undefined || more.length > 0) {
    throw new CommandError(
      `Cannot stamp the bundle: expected the text ${PLACEHOLDER} once, found it ${
        more.length === 0 ? "nowhere" : `${more.length + 1} times`
      }; see main.ts`,
    );
  }
  const build = (await sha256Hex(text)).slice(0, BUILD_DIGITS);
  const stamped = before + build + after;
  return {
    text: stamped,
    version: `${RELEASE}+${build}`,
    bytes: new TextEncoder().encode(stamped).length,
  };
}

/**
 * Checks Bunny's limits for a script: its size, and that it imports only the
 * modules that Bunny documents.
 *
 * @param bundle The bundle.
 * @returns A warning if it is larger than our own goal, else null; and the names
 * of the modules that it imports.
 * @throws {CommandError} If Bunny would not accept or run it.
 */
export async function checkBundle(
  bundle: Bundle,
): Promise<{ warning: string | null; imports: string[] }> {
  const { bytes } = bundle;
  if (bytes > BYTES_MAX) {
    throw new CommandError(
      `Cannot deploy: expected a script of ${BYTES_MAX} bytes at most, found ${bytes}`,
    );
  }
  const imports = await importsOf(bundle.text);
  for (const { specifier, isDynamic } of imports) {
    if (isDynamic || !MODULES.includes(specifier)) {
      throw new CommandError(
        `Cannot deploy: expected one file that imports only what Bunny documents, found ${
          isDynamic ? "a module loaded later" : "an import"
        }: ${specifier}`,
      );
    }
  }
  return {
    warning: bytes > BYTES_AIM
      ? `larger than ${BYTES_AIM / 1024} KB, which slows each cold start`
      : null,
    imports: imports.map(({ specifier }) => specifier),
  };
}

/** Lists the imports by Deno's own parser: a pattern would find some in texts. */
async function importsOf(
  text: string,
): Promise<{ specifier: string; isDynamic?: boolean }[]> {
  return await withFolder({ "dist.js": text }, async (folder) => {
    const out = await runDeno(
      ["info", "--json", "--no-config", "--no-remote", `${folder}/dist.js`],
      "Cannot read the bundle's imports",
    );
    const { modules: [module] } = JSON.parse(out);
    if (module.error !== undefined) {
      throw new CommandError("Cannot deploy: the bundle is not JavaScript");
    }
    return module.dependencies ?? [];
  });
}

/**
 * Runs a bundle in an isolate like Bunny's, without settings, and calls /health.
 *
 * @param bundle The bundle.
 * @throws {CommandError} If it does not answer with its version.
 */
export async function tryBundle({ text, version }: Bundle): Promise<void> {
  await withFolder({ "dist.js": text }, async (folder) => {
    await using bunny = serveBunny({ script: `${folder}/dist.js`, env: {} });
    const found = await healthOf(bunny.url);
    if (found !== version) {
      throw new CommandError(
        `Cannot deploy: expected the bundle to answer /health with version ${version}, found ${found}`,
      );
    }
  });
}

const HEALTH_MS_MAX = 15_000;

/**
 * Asks a worker's /health for its version.
 *
 * @param workerUrl Its address.
 * @returns The version, or words for what was answered instead.
 */
export async function healthOf(workerUrl: string): Promise<string> {
  try {
    // A new query each time, so that no cache answers.
    const url = `${workerUrl}/health?${crypto.randomUUID()}`;
    const response = await fetch(url, {
      redirect: "manual",
      signal: AbortSignal.timeout(HEALTH_MS_MAX),
    });
    const text = await response.text();
    if (response.status !== 200 || text !== "OK") {
      return `HTTP ${response.status} with another body`;
    }
    const version = response.headers.get("x-libsql-sync-version") ?? "";
    return /^[\w.+-]{1,60}$/.test(version)
      ? version
      : "a worker without a version";
  } catch {
    return "no answer";
  }
}

/** The variables by which Deno finds its cache, and no others. */
function ownSettings(): Record<string, string> {
  const names = ["HOME", "DENO_DIR", "PATH", "USERPROFILE", "LOCALAPPDATA"];
  return Object.fromEntries(
    names.flatMap((name) => {
      const value = Deno.env.get(name);
      return value === undefined ? [] : [[name, value]];
    }),
  );
}

/** Runs Deno and returns what it printed. */
async function runDeno(args: string[], failed: string): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args,
    cwd: fileURLToPath(ROOT),
    clearEnv: true,
    env: { ...ownSettings(), NO_COLOR: "1" },
    stdin: "null",
  }).output();
  if (!success) {
    const said = new TextDecoder().decode(stderr).trim().split("\n").slice(-5);
    throw new CommandError(`${failed}: ${said.join("\n")}`);
  }
  return new TextDecoder().decode(stdout);
}

/** Writes files into a folder that exists while a function runs. */
async function withFolder<T>(
  files: Record<string, string>,
  run: (folder: string) => Promise<T>,
): Promise<T> {
  const folder = await Deno.makeTempDir();
  try {
    for (const [name, text] of Object.entries(files)) {
      await Deno.writeTextFile(`${folder}/${name}`, text);
    }
    return await run(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
