/** Whatever libSQL answers: the worker tells it, lives, and goes on when it answers well. */

import { assert, assertEquals } from "@std/assert";
import { seededRandom } from "../../lib/dev/random.ts";
import { insertItems, startChain, withWorker } from "../db/support/chain.ts";
import { Servers } from "../db/support/stack.ts";
import { seed } from "../seed.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

const SEED = seed();
const SYNCS = Number(Deno.env.get("SYNCS") ?? 60);

/** JSON values an answer may hold in the place of another. */
const ODD: unknown[] = [
  ...[null, true, 0, -1, 1.5, 1e300, "", "0", "x", [], {}, [null], [[]]],
  ...[{ type: "integer", value: "x" }, {
    type: "integer",
    value: "99999999999999999999",
  }],
  ...[{ type: "blob", base64: "!" }, { type: "blob", base64: "AAAA" }, {
    type: "null",
  }],
  ...[{ type: "float", value: 5 }, { type: "text", value: "other" }, {
    type: "?",
  }],
  "x".repeat(100_000),
];

/** An answer with one part that is another, or cut, or no JSON. */
function spoil(text: string, random: ReturnType<typeof seededRandom>): string {
  if (random.chance(0.1)) return text.slice(0, random.below(text.length));
  if (random.chance(0.1)) {
    const bytes = new TextEncoder().encode(text);
    bytes[random.below(bytes.length)] = random.below(256);
    return new TextDecoder().decode(bytes);
  }
  const root = { answer: JSON.parse(text) };
  let at: Record<string, unknown> = root;
  let name = "answer";
  for (;;) {
    const inner = at[name];
    const names = typeof inner === "object" && inner !== null
      ? Object.keys(inner)
      : [];
    if (names.length === 0 || random.chance(0.1)) break;
    at = inner as Record<string, unknown>;
    name = random.pick(names);
  }
  if (random.chance(0.2)) {
    if (Array.isArray(at)) at.splice(Number(name), 1);
    else delete at[name];
  } else at[name] = random.pick(ODD);
  return JSON.stringify(root.answer) ?? "";
}

Deno.test("sync() reports what libSQL answered wrongly, and nothing is lost", async () => {
  await using stack = await startChain(servers);
  await stack
    .sql`update libsql_sync.chain set refill = true, scrub_rows = 1000`;
  const random = seededRandom(SEED);
  let spoiled = "";
  const proxy = Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen: () => {} },
    async (request) => {
      const body = await request.text();
      const { pathname } = new URL(request.url);
      const answer = await fetch(stack.sqld.url + pathname, {
        method: request.method,
        headers: {
          "content-type": request.headers.get("content-type") ?? "text/plain",
        },
        ...(request.method === "GET" ? {} : { body }),
      });
      const text = await answer.text();
      if (request.method === "GET" || !random.chance(0.25)) {
        return new Response(text, { status: answer.status });
      }
      spoiled = spoil(text, random);
      const status = random.chance(0.1) ? 200 + random.below(400) : 200;
      return [204, 205, 304].includes(status)
        ? new Response(null, { status })
        : new Response(spoiled, { status });
    },
  );
  const codes = new Map<string, number>();
  try {
    const libsqlUrl = `http://127.0.0.1:${proxy.addr.port}`;
    await withWorker(stack, { libsqlUrl }, async (port) => {
      for (let n = 0; n < SYNCS; n++) {
        await insertItems(stack, n, n);
        if (n % 10 === 5) {
          await stack.sql`update item set size = ${n} where id % 7 = 0`;
        }
        const path = n % 13 === 0
          ? "/backfill"
          : n % 17 === 0
          ? "/verify"
          : "/sync";
        const { status, body } = await stack.post(path, { port });
        const code = status === 200 ? "ok" : String(body.error);
        codes.set(code, (codes.get(code) ?? 0) + 1);
        assert(
          code !== "internal",
          `SEED=${SEED}, sync ${n}: ${body.message} after ${
            spoiled.slice(0, 500)
          }`,
        );
        // A lie about the epoch or the position is believed, and told.
        if (/^replica_(ahead|foreign)$/.test(code)) {
          await stack.drain();
        }
      }
    });
  } finally {
    await proxy.shutdown();
  }
  assert(codes.size > 1, JSON.stringify([...codes]));
  await stack.drain();
  await stack.finish("/verify?repair=true");
  assertEquals(await stack.assertEqual(), SYNCS);
  assertEquals((await stack.deadLetters()).length, 0);
});
