/**
 * Ring 3. A real Chromium, from an npm package if there is one for this machine.
 *
 * Promise: it needs nothing that a bare Linux machine lacks, and keeps nothing
 * of one start for the next.
 *
 * @module
 */
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliDecompressSync } from "node:zlib";
import { type Browser, chromium } from "playwright-core";
import { packageOf } from "./packages.ts";

const DEV = fileURLToPath(new URL("../../.dev", import.meta.url));
/** The usual places of others, when no package is for this machine. */
const PLACES = [
  "/usr/bin/chromium",
  "/usr/bin/google-chrome",
  "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
  "/Applications/Chromium.app/Contents/MacOS/Chromium",
];
const FLAGS = [
  ...["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"],
  ...["--disable-background-networking", "--disable-component-update"],
  "--disable-sync",
];

/**
 * Starts Chromium without a window.
 *
 * @returns The browser, to be closed.
 * @throws {Error} When none is found, with how to get one.
 */
export async function startChromium(): Promise<Browser> {
  const { path, env } = await findChromium();
  return await chromium.launch({
    executablePath: path,
    args: FLAGS,
    headless: true,
    env: { ...Deno.env.toObject(), ...env },
  });
}

/** CHROMIUM's own, the package's, or one that is installed. */
async function findChromium(): Promise<
  { path: string; env: Record<string, string> }
> {
  const named = Deno.env.get("CHROMIUM");
  if (named) return { path: named, env: {} };
  // What the package holds is for this platform alone.
  if (Deno.build.os === "linux" && Deno.build.arch === "x86_64") {
    const folder = await unpacked();
    return {
      path: join(folder, "chromium"),
      env: {
        LD_LIBRARY_PATH: join(folder, "lib"),
        FONTCONFIG_PATH: folder,
      },
    };
  }
  for (const path of PLACES) {
    if (await Deno.stat(path).catch(() => null)) return { path, env: {} };
  }
  throw new Error(
    `Cannot start Chromium: none is at ${PLACES.join(", ")}; install it ` +
      `(Debian: apt-get install chromium), or name one: CHROMIUM=<path>`,
  );
}

/** The package's files, unpacked once. */
async function unpacked(): Promise<string> {
  const main = fileURLToPath(import.meta.resolve("chromium"));
  const { folder, version } = packageOf(main);
  const home = join(DEV, `chromium-${version}`);
  if (await Deno.stat(home).catch(() => null)) return home;
  await Deno.mkdir(dirname(home), { recursive: true });
  const fresh = await Deno.makeTempDir({ dir: DEV, prefix: "chromium-" });
  const read = (name: string) =>
    brotliDecompressSync(Deno.readFileSync(join(folder, "bin", name)));
  Deno.writeFileSync(join(fresh, "chromium"), read("chromium.br"), {
    mode: 0o755,
  });
  for (const name of ["al2023", "fonts"]) {
    const archive = join(fresh, `${name}.tar`);
    Deno.writeFileSync(archive, read(`${name}.tar.br`));
    const { success } = await new Deno.Command("tar", {
      args: ["-xf", archive, "-C", fresh],
    }).output();
    if (!success) throw new Error(`Cannot unpack ${archive} by tar`);
  }
  await Deno.writeTextFile(
    join(fresh, "fonts.conf"),
    `<fontconfig><dir>${home}/fonts</dir><cachedir>${home}/cache</cachedir></fontconfig>\n`,
  );
  // If another process was faster, it has made the same.
  await Deno.rename(fresh, home).catch(() =>
    Deno.remove(fresh, { recursive: true })
  );
  return home;
}
