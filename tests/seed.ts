/**
 * Ring 3. The seed of a property test: fixed, unless SEED says another.
 *
 * @module
 */

const DEFAULT = 20_261_101;

/**
 * Reads the seed; a test that may read no environment has the fixed one.
 *
 * @returns The seed.
 */
export function seed(): number {
  const { state } = Deno.permissions.querySync({
    name: "env",
    variable: "SEED",
  });
  return Number((state === "granted" && Deno.env.get("SEED")) || DEFAULT);
}
