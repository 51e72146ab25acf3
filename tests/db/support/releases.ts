/**
 * What each release installed, as `deno task migration --release` kept it.
 */

/** The folder of the kept releases. */
const RELEASES = new URL("../releases/", import.meta.url);

/** Reads the names of the kept releases, such as 0.1.0, in the order of release. */
export async function readReleases(folder = RELEASES): Promise<string[]> {
  const names: string[] = [];
  for await (const { name } of Deno.readDir(folder)) {
    if (name.endsWith(".sql.gz")) names.push(name.slice(0, -".sql.gz".length));
  }
  const compare = new Intl.Collator("en", { numeric: true }).compare;
  return names.sort(compare);
}

/** Reads the migration of a kept release. */
export async function readRelease(
  release: string,
  folder = RELEASES,
): Promise<string> {
  const bytes = await Deno.readFile(new URL(`${release}.sql.gz`, folder));
  const text = new Blob([bytes]).stream()
    .pipeThrough(new DecompressionStream("gzip"));
  return await new Response(text).text();
}
