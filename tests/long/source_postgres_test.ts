import { assertEquals, assertRejects } from "@std/assert";
import { createHash } from "node:crypto";
import { generate } from "selfsigned";
import { openCarrier } from "../../lib/connect/open_carrier.ts";
import { SyncError } from "../../lib/errors.ts";
import {
  COLUMNS,
  concat,
  DONE,
  int32,
  message,
  READY,
  row,
} from "../db/support/hostile.ts";
import { recordingProxy } from "../db/support/proxy.ts";
import { Servers } from "../db/support/stack.ts";
import { ownCertificate } from "../db/support/transport.ts";

const servers = new Servers();
const secure = new Servers({ tls: true });
Deno.test.afterAll(async () => {
  await servers.stop();
  await secure.stop();
});

/** One call over a connection string, as a worker opens it. */
async function callRelease(url: string, ca = ""): Promise<unknown> {
  const way = { pgmqUrl: url, pgmqApiKey: "", pgmqToken: "", pgmqCa: ca };
  const carrier = openCarrier(way, { timeoutMs: 5_000 });
  try {
    return await carrier.call("release", { lease: "test" });
  } finally {
    await carrier.close();
  }
}

Deno.test("carrier.call() works over TLS, from the first byte and by request, and verifies by default", async () => {
  await using proxy = recordingProxy((await secure.postgres()).port);
  const { cert } = await ownCertificate();
  const { cert: other } = await generate([
    { name: "commonName", value: "localhost" },
  ]);
  const database = await secure.database();
  const url = new URL((await secure.postgres()).url({ database }));
  url.port = String(proxy.port);
  const call = (query: string, ca: string, host = "127.0.0.1") => {
    url.hostname = host;
    return callRelease(url.href + query, ca);
  };
  // What the first bytes are: a request for TLS, TLS, or a start in clear.
  const works: [query: string, ca: string, first: string][] = [
    ["", "", "request"],
    ["", cert, "request"],
    ["?sslmode=require", "", "request"],
    ["?sslmode=require", cert, "request"],
    ["?sslmode=verify-full", cert, "request"],
    ["?sslmode=disable", "", "start"],
    ["?sslnegotiation=direct", cert, "TLS"],
    ["?sslnegotiation=direct&sslmode=verify-ca", cert, "TLS"],
    ["?sslnegotiation=direct&sslmode=require", "", "TLS"],
  ];
  for (const [query, ca, first] of works) {
    proxy.starts.length = 0;
    assertEquals(await call(query, ca), { queued: 0, queued_exact: true });
    assertEquals(proxy.starts, [first], query);
  }
  assertEquals(await call("?sslnegotiation=direct", cert, "localhost"), {
    queued: 0,
    queued_exact: true,
  });
  const refused: [query: string, ca: string, host?: string][] = [
    ["?sslnegotiation=direct", ""],
    ["?sslnegotiation=direct", other],
    ["?sslnegotiation=direct&sslmode=require", other],
    ["?sslmode=verify-full", ""],
    ["", other],
    // Another name of the same machine.
    ["?sslnegotiation=direct", cert, "0x7f.1"],
    ["?sslmode=verify-full", cert, "0x7f.1"],
  ];
  for (const [query, ca, host] of refused) {
    const error = await assertRejects(
      () => call(query, ca, host),
      SyncError,
      "set PGMQ_CA",
    );
    assertEquals(error.code, "config_invalid");
  }
});

Deno.test("carrier.call() insists on TLS when a server offers none, and takes no byte before it begins", async () => {
  const server = await servers.postgres();
  const url = server.url({ database: await servers.database() });
  await assertRejects(
    () => callRelease(`${url}?sslmode=require`),
    SyncError,
    "does not offer it",
  );
  // Somebody in between sends more than the one byte that says yes.
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const served = (async () => {
    const conn = await listener.accept();
    await conn.read(new Uint8Array(8));
    await conn.write(new TextEncoder().encode("SInjected"));
    while (await conn.read(new Uint8Array(100)) !== null);
    conn.close();
  })();
  const { port } = listener.addr;
  await assertRejects(
    () => callRelease(`postgres://u:p@127.0.0.1:${port}/d?sslmode=require`),
    SyncError,
  );
  await served;
  listener.close();
});

Deno.test("carrier.call() needs no session: one simple query a call, so that any pooler may stand in between", async () => {
  const server = await servers.postgres();
  const database = await servers.database();
  await using proxy = recordingProxy(server.port);
  const url = new URL(server.url({ database }));
  url.port = String(proxy.port);
  await callRelease(`${url.href}?sslmode=disable&pgbouncer=true`);
  // Startup and password, then Q (simple query) and X (terminate): no Parse, no Bind.
  const kinds = proxy.messages.filter((kind) =>
    kind !== "p" && kind !== "startup"
  );
  assertEquals(kinds, ["Q", "X"]);
});

Deno.test("carrier.call() says what to do when the source is missing, not installed or refuses", async () => {
  const server = await servers.postgres();
  const bare = await servers.database({ migrated: false });
  const installed = server.url({ database: await servers.database() });
  const cases: [string, SyncError["code"], string][] = [
    [
      server.url({ database: bare }),
      "source_not_installed",
      "apply the migration",
    ],
    [
      server.url({ database: "absent" }),
      "config_invalid",
      "check user, password and database in PGMQ_URL",
    ],
    [
      installed.replace(":postgres@", ":wrong@"),
      "config_invalid",
      "check user, password and database in PGMQ_URL",
    ],
    [
      "postgres://postgres:postgres@127.0.0.1:1/x",
      "source_unreachable",
      "check PGMQ_URL",
    ],
  ];
  for (const [url, code, words] of cases) {
    const error = await assertRejects(() => callRelease(url), SyncError, words);
    assertEquals(error.code, code);
    assertEquals(error.message.includes("postgres:"), false);
    assertEquals(error.message.includes("wrong"), false);
  }
});

/** A server that asks for a password in one way, and the bytes it is sent. */
async function challenged(challenge: Uint8Array): Promise<{
  sent: string;
  outcome: unknown;
}> {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const buffer = new Uint8Array(1_000);
  let sent = "";
  const served = (async () => {
    const conn = await listener.accept();
    await conn.read(buffer);
    await conn.write(concat(message("R", challenge)));
    const length = await conn.read(buffer);
    if (length !== null) {
      sent = new TextDecoder().decode(buffer.subarray(0, length));
      await conn.write(READY);
      await conn.read(buffer);
      await conn.write(concat(COLUMNS, row("5"), DONE));
      while (await conn.read(buffer) !== null);
    }
    conn.close();
  })();
  const url =
    `postgres://me:p%C3%A4ss@127.0.0.1:${listener.addr.port}/d?sslmode=disable`;
  const outcome = await callRelease(url).catch((error) => error);
  await served;
  listener.close();
  return { sent, outcome };
}

Deno.test("carrier.call() proves a password by md5, and sends one in clear to no unverified server", async () => {
  const md5 = (...parts: (string | Uint8Array)[]) =>
    parts.reduce((hash, part) => hash.update(part), createHash("md5"))
      .digest("hex");
  const salt = Uint8Array.of(1, 2, 254, 255);
  const asked = await challenged(concat(int32(5), salt));
  assertEquals(asked.outcome, 5);
  const proof = `md5${md5(md5("pässme"), salt)}\0`;
  assertEquals(asked.sent, `p\0\0\0${String.fromCharCode(4 + 36)}${proof}`);

  for (const kind of [3, 7]) {
    const { sent, outcome } = await challenged(concat(int32(kind)));
    assertEquals(sent, "");
    assertEquals((outcome as SyncError).code, "config_invalid");
  }
});
