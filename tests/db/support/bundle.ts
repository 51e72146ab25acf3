/**
 * Ring 3. The worker as it is deployed: one file, for any schema.json.
 *
 * @module
 */

import { assert } from "@std/assert";
import { fileURLToPath } from "node:url";
import { watchFolder } from "../../../lib/dev/watchdog.ts";
import type { RawSchema } from "./stack.ts";

const ROOT = new URL("../../../", import.meta.url);
const built = new Map<string, Promise<string>>();

/**
 * Bundles the worker as `deno task build` does.
 *
 * @param schema Stands in the place of schema.json where it is given.
 * @returns The file's path, the same for the same schema.
 */
export function bundleWorker(schema?: RawSchema): Promise<string> {
  const key = JSON.stringify(schema ?? null);
  const known = built.get(key) ?? build(schema);
  built.set(key, known);
  return known;
}

async function build(schema?: RawSchema): Promise<string> {
  const folder = await Deno.makeTempDir({ prefix: "bundle-" });
  watchFolder(folder);
  const { imports, tasks } = JSON.parse(
    await Deno.readTextFile(new URL("deno.json", ROOT)),
  );
  if (schema !== undefined) {
    const file = new URL(`file://${folder}/schema.json`);
    await Deno.writeTextFile(file, JSON.stringify(schema));
    imports[new URL("schema.json", ROOT).href] = file.href;
  }
  // What is relative there is so to the map.
  const map = Object.entries<string>(imports).map(([name, to]) => [
    name,
    to.startsWith(".") ? new URL(to, ROOT).href : to,
  ]);
  await Deno.writeTextFile(
    `${folder}/map.json`,
    JSON.stringify({ imports: Object.fromEntries(map) }),
  );
  const path = `${folder}/dist.js`;
  const [, ...args] = String(tasks.build.command).replace("dist.js", path)
    .split(" ");
  args.splice(1, 0, `--import-map=${folder}/map.json`);
  const { success, stderr } = await new Deno.Command(Deno.execPath(), {
    args,
    cwd: fileURLToPath(ROOT),
    stdout: "null",
    stderr: "piped",
  }).output();
  assert(success, new TextDecoder().decode(stderr));
  return path;
}
