/**
 * Ring 3. Random SQL literals at the edges of PostgreSQL's types.
 *
 * @module
 */

import type { Random } from "../../lib/dev/random.ts";

/** A text as a SQL literal. */
export function literal(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}

const TEXTS = [
  "",
  " ",
  "plain",
  "it's",
  'a "quoted" one',
  "back\\slash \\u0041 \\x00",
  "two\nlines\r\n\tand a tab",
  "\u0001\u001f\u007f",
  "null",
  "[1, 2]",
  '{"a": 1}',
  "007",
  "1e3",
  "-0",
  "é e\u0301 ß İ",
  "日本語 \u202e right",
  "\ud83d\ude00 \ud83d\udc68\u200d\ud83d\udc69 \udbff\udfff",
  "\ufeffmark \uffff",
  "$$ ; drop table hot; --",
  "trailing  ",
];

/** A text: of the list, or long enough to be stored apart. */
export function text(random: Random): string {
  if (random.chance(0.04)) {
    return random.hex(8).repeat(1 + random.below(2_000));
  }
  if (random.chance(0.3)) return random.hex(1 + random.below(6));
  return random.pick(TEXTS);
}

const JSONS = [
  "null",
  "true",
  "0",
  "-1.50",
  "1e400",
  "12345678901234567890.0987654321",
  '""',
  '"text"',
  '"é \\ud83d\\ude00 \\n"',
  "[]",
  "{}",
  ' { "b" : 1,  "a": [1, 2.0,null], "b": 2 } ',
  '{"nested": {"deep": [[["x"]]], "": ""}}',
];

/** One column's literals. */
const COLUMNS: Record<string, (random: Random) => string> = {
  t: (random) => literal(text(random)),
  i: (random) =>
    random.pick([
      "0",
      "-1",
      "9223372036854775807",
      "-9223372036854775808",
      "9007199254740993",
      "-9007199254740993",
      String(random.below(1e9)),
    ]),
  num: (random) =>
    random.pick([
      "0.00",
      "1.10",
      "-0.0",
      "1e-20",
      "'NaN'",
      "'Infinity'",
      "'-Infinity'",
      "123456789012345678901234567890.12345678901234567890",
      `${random.below(1e9)}.${random.below(1e3)}`,
      `repeat('9', ${1 + random.below(400)})::numeric`,
    ]),
  f: (random) =>
    random.pick([
      "'NaN'",
      "'Infinity'",
      "'-0'",
      "0.1::float8 + 0.2",
      "1e308",
      "5e-324",
      "1e15",
      "1e16",
      String(random.below(1e6) / 7),
    ]),
  yes: (random) => random.pick(["true", "false"]),
  at: (random) =>
    random.pick([
      "'infinity'",
      "'-infinity'",
      "'4714-11-24 00:00:00+00 BC'",
      "'294276-12-31 23:59:59.999999+00'",
      "'0001-01-01 00:00:00.5+05:30'",
      "'2024-02-29 23:59:60+00'",
      "'2024-10-27 02:30:00 Europe/Berlin'",
      "clock_timestamp()",
      "now()",
    ]),
  day: (random) =>
    random.pick(["'infinity'", "'0044-03-15 BC'", "'5874897-12-31'", "now()"]),
  span: (random) =>
    random.pick([
      "'1 year -3 months 4 days 05:06:07.89'",
      "'-00:00:00.000001'",
      "'0'",
      "'178000000 years'",
    ]),
  raw: (random) =>
    random.pick(["''", "'\\x00'", "'\\xdeadbeef'", `'\\x${random.hex(16)}'`]),
  js: (random) => literal(random.pick([...JSONS, '"\\u0000"', "  1  "])),
  jb: (random) => literal(random.pick(JSONS)),
  jt: (random) => literal(random.pick([...JSONS, '{"a":"\\u0000"}'])),
  list: (random) =>
    random.pick([
      "'{}'",
      "array[null, 'null', '', 'a,b', '\"']",
      "array[['a', 'b'], ['c', null]]",
      "'[0:1]={x,y}'",
    ]),
  comp: (random) =>
    random.pick([
      "row(1, null)::spot",
      "row(null, null)::spot",
      "row(-5, 'a \"b\", (c)')::spot",
    ]),
  padded: (random) => random.pick(["'a'", "''", "'abcde'", "'é'"]),
  mood: (random) => random.pick(["'sad'", "'ok'", "'Happy \"!\"'"]),
  reach: (random) =>
    random.pick(["'empty'", "'(,)'", "'[1,5)'", "'[3,]'", "'(,-9)'"]),
  host: (random) => random.pick(["'::1'", "'10.0.0.0/8'", "'192.168.1.1'"]),
};

/** Columns of table `edges` with their literals; NULL now and then. */
export function edgeCells(random: Random): [column: string, sql: string][] {
  return Object.entries(COLUMNS).map((
    [name, make],
  ) => [name, random.chance(0.12) ? "null" : make(random)]);
}
