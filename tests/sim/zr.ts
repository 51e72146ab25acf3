import { MUTANTS, mutantSchedule } from "./mutations.ts";
import { run } from "./simulate.ts";
const m = MUTANTS.find((m) => m.name.includes(Deno.args[0]!))!;
for (
  let seed = Number(Deno.args[1]);
  seed < Number(Deno.args[1]) + Number(Deno.args[2] ?? 1);
  seed++
) {
  const s = mutantSchedule(seed, m);
  const o = await run(s, { mutation: m.mutation, tells: true });
  console.log("=====", seed, JSON.stringify(s.setup), s.actions.length);
  const at = o.lines.indexOf("faults stop");
  console.log(
    o.lines.slice(0, at < 0 ? undefined : at + 1).map((l) => l.slice(0, 140))
      .join("\n"),
  );
  console.log(o.violation?.message);
}
