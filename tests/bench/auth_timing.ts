/**
 * Ring 3. Whether the time of a comparison tells where the first wrong byte is:
 * `deno run tests/bench/auth_timing.ts`. A look, not a gate: a machine's noise is
 * larger than what it looks for.
 *
 * @module
 */

import { judge, sign } from "../../lib/http/auth.ts";

const SECRET = "0123456789abcdef0123456789abcdef";
const NOW = 1_764_000_000_000;
const ROUNDS = 40_000;
const WARM_UP = 2_000;
const REQUEST = { method: "POST", path: "/sync", body: new Uint8Array() };

/** A text whose first wrong character is at a place. */
function wrongAt(text: string, at: number): string {
  const other = text[at] === "0" ? "1" : "0";
  // What follows is wrong as well: a comparison that stops early would be seen.
  return text.slice(0, at) + other.repeat(text.length - at);
}

const signed = await sign([SECRET], REQUEST, NOW);
const from = signed.indexOf("v1=") + 3;
const given: Record<string, string> = {};
for (const at of [0, 1, 8, 16, 24, 30, 31]) {
  given[`secret, wrong from ${at}`] = wrongAt(SECRET, at);
}
given["secret, one short"] = SECRET.slice(0, -1);
given["secret, one long"] = `${SECRET}0`;
for (const at of [0, 1, 32, 62, 63]) {
  given[`signature, wrong from ${at}`] = wrongAt(signed, from + at);
}

const cases = Object.entries(given);
const times = new Map(Object.keys(given).map((name) => [name, [] as number[]]));
for (let round = -WARM_UP; round < ROUNDS; round++) {
  // In turns, each round beginning with another, so that what else the machine
  // does, and whoever comes first, falls on all of them.
  for (let turn = 0; turn < cases.length; turn++) {
    const [name, text] = cases[(round + WARM_UP + turn) % cases.length]!;
    const started = performance.now();
    await judge(text, {
      secrets: [SECRET],
      request: { ...REQUEST, readBody: () => Promise.resolve(REQUEST.body) },
      now: NOW,
    });
    const ms = performance.now() - started;
    if (round >= 0) times.get(name)!.push(ms);
  }
}

console.log(
  "first wrong character          mean us   95 % of the mean   median us",
);
for (const [name, all] of times) {
  all.sort((a, b) => a - b);
  // The slowest tenth is the machine's.
  const kept = all.slice(0, Math.floor(all.length * 0.9));
  const mean = kept.reduce((sum, ms) => sum + ms, 0) / kept.length;
  const variance = kept.reduce((sum, ms) => sum + (ms - mean) ** 2, 0) /
    kept.length;
  const margin = 1.96 * Math.sqrt(variance / kept.length);
  const us = (ms: number) => (ms * 1000).toFixed(2);
  console.log(
    name.padEnd(28),
    us(mean).padStart(9),
    `+-${us(margin)}`.padStart(18),
    us(kept[Math.floor(kept.length / 2)]!).padStart(11),
  );
}
