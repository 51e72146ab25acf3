import { find } from "./find.ts";
import { MUTANTS } from "./mutations.ts";
import { run } from "./simulate.ts";
const max = Number(Deno.env.get("MAX") ?? 300); const only = Deno.env.get("ONLY");
for (const m of MUTANTS) {
  if (only && !m.name.includes(only)) continue;
  const t = Date.now();
  const f = await find(m, max);
  const clean = f && (await run(f.schedule)).violation;
  console.log(f ? `${f.schedule.seed}` : "NOT FOUND", `${Date.now() - t}ms`, m.name, "|", f?.outcome.violation?.message.slice(0, 120), clean ? "UNCLEAN " + clean.message : "");
}
