import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { createReplyCheck } from "../lib/postgres_replies.ts";
import { seed } from "./seed.ts";

const BYTES_MAX = 1_000_000;

/** Splits bytes at will, and says whether all of them pass. */
function passes(bytes: Uint8Array, cuts: readonly number[]): boolean {
  const check = createReplyCheck(BYTES_MAX);
  const places = [...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length]
    .sort((a, b) => a - b);
  let from = 0;
  try {
    for (const to of places) {
      check(bytes.subarray(from, to));
      from = to;
    }
    return true;
  } catch (error) {
    assert(error instanceof RangeError, String(error));
    return false;
  }
}

function message(type: string, body: readonly number[] | string): number[] {
  const bytes = typeof body === "string"
    ? [...new TextEncoder().encode(body)]
    : body;
  const length = bytes.length + 4;
  return [
    ...[type.charCodeAt(0), length >>> 24, (length >>> 16) & 255],
    ...[(length >>> 8) & 255, length & 255, ...bytes],
  ];
}

const COLUMN = [...new TextEncoder().encode("answer\0"), ...Array(18).fill(0)];
const SASL = "SCRAM-SHA-256";
const ROUND = [0, 0, 0, 11];
const challenge = (text: string) =>
  message("R", [...ROUND, ...new TextEncoder().encode(text)]);

const PROPER = [
  message("R", [0, 0, 0, 0]),
  message("R", [0, 0, 0, 10, ...new TextEncoder().encode(`${SASL}\0\0`)]),
  message("R", [0, 0, 0, 5, 1, 2, 3, 4]),
  challenge("r=nonce+/,s=c2FsdA==,i=4096"),
  message("K", Array(8).fill(7)),
  message("S", "TimeZone\0UTC\0"),
  message("N", "SNOTICE\0\0"),
  message("T", [0, 0]),
  message("T", [0, 2, ...COLUMN, ...COLUMN]),
  message("D", [0, 1, 0, 0, 0, 1, 55]),
  message("C", "SELECT 1\0"),
  message("E", "SERROR\0\0"),
  message("I", ""),
  message("Z", "I"),
];

Deno.test("createReplyCheck() lets what a server says pass, however it is cut", () => {
  fc.assert(
    fc.property(
      fc.array(fc.constantFrom(...PROPER), { maxLength: 12 }),
      fc.array(fc.nat()),
      (messages, cuts) => passes(Uint8Array.from(messages.flat()), cuts),
    ),
    { seed: seed() },
  );
});

Deno.test("createReplyCheck() says the same of any bytes, however they are cut", () => {
  fc.assert(
    fc.property(
      fc.array(
        fc.oneof(
          fc.constantFrom(...PROPER),
          fc.uint8Array({ maxLength: 12 }).map((bytes) => [...bytes]),
        ),
        { maxLength: 8 },
      ),
      fc.array(fc.nat()),
      (parts, cuts) => {
        const bytes = Uint8Array.from(parts.flat());
        assertEquals(passes(bytes, cuts), passes(bytes, []));
      },
    ),
    { seed: seed(), numRuns: 2_000 },
  );
});

Deno.test("createReplyCheck() refuses what a driver loops over, throws at or counts for hours", () => {
  const refused: Record<string, number[]> = {
    "a copy": message("G", [0, 0, 0]),
    "no such message": message("\u0000", ""),
    "columns without an end": message("T", [0, 1, 97, 97]),
    "columns cut short": message("T", [0, 2, ...COLUMN]),
    "more than the columns": message("T", [0, 0, 0]),
    "a challenge without salt": challenge("r=x"),
    "a challenge without rounds": challenge("r=x,s=AAAA,i="),
    "a challenge of 4 billion rounds": challenge("r=x,s=AAAA,i=4294967295"),
    "another mechanism": message("R", [0, 0, 0, 10, 88, 0, 0]),
    "an unknown kind of password": message("R", [0, 0, 0, 99]),
    "half a kind of password": message("R", [0]),
    "a length of 3": [68, 0, 0, 0, 3],
    "a row of 4 GB": [68, 255, 255, 255, 255],
  };
  for (const [name, bytes] of Object.entries(refused)) {
    assertEquals(passes(Uint8Array.from(bytes), []), false, name);
  }
});

Deno.test("createReplyCheck() bounds an answer, and begins anew with the next", () => {
  const check = createReplyCheck(1_000);
  const row = Uint8Array.from(message("D", Array(400).fill(0)));
  const done = Uint8Array.from(message("Z", "I"));
  for (let answer = 0; answer < 10; answer++) {
    check(row);
    check(row);
    check(done);
  }
  check(row);
  check(row);
  assertThrows(() => check(row), RangeError, "at most 1000 bytes");
});
