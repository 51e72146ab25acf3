/**
 * Ring 3. `deno task deploy rollback`: publishes an earlier release.
 *
 * @module
 */

import { CommandError } from "./command.ts";
import { listReleases, publish, type Release } from "./deploy_api.ts";
import {
  awaitVersion,
  type Print,
  type Target,
  versionIn,
} from "./deploy_target.ts";

/**
 * Publishes an earlier release.
 *
 * @param target Where it goes.
 * @param options The release, by default the newest before the live one; and
 * what prints a line for each step.
 * @throws {CommandError} If there is no such release, or it does not arrive.
 */
export async function rollback(
  target: Target,
  { uuid, print }: { uuid?: string; print: Print },
): Promise<void> {
  const release = chooseRelease(await listReleases(target.script), uuid);
  await publish(target.script, { uuid: release.uuid });
  print(`published  release ${release.uuid} of ${release.made}`);
  const version = versionIn(release.note);
  if (version !== null) await awaitVersion(target, { version, print });
  else {
    print("its version is not known, as this command did not deploy it");
  }
}

/**
 * Chooses the release to go back to.
 *
 * @param releases All releases.
 * @param uuid The release's name; default the newest that is older than the live
 * one.
 * @returns The release.
 * @throws {CommandError} If there is no such release.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const old = { uuid: "a", isLive: false, note: "", made: "2026-01-01T00:00:00" };
 * const live = { uuid: "b", isLive: true, note: "", made: "2026-01-02T00:00:00" };
 * assertEquals(chooseRelease([live, old]), old);
 * ```
 */
export function chooseRelease(
  releases: readonly Release[],
  uuid?: string,
): Release {
  if (uuid !== undefined) {
    const named = releases.find((release) => release.uuid === uuid);
    if (named !== undefined) return named;
    throw new CommandError(
      "Cannot roll back: expected a release of this name, found none",
    );
  }
  const live = releases.find(({ isLive }) => isLive);
  const [before] = releases.filter(({ isLive, made }) =>
    !isLive && live !== undefined && made < live.made
  ).sort((a, b) => a.made < b.made ? 1 : -1);
  if (before !== undefined) return before;
  throw new CommandError(
    "Cannot roll back: expected a release before the live one, found none",
  );
}
