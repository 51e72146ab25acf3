/**
 * What the documents say exists does, and what they show runs.
 */

import { assert, assertEquals } from "@std/assert";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { Servers, Stack } from "./support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
/** Folders of other projects, or of runs. */
const SKIPPED = [".git", ".dev", "node_modules"];
/** A path of this repository, perhaps with a * in it. */
const PATH = /^(?:\.ci|\.github|lib|supabase|tests)\/[\w./*-]+$/;
const README_LINES_MAX = 250;

/** Every file below a folder, relative to the repository. */
async function filesBelow(folder = ""): Promise<string[]> {
  const found: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(join(ROOT, folder))) {
    const path = folder + name;
    if (!isDirectory) found.push(path);
    else if (!SKIPPED.includes(name)) {
      found.push(path + "/", ...await filesBelow(path + "/"));
    }
  }
  return found;
}

/** Every document with its text, without the blocks of code if asked. */
async function documents(
  paths: readonly string[],
): Promise<Map<string, { all: string; prose: string }>> {
  const texts = new Map<string, { all: string; prose: string }>();
  for (const path of paths.filter((path) => path.endsWith(".md"))) {
    const all = await Deno.readTextFile(join(ROOT, path));
    texts.set(path, { all, prose: all.replace(/^```[\s\S]*?^```$/gm, "") });
  }
  return texts;
}

/** A heading's anchor, as GitHub makes it. */
function anchorOf(heading: string): string {
  return heading.trim().toLowerCase().replace(/[^\p{L}\p{N} _-]/gu, "")
    .replaceAll(" ", "-");
}

Deno.test("documents link to files and headings that exist", async () => {
  const paths = await filesBelow();
  const texts = await documents(paths);
  const broken: string[] = [];
  let links = 0;
  for (const [path, { prose }] of texts) {
    for (const [, target] of prose.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^https?:/.test(target!)) continue;
      links += 1;
      const [file, anchor] = target!.split("#") as [string, string?];
      const found = file === ""
        ? path
        : relative(ROOT, join(ROOT, dirname(path), file));
      if (!paths.includes(found)) broken.push(`${path}: ${target}`);
      else if (anchor !== undefined) {
        const headings = [
          ...texts.get(found)!.prose.matchAll(/^#+ (.*)$/gm),
        ].map(([, heading]) => anchorOf(heading!));
        if (!headings.includes(anchor)) broken.push(`${path}: ${target}`);
      }
    }
  }
  assert(links > 10, `${links} links`);
  assertEquals(broken, []);
});

Deno.test("documents name files, tests and tasks that exist", async () => {
  const paths = await filesBelow();
  const { tasks } = JSON.parse(
    await Deno.readTextFile(join(ROOT, "deno.json")),
  );
  const wrong: string[] = [];
  let names = 0;
  for (const [path, { all, prose }] of await documents(paths)) {
    for (const [, name] of prose.matchAll(/`([^`\n]+)`/g)) {
      const test = /^(?:[\w-]+\/)*(\w+_test)(?:\.ts)?$/.exec(name!)?.[1];
      if (PATH.test(name!)) {
        names += 1;
        const pattern = new RegExp(
          `^${name!.replaceAll(".", "\\.").replaceAll("*", "[^/]*")}/?$`,
        );
        if (!paths.some((file) => pattern.test(file))) {
          wrong.push(`${path}: ${name}`);
        }
      } else if (test !== undefined) {
        names += 1;
        if (!paths.some((file) => file.endsWith(`/${test}.ts`))) {
          wrong.push(`${path}: ${name}`);
        }
      }
    }
    for (const [, task] of all.matchAll(/\bdeno task ([a-z][a-z:]*)/g)) {
      names += 1;
      if (!Object.hasOwn(tasks, task!)) wrong.push(`${path}: task ${task}`);
    }
  }
  assert(names > 50, `${names} names`);
  assertEquals(wrong, []);
});

Deno.test("README.md is short enough to be read", async () => {
  const text = await Deno.readTextFile(join(ROOT, "README.md"));
  const lines = text.trimEnd().split("\n").length;
  assert(lines <= README_LINES_MAX, `${lines} lines`);
});

Deno.test("README.md's reader reads rows, and whether the replica is equal", async () => {
  const readme = await Deno.readTextFile(join(ROOT, "README.md"));
  const [, code] = /^```ts\n([\s\S]*?)^```$/m.exec(readme) ?? [];
  assert(code !== undefined);
  await using stack = await Stack.start(servers);
  await stack.sql`insert into app_versions (id, owner_org, app_id, name)
    values (1, gen_random_uuid(), 'com.a', '1.0.0'), (2, gen_random_uuid(), 'com.b', '2.0.0')`;
  await stack.drain();
  await stack.walk();
  const folder = await Deno.makeTempDir();
  const file = join(folder, "reader.ts");
  await Deno.writeTextFile(file, code);
  try {
    const { success, stdout, stderr } = await new Deno.Command(
      Deno.execPath(),
      {
        args: ["run", "--config=deno.json", "--check", "--quiet", "-A", file],
        cwd: ROOT,
        env: {
          LIBSQL_URL: stack.sqld.url,
          LIBSQL_READ_TOKEN: "test",
          NO_COLOR: "1",
        },
      },
    ).output();
    const decoder = new TextDecoder();
    const printed = decoder.decode(stdout);
    assert(success, decoder.decode(stderr));
    assert(/^1n 20\d\d-/.test(printed), printed);
    assert(printed.includes("1.0.0") && !printed.includes("2.0.0"), printed);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
