import { assertEquals, assertThrows } from "@std/assert";
import { SyncError } from "../../lib/errors.ts";
import {
  type FieldName,
  parseQuery,
  type Query,
} from "../../lib/http/query.ts";
import { ROUTES } from "../../lib/http/routes.ts";

const read = (query: string, names: readonly FieldName[]) =>
  parseQuery(new URLSearchParams(query), names);

Deno.test("parseQuery() gives each field the type of its kind, and no field that is not given", () => {
  const cases: [query: string, names: FieldName[], fields: Query][] = [
    ["", ["table", "repair"], {}],
    ["table=", ["table"], { table: "" }],
    ["table=true", ["table"], { table: "true" }],
    ["table=a%20%C3%A4%26b", ["table"], { table: "a ä&b" }],
    ["repair=true&table=t", ["table", "repair"], { table: "t", repair: true }],
    ["refill=false&epoch=0a1b", ["refill", "epoch"], {
      refill: false,
      epoch: "0a1b",
    }],
    ["letters=true", ["letters"], { letters: true }],
    ["id=007", ["id"], { id: "007" }],
    ["id=999999999999999999", ["id"], { id: "999999999999999999" }],
  ];
  for (const [query, names, fields] of cases) {
    assertEquals(read(query, names), fields, query);
  }
});

Deno.test("parseQuery() refuses what a field does not allow, and names the field, not the value", () => {
  const cases: [query: string, names: FieldName[], message: string][] = [
    ["repair=yes", ["repair"], "repair must be true or false."],
    ["repair", ["repair"], "repair must be true or false."],
    ["refill=TRUE", ["refill"], "refill must be true or false."],
    ["letters=1", ["letters"], "letters must be true or false."],
    ["table=a%00b", ["table"], "table must not contain U+0000."],
    ["epoch=%00", ["epoch"], "epoch must not contain U+0000."],
    ["id=", ["id"], "id must be the number of a dead letter."],
    ["id=-1", ["id"], "id must be the number of a dead letter."],
    ["id=1e3", ["id"], "id must be the number of a dead letter."],
    // 2^63 has 19 digits: PostgreSQL must not be asked for more than it can read.
    [
      "id=9999999999999999999",
      ["id"],
      "id must be the number of a dead letter.",
    ],
  ];
  for (const [query, names, message] of cases) {
    const error = assertThrows(() => read(query, names), SyncError, message);
    assertEquals([error.code, error.message], ["bad_request", message]);
  }
});

Deno.test("parseQuery() refuses a field that the path does not take, or one given twice", () => {
  for (
    const [query, names, expected] of [
      ["refill=true", ["table"], "table"],
      ["tables=a", ["table"], "table"],
      ["toString=a", ["table"], "table"],
      ["__proto__=a", ["table", "repair"], "table and repair"],
      ["table=a&table=a", ["table", "repair"], "table and repair"],
      ["repair=true&repair=true", ["table", "repair"], "table and repair"],
    ] as [string, FieldName[], string][]
  ) {
    assertThrows(
      () => read(query, names),
      SyncError,
      `The query expects ${expected}, each at most once.`,
      query,
    );
  }
});

Deno.test("parseQuery() ignores the query if the path takes no field", () => {
  assertEquals(read("repair=yes&repair=no&%00", []), {});
  assertEquals(parseQuery(new URLSearchParams("a=b")), {});
});

Deno.test("ROUTES changes something by POST alone, and only the paths that run no flow are open", () => {
  const reading = ["doctor", "status", "metrics"];
  for (const [path, { allow, flow }] of ROUTES) {
    if (flow === undefined) assertEquals(allow, "GET, HEAD", path);
    else assertEquals(allow, reading.includes(flow) ? "GET" : "POST", path);
  }
  assertEquals(
    [...ROUTES].filter(([, { flow }]) => flow === undefined).map(([path]) =>
      path
    ),
    ["/", "/health", "/ok"],
  );
});
