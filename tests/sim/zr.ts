import { MUTANTS, mutantSchedule } from "./mutations.ts";
import { run } from "./simulate.ts";
import { describe, shrink } from "./shrink.ts";
for (const m of MUTANTS) {
  if (!m.name.includes(Deno.args[0]!)) continue;
  for (let seed = 1; seed < 3000; seed++) {
    const s = mutantSchedule(seed, m);
    const o = await run(s, { mutation: m.mutation });
    if (!o.violation) continue;
    const x = await shrink(s, { rule: o.violation.rule, mutation: m.mutation });
    console.log(m.name, s.actions.length, "->", x.actions.length);
    console.log(
      describe(x, await run(x, { mutation: m.mutation, tells: true })).split(
        "\n",
      ).map((l) => l.slice(0, 260)).join("\n"),
    );
    break;
  }
}
