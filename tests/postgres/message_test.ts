import { assertEquals, assertThrows } from "@std/assert";
import {
  authentication,
  createReader,
  errorFields,
  textIn,
  textMessage,
} from "../../lib/postgres/message.ts";

const row = (text: string) =>
  textMessage("D", `\0\x01\0\0\0${String.fromCharCode(text.length)}${text}`);

Deno.test("createReader() returns the same messages in whatever pieces their bytes come", () => {
  const bytes = new Uint8Array([
    ...textMessage("S", "a"),
    ...textMessage("C", "SELECT 1"),
    ...textMessage("Z", ""),
  ]);
  const whole = createReader(1000)(bytes);
  assertEquals(whole.map(({ type }) => type), ["S", "C", "Z"]);
  for (let size = 1; size < bytes.length; size++) {
    const read = createReader(1000);
    const found = [];
    for (let at = 0; at < bytes.length; at += size) {
      found.push(...read(bytes.slice(at, at + size)));
    }
    assertEquals(found, whole, `pieces of ${size} bytes`);
  }
});

Deno.test("createReader() refuses a message over its bound, and a length that none can have", () => {
  assertThrows(
    () => createReader(20)(textMessage("D", "x".repeat(40))),
    RangeError,
  );
  for (const length of [[0, 0, 0, 3], [255, 255, 255, 255]]) {
    assertThrows(
      () => createReader(20)(new Uint8Array([68, ...length])),
      RangeError,
    );
  }
});

Deno.test("textIn() joins rows of one column, and reads a row without one as nothing", () => {
  const rows = ["ab", "c"].map((text) =>
    createReader(1000)(row(text))[0]!.body
  );
  assertEquals(textIn([...rows, new Uint8Array()]), "abc");
});

Deno.test("errorFields() and authentication() read what is there, and cut short is no code", () => {
  const body = new TextEncoder().encode("SERROR\0C42P01\0Mgone\0\0");
  assertEquals(errorFields(body), { S: "ERROR", C: "42P01", M: "gone" });
  assertEquals(authentication(new Uint8Array([0, 0, 0, 10, 7])).code, 10);
  assertEquals(authentication(new Uint8Array([0, 0])).code, -1);
});
