import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { CommandError } from "../../lib/cli/command.ts";
import { RELEASE } from "../../lib/version.ts";
import { stampBundle } from "../../lib/cli/deploy_bundle.ts";

Deno.test("stampBundle() puts the hash of the code into its one place", async () => {
  const one = await stampBundle('const v="unstamped-build";');
  assertMatch(one.text, /^const v="[0-9a-f]{12}";$/);
  assertEquals(one.version, `${RELEASE}+${one.text.slice(9, -2)}`);
  const other = await stampBundle('const w="unstamped-build";');
  assert(one.version !== other.version);
  for (const text of ["", "unstamped-build unstamped-build"]) {
    await assertRejects(() => stampBundle(text), CommandError, "Cannot stamp");
  }
});
