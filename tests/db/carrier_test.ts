/** One contract for every way to the source. */

import { assert, assertEquals, assertRejects } from "@std/assert";
import fc from "fast-check";
import type { Json } from "../../lib/chain/json.ts";
import { SyncError } from "../../lib/errors.ts";
import { until } from "./support/chain.ts";
import { openWays, type Setup, TIMEOUT_MS } from "./support/carrier.ts";
import { Servers } from "./support/stack.ts";
import { TRANSPORTS, workerToken } from "./support/transport.ts";

const servers = new Servers({ tls: true });
Deno.test.afterAll(() => servers.stop());

const SEED = Number(Deno.env.get("SEED") ?? 20261122);
const withWay = openWays(servers);

/** Calls until there is an answer; nothing else may come in between. */
async function settle(call: () => Promise<unknown>): Promise<unknown> {
  for (let tries = 0; tries < 6; tries++) {
    try {
      return await call();
    } catch (error) {
      assertEquals((error as SyncError).code, "source_unreachable");
    }
  }
  throw new Error("it does not come back");
}

for (const transport of TRANSPORTS) {
  const test = (name: string, run: (setup: Setup) => Promise<void>) =>
    Deno.test(`${transport}: ${name}`, () => withWay(transport, run));

  test("call() brings any JSON there and back", async ({ carrier }) => {
    const fixed: Json[] = [
      null,
      '"a text that looks like JSON"',
      "\u0001 ' \" \\ $1 ; -- é 漢 🐇 \u2028",
      { "": [true, false, { a: 1e-7, b: -0.5 }], "a b": "x" },
    ];
    // In one piece, and in pieces of a character each.
    const assertBack = async (value: Json) => {
      assertEquals(await carrier.call("echo", [value]), [value]);
      assertEquals(await carrier.call("claim", { value }), { value });
    };
    for (const value of fixed) await assertBack(value);
    await fc.assert(
      fc.asyncProperty(fc.jsonValue({ maxDepth: 3 }), async (value) => {
        await assertBack(JSON.parse(JSON.stringify(value)));
      }),
      { seed: SEED, numRuns: 50 },
    );
  });

  test("call() gives each its own answer when several are under way", async ({ carrier }) => {
    const numbers = Array.from({ length: 20 }, (_, at) => at);
    const answers = await Promise.all(
      numbers.map((number) => carrier.call("echo", number)),
    );
    assertEquals(answers, numbers);
  });

  test("call() speaks the source's verbs", async ({ carrier }) => {
    assertEquals(await carrier.call("release", { lease: "x" }), {
      queued: 0,
      queued_exact: true,
    });
  });

  test("call() reports each failure by its code, in our own words", async ({ carrier }) => {
    const cases: [name: string, state: string, code: SyncError["code"]][] = [
      ["fail", "57014", "source_unreachable"],
      ["fail", "40001", "source_unreachable"],
      ["fail", "55P03", "source_unreachable"],
      ["fail", "53300", "source_unreachable"],
      ["fail", "22023", "source_failed"],
      ["fail", "XX000", "source_failed"],
      ["nowhere", "", "source_not_installed"],
    ];
    for (const [name, state, code] of cases) {
      const error = await assertRejects(
        () => carrier.call(name, { state }),
        SyncError,
      );
      assertEquals([state, error.code], [state, code]);
      assert(error.message.includes(`libsql_sync.${name}`), error.message);
      assert(!error.message.includes("value"), error.message);
      assertEquals(await carrier.call("echo", [state]), [state]);
    }
    // Only our own functions raise P0001.
    await assertRejects(
      () => carrier.call("fail", { state: "P0001" }),
      SyncError,
      "a row's value",
    );
  });

  Deno.test(`${transport}: call() gives up in time, and the next one works`, async () => {
    await withWay(
      transport,
      async ({ carrier }) => {
        const error = await assertRejects(
          () => carrier.call("nap", { seconds: 5 }),
          SyncError,
        );
        assertEquals(error.code, "source_unreachable");
        assertEquals(await settle(() => carrier.call("echo", 2)), 2);
      },
      () => {},
      2_000,
    );
  });

  test("call() goes on after its connection was lost, between calls and in one", async ({ carrier, sql }) => {
    const others = sql`datname = current_database() and pid <> pg_backend_pid()
      and backend_type = 'client backend'`;
    const kill = () =>
      sql`select pg_terminate_backend(pid) from pg_stat_activity where ${others}`;
    await carrier.call("echo", 1);
    await kill();
    // A pooler has three to find broken.
    for (let number = 0; number < 6; number++) {
      assertEquals(await settle(() => carrier.call("echo", number)), number);
    }
    const napping = carrier.call("nap", { seconds: 20 });
    napping.catch(() => {});
    await until("the call runs", async () => {
      const rows = await sql`select from pg_stat_activity
        where ${others} and query like '%nap%' and state = 'active'`;
      return rows.length > 0;
    }, TIMEOUT_MS);
    await kill();
    const error = await assertRejects(() => napping, SyncError);
    assertEquals(error.code, "source_unreachable");
    assertEquals(await settle(() => carrier.call("echo", 9)), 9);
  });

  Deno.test(`${transport}: call() says what to fix when the settings are wrong`, async () => {
    const wrong = async (
      change: (settings: Record<string, string>) => void,
    ): Promise<SyncError> => {
      let found: SyncError | null = null;
      await withWay(transport, async ({ carrier, way }) => {
        found = await assertRejects(
          () => carrier.call("echo", 1),
          SyncError,
        );
        for (const secret of [way.pgmqToken, way.pgmqApiKey, "wrong"]) {
          assert(secret === "" || !found.message.includes(secret));
        }
      }, change);
      return found!;
    };
    const nobody = await wrong((settings) => {
      settings.PGMQ_URL = settings.PGMQ_URL!.replace(/:\d+\//, ":1/");
    });
    assertEquals(nobody.code, "source_unreachable");
    if (transport === "pooler") return;
    const stranger = await wrong((settings) => {
      settings.PGMQ_URL = settings.PGMQ_URL!.replace(":postgres@", ":wrong@");
      if (transport === "rest") settings.PGMQ_API_KEY = "wrong";
    });
    assertEquals(stranger.code, "config_invalid");
  });
}

Deno.test("pooler: each transaction has another connection", async () => {
  await withWay("pooler", async ({ carrier }) => {
    const pids = [];
    // The tests before left connections behind that are gone.
    for (let calls = 0; calls < 6; calls++) {
      await settle(() => carrier.call("pid", {}));
    }
    for (let calls = 0; calls < 6; calls++) {
      pids.push(await carrier.call("pid", {}));
    }
    assertEquals(new Set(pids).size, 3);
    assertEquals(pids.slice(0, 3), pids.slice(3));
  });
});

Deno.test("rest: call() runs as the token's role, and never for longer than its statement_timeout", async () => {
  await withWay("rest", async ({ carrier, sql }) => {
    const error = await assertRejects(
      () => carrier.call("secret", {}),
      SyncError,
    );
    assertEquals(error.code, "source_not_installed");
    assert(error.message.includes("42501"));
    await sql`alter role libsql_sync_worker set statement_timeout = '300ms'`;
    const late = await assertRejects(
      () => carrier.call("nap", { seconds: 1 }),
      SyncError,
    );
    await sql`alter role libsql_sync_worker reset statement_timeout`;
    assertEquals(late.code, "source_unreachable");
    assert(late.message.includes("57014"), late.message);
  });
});

Deno.test("rest: call() says what is wrong with a token, a schema or a cache", async () => {
  const hour = 3600;
  const now = Math.floor(Date.now() / 1000);
  const refusal = async (
    change: (settings: Record<string, string>) => void,
  ) => {
    let message = "";
    await withWay("rest", async ({ carrier }) => {
      const error = await assertRejects(
        () => carrier.call("echo", 1),
        SyncError,
      );
      assertEquals(error.code, "config_invalid");
      message = error.message;
    }, change);
    return message;
  };
  const expired = await workerToken({
    role: "libsql_sync_worker",
    exp: now - hour,
  });
  const valid = await workerToken({
    role: "libsql_sync_worker",
    exp: now + hour,
  });
  for (
    const token of [expired, valid.slice(0, -3) + "abc"]
  ) {
    const message = await refusal((settings) => {
      settings.PGMQ_TOKEN = token;
    });
    assert(message.includes("check PGMQ_TOKEN"), message);
  }
  const path = await refusal((settings) => {
    settings.PGMQ_URL += "/elsewhere";
  });
  assert(path.includes("check PGMQ_URL"), path);
  await withWay("rest", async ({ carrier }) => {
    assertEquals(await carrier.call("echo", 1), 1);
  }, (settings) => {
    settings.PGMQ_TOKEN = valid;
  });

  // A function that PostgREST has not heard of yet, and hears of when told.
  await withWay("rest", async ({ carrier, sql }) => {
    await sql.unsafe(
      `create function libsql_sync.late(request json) returns json language sql as 'select request';
       grant execute on function libsql_sync.late(json) to libsql_sync_worker`,
    ).simple();
    await assertRejects(
      () => carrier.call("late", 1),
      SyncError,
      "notify pgrst, 'reload schema'",
    );
    await sql`notify pgrst, 'reload schema'`;
    await until(
      "the cache is read anew",
      async () => await carrier.call("late", 1).catch(() => null) === 1,
      TIMEOUT_MS,
    );
  });
});
