/**
 * Ring 3. PostgreSQL refuses to run as root: picks another user then, and
 * folders that this user can reach.
 *
 * Promise: a normal user's processes and folders are left as they are, and no
 * permission of a folder we did not create is changed.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { basename, dirname, join, resolve } from "node:path";
import { watchFolder } from "./watchdog.ts";

/** A user to run a server as. */
export interface ServerUser {
  readonly uid: number;
  readonly gid: number;
}

/** The place of relocated folders: all users may pass it, and it outlives a restart of the machine. */
const COMMON = "/var/tmp";

/**
 * Picks the user PostgreSQL runs as.
 *
 * @returns The ids of `nobody`, else of `postgres`; null when we are not root
 *   and so need no other user.
 * @throws {Error} When we are root and neither user exists.
 */
export function serverUser(): ServerUser | null {
  if (Deno.uid() !== 0) return null;
  const users = new Map<string, ServerUser>();
  for (const line of Deno.readTextFileSync("/etc/passwd").split("\n")) {
    const [name, , uid, gid] = line.split(":");
    if (name && Number(uid) > 0) {
      users.set(name, { uid: Number(uid), gid: Number(gid) });
    }
  }
  const user = users.get("nobody") ?? users.get("postgres");
  if (!user) {
    throw new Error(
      "Cannot start PostgreSQL as root, it refuses that: expected a user nobody or postgres " +
        "in /etc/passwd to run it as, found neither. Add one, or run as a normal user",
    );
  }
  return user;
}

/** Whether every existing folder above a path may be passed by all users. */
function isReachable(path: string): boolean {
  for (let folder = dirname(path);; folder = dirname(folder)) {
    try {
      if (((Deno.statSync(folder).mode ?? 0) & 0o001) === 0) return false;
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
    if (folder === dirname(folder)) return true;
  }
}

/**
 * Picks the folder a server really uses: the path itself, or, when the server
 * runs as another user who cannot reach it (a clone under a 0700 home), a folder
 * of the same name under /var/tmp, owned by us.
 *
 * @param path The folder wanted.
 * @returns The folder to use; its parent exists.
 * @throws {Error} When the place under /var/tmp belongs to another user.
 */
export function reachable(path: string): string {
  const wanted = resolve(path);
  if (serverUser() === null || isReachable(wanted)) {
    Deno.mkdirSync(dirname(wanted), { recursive: true });
    // Under a umask like 077 a parent just made may still be closed.
    if (serverUser() === null || isReachable(wanted)) return wanted;
  }
  const hash = createHash("sha256").update(dirname(wanted)).digest("hex").slice(
    0,
    10,
  );
  const parent = join(COMMON, `libsql-sync-dev-${hash}`);
  try {
    Deno.mkdirSync(parent);
    Deno.chmodSync(parent, 0o711);
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
  }
  const found = Deno.lstatSync(parent);
  if (
    !found.isDirectory || found.uid !== 0 || ((found.mode ?? 0) & 0o022) !== 0
  ) {
    throw new Error(
      `Cannot use ${parent}: expected a folder that only root may write, found something else. ` +
        `Remove it and try again`,
    );
  }
  return join(parent, basename(wanted));
}

/**
 * Makes a folder for servers: like `Deno.makeTempDir`, but passable for the user
 * PostgreSQL runs as, and removed at the latest when this process has ended.
 *
 * @returns Its path.
 */
export async function makeServerTempDir(): Promise<string> {
  const prefix = "libsql-sync-";
  let folder = await Deno.makeTempDir({ prefix });
  if (serverUser() !== null && !isReachable(folder)) {
    await Deno.remove(folder);
    folder = await Deno.makeTempDir({ dir: COMMON, prefix });
  }
  watchFolder(folder);
  await Deno.chmod(folder, 0o711);
  return folder;
}
