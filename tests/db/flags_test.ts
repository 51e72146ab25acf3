/** The commands that measure and try out: their flags. */

import { assertEquals } from "@std/assert";
import { command as bench } from "../bench/bench.ts";
import { checkFlags, runBare } from "../cli/check_flags.ts";
import { command as load } from "../load/load.ts";
import { command as soak } from "../oracle/soak.ts";

for (const [name, command] of Object.entries({ bench, load, soak })) {
  Deno.test({
    name: `${name} parses its flags strictly, before it starts a server`,
    permissions: "none",
    fn: () => checkFlags(name, command),
  });
}

Deno.test({
  name: "bench and soak refuse values that they cannot use",
  permissions: "none",
  fn: async () => {
    for (
      const [command, args, said] of [
        [bench, ["--only", "lag,nothing"], "--only does not know nothing"],
        [
          soak,
          ["--minutes", "many"],
          "--minutes must be a number from 0 to 1000000000",
        ],
        [
          soak,
          ["--rounds=1.5"],
          "--rounds must be a whole number from 1 to 1000000000",
        ],
      ] as const
    ) {
      const { code, out, err } = await runBare(command, args);
      assertEquals([code, out, err.split("\n")[0]], [2, "", said]);
    }
  },
});
