/**
 * Ring 3. PostgreSQL's data folder: made once, by initdb, and kept startable.
 *
 * Promise: a folder under its final name was completed by initdb; the lock file
 * of a running server is never removed.
 *
 * @module
 */
import { join } from "node:path";
import { type PostgresVersion } from "./pgsql_files.ts";
import { commandOf } from "./process_tree.ts";
import { serverUser } from "./server_user.ts";

/** How a data folder is made. */
export interface DataDirOptions {
  /** The folder with bin/initdb. */
  readonly files: string;
  readonly dataDir: string;
  readonly version: PostgresVersion;
  readonly superuser: string;
  readonly password: string;
}

/**
 * Makes a data folder unless it is there.
 *
 * @param options Where, and for whom.
 * @throws {Error} When initdb fails, or the folder there is another version's.
 */
export async function createDataDir(options: DataDirOptions): Promise<void> {
  const { dataDir, version } = options;
  const found = await readVersion(dataDir);
  if (found !== null) {
    if (found === String(version)) return await checkOwner(dataDir);
    throw new Error(
      `Cannot start PostgreSQL on ${dataDir}: expected data of version ${version}, ` +
        `found version ${found}. Remove the folder to start afresh`,
    );
  }
  // Made under another name and then renamed: an initdb that was killed half
  // way leaves nothing that looks like data.
  const temporary = `${dataDir}.${crypto.randomUUID().slice(0, 8)}.tmp`;
  try {
    // macOS before 14 and some Linux systems know no C.UTF-8.
    const first = await initdb(temporary, "C.UTF-8", options);
    if (!first.success) {
      await Deno.remove(temporary, { recursive: true });
      const second = await initdb(temporary, "C", options);
      if (!second.success) {
        throw new Error(
          `Cannot create PostgreSQL's data in ${dataDir}: initdb failed:\n${second.text}`,
        );
      }
    }
    await Deno.rename(temporary, dataDir);
  } finally {
    await Deno.remove(temporary, { recursive: true }).catch(() => {});
    await Deno.remove(`${temporary}.password`).catch(() => {});
  }
}

/** The version of the data in a folder, null when there is none. */
async function readVersion(dataDir: string): Promise<string | null> {
  try {
    return (await Deno.readTextFile(join(dataDir, "PG_VERSION"))).trim();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    if (!(error instanceof Deno.errors.PermissionDenied)) throw error;
    await checkOwner(dataDir);
    throw error;
  }
}

/** Refuses data that another user's server made: by root once, say, and by a normal user now. */
async function checkOwner(dataDir: string): Promise<void> {
  const expected = serverUser()?.uid ?? Deno.uid();
  const { uid } = await Deno.stat(dataDir);
  if (uid === expected) return;
  throw new Error(
    `Cannot start PostgreSQL on ${dataDir}: expected data of user ${expected}, found user ` +
      `${uid}'s. Run as the user who made it, or remove the folder to start afresh`,
  );
}

/** Runs initdb once. */
async function initdb(
  folder: string,
  locale: string,
  options: DataDirOptions,
): Promise<{ success: boolean; text: string }> {
  const user = serverUser();
  const passwordFile = `${folder}.password`;
  await Deno.mkdir(folder, { mode: 0o700 });
  await Deno.writeTextFile(passwordFile, options.password, { mode: 0o600 });
  if (user) {
    await Deno.chown(folder, user.uid, user.gid);
    await Deno.chown(passwordFile, user.uid, user.gid);
  }
  const { success, stdout, stderr } = await new Deno.Command(
    join(options.files, "bin", "initdb"),
    {
      args: [
        `--pgdata=${folder}`,
        `--username=${options.superuser}`,
        `--pwfile=${passwordFile}`,
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        `--locale=${locale}`,
        // Local data, made again in a second: not worth a sync of the disk.
        "--no-sync",
      ],
      clearEnv: true,
      env: {
        LC_ALL: locale,
        LC_MESSAGES: "C",
        PATH: "/usr/bin:/bin",
        TZ: "UTC",
      },
      cwd: options.files,
      ...user,
    },
  ).output();
  const decoder = new TextDecoder();
  return { success, text: decoder.decode(stdout) + decoder.decode(stderr) };
}

/**
 * Removes the lock file a killed server left when its process id belongs to
 * another program by now, which PostgreSQL could take for itself. With no such
 * process at all PostgreSQL clears the file, after checks we could not make.
 *
 * @param dataDir The data folder.
 * @throws {Error} When a server still runs on this folder.
 */
export async function removeStalePidFile(dataDir: string): Promise<void> {
  const file = join(dataDir, "postmaster.pid");
  const text = await Deno.readTextFile(file).catch(() => null);
  if (text === null) return;
  const pid = Number.parseInt(text, 10);
  const command = Number.isNaN(pid) ? "" : await commandOf(pid);
  if (command === null) return;
  if (command.includes(dataDir)) {
    throw new Error(
      `Cannot start PostgreSQL on ${dataDir}: a server already runs on it, process ${pid}, ` +
        `perhaps left behind by an earlier run. End it (kill -INT ${pid}) and try again`,
    );
  }
  await Deno.remove(file);
}
