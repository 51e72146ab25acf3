import { assertEquals } from "@std/assert";
import { createMessageParser, isRefusal } from "../../lib/plan/change.ts";
import { PART, SCHEMA } from "./tables.ts";

const parse = createMessageParser(SCHEMA);
const reasonOf = (message: unknown) => {
  const parsed = parse("7", message);
  return isRefusal(parsed) ? parsed.reason : null;
};

Deno.test("createMessageParser() reads rows, deletes and a truncate, with keys in the table's order", () => {
  const parsed = parse("7", {
    v: 1,
    table: "part",
    key: ["code", "item"],
    deletes: [["a", "1"]],
    columns: ["item", "code", "note"],
    rows: [["2", "b", null]],
    truncate: true,
  });
  assertEquals(parsed, {
    msgId: "7",
    table: PART,
    truncate: true,
    deletes: [["1", "a"]],
    oversize: [],
    upserts: { columns: ["item", "code", "note"], cells: [["2", "b", null]] },
    updates: { columns: [], cells: [] },
  });
});

Deno.test("createMessageParser() refuses a message that does not fit the schema, and names what it expected", () => {
  const rows = { columns: ["item", "code"], rows: [["1", "a"]] };
  const refused: [unknown, string][] = [
    [[1, 2], "malformed message: expected an object, found an array"],
    [
      { v: 1 },
      `malformed message: expected a table's name in "table", found nothing`,
    ],
    [
      { v: 1, table: "nowhere", truncate: true },
      'table "nowhere" is not in schema.json',
    ],
    [
      { v: 1, table: "part", columns: ["item", "note"], rows: [["1", "a"]] },
      "malformed message: expected the key (item, code) among the columns",
    ],
    [
      { v: 1, table: "part", ...rows, columns: ["item", "code", "mail"] },
      "malformed message: expected columns of schema.json, found 1 other(s)",
    ],
    [
      { v: 1, table: "part", ...rows, rows: [["1", 2]] },
      "malformed message: expected rows of 2 text(s) or null(s) each",
    ],
    [
      { v: 1, table: "part", key: ["item"], deletes: [["1"]] },
      'malformed message: expected the key (item, code) in "key"',
    ],
    [
      { v: 1, table: "part", truncate: 1 },
      'malformed message: expected true in "truncate", found a number',
    ],
  ];
  for (const [message, reason] of refused) {
    assertEquals(reasonOf(message), reason, JSON.stringify(message));
  }
});

Deno.test("createMessageParser() shows no value of a message that it refuses", () => {
  for (
    const message of [
      "secret",
      { v: 1, table: "part", columns: ["item", "code"], rows: [["secret"]] },
      { v: 1, table: "part", columns: ["secret"], rows: [["secret"]] },
      { v: 1, table: "part", key: ["item", "code"], deletes: ["secret"] },
    ]
  ) assertEquals(reasonOf(message)?.includes("secret"), false);
});
