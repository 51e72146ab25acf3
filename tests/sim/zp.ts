import { makeSchedule, run } from "./simulate.ts";
import { MemoryDatabase } from "./libsql.ts";
import { Invariants } from "./invariants.ts";
import { SourceModel } from "./source_model.ts";
const acc: Record<string, [number, number]> = {};
function wrap(proto: any, name: string) {
  const f = proto[name];
  acc[name] = [0, 0];
  proto[name] = function (...a: any[]) {
    const t = performance.now();
    try {
      return f.apply(this, a);
    } finally {
      acc[name]![0] += performance.now() - t;
      acc[name]![1]++;
    }
  };
}
wrap(MemoryDatabase.prototype, "batch");
wrap(MemoryDatabase.prototype, "read");
wrap(Invariants.prototype, "committed");
wrap(SourceModel.prototype, "call");
wrap(Invariants.prototype, "found");
wrap(MemoryDatabase.prototype, "close");
let t = performance.now();
for (let seed = 1; seed <= 500; seed++) {
  await run(makeSchedule(seed));
}
console.log((performance.now() - t) / 500, "per schedule");
for (const k in acc) {
  console.log(
    k,
    (acc[k]![0] / 500).toFixed(3),
    "ms/schedule",
    acc[k]![1] / 500,
    "calls",
  );
}
