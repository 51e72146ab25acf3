import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import fc from "fast-check";
import { convert } from "../../lib/plan/convert.ts";
import type { ColumnType } from "../../lib/schema.ts";

const MIN = -(2n ** 63n);
const MAX = 2n ** 63n - 1n;
const SEED = 20251031;

const TAKEN: readonly [ColumnType, string, string][] = [
  ["INTEGER", "0", "0"],
  ["INTEGER", "-0", "0"],
  ["INTEGER", "-0.00", "0"],
  ["INTEGER", "7", "7"],
  ["INTEGER", "-7", "-7"],
  ["INTEGER", "5.00", "5"],
  ["INTEGER", "100", "100"],
  ["INTEGER", "9007199254740993", "9007199254740993"],
  ["INTEGER", "999999999999999999", "999999999999999999"],
  ["INTEGER", "1000000000000000000", "1000000000000000000"],
  ["INTEGER", "9223372036854775807", "9223372036854775807"],
  ["INTEGER", "-9223372036854775808", "-9223372036854775808"],
  ["INTEGER", `9223372036854775807.${"0".repeat(16_000)}`, `${MAX}`],
  // As real and double precision write them.
  ["INTEGER", "1e+06", "1000000"],
  ["INTEGER", "1e+15", "1000000000000000"],
  ["INTEGER", "-1.5e+16", "-15000000000000000"],
  ["INTEGER", "1.2345678901234567e+18", "1234567890123456700"],
  ["INTEGER", "9.223372036854775807e+18", "9223372036854775807"],
  ["INTEGER", "-9.223372036854775808e+18", "-9223372036854775808"],
  ["BOOLEAN", "true", "1"],
  ["BOOLEAN", "t", "1"],
  ["BOOLEAN", "1", "1"],
  ["BOOLEAN", "false", "0"],
  ["BOOLEAN", "f", "0"],
  ["BOOLEAN", "0", "0"],
  ["TEXT", "", ""],
  ["TEXT", "007.10", "007.10"],
  ["TEXT", ' it\'s "so"\n\u{1F600} ', ' it\'s "so"\n\u{1F600} '],
  ["JSON", '{"n": 1.10}', '{"n": 1.10}'],
  ["JSON", "null", "null"],
  ["JSON", '"text"', '"text"'],
];

const REFUSED: readonly [ColumnType, string, string][] = [
  ["INTEGER", "", "empty text"],
  ["INTEGER", "-", "text of 1 character"],
  ["INTEGER", "5.01", "a fraction of 4 characters"],
  ["INTEGER", "-0.5", "a fraction of 4 characters"],
  ["INTEGER", "1.5e+00", "a fraction of 7 characters"],
  ["INTEGER", "1.2345678e+06", "a fraction of 13 characters"],
  [
    "INTEGER",
    "9223372036854775808",
    "a number beyond 64 bits of 19 characters",
  ],
  [
    "INTEGER",
    "-9223372036854775809",
    "a number beyond 64 bits of 20 characters",
  ],
  [
    "INTEGER",
    "9.223372036854775808e+18",
    "a number beyond 64 bits of 24 characters",
  ],
  ["INTEGER", "1e+19", "a number beyond 64 bits of 5 characters"],
  ["INTEGER", "1e+308", "a number beyond 64 bits of 6 characters"],
  [
    "INTEGER",
    "1".repeat(100_000),
    "a number beyond 64 bits of 100000 characters",
  ],
  // Spellings which no number type of PostgreSQL writes.
  ["INTEGER", "007", "text of 3 characters"],
  ["INTEGER", "+7", "text of 2 characters"],
  ["INTEGER", " 7", "text of 2 characters"],
  ["INTEGER", "7\n", "text of 2 characters"],
  ["INTEGER", "7.", "text of 2 characters"],
  ["INTEGER", ".0", "text of 2 characters"],
  ["INTEGER", "1_000", "text of 5 characters"],
  ["INTEGER", "0x10", "text of 4 characters"],
  ["INTEGER", "1e3", "text of 3 characters"],
  ["INTEGER", "500e-2", "text of 6 characters"],
  ["INTEGER", "1e-05", "text of 5 characters"],
  ["INTEGER", "NaN", "text of 3 characters"],
  ["INTEGER", "Infinity", "text of 8 characters"],
  ["INTEGER", "\u0661", "text of 1 character"],
  ["INTEGER", "\u{1F600}\u{1F600}", "text of 2 characters"],
  ["INTEGER", "true", "text of 4 characters"],
  ["BOOLEAN", "", "empty text"],
  ["BOOLEAN", "TRUE", "text of 4 characters"],
  ["BOOLEAN", "yes", "text of 3 characters"],
  ["BOOLEAN", "2", "text of 1 character"],
  ["BOOLEAN", "1 ", "text of 2 characters"],
];

Deno.test("convert() stands for exactly what the source sent when the column can hold it", () => {
  for (const [type, cell, expected] of TAKEN) {
    assertEquals(convert(cell, type), expected, `${type} ${cell.slice(0, 40)}`);
    assertEquals(convert(expected, type), expected, `${type}, once more`);
  }
});

Deno.test("convert() refuses a cell and tells its kind and length when the column cannot hold it", () => {
  for (const [type, cell, found] of REFUSED) {
    const error = assertThrows(() => convert(cell, type), RangeError);
    const expected = type === "INTEGER"
      ? "an exact integer of 64 bits"
      : "true or false";
    assertEquals(error.message, `expected ${expected}: found ${found}`);
  }
});

Deno.test("convert() leaves null as it is when the cell is NULL, whatever the type", () => {
  for (const type of ["INTEGER", "BOOLEAN", "TEXT", "JSON"] as const) {
    assertEquals(convert(null, type), null);
  }
});

Deno.test("convert() agrees with BigInt when an integer of any size comes with or without zero decimals", () => {
  const integers = fc.oneof(
    fc.bigInt({ min: MIN, max: MAX }),
    fc.bigInt({ min: -(10n ** 40n), max: 10n ** 40n }),
    fc.bigInt({ min: -40n, max: 40n }).map((n) => MAX + n),
    fc.bigInt({ min: -40n, max: 40n }).map((n) => MIN + n),
  );
  fc.assert(
    fc.property(integers, fc.integer({ min: 0, max: 20 }), (n, zeros) => {
      const cell = zeros === 0 ? `${n}` : `${n}.${"0".repeat(zeros)}`;
      assertEquals(converted(cell), n >= MIN && n <= MAX ? `${n}` : undefined);
    }),
    { seed: SEED, numRuns: 5_000 },
  );
});

Deno.test("convert() agrees with BigInt when a double is spelled with an exponent", () => {
  const parts = fc.tuple(
    fc.constantFrom("", "-"),
    fc.integer({ min: 1, max: 9 }),
    fc.stringMatching(/^[0-9]{0,20}$/),
    fc.integer({ min: 0, max: 30 }),
  );
  fc.assert(
    fc.property(parts, ([sign, first, fraction, exponent]) => {
      const point = fraction === "" ? "" : ".";
      const cell = `${sign}${first}${point}${fraction}e+${
        `${exponent}`.padStart(2, "0")
      }`;
      // The number times 10^20 is an integer, whatever the fraction.
      const scaled = BigInt(sign + first + fraction.padEnd(20, "0")) *
        10n ** BigInt(exponent);
      const n = scaled / 10n ** 20n;
      const fits = n * 10n ** 20n === scaled && n >= MIN && n <= MAX;
      assertEquals(converted(cell), fits ? `${n}` : undefined);
    }),
    { seed: SEED, numRuns: 5_000 },
  );
});

Deno.test("convert() never shows the value when it refuses arbitrary text", () => {
  const types = fc.constantFrom<ColumnType[]>("INTEGER", "BOOLEAN");
  const texts = fc.oneof(
    fc.string({ unit: "binary" }),
    fc.stringMatching(/^[-+.e0-9]{1,30}$/),
  );
  fc.assert(
    fc.property(texts, types, (cell, type) => {
      let outcome: string | null;
      try {
        outcome = convert(cell, type);
      } catch (error) {
        assert(error instanceof RangeError);
        assertMatch(
          error.message,
          /^expected (an exact integer of 64 bits|true or false): found (empty text|(text|a fraction|a number beyond 64 bits) of \d+ characters?)$/,
        );
        return;
      }
      assert(outcome !== null);
      assertMatch(
        outcome,
        type === "INTEGER" ? /^(0|-?[1-9]\d{0,18})$/ : /^[01]$/,
      );
    }),
    { seed: SEED, numRuns: 5_000 },
  );
});

/** What comes out, or nothing when it is refused. */
function converted(cell: string): string | null | undefined {
  try {
    return convert(cell, "INTEGER");
  } catch (error) {
    assert(error instanceof RangeError);
    return undefined;
  }
}
