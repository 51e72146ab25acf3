import { assertEquals, assertMatch } from "@std/assert";
import type { Config } from "../../lib/config/config.ts";
import { type ErrorCode, SyncError } from "../../lib/errors.ts";
import { sign } from "../../lib/http/auth.ts";
import { createHandler } from "../../lib/http/handler.ts";
import type { Flows } from "../../lib/http/routes.ts";
import type { LogFields } from "../../lib/log.ts";

const SECRET = "correct horse battery staple";
const CONFIG: Config = {
  libsqlUrl: "http://127.0.0.1:8080",
  libsqlAuthToken: "",
  libsqlMaxMb: 1024,
  pgmqUrl: "postgres://h/d",
  pgmqApiKey: "",
  pgmqToken: "",
  pgmqCa: "",
  webhookSecrets: [SECRET],
  nukeSecrets: null,
  alertWebhookUrl: "",
  port: 0,
};

interface Change {
  readonly config?: () => Config;
  readonly sync?: Flows["sync"];
  readonly nuke?: Flows["nuke"];
}

/** A handler over flows that note their calls, and all that it logs. */
function setUp(change: Change = {}) {
  const calls: string[] = [];
  const logged: [level: string, event: string, fields: LogFields][] = [];
  let time = 1_000;
  const handler = createHandler({
    config: change.config ?? (() => CONFIG),
    flows: {
      sync: (config) => {
        calls.push("sync");
        return change.sync?.(config) ??
          Promise.resolve({ processed: 123, queued: 456 });
      },
      nuke: (config, query) => {
        calls.push("nuke");
        return change.nuke?.(config, query) ??
          Promise.resolve({ message: "Data nuked and schema reinitialized" });
      },
      backfill: (_, query) => {
        calls.push(`backfill ${JSON.stringify(query)}`);
        return Promise.resolve({ done: true });
      },
      verify: (_, query) => {
        calls.push(`verify ${JSON.stringify(query)}`);
        return Promise.resolve({ done: true });
      },
      doctor: () => {
        calls.push("doctor");
        return Promise.resolve({ says: "fine" });
      },
      redrive: (_, query) => {
        calls.push(`redrive ${JSON.stringify(query)}`);
        return Promise.resolve({ tried: 1 });
      },
      status: (_, query) => {
        calls.push(`status ${JSON.stringify(query)}`);
        return Promise.resolve({ fine: true });
      },
      metrics: () => {
        calls.push("metrics");
        return Promise.resolve("# EOF\n");
      },
    },
    log: (level, event, fields) => void logged.push([level, event, fields]),
    now: () => (time += 5),
    version: "0.1.0+0123456789ab",
  });
  return { calls, logged, handler };
}

const request = (path: string, init: RequestInit = {}) =>
  new Request(`http://worker.example.com${path}`, init);
const post = (
  path: string,
  signature: string | null = SECRET,
  init: RequestInit = {},
) =>
  request(path, {
    method: "POST",
    headers: signature === null ? {} : { "x-webhook-signature": signature },
    ...init,
  });

/** Status, body and the headers that count. */
async function read(response: Response) {
  assertEquals(response.headers.get("cache-control"), "no-store");
  assertEquals(response.headers.get("content-type"), "application/json");
  return {
    status: response.status,
    body: await response.json() as Record<string, unknown>,
  };
}

Deno.test("createHandler() answers OK when /health or /ok is asked, without settings or signature", async () => {
  const { handler, calls, logged } = setUp({
    config: () => {
      throw new SyncError("config_invalid", "none");
    },
  });
  for (const path of ["/health", "/ok", "/ok?a=1"]) {
    for (const method of ["GET", "HEAD"]) {
      const response = await handler(request(path, { method }));
      assertEquals(response.status, 200);
      assertEquals(
        response.headers.get("content-type"),
        "text/plain; charset=utf-8",
      );
      assertEquals(response.headers.get("cache-control"), "no-store");
      assertEquals(
        response.headers.get("x-libsql-sync-version"),
        "0.1.0+0123456789ab",
      );
      assertEquals(await response.text(), "OK");
    }
  }
  assertEquals([calls, logged], [[], []]);
});

Deno.test("createHandler() answers what the flow returns when the signature is right", async () => {
  const { handler, calls, logged } = setUp();
  assertEquals(await read(await handler(post("/sync"))), {
    status: 200,
    body: { success: true, processed: 123, queued: 456 },
  });
  assertEquals(await read(await handler(post("/nuke"))), {
    status: 200,
    body: { success: true, message: "Data nuked and schema reinitialized" },
  });
  assertEquals([calls, logged], [["sync", "nuke"], []]);
});

Deno.test("createHandler() hands the settings to the flow when it runs one", async () => {
  let given: Config | undefined;
  const { handler } = setUp({
    sync: (config) => {
      given = config;
      return Promise.resolve({});
    },
  });
  await handler(post("/sync"));
  assertEquals(given, CONFIG);
});

Deno.test("createHandler() answers 401 and runs nothing when the signature is not the secret", async () => {
  const { handler, calls, logged } = setUp();
  const wrong = [
    null,
    "",
    "x",
    SECRET.slice(0, -1),
    SECRET + "x",
    SECRET.toUpperCase(),
    `${SECRET}, ${SECRET}`,
    "x".repeat(100_000),
  ];
  for (const path of ["/sync", "/nuke"]) {
    for (const signature of wrong) {
      const { status, body } = await read(await handler(post(path, signature)));
      assertEquals([status, body.success, body.error], [
        401,
        false,
        "unauthorized",
      ]);
    }
  }
  const twice = new Headers();
  twice.append("x-webhook-signature", SECRET);
  twice.append("X-Webhook-Signature", SECRET);
  assertEquals(
    (await handler(post("/sync", null, { headers: twice }))).status,
    401,
  );
  assertEquals(calls, []);
  assertEquals(logged.length, 2 * wrong.length + 1);
  assertEquals(
    logged.every(([level, , fields]) =>
      level === "warn" && fields.status === 401
    ),
    true,
  );
  assertEquals(JSON.stringify(logged).includes(SECRET), false);
});

Deno.test("createHandler() answers 404 when the path is spelled in any other way", async () => {
  const { handler, calls } = setUp();
  for (
    const path of [
      "/sync/",
      "/Sync",
      "//sync",
      "/%73ync",
      "/sync%2F",
      "/sync;a",
      "/health/",
      "/nuke/../nuke/x",
      "/v1/sync",
    ]
  ) {
    const { status, body } = await read(await handler(post(path)));
    assertEquals([path, status, body.success, body.error], [
      path,
      404,
      false,
      "not_found",
    ]);
  }
  // URL itself resolves dots, also encoded ones, before anything looks at the path.
  assertEquals((await handler(post("/a/%2e%2e/sync"))).status, 200);
  assertEquals(calls, ["sync"]);
});

Deno.test("createHandler() answers 405 with Allow when the method is another", async () => {
  const { handler, calls } = setUp({
    config: () => {
      throw new SyncError("config_invalid", "none");
    },
  });
  const cases = [
    ["/sync", "POST", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"]],
    ["/nuke", "POST", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"]],
    ["/health", "GET, HEAD", ["POST", "PUT", "OPTIONS"]],
    ["/ok", "GET, HEAD", ["POST", "PUT", "OPTIONS"]],
  ] as const;
  for (const [path, allow, methods] of cases) {
    for (const method of methods) {
      const response = await handler(request(path, { method }));
      assertEquals(response.headers.get("allow"), allow);
      const { status, body } = await read(response);
      assertEquals([status, body.error], [405, "method_not_allowed"]);
    }
  }
  assertEquals(calls, []);
});

Deno.test("createHandler() answers 500 with the settings' problems when they cannot be used, signature or not", async () => {
  const { handler, calls, logged } = setUp({
    config: () => {
      throw new SyncError(
        "config_invalid",
        "Cannot use the settings: PORT must be a number.",
      );
    },
  });
  for (const signature of [SECRET, null]) {
    assertEquals(await read(await handler(post("/sync", signature))), {
      status: 500,
      body: {
        success: false,
        error: "config_invalid",
        message: "Cannot use the settings: PORT must be a number.",
      },
    });
  }
  assertEquals(calls, []);
  assertEquals(
    logged.map(([level, event, fields]) => [level, event, fields.code]),
    [
      ["error", "sync", "config_invalid"],
      ["error", "sync", "config_invalid"],
    ],
  );
});

Deno.test("createHandler() reads the query's fields when the path has some, and refuses others", async () => {
  const { calls, handler } = setUp();
  const cases: [path: string, status: number][] = [
    ["/backfill", 200],
    ["/backfill?table=a%20b", 200],
    ["/verify?repair=true&table=t", 200],
    ["/verify?repair=false", 200],
    ["/verify?repair=yes", 400],
    ["/verify?repair", 400],
    ["/backfill?table=a&table=b", 400],
    ["/backfill?repair=true", 400],
    ["/nuke?table=a", 400],
  ];
  for (const [path, status] of cases) {
    const response = await handler(post(path));
    assertEquals(response.status, status, path);
    const { success, error } = await response.json();
    assertEquals(
      [success, error],
      status === 200 ? [true, undefined] : [false, "bad_request"],
    );
  }
  assertEquals(calls, [
    "backfill {}",
    'backfill {"table":"a b"}',
    'verify {"repair":true,"table":"t"}',
    'verify {"repair":false}',
  ]);
});

const STATUSES: Record<ErrorCode, number> = {
  bad_request: 400,
  body_too_large: 413,
  config_invalid: 500,
  schema_invalid: 500,
  unauthorized: 401,
  not_found: 404,
  method_not_allowed: 405,
  source_unreachable: 503,
  source_failed: 502,
  source_not_installed: 500,
  replica_unreachable: 503,
  replica_unauthorized: 500,
  replica_full: 507,
  replica_moved: 503,
  replica_schema: 503,
  replica_refused: 502,
  replica_ahead: 409,
  replica_foreign: 409,
  schema_outdated: 409,
  schema_unknown: 409,
  version_mismatch: 409,
  nuke_pending: 503,
  epoch_moved: 409,
  internal: 500,
};

Deno.test("createHandler() answers the status of the code when a flow fails", async () => {
  for (
    const [code, expected] of Object.entries(STATUSES) as [ErrorCode, number][]
  ) {
    const { handler, logged } = setUp({
      nuke: () =>
        Promise.reject(
          new SyncError(code, `Cannot do it: ${code}`, {
            cause: new Error("row 42"),
          }),
        ),
    });
    const response = await handler(post("/nuke"));
    assertEquals(
      response.headers.get("retry-after"),
      expected === 503 ? "5" : null,
    );
    assertEquals(await read(response), {
      status: expected,
      body: { success: false, error: code, message: `Cannot do it: ${code}` },
    });
    assertEquals(logged, [[
      code === "unauthorized" ? "warn" : "error",
      "nuke",
      {
        code,
        status: expected,
        message: `Cannot do it: ${code}`,
        class: code === "internal" ? "SyncError" : undefined,
        ms: 5,
      },
    ]]);
  }
});

Deno.test("createHandler() shows nothing but the class when an error was not foreseen", async () => {
  class PostgresError extends Error {
    override name = "PostgresError";
  }
  class Odd extends Error {
    override name = "row 42: secret";
  }
  const cases: [thrown: unknown, name: string][] = [
    [new TypeError("row 42: secret"), "TypeError"],
    [new PostgresError("row 42: secret"), "PostgresError"],
    [new Odd("row 42: secret"), "unknown"],
    ["row 42: secret", "unknown"],
    [undefined, "unknown"],
  ];
  for (const [thrown, name] of cases) {
    for (
      const sync of [() => Promise.reject(thrown), () => {
        throw thrown;
      }]
    ) {
      const { handler, logged } = setUp({ sync });
      const { status, body } = await read(await handler(post("/sync")));
      assertEquals([status, body.error], [500, "internal"]);
      assertEquals(
        logged.map(([level, event, fields]) => [level, event, fields.class]),
        [["error", "sync", name]],
      );
      assertEquals(/row 42|secret/.test(JSON.stringify([body, logged])), false);
    }
  }
});

Deno.test("createHandler() answers 500 when a flow returns what JSON cannot hold", async () => {
  const { handler } = setUp({ sync: () => Promise.resolve({ processed: 1n }) });
  const { status, body } = await read(await handler(post("/sync")));
  assertEquals([status, body.error], [500, "internal"]);
});

Deno.test("createHandler() takes nothing of the body when one is sent without end", async () => {
  for (
    const [path, signature, status] of [
      ["/sync", SECRET, 200],
      ["/sync", null, 401],
      ["/x", null, 404],
      ["/ok", null, 405],
    ] as const
  ) {
    let pulled = 0;
    let cancelled = false;
    const body = new ReadableStream<Uint8Array>({
      pull: (controller) => {
        pulled++;
        controller.enqueue(new Uint8Array(65_536));
      },
      cancel: () => {
        cancelled = true;
      },
    });
    const { handler } = setUp();
    const response = await handler(post(path, signature, { body }));
    assertEquals([response.status, cancelled], [status, true]);
    assertMatch(String(pulled), /^[01]$/);
  }
});

Deno.test("createHandler() answers when the body cannot be cancelled", async () => {
  const body = new ReadableStream({
    cancel: () => Promise.reject(new Error("gone")),
  });
  const { handler } = setUp();
  assertEquals((await handler(post("/sync", SECRET, { body }))).status, 200);
});

Deno.test("createHandler() answers 400 when the address cannot be parsed as a URL", async () => {
  const { handler, calls } = setUp();
  const odd = Object.defineProperty(post("/sync"), "url", {
    value: "http://a b/sync",
  });
  const response = await handler(odd);
  assertEquals(response.status, 400);
  assertEquals((await response.json()).error, "bad_request");
  assertEquals(calls, []);
});

Deno.test("createHandler() answers 400 when a table has U+0000, which PostgreSQL cannot take", async () => {
  const { handler, calls } = setUp();
  const response = await handler(post("/backfill?table=%00"));
  assertEquals(response.status, 400);
  assertEquals((await response.json()).error, "bad_request");
  assertEquals(calls, []);
});

/** The clock of a handler is at the first second of 1970. */
async function signed(
  path: string,
  body: string,
  { secret = SECRET, signedBody = body, now = 1_000 } = {},
): Promise<Request> {
  const signature = await sign([secret], {
    method: "POST",
    path,
    body: new TextEncoder().encode(signedBody),
  }, now);
  return post(path, signature, {
    headers: { "x-webhook-signature": signature },
    body,
  });
}

Deno.test("createHandler() runs the flow when a request is signed, with its query and its body", async () => {
  const { handler, calls, logged } = setUp();
  for (
    const request of [
      await signed("/sync", '{"n": 1}'),
      await signed("/sync", ""),
      await signed("/sync?a=%20b&c", "x".repeat(65_536)),
      await signed("/verify?table=%C3%A4%20%27b%27&repair=true", "{}"),
    ]
  ) assertEquals((await handler(request)).status, 200);
  assertEquals(calls, [
    "sync",
    "sync",
    "sync",
    `verify {"table":"ä 'b'","repair":true}`,
  ]);
  assertEquals(logged, []);
});

Deno.test("createHandler() answers 401 when a signature is of something else, and says when it is late", async () => {
  const { handler, calls } = setUp();
  const moved = await signed("/verify", "{}");
  const cases: [Request, RegExp][] = [
    [await signed("/sync", "{}", { signedBody: "{ }" }), /must hold/],
    [await signed("/sync", "{}", { secret: "other" }), /must hold/],
    [post("/nuke", moved.headers.get("x-webhook-signature")), /must hold/],
    [await signed("/sync", "{}", { now: 400_000 }), /more than 5 minutes off/],
  ];
  for (const [request, expected] of cases) {
    const { status, body } = await read(await handler(request));
    assertEquals([status, body.error], [401, "unauthorized"]);
    assertMatch(String(body.message), expected);
  }
  assertEquals(calls, []);
});

Deno.test("createHandler() takes a signature for /nuke alone when NUKE_SIGNATURE is set", async () => {
  const NUKE = "the secret for nukes";
  const { handler, calls } = setUp({
    config: () => ({ ...CONFIG, nukeSecrets: [NUKE] }),
  });
  const cases: [Request, number][] = [
    [post("/nuke"), 401],
    [await signed("/nuke", ""), 401],
    [post("/nuke", NUKE), 200],
    [await signed("/nuke?epoch=e&refill=false", "", { secret: NUKE }), 200],
    [post("/sync", NUKE), 401],
    [await signed("/sync", "", { secret: NUKE }), 401],
    [post("/sync"), 200],
  ];
  for (const [request, status] of cases) {
    assertEquals((await handler(request)).status, status, request.url);
  }
  assertEquals(calls, ["nuke", "nuke", "sync"]);
});

Deno.test("createHandler() answers 413 and reads no further when a signed body is too large, and 400 when it breaks off", async () => {
  const { handler, calls, logged } = setUp();
  const { headers } = await signed("/sync", "");
  let pulled = 0;
  let cancelled = false;
  const endless = new ReadableStream<Uint8Array>({
    pull: (controller) => {
      pulled++;
      controller.enqueue(new Uint8Array(16_384));
    },
    cancel: () => {
      cancelled = true;
    },
  });
  const large = await read(
    await handler(post("/sync", null, { headers, body: endless })),
  );
  assertEquals([large.status, large.body.error], [413, "body_too_large"]);
  assertEquals([pulled <= 7, cancelled], [true, true]);
  const broken = new ReadableStream({
    pull: () => Promise.reject(new Error("gone")),
  });
  const cut = await read(
    await handler(post("/sync", null, { headers, body: broken })),
  );
  assertEquals([cut.status, cut.body.error], [400, "bad_request"]);
  assertEquals([calls, logged.map(([, , { status }]) => status)], [[], [
    413,
    400,
  ]]);
});

Deno.test("createHandler() answers 401 when a signed body does not end in time", async () => {
  const { handler, calls } = setUp();
  const { headers } = await signed("/sync", "");
  let cancelled = false;
  const stalled = new ReadableStream<Uint8Array>({
    start: (controller) => controller.enqueue(new Uint8Array(1)),
    cancel: () => {
      cancelled = true;
    },
  });
  const { setTimeout } = globalThis;
  const waits: (number | undefined)[] = [];
  globalThis.setTimeout = ((run: () => void, ms?: number) => {
    waits.push(ms);
    return setTimeout(run, 0);
  }) as typeof setTimeout;
  try {
    const { status } = await read(
      await handler(post("/sync", null, { headers, body: stalled })),
    );
    assertEquals([status, cancelled, waits, calls], [401, true, [5_000], []]);
  } finally {
    globalThis.setTimeout = setTimeout;
  }
});

Deno.test("createHandler() takes a secret as a bearer's token when something is only looked at", async () => {
  const { handler, calls } = setUp();
  const bearer = { authorization: `Bearer ${SECRET}` };
  const metrics = await handler(request("/metrics", { headers: bearer }));
  assertEquals(
    [metrics.status, await metrics.text(), metrics.headers.get("content-type")],
    [
      200,
      "# EOF\n",
      "application/openmetrics-text; version=1.0.0; charset=utf-8",
    ],
  );
  assertEquals(metrics.headers.get("cache-control"), "no-store");
  const status = await handler(
    request("/status?letters=true", { headers: bearer }),
  );
  assertEquals((await read(status)).status, 200);
  assertEquals(calls, ["metrics", 'status {"letters":true}']);
  for (
    const [path, init] of [
      ["/sync", { method: "POST", headers: bearer }],
      ["/status", { headers: { authorization: `bearer ${SECRET}` } }],
      ["/status", { headers: { authorization: SECRET } }],
      ["/status", { headers: { ...bearer, "x-webhook-signature": "other" } }],
      ["/metrics", {}],
    ] as const
  ) {
    const { status } = await read(await handler(request(path, init)));
    assertEquals(status, 401, path);
  }
  assertEquals(calls.length, 2);
});

Deno.test("createHandler() takes the number of a dead letter, and nothing else, for /redrive", async () => {
  const { handler, calls } = setUp();
  assertEquals((await read(await handler(post("/redrive")))).status, 200);
  assertEquals((await read(await handler(post("/redrive?id=12")))).status, 200);
  for (const query of ["id=", "id=-1", "id=1,2", "id=1e3", "id=1&id=2"]) {
    const { status } = await read(await handler(post(`/redrive?${query}`)));
    assertEquals(status, 400, query);
  }
  assertEquals(calls, ["redrive {}", 'redrive {"id":"12"}']);
});
