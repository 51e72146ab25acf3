import { makeSchedule, run } from "./simulate.ts";
import { MemoryDatabase } from "./libsql.ts";
import { Invariants } from "./invariants.ts";
import { SourceModel } from "./source_model.ts";
import { DatabaseSync, StatementSync } from "node:sqlite";
import process from "node:process";
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
const N = 1000;
for (let seed = 5000; seed <= 5500; seed++) await run(makeSchedule(seed));
wrap(MemoryDatabase.prototype, "batch");
wrap(MemoryDatabase.prototype, "read");
wrap(Invariants.prototype, "committed");
wrap(SourceModel.prototype, "call");
wrap(Invariants.prototype, "found");
wrap(MemoryDatabase.prototype, "close");
wrap(DatabaseSync.prototype, "prepare");
wrap(DatabaseSync.prototype, "exec");
wrap(StatementSync.prototype, "all");
wrap(StatementSync.prototype, "run");
wrap(StatementSync.prototype, "columns");
let t = performance.now();
const c0 = process.cpuUsage();
for (let seed = 1; seed <= N; seed++) await run(makeSchedule(seed));
const c1 = process.cpuUsage(c0);
console.log(
  (performance.now() - t) / N,
  "wall per schedule",
  (c1.user + c1.system) / 1000 / N,
  "cpu",
);
for (const k in acc) {
  console.log(
    k,
    (acc[k]![0] / N).toFixed(3),
    "ms/schedule",
    (acc[k]![1] / N).toFixed(1),
    "calls",
  );
}
