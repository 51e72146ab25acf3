import { assertEquals, assertMatch } from "@std/assert";
import { timingSafeEqual } from "@std/crypto/timing-safe-equal";
import fc from "fast-check";
import { judge, sign, type SignedRequest } from "../../lib/http/auth.ts";

const SEED = 20251031;
const SECRET = "correct horse battery staple";
const OTHER = "another secret, as long";
const NOW = 1_764_000_000_123;

const bytes = (text: string) => new TextEncoder().encode(text);
const REQUEST: SignedRequest = {
  method: "POST",
  path: "/sync",
  body: bytes('{"n": 1}'),
};

/** What is judged of a header, for a request whose body may be read once. */
function judgeOf(
  given: string | null,
  options: {
    secrets?: readonly string[];
    request?: SignedRequest;
    now?: number;
  } = {},
) {
  const { body, ...request } = options.request ?? REQUEST;
  let reads = 0;
  return judge(given, {
    secrets: options.secrets ?? [SECRET],
    request: {
      ...request,
      readBody: () => {
        assertEquals(++reads, 1, "the body is read once");
        return Promise.resolve(body);
      },
    },
    now: options.now ?? NOW,
  });
}

/** A judgement for which the body must not be read. */
function judgeUnread(given: string | null, secrets: readonly string[]) {
  return judge(given, {
    secrets,
    request: {
      ...REQUEST,
      readBody: () => Promise.reject(new Error("the body was read")),
    },
    now: NOW,
  });
}

Deno.test("judge() is authentic when the header holds one of the secrets as it is, without reading the body", async () => {
  assertEquals(await judgeUnread(SECRET, [SECRET]), "authentic");
  assertEquals(await judgeUnread(SECRET, [OTHER, SECRET]), "authentic");
  assertEquals(await judgeUnread(OTHER, [OTHER, SECRET]), "authentic");
  assertEquals(await judgeUnread("s", ["s"]), "authentic");
  // One that looks like a signature is still itself.
  const odd = `t=1,v1=${"0".repeat(64)}`;
  assertEquals(await judgeUnread(odd, [odd]), "authentic");
});

Deno.test("judge() is wrong when the header holds anything else, without reading the body", async () => {
  const right = await sign([SECRET], REQUEST, NOW);
  const [time, signature] = right.split(",") as [string, string];
  const wrong = [
    null,
    "",
    " ",
    SECRET.slice(0, -1),
    SECRET + "r",
    SECRET + " ",
    SECRET.toUpperCase(),
    "D" + SECRET.slice(1),
    "x".repeat(1_000_000),
    // Nearly signatures.
    time,
    signature,
    `${signature},${time}`,
    `${time}, ${signature}`,
    `${right} `,
    right.toUpperCase(),
    right.slice(0, -1),
    right + "0",
    `${time},v0=${signature.slice(3)}`,
    `${right},${time}`,
    `t=-1,${signature}`,
    `t=1e9,${signature}`,
    `t=1.5,${signature}`,
    `t=,${signature}`,
    `t=${"9".repeat(13)},${signature}`,
    // More signatures than a few.
    right + `,${signature}`.repeat(4),
  ];
  for (const given of wrong) {
    assertEquals(
      await judgeUnread(given, [SECRET]),
      "wrong",
      given?.slice(0, 90),
    );
  }
});

Deno.test("judge() is wrong when a header came twice, right both times", async () => {
  const signature = await sign([SECRET], REQUEST, NOW);
  for (const given of [SECRET, signature]) {
    const headers = new Headers();
    headers.append("x-webhook-signature", given);
    headers.append("x-webhook-signature", given);
    const joined = headers.get("x-webhook-signature");
    assertEquals(joined, `${given}, ${given}`);
    assertEquals(await judgeUnread(joined, [SECRET]), "wrong");
  }
});

Deno.test("judge() is wrong when the secret is empty, for any header", async () => {
  for (const secrets of [[], [""]]) {
    assertEquals(await judgeUnread("", secrets), "wrong");
    assertEquals(await judgeUnread(null, secrets), "wrong");
  }
});

Deno.test("sign() makes the documented signature", async () => {
  // printf '1764000000.POST./sync.{"n": 1}' | openssl dgst -sha256 -hmac 'correct horse battery staple'
  assertEquals(
    await sign([SECRET], REQUEST, NOW),
    "t=1764000000,v1=5a265885f5b626c530457f9798efbcabf08ae4eb5196de74f403494be80c92c9",
  );
  assertMatch(
    await sign([SECRET, OTHER], REQUEST, NOW),
    /^t=1764000000,v1=[0-9a-f]{64},v1=[0-9a-f]{64}$/,
  );
});

Deno.test("judge() is authentic when one of several signatures was made with one of several secrets", async () => {
  const old = await sign([OTHER], REQUEST, NOW);
  const both = await sign(["neither", OTHER, SECRET], REQUEST, NOW);
  assertEquals(await judgeOf(old, { secrets: [OTHER, SECRET] }), "authentic");
  assertEquals(await judgeOf(old, { secrets: [SECRET, OTHER] }), "authentic");
  assertEquals(await judgeOf(old, { secrets: [SECRET] }), "wrong");
  assertEquals(await judgeOf(both, { secrets: [SECRET] }), "authentic");
  assertEquals(await judgeOf(both, { secrets: [OTHER] }), "authentic");
  assertEquals(await judgeOf(both, { secrets: ["none of them"] }), "wrong");
});

Deno.test("judge() is late when a right signature is more than 5 minutes off, and wrong when a wrong one is", async () => {
  const given = await sign([SECRET], REQUEST, NOW);
  const at = Math.floor(NOW / 1000) * 1000;
  for (
    const [now, verdict] of [
      [at - 300_001, "late"],
      [at - 300_000, "authentic"],
      [at, "authentic"],
      [at + 300_000, "authentic"],
      [at + 300_001, "late"],
      [at + 1e12, "late"],
    ] as const
  ) {
    assertEquals(await judgeOf(given, { now }), verdict, `${now - at} ms`);
    assertEquals(await judgeOf(given, { now, secrets: [OTHER] }), "wrong");
  }
});

Deno.test("judge() is wrong when anything that was signed is another", async () => {
  const given = await sign([SECRET], REQUEST, NOW);
  const changed: Partial<SignedRequest>[] = [
    { method: "GET" },
    { path: "/nuke" },
    { path: "/sync?" },
    { path: "/sync?a=1" },
    { body: bytes("") },
    { body: bytes('{"n":1}') },
    { body: bytes('{"n": 1}\n') },
    { body: new Uint8Array([...REQUEST.body, 0]) },
  ];
  for (const change of changed) {
    const request = { ...REQUEST, ...change };
    assertEquals(await judgeOf(given, { request }), "wrong");
  }
  const later = given.replace("t=1764000000", "t=1764000001");
  assertEquals(await judgeOf(later), "wrong");
});

Deno.test("judge() takes what sign() made, and nothing else, for arbitrary requests", async () => {
  const text = fc.string({ unit: "binary", maxLength: 40 });
  const secret = fc.string({ minLength: 1, maxLength: 200 });
  await fc.assert(
    fc.asyncProperty(
      fc.record({
        secret,
        other: secret,
        path: text,
        body: fc.uint8Array({ maxLength: 300 }),
        flip: fc.nat(),
        seconds: fc.integer({ min: -400, max: 400 }),
      }),
      async ({ secret, other, path, body, flip, seconds }) => {
        const request = {
          method: "POST",
          path: `/${path.toWellFormed()}`,
          body: new Uint8Array(body),
        };
        const now = NOW + seconds * 1000;
        const given = await sign([secret], request, NOW);
        const expected = Math.abs(now / 1000 - Math.floor(NOW / 1000)) > 300
          ? "late"
          : "authentic";
        assertEquals(
          await judgeOf(given, { secrets: [secret], request, now }),
          expected,
        );
        // HMAC pads a key with zeros, and no setting can hold one.
        if (other !== secret) {
          assertEquals(
            await judgeOf(given, { secrets: [other], request, now }),
            "wrong",
          );
        }
        if (body.length === 0) return;
        const bit = flip % (body.length * 8);
        const flipped = new Uint8Array(body);
        flipped[bit >> 3]! ^= 1 << (bit & 7);
        assertEquals(
          await judgeOf(given, {
            secrets: [secret],
            request: { ...request, body: flipped },
            now,
          }),
          "wrong",
        );
      },
    ),
    { seed: SEED, numRuns: 300 },
  );
});

Deno.test("judge() throws what reading the body throws", async () => {
  const given = await sign([SECRET], REQUEST, NOW);
  const error = await judgeUnread(given, [SECRET]).catch((error) => error);
  assertEquals(error.message, "the body was read");
});

Deno.test("timingSafeEqual() is a type error when it is given no buffers", () => {
  // @ts-expect-error The package has no types of its own: ours must be in force.
  const misuse = () => timingSafeEqual(1, {});
  assertEquals(typeof misuse, "function");
  // @ts-expect-error So must those of the assertions.
  const misuseOfAssert = () => assertEquals(1, "1");
  assertEquals(typeof misuseOfAssert, "function");
});
