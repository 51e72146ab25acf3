/** GET /doctor says what works from where the worker runs, and changes nothing. */

import { assert, assertEquals, assertMatch } from "@std/assert";
import { parseConfig } from "../../lib/config/config.ts";
import { tryConnections } from "../../lib/connect/try_connections.ts";
import { serveBunny } from "../../lib/dev/bunny.ts";
import { bundleWorker } from "../db/support/bundle.ts";
import { standing } from "../db/support/chain.ts";
import { SECRET, Servers, Stack } from "../db/support/stack.ts";
import {
  admitToken,
  settingsFor,
  type Transport,
} from "../db/support/transport.ts";

const servers = new Servers({ tls: true });
Deno.test.afterAll(() => servers.stop());

/** What a worker in the isolate says of its ways. */
async function ask(
  stack: Stack,
  env: Record<string, string>,
  modules: readonly string[] = [],
) {
  await using bunny = serveBunny({
    script: () => bundleWorker(),
    env: {
      LIBSQL_URL: stack.sqld.url,
      WEBHOOK_SIGNATURE: SECRET,
      ...env,
    },
    modules,
  });
  const unsigned = await fetch(`${bunny.url}/doctor`);
  assertEquals(unsigned.status, 401);
  await unsigned.body?.cancel();
  const response = await fetch(`${bunny.url}/doctor`, {
    headers: { "x-webhook-signature": SECRET },
  });
  assertEquals(response.headers.get("cache-control"), "no-store");
  const text = await response.text();
  assertEquals(response.status, 200, text);
  for (const secret of [SECRET, "postgres:", "127.0.0.1", "eyJ"]) {
    assert(!text.includes(secret), text);
  }
  return JSON.parse(text) as {
    says: string;
    ways: { way: string; chosen: boolean; works: boolean; found: string }[];
  };
}

Deno.test("GET /doctor reports each way that works from there, and why another does not", async () => {
  await using stack = await Stack.start(servers);
  await admitToken(stack.server, stack.database);
  await stack.drain();
  const before = await standing(stack);
  const by = (transport: Transport) => settingsFor(stack.workerUrl, transport);
  const outcome = ({ ways }: Awaited<ReturnType<typeof ask>>) =>
    ways.map(({ way, chosen, works }) => `${way}${chosen ? "*" : ""} ${works}`);

  assertEquals(outcome(await ask(stack, await by("tls"))), [
    "TLS from the first byte* true",
    "TLS by request false",
    "libSQL* true",
  ]);
  const rest = await ask(stack, await by("rest"));
  assertEquals(outcome(rest), ["PostgREST* true", "libSQL* true"]);
  assertEquals(rest.says, "PostgREST works (chosen) | libSQL works (chosen)");

  const tcp = await ask(stack, await by("tcp"));
  assertEquals(outcome(tcp), [
    "TLS from the first byte false",
    "TLS by request* false",
    "plain TCP false",
    "libSQL* true",
  ]);
  assertMatch(tcp.says, /first byte does not: [^|]*set PGMQ_CA/);
  assertMatch(
    tcp.says,
    /TLS by request does not \(chosen\): [^|]*no plain TCP/,
  );
  assertEquals(outcome(await ask(stack, await by("tcp"), ["node:net"])), [
    "TLS from the first byte false",
    "TLS by request* true",
    "plain TCP true",
    "libSQL* true",
  ]);
  // Nothing was taken, moved or settled.
  assertEquals(await standing(stack), before);
});

Deno.test("tryConnections() tries none that is weaker than what is set, and waits for none without end", async () => {
  // Takes connections, and says nothing.
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const open: Deno.Conn[] = [];
  const served = (async () => {
    for await (const conn of listener) open.push(conn);
  })();
  const { port } = listener.addr;
  const config = (query: string) => {
    const settings: Record<string, string> = {
      LIBSQL_URL: `http://127.0.0.1:${port}`,
      PGMQ_URL: `postgres://u:p@127.0.0.1:${port}/d${query}`,
      WEBHOOK_SIGNATURE: SECRET,
    };
    return parseConfig((name) => settings[name]);
  };
  const tried = await Promise.all(
    [
      "?sslmode=verify-full",
      "?sslnegotiation=direct",
      "?sslmode=disable",
    ].map((query) => tryConnections(config(query))),
  );
  listener.close();
  await served;
  for (const conn of open) conn.close();
  assertEquals(tried.flat().filter(({ works }) => works), []);
  const [full, direct, none] = tried.map((ways) => ways.map(({ way }) => way));
  assertEquals(full!.includes("plain TCP"), false);
  assertEquals(direct!.includes("plain TCP"), false);
  assertEquals(none!.includes("plain TCP"), true);
});
