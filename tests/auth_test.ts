import { assertEquals } from "@std/assert";
import { timingSafeEqual } from "@std/crypto/timing-safe-equal";
import { isAuthentic } from "../lib/auth.ts";

const SECRET = "correct horse battery staple";

Deno.test("isAuthentic() is true when the header holds the secret", async () => {
  assertEquals(await isAuthentic(SECRET, SECRET), true);
  assertEquals(await isAuthentic("s", "s"), true);
});

Deno.test("isAuthentic() is false when the header holds anything else", async () => {
  const wrong = [
    null,
    "",
    " ",
    SECRET.slice(0, -1),
    SECRET + "r",
    SECRET + " ",
    SECRET.toUpperCase(),
    "D" + SECRET.slice(1),
    SECRET.slice(0, -1) + "f",
    "x".repeat(1_000_000),
  ];
  for (const given of wrong) {
    assertEquals(await isAuthentic(given, SECRET), false, given?.slice(0, 40));
  }
});

Deno.test("isAuthentic() is false when the header came twice, right both times", async () => {
  const headers = new Headers();
  headers.append("x-webhook-signature", SECRET);
  headers.append("x-webhook-signature", SECRET);
  assertEquals(headers.get("x-webhook-signature"), `${SECRET}, ${SECRET}`);
  assertEquals(
    await isAuthentic(headers.get("x-webhook-signature"), SECRET),
    false,
  );
});

Deno.test("isAuthentic() is false when the secret is empty, whatever comes", async () => {
  assertEquals(await isAuthentic("", ""), false);
  assertEquals(await isAuthentic(null, ""), false);
});

Deno.test("timingSafeEqual() is a type error when it is given no buffers", () => {
  // @ts-expect-error The package has no types of its own: ours must be in force.
  const misuse = () => timingSafeEqual(1, {});
  assertEquals(typeof misuse, "function");
  // @ts-expect-error So must those of the assertions.
  const misuseOfAssert = () => assertEquals(1, "1");
  assertEquals(typeof misuseOfAssert, "function");
});
