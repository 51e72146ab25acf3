/** Whatever comes in from outside: what it becomes is one of the things that are told. */

import { assert, assertEquals, assertMatch } from "@std/assert";
import fc from "fast-check";
import { walkAfter } from "../lib/chain/walk_place.ts";
import { parseConfig } from "../lib/config/config.ts";
import { SyncError } from "../lib/errors.ts";
import { createHandler } from "../lib/http/handler.ts";
import { createPagePlanner } from "../lib/plan/page.ts";
import { createPlanner } from "../lib/plan/plan.ts";
import { without } from "../lib/plan/step.ts";
import { parsePostgresUrl } from "../lib/postgres/url.ts";
import { readRow } from "../lib/replica/read_row.ts";
import { stepToStatement } from "../lib/replica/statements.ts";
import { parseSchema, schemaHash, schemaText } from "../lib/schema.ts";
import {
  claimOf,
  endedOf,
  isParked,
  leaseOf,
  resetOf,
  walkOf,
} from "../lib/source/answers.ts";
import schemaJson from "../schema.json" with { type: "json" };
import { seed } from "./seed.ts";

const SECRET = "the secret of the webhook";
const RUNS = 3_000;

/** One part of a JSON value is another, gone, or there twice. */
function mutated(of: unknown): fc.Arbitrary<unknown> {
  return fc.tuple(
    fc.array(fc.nat(), { minLength: 16, maxLength: 16 }),
    fc.array(fc.oneof(fc.jsonValue({ maxDepth: 2 }), odd()), {
      minLength: 1,
      maxLength: 3,
    }),
  ).map(([choices, values]) => {
    let chosen = 0;
    const next = (below: number) => choices[chosen++ % 16]! % below;
    let root = structuredClone(of);
    for (const value of values) {
      root = replace(root, structuredClone(value), next);
    }
    return root;
  });
}

function replace(
  at: unknown,
  value: unknown,
  next: (below: number) => number,
): unknown {
  if (typeof at !== "object" || at === null || next(4) === 0) return value;
  const of = at as Record<string, unknown>;
  const names = Object.keys(of);
  if (names.length === 0) return value;
  const name = names[next(names.length)]!;
  switch (next(8)) {
    case 0:
      delete of[name];
      return Array.isArray(at) ? at.filter(() => true) : at;
    case 1:
      of[`${name}2`] = value;
      return at;
    default:
      of[name] = replace(of[name], value, next);
      return at;
  }
}

/** Values at the edge of what a field may hold. */
function odd(): fc.Arbitrary<unknown> {
  return fc.constantFrom<unknown>(
    ...["", "\0", "\ud800", "__proto__", "constructor", "1e400", "\u2028"],
    ...[-1, 0.5, 2 ** 53, 1e308, -0, null, true, [], {}, [[]], [{}], [null]],
    "x".repeat(70),
    "é".repeat(40),
  );
}

function check<Ts extends [unknown, ...unknown[]]>(
  property: fc.IProperty<Ts>,
  numRuns = RUNS,
): void {
  fc.assert(property, { seed: seed(), numRuns });
}

/** What a function returns, or the SyncError it throws; nothing else. */
function outcome<T>(
  run: () => T,
): { value: T; error?: undefined } | { error: SyncError } {
  try {
    return { value: run() };
  } catch (error) {
    if (error instanceof SyncError) return { error };
    throw error;
  }
}

Deno.test("createHandler() answers any request, and runs a flow for none but a signed one of its path and method", async () => {
  const calls: string[] = [];
  const flow = (name: string) => () => {
    calls.push(name);
    return Promise.resolve({ name });
  };
  const handler = createHandler({
    config: () => ({ webhookSecrets: [SECRET], nukeSecrets: null }) as never,
    flows: {
      sync: flow("/sync"),
      nuke: flow("/nuke"),
      backfill: flow("/backfill"),
      verify: flow("/verify"),
      doctor: flow("/doctor"),
      redrive: flow("/redrive"),
      status: flow("/status"),
      metrics: () => Promise.resolve(""),
    },
    log: () => {},
    now: () => 0,
  });
  const paths = [
    ...["/sync", "/nuke", "/backfill", "/verify", "/doctor"],
    ...["/redrive", "/status"],
    ...["/health", "/ok"],
  ];
  const near = fc.constantFrom(
    ...[SECRET, SECRET + "x", SECRET.slice(1), SECRET.toUpperCase(), ""],
    ...[
      `${SECRET}, ${SECRET}`,
      `${SECRET},`,
      `"${SECRET}"`,
      `Bearer ${SECRET}`,
    ],
    ...[SECRET + "\u00e9", SECRET.replaceAll(" ", "\u00a0"), "x".repeat(1e5)],
  );
  const request = fc.record({
    origin: fc.oneof(
      { weight: 9, arbitrary: fc.constant("http://worker") },
      fc.constantFrom(
        "",
        "http://",
        "http://[",
        "file://",
        "x:",
        "https://a b",
      ),
    ),
    path: fc.oneof(
      { weight: 3, arbitrary: fc.constantFrom(...paths) },
      fc.string().map((text) => `/${text}`),
      fc.constantFrom(
        "",
        "//sync",
        "/sync/",
        "/%73ync",
        "/SYNC",
        "/sync/../nuke",
      ),
      fc.webPath(),
    ),
    query: fc.oneof(
      { weight: 3, arbitrary: fc.constant("") },
      fc.webQueryParameters().map((text) => `?${text}`),
      fc.constantFrom(
        "?table=a&table=b",
        "?table=%00",
        "?repair=1",
        "?a",
        "?%",
      ),
    ),
    method: fc.oneof(
      { weight: 3, arbitrary: fc.constantFrom("GET", "POST", "HEAD") },
      fc.constantFrom("post", "PUT", "TRACE", "CONNECT", "", "POST\0"),
      fc.string(),
    ),
    headers: fc.array(
      fc.tuple(
        fc.oneof(
          { weight: 3, arbitrary: fc.constant("x-webhook-signature") },
          fc.constantFrom("host", "content-length", "X-Webhook-Signature "),
        ),
        fc.oneof(
          { weight: 3, arbitrary: fc.constant(SECRET) },
          near,
          fc.string(),
        ),
      ),
      { maxLength: 2 },
    ),
  });
  let ran = 0;
  await fc.assert(
    fc.asyncProperty(
      request,
      async ({ origin, path, query, method, headers }) => {
        // Not by new Request(): a runtime may hand over what that refuses.
        const given = new Headers();
        for (const [name, value] of headers) {
          try {
            given.append(name, value);
          } catch {
            // No header can say this.
          }
        }
        calls.length = 0;
        const url = origin + path + query;
        const response = await handler(
          { url, method, headers: given, body: null } as Request,
        );
        const text = await response.text();
        assertEquals(response.headers.get("cache-control"), "no-store");
        assert(!text.includes(SECRET));
        if (calls.length > 0) {
          ran += 1;
          assertEquals(new URL(url).pathname, calls[0]);
          const isLook = ["/doctor", "/status"].includes(calls[0]!);
          assertEquals(method, isLook ? "GET" : "POST");
          assertEquals(given.get("x-webhook-signature"), SECRET);
          assertEquals(response.status, 200);
          return;
        }
        if (response.status === 200) {
          // The page holds no data.
          return assert(text === "OK" || text.startsWith("<!doctype html>"));
        }
        const { success, error, message } = JSON.parse(text);
        assertEquals(success, false);
        assert([400, 401, 404, 405].includes(response.status));
        assertMatch(
          error,
          /^(bad_request|unauthorized|not_found|method_not_all)/,
        );
        assert(message.length > 0);
      },
    ),
    { seed: seed(), numRuns: RUNS },
  );
  // The property would hold of a handler that runs nothing.
  assert(ran > 20, `${ran} ran`);
});

Deno.test("parseSchema() returns a schema, or says what was expected and found, when a valid one was changed somewhere", () => {
  let valid = 0;
  check(
    fc.property(mutated(schemaJson), (value) => {
      const { error, ...parsed } = outcome(() => parseSchema(value)) as {
        value?: ReturnType<typeof parseSchema>;
        error?: SyncError;
      };
      if (error !== undefined) {
        assertEquals(error.code, "schema_invalid");
        assertMatch(error.message, /^Cannot use schema\.json: .{10}/s);
        return;
      }
      valid += 1;
      // What passed says the same when it is written and read again.
      const text = schemaText(parsed.value!);
      assertEquals(typeof JSON.parse(text), "object");
    }),
  );
  assert(valid > 0, "none stayed valid");
});

Deno.test("parseConfig() returns settings that can be used, or a sentence for each setting, whatever the environment", () => {
  const urls = fc.constantFrom(
    ...["libsql://a", "https://a/b", "http://a:1", "libsql://", "http://a?b"],
    ...["postgres://u:p@h/d", "postgresql://h", "postgres://u:p@h:99999/d"],
    ...["postgres://u:%zz@h/d", "postgres://[::1]/d", "postgres://h1,h2/d"],
    ...["postgres://h/d?sslmode=x&sslnegotiation=direct", "postgres:///d"],
  );
  const setting = fc.option(fc.oneof(urls, fc.string(), fc.webUrl()), {
    nil: undefined,
  });
  check(
    fc.property(
      fc.record({
        LIBSQL_URL: setting,
        LIBSQL_AUTH_TOKEN: setting,
        BUNNY_DATABASE_URL: setting,
        BUNNY_DATABASE_AUTH_TOKEN: setting,
        PGMQ_URL: setting,
        WEBHOOK_SIGNATURE: setting,
        LIBSQL_MAX_MB: setting,
        PORT: setting,
      }),
      (environment: Record<string, string | undefined>) => {
        const { error, ...parsed } = outcome(() =>
          parseConfig((name) => environment[name])
        ) as { value?: ReturnType<typeof parseConfig>; error?: SyncError };
        if (error !== undefined) {
          assertEquals(error.code, "config_invalid");
          return;
        }
        const { libsqlUrl, pgmqUrl, webhookSecrets } = parsed.value!;
        assert(/^https?:$/.test(new URL(libsqlUrl).protocol));
        if (/^postgres/i.test(pgmqUrl)) parsePostgresUrl(pgmqUrl);
        // What a webhook sends in a header must be able to arrive.
        for (const secret of webhookSecrets) {
          const headers = new Headers({ "x-webhook-signature": secret });
          assertEquals(headers.get("x-webhook-signature"), secret);
        }
      },
    ),
  );
});

const SCHEMA = parseSchema({
  tables: {
    item: {
      key: "id",
      columns: { id: "INTEGER", name: "TEXT", on: "BOOLEAN", more: "JSON" },
      indexes: ["name"],
    },
    part: { key: ["b", "a"], columns: { a: "TEXT", b: "INTEGER", c: "TEXT" } },
  },
});
const SENTINEL = "row value nobody may see";
const TABLES = [
  {
    table: "item",
    truncate: false,
    columns: ["id", "name", "on", "more"],
    rows: [["1", "a", "true", "{}"], ["2", null, "f", null], [
      "x",
      "a",
      "",
      "a",
    ]],
    gone: [["3"]],
    broken: [{ key: ["4"], reason: "r" }],
  },
  {
    table: "part",
    truncate: true,
    columns: ["a", "b"],
    rows: [["x", "5"]],
    gone: [["5", "x"]],
    broken: [],
  },
];

Deno.test("the planner takes or refuses every cell, and shows no value of it", () => {
  const plan = createPlanner(SCHEMA);
  const cell = fc.oneof(
    fc.constantFrom(SENTINEL, null, "1", "1.50", "t"),
    fc.string({ unit: "binary" }),
  );
  const cells = fc.array(cell, { minLength: 4, maxLength: 4 });
  check(
    fc.property(fc.array(cells, { maxLength: 6 }), (rows) => {
      const of = { ...TABLES[0]!, rows, gone: rows.map(([id]) => [id!]) };
      const { steps, refusals } = plan([of], []);
      for (const { reason } of refusals) {
        assert(reason.length < 500 && reason.isWellFormed(), reason);
        assert(!reason.includes(SENTINEL), reason);
      }
      for (const step of steps) stepToStatement(step);
      const left = without(steps, refusals);
      assertEquals(left.map(({ kind }) => kind), steps.map(({ kind }) => kind));
    }),
  );
});

const BATCH = {
  do: "batch",
  acked: 0,
  put_back: 0,
  epoch: "e",
  position: 5,
  batch: "b",
  prev: "a",
  drained: true,
  snapshot: "1:1:",
  source_time: "2026-11-01",
  dead_letters: 0,
  reopen: false,
  page: {
    walk_gen: 3,
    kind: "backfill",
    repair: true,
    table: "item",
    half: "forward",
    starts: true,
    large: false,
    last: false,
    rows: 1,
    failed: null,
    columns: ["id", "name"],
    cells: [["7", "x"]],
    ghosts: [["8"]],
    broken: [{ key: ["9"], reason: "r" }],
    open: [{ key: ["1"], skip: true }],
    upto: '{"table": "item", "half": "back"}',
    closes: false,
  },
  messages: 2,
  tables: TABLES,
  unusable: [{ table: null, reason: "r" }],
  parked: [{ table: "item", key: ["2"], reason: "r" }],
};
const ROW = {
  epoch: "e",
  position: 4,
  batch: "a",
  prev: null,
  from_epoch: null,
  walk_gen: 3,
  walk_at: null,
  walk_done: 0,
  fresh: '["item"]',
  unindexed: "[]",
  rebuilding: "[]",
  drained: 1,
  snapshot: null,
  source_time: null,
  schema_hash: "h",
  dead_letters: 0,
  bytes: 4096,
};

Deno.test("what the source answers is one of its answers, or source_failed", () => {
  const plan = createPlanner(SCHEMA);
  const planPage = createPagePlanner(SCHEMA);
  let batches = 0;
  const answers = fc.oneof(
    { weight: 9, arbitrary: mutated(BATCH) },
    fc.jsonValue(),
    odd(),
  );
  check(
    fc.property(answers, (answer) => {
      for (const read of [leaseOf, endedOf, isParked, resetOf, walkOf]) {
        const { error } = outcome<unknown>(() => read(answer));
        assert(!error || /^(source_failed|version_mis)/.test(error.code));
      }
      const { error, ...claimed } = outcome(() => claimOf(answer)) as {
        value?: ReturnType<typeof claimOf>;
        error?: SyncError;
      };
      if (error !== undefined) return assertEquals(error.code, "source_failed");
      if (claimed.value!.do !== "batch") return;
      batches += 1;
      const batch = claimed.value!;
      const planned = outcome(() => {
        const { tables, unusable, page } = batch;
        const queued = plan(tables, unusable);
        const paged = page && planPage(page);
        const steps = [...queued.steps, ...paged?.stepsFor(ROW) ?? []];
        return { steps, parked: queued.refusals };
      });
      if (planned.error) {
        return assertEquals(planned.error.code, "source_failed");
      }
      const { steps, parked } = planned.value;
      for (const step of steps) stepToStatement(step);
      const touched = batch.tables.map(({ table }) => table);
      walkAfter(ROW, { ...batch, touched, parked });
    }),
  );
  assert(batches > 100, `${batches} were batches`);
});

Deno.test("readRow() returns a row whose fields are what they should be, or says that there is none", async () => {
  const hash = await schemaHash(SCHEMA);
  const options = { schema: SCHEMA, schemaHash: hash };
  const value = fc.oneof(
    odd(),
    fc.json(),
    fc.jsonValue(),
    fc.constant(new ArrayBuffer(2)),
    fc.constantFrom('["item"]', '{"table": "part", "half": "back"}'),
  );
  check(
    fc.property(
      fc.record(
        Object.fromEntries(Object.keys(ROW).map((name) => [name, value])),
        { requiredKeys: [] },
      ),
      fc.boolean(),
      (fields, isOurs) => {
        const row = { ...ROW, schema_hash: isOurs ? hash : "other", ...fields };
        const { error, ...read } = outcome(() => readRow(row, options)) as {
          value?: ReturnType<typeof readRow>;
          error?: SyncError;
        };
        if (error !== undefined) {
          return assertEquals(error.code, "replica_moved");
        }
        const found = read.value!;
        for (const [name, was] of Object.entries(ROW)) {
          const now = found[name as keyof typeof ROW];
          assert(typeof now === typeof was || now === null || was === null);
        }
        const { damaged: _, ...clean } = found;
        assertEquals(readRow(clean, options), clean);
        walkAfter(clean, { page: null, reopen: true });
        walkAfter(clean, { page: null, reopen: false });
      },
    ),
  );
});
