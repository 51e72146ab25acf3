/**
 * A copy of what the migrations are made of, for the commands that write them.
 */

const PROJECT = new URL("../../../", import.meta.url);

/** The migration that a database runs first. */
export const FIRST = "20251031173352_libsql_replication_setup.sql";

/** Copies schema.json, supabase/sql and the first migration into an empty folder. */
export async function copyProject(root: URL): Promise<void> {
  const paths = ["schema.json", `supabase/migrations/${FIRST}`];
  const sources = new URL("supabase/sql/", PROJECT);
  for await (const { name } of Deno.readDir(sources)) {
    if (name.endsWith(".sql")) paths.push(`supabase/sql/${name}`);
  }
  for (const folder of ["supabase/migrations/", "supabase/sql/"]) {
    await Deno.mkdir(new URL(folder, root), { recursive: true });
  }
  for (const path of paths) {
    await Deno.copyFile(new URL(path, PROJECT), new URL(path, root));
  }
}
