/** Each limit of the isolate bites: a script that breaks it fails. */

import { assert, assertEquals, assertThrows } from "@std/assert";
import { generate } from "selfsigned";
import {
  type Bunny,
  type BunnyOptions,
  serveBunny,
} from "../../lib/dev/bunny.ts";
import { LIMITS } from "../../lib/dev/bunny_limits.ts";

/** Runs something with a script in the isolate. */
async function withScript(
  text: string,
  run: (bunny: Bunny, lines: string[]) => Promise<void>,
  options: Partial<BunnyOptions> = {},
): Promise<void> {
  const script = await Deno.makeTempFile({ suffix: ".js" });
  await Deno.writeTextFile(script, text);
  const lines: string[] = [];
  const onLine = (line: string) => void lines.push(line);
  try {
    await using bunny = serveBunny({ script, env: {}, onLine, ...options });
    await run(bunny, lines);
  } finally {
    await Deno.remove(script);
  }
}

/** What a GET of a path of its own answers. */
async function get(
  { url }: Bunny,
  path = `/${crypto.randomUUID()}`,
  init: RequestInit = {},
): Promise<{ status: number; text: string; cache: string | null }> {
  const response = await fetch(url + path, init);
  const { status, headers } = response;
  return {
    status,
    text: await response.text(),
    cache: headers.get("cdn-cache"),
  };
}

const serve = (body: string) =>
  `Bunny.v1.serve(async (request) => { ${body} });`;

Deno.test("a script finds Bunny's globals and its variables, and no other way out", async () => {
  const script = `
    import process from "node:process";
    import tls from "node:tls";
    import * as fs from "node:fs/promises";
    Bunny.v1.serve(async (...args) => Response.json({
      args: args.length,
      url: args[0].url,
      from: args[0].headers.get("x-forwarded-for"),
      deno: Object.keys(Deno).sort(),
      env: [Deno.env.toObject(), process.env.A, Deno.env.get("PATH")],
      tls: Object.keys(tls).sort(),
      net: process.getBuiltinModule("node:net"),
      imported: await import("node:" + "net").then(() => "yes", (error) => error.message),
      file: await fs.readFile("/etc/passwd").then(() => "read", () => "refused"),
      written: await fs.writeFile("/tmp/x", "").then(() => "written", () => "refused"),
    }));`;
  await withScript(script, async (bunny) => {
    const { status, text } = await get(bunny, "/a?b=c");
    assertEquals(status, 200, text);
    assertEquals(JSON.parse(text), {
      args: 1,
      url: `${bunny.url}/a?b=c`,
      from: "127.0.0.1",
      deno: ["build", "createHttpClient", "env", "errors", "version"],
      env: [{ A: "1" }, "1", null],
      tls: [
        "DEFAULT_MAX_VERSION",
        "DEFAULT_MIN_VERSION",
        "TLSSocket",
        "checkServerIdentity",
        "connect",
        "createSecureContext",
        "getCiphers",
        "rootCertificates",
      ],
      imported: "Bunny documents no node:net",
      file: "refused",
      written: "refused",
    });
  }, { env: { A: "1" } });
});

Deno.test("a script that imports a module which is not documented does not start", async () => {
  for (
    const name of ["node:net", "node:http", "node:child_process", "node:os"]
  ) {
    await withScript(
      `import "${name}";\n${serve("return new Response()")}`,
      async (bunny) => {
        const { status, text } = await get(bunny);
        assertEquals([status, text], [400, ""]);
        assert(bunny.ends[0]!.includes(`Bunny documents no ${name}`));
      },
    );
  }
});

Deno.test("the 51st sub-request of a request fails, beside any other requests", async () => {
  await using target = Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen: () => {} },
    () => new Response("."),
  );
  const script = serve(`
    const { searchParams } = new URL(request.url);
    let count = 0;
    try {
      for (; count < Number(searchParams.get("n")); count++) {
        await (await fetch("http://127.0.0.1:${target.addr.port}")).text();
      }
    } catch (error) { return new Response(error.message + " after " + count); }
    return new Response(String(count));`);
  await withScript(script, async (bunny) => {
    const ask = async (n: number) => {
      const { text } = await get(bunny, `/${crypto.randomUUID()}?n=${n}`);
      return text;
    };
    assertEquals(
      await Promise.all([ask(50), ask(50), ask(51)]),
      ["50", "50", "more than 50 sub-requests in one request after 50"],
    );
  });
});

Deno.test("a connection over node:tls is a sub-request, and so is each exchange on it", async () => {
  const { cert, private: key } = await generate([
    { name: "commonName", value: "localhost" },
  ]);
  const listener = Deno.listenTls({
    hostname: "127.0.0.1",
    port: 0,
    cert,
    key,
  });
  const served = (async () => {
    for await (const conn of listener) {
      conn.readable.pipeTo(conn.writable).catch(() => {});
    }
  })();
  const script = `import tls from "node:tls";` + serve(`
    let count = 0;
    const socket = tls.connect({ host: "127.0.0.1", port: ${listener.addr.port}, rejectUnauthorized: false });
    socket.on("error", () => {});
    try {
      for (; count < 60; count++) {
        const echoed = new Promise((resolve) => socket.once("data", resolve));
        socket.write("x");
        await echoed;
      }
    } catch (error) { return new Response(error.message + " after " + count); }
    finally { socket.destroy(); }
    return new Response(String(count));`);
  await withScript(script, async (bunny) => {
    const { text } = await get(bunny);
    // The first exchange goes with the connection.
    assertEquals(text, "more than 50 sub-requests in one request after 50");
  });
  listener.close();
  await served;
});

Deno.test("a script over 128 MB is ended, be it in the heap or beside it, and the next request starts anew", async () => {
  const script = serve(`
    const kept = [];
    if (request.url.endsWith("/buffers")) {
      for (let i = 0; i < 40; i++) {
        kept.push(new Uint8Array(5_000_000).fill(i));
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    }
    if (request.url.endsWith("/at-once")) for (;;) kept.push(new Uint8Array(5_000_000).fill(1));
    if (request.url.endsWith("/garbage")) {
      for (let i = 0; i < 200; i++) {
        new Uint8Array(5_000_000).fill(i);
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    }
    if (request.url.endsWith("/heap")) for (let i = 0; ; i++) kept.push({ i, a: [i] });
    return new Response("fine " + kept.length, { headers: { "cache-control": "no-store" } });`);
  await withScript(script, async (bunny) => {
    assertEquals((await get(bunny, "/garbage")).text, "fine 0");
    assertEquals(bunny.starts, 1);
    for (const path of ["/buffers", "/at-once", "/heap"]) {
      assertEquals((await get(bunny, path)).status, 500, path);
      assertEquals((await get(bunny, "/")).text, "fine 0");
    }
    assertEquals(bunny.starts, 4);
    assertEquals(bunny.ends.slice(0, 2), ["memory", "memory"]);
    assertEquals(bunny.ends.length, 3);
    assert(/^memory$|out of memory/.test(bunny.ends[2]!), bunny.ends[2]);
  });
});

Deno.test("a request over its CPU time is ended, one that waits is not", async () => {
  assertEquals(LIMITS.cpuMs, 30_000);
  const script = serve(`
    if (request.url.endsWith("/busy")) for (;;);
    await new Promise((resolve) => setTimeout(resolve, 2_000));
    return new Response("waited");`);
  await withScript(script, async (bunny) => {
    assertEquals((await get(bunny, "/wait")).text, "waited");
    assertEquals((await get(bunny, "/busy")).status, 500);
    assertEquals(bunny.ends, ["cpu"]);
  }, { cpuMs: 1_500 });
});

Deno.test("a script that takes over 500 ms to start answers 400 with an empty body", async () => {
  const busy = "const end = Date.now() + 700; while (Date.now() < end);";
  const wait = "await new Promise((resolve) => setTimeout(resolve, 700));";
  for (const slow of [busy, wait]) {
    await withScript(
      `${slow}\n${serve("return new Response()")}`,
      async (bunny) => {
        const { status, text } = await get(bunny);
        assertEquals([status, text], [400, ""]);
        assertEquals(bunny.ends, ["the script took over 500 ms to start"]);
      },
    );
  }
});

Deno.test("a script over 10 MB, or one that serves nothing, answers 400", async () => {
  const large = `${serve("return new Response()")}\n//${
    " ".repeat(10_000_000)
  }`;
  for (const script of [large, "export {};", "throw new Error('x')"]) {
    await withScript(script, async (bunny) => {
      assertEquals((await get(bunny)).status, 400);
    });
  }
});

Deno.test("serveBunny() refuses variables that Bunny does not take", async () => {
  const many = Object.fromEntries(
    Array.from({ length: 129 }, (_, at) => [`V${at}`, ""]),
  );
  for (const env of [many, { A: "x".repeat(2_049) }]) {
    assertThrows(() => serveBunny({ script: "none", env }), RangeError);
  }
  const { V128: _, ...fits } = many;
  await using _bunny = serveBunny({
    script: "none",
    env: { ...fits, V0: "x".repeat(2_048) },
  });
});

Deno.test("an unhandled rejection ends nothing, and waitUntil() goes on after the answer", async () => {
  const script = `let done = "no";` + serve(`
    if (request.method === "GET") return new Response(done, { headers: { "cache-control": "no-store" } });
    Promise.reject(new Error("nobody's"));
    Bunny.v1.waitUntil(new Promise((resolve) => setTimeout(resolve, 50)).then(() => { done = "yes"; }));
    Bunny.v1.waitUntil(Promise.reject(new Error("late")));
    return new Response(done);`);
  await withScript(script, async (bunny, lines) => {
    assertEquals((await get(bunny, "/", { method: "POST" })).text, "no");
    while ((await get(bunny, "/")).text !== "yes");
    assertEquals([bunny.ends, bunny.starts], [[], 1]);
    assert(lines.some((line) => line.startsWith("unhandled rejection")));
  });
});

Deno.test("the CDN answers a GET again by default, with any query and headers", async () => {
  const script = `let count = 0;` + serve(`
    const { pathname } = new URL(request.url);
    const headers = pathname === "/none" ? {} : { "cache-control": pathname.slice(1) };
    return new Response(String(++count), { headers, status: pathname === "/404" ? 404 : 200 });`);
  await withScript(script, async (bunny) => {
    const twice = async (path: string, init?: RequestInit) => {
      const first = await get(bunny, `${path}?a`, init);
      const second = await get(bunny, `${path}?b`, {
        ...init,
        headers: { "x-webhook-signature": "other" },
      });
      return second.text === first.text && second.cache === "HIT";
    };
    for (const path of ["/none", "/max-age=60", "/public"]) {
      assertEquals(await twice(path), true, path);
    }
    for (
      const path of ["/no-store", "/private", "/no-cache", "/max-age=0", "/404"]
    ) {
      assertEquals(await twice(path), false, path);
    }
    assertEquals(await twice("/post", { method: "POST" }), false);
  });
});
