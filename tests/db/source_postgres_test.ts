import { fileURLToPath } from "node:url";
import { assertEquals, assertRejects } from "@std/assert";
import postgres from "postgres";
import { generate } from "selfsigned";
import { VERSION } from "../../lib/claim.ts";
import { SyncError } from "../../lib/errors.ts";
import { startPostgres } from "../../lib/dev/postgres.ts";
import { makeServerTempDir } from "../../lib/dev/server_user.ts";
import { migrate, prepareDatabase } from "../../lib/dev/supabase.ts";
import { completePostgresUrl } from "../../lib/postgres_url.ts";
import { connectionOptions } from "../../lib/postgres_socket.ts";
import { createPostgresCarrier } from "../../lib/source_postgres.ts";
import { recordingProxy } from "./proxy.ts";
import { Servers } from "./stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

/** A driver as a worker opens it. */
function open(text: string): postgres.Sql {
  const url = completePostgresUrl(text);
  return postgres(url, {
    max: 1,
    prepare: false,
    fetch_types: false,
    connect_timeout: 5,
    ...connectionOptions(url, { answerBytesMax: 1_000_000 }),
  });
}

/** One call over a connection string, as a worker opens it. */
async function callLease(url: string): Promise<unknown> {
  const sql = open(url);
  try {
    const carrier = createPostgresCarrier(sql, { timeoutMs: 5_000 });
    return await carrier.call("lease", {
      lease: "test",
      seconds: 1,
      version: VERSION,
    });
  } finally {
    await sql.end({ timeout: 1 });
  }
}

Deno.test("carrier.call() works over TLS, from the first byte and by request, and refuses a certificate it cannot verify", async () => {
  const { cert, private: key } = await generate([
    { name: "commonName", value: "localhost" },
  ]);
  const root = await makeServerTempDir();
  const server = await startPostgres({
    root: fileURLToPath(new URL("../../.dev", import.meta.url)),
    dataDir: `${root}/pg`,
    tls: { cert, key },
    settings: { fsync: "off" },
  });
  try {
    await prepareDatabase(server, { database: "tls" });
    const url = server.url({ database: "tls" });
    await migrate(url);
    const isEncrypted = async (of: string) => {
      const sql = open(of);
      try {
        const [row] = await sql`
          select ssl from pg_stat_ssl where pid = pg_backend_pid()`.simple();
        return row!.ssl;
      } finally {
        await sql.end({ timeout: 1 });
      }
    };
    for (
      const [query, encrypted] of [
        ["", true],
        ["?sslmode=disable", false],
        ["?sslmode=require", true],
        ["?sslnegotiation=direct", true],
        ["?sslmode=require&sslnegotiation=direct", true],
      ] as const
    ) {
      const answer = await callLease(url + query) as { do: string };
      assertEquals(answer.do, "granted", query);
      assertEquals(await isEncrypted(url + query), encrypted, query);
    }
    for (
      const query of [
        "?sslmode=verify-full",
        "?sslmode=verify-full&sslnegotiation=direct",
      ]
    ) {
      const error = await assertRejects(
        () => callLease(url + query),
        SyncError,
      );
      assertEquals(error.code, "source_unreachable");
    }
  } finally {
    await server.stop();
    await Deno.remove(root, { recursive: true });
  }
});

Deno.test("carrier.call() needs no session: one simple query a call, so that any pooler may stand in between", async () => {
  const server = await servers.postgres();
  const database = await servers.database();
  await using proxy = recordingProxy(server.port);
  const url = new URL(server.url({ database }));
  url.port = String(proxy.port);
  await callLease(`${url.href}?sslmode=disable&pgbouncer=true`);
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
    const error = await assertRejects(() => callLease(url), SyncError, words);
    assertEquals(error.code, code);
    assertEquals(error.message.includes("postgres:"), false);
    assertEquals(error.message.includes("wrong"), false);
  }
});
