import { assert, assertEquals, assertRejects } from "@std/assert";
import { fetchWithin } from "../../lib/connect/bounded_fetch.ts";

/** Runs something while fetch is another function. */
async function withFetch(
  fake: (request: Request, init: RequestInit) => Promise<Response>,
  run: () => Promise<void>,
): Promise<void> {
  const { fetch } = globalThis;
  globalThis.fetch = fake as typeof fetch;
  try {
    await run();
  } finally {
    globalThis.fetch = fetch;
  }
}

const REQUEST = new Request("http://replica.example.com/v2/pipeline");
const WIDE = { timeoutMs: 60_000, bytesMax: 1_000 };

Deno.test("fetchWithin() returns status, headers and body", async () => {
  const answered = new Response("abc", { status: 503, headers: { a: "b" } });
  await withFetch(() => Promise.resolve(answered), async () => {
    const response = await fetchWithin(REQUEST, WIDE);
    assertEquals(
      [response.status, response.headers.get("a"), await response.text()],
      [503, "b", "abc"],
    );
  });
});

Deno.test("fetchWithin() takes an answer whose status allows no body", async () => {
  const answered = () => Promise.resolve(new Response(null, { status: 204 }));
  await withFetch(answered, async () => {
    assertEquals((await fetchWithin(REQUEST, WIDE)).status, 204);
  });
});

Deno.test("fetchWithin() asks not to be redirected", async () => {
  let redirect: unknown;
  const answered = (_: Request, init: RequestInit) => {
    redirect = init.redirect;
    return Promise.resolve(
      new Response(null, { status: 302, headers: { location: "http://x/" } }),
    );
  };
  await withFetch(answered, async () => {
    const { status } = await fetchWithin(REQUEST, WIDE);
    assertEquals([status, redirect], [302, "manual"]);
  });
});

Deno.test("fetchWithin() refuses an answer that is larger than allowed", async () => {
  const answered = () => Promise.resolve(new Response("x".repeat(1_001)));
  await withFetch(answered, async () => {
    await assertRejects(() => fetchWithin(REQUEST, WIDE), RangeError);
  });
});

Deno.test("fetchWithin() gives up when the answer is late, and when only its body is", async () => {
  const stalls: ((signal: AbortSignal) => Promise<Response>)[] = [
    (signal) =>
      new Promise((_, reject) =>
        signal.addEventListener("abort", () => reject(signal.reason))
      ),
    (signal) =>
      Promise.resolve(
        new Response(
          new ReadableStream({
            start: (controller) => {
              controller.enqueue(new Uint8Array(1));
              signal.addEventListener(
                "abort",
                () => controller.error(signal.reason),
              );
            },
          }),
        ),
      ),
  ];
  for (const stall of stalls) {
    await withFetch((_, { signal }) => stall(signal!), async () => {
      const error = await assertRejects(() =>
        fetchWithin(REQUEST, { timeoutMs: 1, bytesMax: 1_000 })
      );
      assert((error as DOMException).name === "AbortError");
    });
  }
});
