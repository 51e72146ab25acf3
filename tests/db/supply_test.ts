/**
 * What the project is made of: exact versions, from npm alone, and the licences
 * of what dist.js holds. The list in README.md is made anew by
 * UPDATE=1 deno test -A tests/db/supply_test.ts
 */

import { assert, assertEquals } from "@std/assert";

const ROOT = new URL("../../", import.meta.url);
const README = new URL("README.md", ROOT);
const read = (path: string) => Deno.readTextFile(new URL(path, ROOT));
const EXACT = /^npm:(@[\w-]+\/)?[\w-]+@\d+\.\d+\.\d+(-[\w.]+)?(\/[\w./-]+)?$/;

Deno.test("deno.json and deno.lock name exact versions, from npm alone", async () => {
  const { imports } = JSON.parse(await read("deno.json"));
  assertEquals(
    Object.values<string>(imports).filter((text) => !EXACT.test(text)),
    [],
  );
  const lock = JSON.parse(await read("deno.lock"));
  assertEquals(Object.keys(lock).sort(), [
    "npm",
    "specifiers",
    "version",
    "workspace",
  ]);
  assertEquals(
    Object.keys(lock.specifiers).filter((text) => !EXACT.test(text)),
    [],
  );
  const packages = Object.values<{ integrity?: string }>(lock.npm);
  assert(packages.length > 50);
  assertEquals(
    packages.filter(({ integrity }) => !/^sha512-/.test(integrity ?? "")),
    [],
  );
});

Deno.test("no module imports past the import map", async () => {
  const found: string[] = [];
  let seen = 0;
  const search = async (folder: string) => {
    for await (const entry of Deno.readDir(new URL(folder, ROOT))) {
      const path = folder + entry.name;
      if (entry.isDirectory) await search(`${path}/`);
      if (!path.endsWith(".ts") || path.endsWith("supply_test.ts")) continue;
      seen += 1;
      for (
        const [, specifier] of (await read(path)).matchAll(
          /^(?:import|\} from) .*?"((?:npm|jsr|https?):[^"]+)"/gm,
        )
      ) {
        found.push(`${path}: ${specifier}`);
      }
    }
  };
  for (const folder of ["lib/", "tests/", ".ci/"]) await search(folder);
  assert(seen > 200, `${seen} files`);
  assertEquals(found, []);
});

Deno.test("the workflows run pinned actions and one Deno, and may read the code alone", async () => {
  const [, deno] = /deno@(\d+\.\d+\.\d+)/.exec(await read(".ci/run"))!;
  for (const name of ["ci.yml", "deploy.yml"]) {
    const text = await read(`.github/workflows/${name}`);
    const uses = [...text.matchAll(/uses: *(\S+)/g)].map(([, what]) => what!);
    assert(uses.length > 0);
    assertEquals(
      uses.filter((what) => !/^[\w-]+\/[\w-]+@v\d+\.\d+\.\d+$/.test(what)),
      [],
    );
    assertEquals(
      /^permissions:\n((?: {2}.*\n)+)/m.exec(text)?.[1],
      "  contents: read\n",
    );
    assertEquals(text.match(/permissions:/g)?.length, 1, name);
    for (const [, version] of text.matchAll(/deno@(\S+)/g)) {
      assertEquals(version, deno, name);
    }
    // Nothing of an event is put into a script.
    assert(!/run:.*\$\{\{/.test(text), name);
  }
  const frozen = /deno install --frozen/;
  assert(frozen.test(await read(".ci/run")));
  for (
    const [, version] of (await read("README.md")).matchAll(/deno@(\d\S+)/g)
  ) {
    assertEquals(version, deno, "README.md");
  }
});

/** Which packages dist.js holds, by the source map of its build, and their licences. */
async function bundled(): Promise<string[][]> {
  const folder = await Deno.makeTempDir();
  try {
    const { tasks } = JSON.parse(await read("deno.json"));
    const [, ...words]: string[] = tasks.build.command
      .replace("dist.js", `${folder}/dist.js`)
      .replace("bundle ", "bundle --sourcemap=external ").split(" ");
    const { success } = await new Deno.Command(Deno.execPath(), {
      args: words,
      cwd: ROOT,
      stdout: "null",
      stderr: "null",
    }).output();
    assert(success);
    const map = JSON.parse(await Deno.readTextFile(`${folder}/dist.js.map`));
    const folders = new Set<string>();
    for (const source of map.sources as string[]) {
      const [found] =
        /node_modules\/\.deno\/[^/]+\/node_modules\/(?:@[^/]+\/)?[^/]+/.exec(
          source,
        ) ?? [];
      if (found !== undefined) folders.add(found);
    }
    const rows: string[][] = [];
    for (const found of folders) {
      const { name, version, license } = JSON.parse(
        await read(`${found}/package.json`),
      );
      rows.push([`\`${name}\``, version, license]);
    }
    return rows.sort(([a], [b]) => a! < b! ? -1 : 1);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("README.md names the licence of every package that dist.js holds", async () => {
  const expected = [["package in `dist.js`", "version", "licence"]];
  expected.push(...await bundled());
  assert(expected.length > 4);
  const marks = /(<!-- bundled -->\n)([\s\S]*?)(<!-- \/bundled -->)/;
  if (Deno.env.get("UPDATE")) {
    const lines = [expected[0]!, ["---", "---", "---"], ...expected.slice(1)]
      .map((cells) => `| ${cells.join(" | ")} |`);
    const text = await Deno.readTextFile(README);
    await Deno.writeTextFile(
      README,
      text.replace(marks, `$1\n${lines.join("\n")}\n\n$3`),
    );
    await new Deno.Command(Deno.execPath(), {
      args: ["fmt", "--quiet", "README.md"],
      cwd: ROOT,
    }).output();
  }
  const [, , table] = marks.exec(await Deno.readTextFile(README)) ?? [];
  assert(table !== undefined, "README.md has the marks of the list");
  const found = table.trim().split("\n").filter((line) =>
    !/^[|\s-]*$/.test(line)
  )
    .map((line) => line.split("|").slice(1, -1).map((cell) => cell.trim()));
  assertEquals(found, expected);
  // Licences that let anybody ship it with their notice.
  const fine = ["MIT", "ISC", "BSD-3-Clause", "Unlicense"];
  assertEquals(
    expected.slice(1).filter(([, , licence]) => !fine.includes(licence!)),
    [],
  );
});
