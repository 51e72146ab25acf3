import { makeSchedule, run } from "./simulate.ts";
import { shrink, describe } from "./shrink.ts";
const first = Number(Deno.env.get("SEED") ?? 1), many = Number(Deno.env.get("SCHEDULES") ?? 200);
const stop = Number(Deno.env.get("STOP") ?? 1);
const rules = new Map<string, number[]>();
let found = 0; const counts = new Map<string, number>();
const t = Date.now(); let runs = 0;
for (let seed = first; seed < first + many && found < stop; seed++) {
  const s = makeSchedule(seed);
  let o; try { o = await run(s); } catch (e) { console.log("CRASH", seed, e.stack, (e.lines ?? []).slice(-8).join("\n")); break; }
  runs++;
  for (const [k, v] of o.counts) counts.set(k, (counts.get(k) ?? 0) + v);
  if (o.violation) {
    found++;
    const l = rules.get(o.violation.rule) ?? []; l.push(seed); rules.set(o.violation.rule, l);
    if (l.length === 1) {
      const short = await shrink(s, { rule: o.violation.rule });
      console.log(describe(short, await run(short, { tells: true })));
    }
  }
}
console.log([...rules].map(([r, l]) => `${r}: ${l.length} ${l.slice(0, 8)}`).join("\n"));
console.log(runs, "runs", Date.now() - t, "ms");
if (Deno.env.get("COUNTS")) console.log([...counts].sort().map(([k, v]) => `${k}=${v}`).join("; "));
