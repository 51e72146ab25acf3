import { assertEquals, assertThrows } from "@std/assert";
import { fromBase64, fromHex, toBase64, toHex } from "../lib/bytes.ts";

const ALL = Uint8Array.from({ length: 256 }, (_, byte) => byte);

Deno.test("fromHex() reads what toHex() wrote, two digits for every byte", () => {
  assertEquals(toHex(new Uint8Array([0, 9, 160])), "0009a0");
  assertEquals(fromHex(toHex(ALL)), ALL);
});

Deno.test("fromBase64() reads what toBase64() wrote, also more than a call stack takes", () => {
  const many = new Uint8Array(300_000).map((_, at) => at % 251);
  for (const bytes of [new Uint8Array(), ALL, many]) {
    assertEquals(fromBase64(toBase64(bytes)), bytes);
  }
});

Deno.test("fromBase64() reads the alphabet of URLs without padding, and refuses other text", () => {
  const text = toBase64(ALL).replaceAll("+", "-").replaceAll("/", "_");
  assertEquals(fromBase64(text.replace(/=+$/, "")), ALL);
  assertThrows(() => fromBase64("no base64!"));
});
