import { MUTANTS, mutantSchedule } from "./mutations.ts";
import { run } from "./simulate.ts";
const max = Number(Deno.args[0] ?? 2000);
for (const m of MUTANTS) {
  if (Deno.args[1] && !m.name.includes(Deno.args[1])) continue;
  let found = 0;
  const t = performance.now();
  const rules = new Map<string, number>();
  let first = 0, n = 0;
  for (let seed = 1; seed <= max; seed++) {
    n++;
    const o = await run(mutantSchedule(seed, m), {
      mutation: m.mutation,
      tells: !!Deno.args[2],
    }).catch((e) => {
      console.log("SEED", seed, e.message, e.lines?.slice(-40).join("\n"));
      throw e;
    });
    if (o.violation) {
      found++;
      first ||= seed;
      rules.set(o.violation.rule, (rules.get(o.violation.rule) ?? 0) + 1);
      if (found >= 5) break;
    }
  }
  console.log(
    m.name,
    "|",
    found,
    "of",
    n,
    "first",
    first,
    Math.round(performance.now() - t),
    "ms",
    [...rules],
  );
}
