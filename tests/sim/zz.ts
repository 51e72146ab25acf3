import process from "node:process";
import { makeSchedule, run } from "./simulate.ts";
import { describe, shrink } from "./shrink.ts";
const from = Number(Deno.args[0] ?? 1), n = Number(Deno.args[1] ?? 100);
const counts = new Map<string, number>();
const rules = new Map<string, number[]>();
const c0 = process.cpuUsage();
for (let seed = from; seed < from + n; seed++) {
  const s = makeSchedule(seed);
  const o = await run(s);
  for (const [k, v] of o.counts) counts.set(k, (counts.get(k) ?? 0) + v);
  if (o.violation) {
    const l = rules.get(o.violation.rule) ?? [];
    l.push(seed);
    rules.set(o.violation.rule, l);
    if (n === 1) {
      const x = await shrink(s, { rule: o.violation.rule });
      console.log(describe(x, await run(x, { tells: true })));
    } else console.log(seed, o.violation.message);
  }
}
const c1 = process.cpuUsage(c0);
console.log((c1.user + c1.system) / 1000 / n, "cpu ms each");
if (n > 1) {
  console.log(
    [...counts].sort((a, b) => b[1] - a[1]).map(([k, v]) => k + "=" + v).join(
      "; ",
    ),
  );
}
for (const [k, v] of rules) console.log(k, v.length, v.slice(0, 12).join());
