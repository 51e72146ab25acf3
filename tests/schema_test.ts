import {
  assert,
  assertEquals,
  assertMatch,
  assertNotEquals,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import fc from "fast-check";
import { SyncError } from "../lib/errors.ts";
import {
  type ColumnType,
  indexName,
  parseSchema,
  schemaHash,
  schemaText,
} from "../lib/schema.ts";
import file from "../schema.json" with { type: "json" };

const SEED = 20251031;
const COLUMNS = { a: "INTEGER", b: "TEXT" };
/** One table named t, with what a test changes in it. */
const table = (change: object) => ({
  tables: { t: { key: "a", columns: COLUMNS, ...change } },
});

Deno.test("parseSchema() reads every table when given the project's schema.json", () => {
  const { tables } = parseSchema(file);
  assertEquals(
    tables.map((
      table,
    ) => [table.name, table.columns.length, table.indexes.length]),
    [
      ["app_versions", 12, 6],
      ["channels", 14, 9],
      ["channel_devices", 5, 4],
      ["apps", 10, 4],
      ["orgs", 6, 3],
      ["stripe_info", 8, 4],
      ["manifest", 5, 1],
    ],
  );
  assertEquals(tables[0]?.key, ["id"]);
  assertEquals(tables[3]?.columns.at(-1), {
    name: "transfer_history",
    type: "JSON",
  });
});

Deno.test("parseSchema() knows four types when the word is in any case, and takes the rest for TEXT", () => {
  const words: Record<string, ColumnType> = {
    integer: "INTEGER",
    "INTEGER ": "INTEGER",
    Boolean: "BOOLEAN",
    json: "JSON",
    text: "TEXT",
    jsonb: "TEXT",
    BIGINT: "TEXT",
    "numeric(30, 2)": "TEXT",
    "timestamp with time zone": "TEXT",
    "text[]": "TEXT",
  };
  for (const [word, type] of Object.entries(words)) {
    const { tables } = parseSchema(table({ columns: { a: word } }));
    assertEquals(tables[0]?.columns, [{ name: "a", type }], word);
  }
});

Deno.test("parseSchema() takes any name when PostgreSQL and SQLite can hold it", () => {
  const names = [
    `a"b`,
    "a'b; drop table t",
    "d\u00e9j\u00e0 \u{1F600}",
    "A",
    "1",
    "__proto__",
    "rowid",
    "oid",
    "x".repeat(63),
    "sqlite",
  ];
  for (const name of names) {
    const schema = parseSchema(
      JSON.parse(
        `{"tables": {${JSON.stringify(name)}: {"key": [${
          JSON.stringify(name)
        }], "columns": {${JSON.stringify(name)}: "BOOLEAN"}, "indexes": [${
          JSON.stringify(name)
        }]}}}`,
      ),
    );
    assertEquals(schema.tables, [{
      name,
      key: [name],
      columns: [{ name, type: "BOOLEAN" }],
      indexes: [[name]],
    }]);
  }
});

const REFUSED: readonly [title: string, value: unknown, problem: string][] = [
  ["null", null, "an object is expected: found null"],
  ["a list", [], "an object is expected: found an empty list"],
  ["text", "{}", `an object is expected: found "{}"`],
  ["no tables property", {}, `"tables": an object is expected: found nothing`],
  ["an empty set of tables", { tables: {} }, "there are no tables"],
  ["an unknown property", {
    tables: { t: { key: "a", columns: COLUMNS } },
    version: 1,
  }, `unknown property "version"`],
  [
    "an unknown property of a table",
    table({ primary: "a" }),
    `table "t": unknown property "primary"`,
  ],
  [
    "a table that is no object",
    { tables: { t: 1 } },
    `table "t": an object is expected: found a number`,
  ],
  [
    "an empty table name",
    { tables: { "": { key: "a", columns: COLUMNS } } },
    `table "": the name is empty`,
  ],
  ["a table name of 64 bytes", {
    tables: { ["\u00e9".repeat(32)]: { key: "a", columns: COLUMNS } },
  }, "at most 63 bytes is expected: found 64 bytes"],
  ["a name of ours", {
    tables: { _LibSQL_sync_x: { key: "a", columns: COLUMNS } },
  }, `table "_LibSQL_sync_x": names that begin with`],
  ["a name of SQLite's", {
    tables: { SQLite_x: { key: "a", columns: COLUMNS } },
  }, `table "SQLite_x": names that begin with`],
  ["a control character", {
    tables: { "t\u0000": { key: "a", columns: COLUMNS } },
  }, `table "t\\u0000": the name holds a control character`],
  ["half a character", {
    tables: { "t\ud800": { key: "a", columns: COLUMNS } },
  }, "the name holds half a character"],
  ["two tables of one name to SQLite", {
    tables: {
      t: { key: "a", columns: COLUMNS },
      T: { key: "a", columns: COLUMNS },
    },
  }, `table "T": SQLite takes its name for "t"`],
  ["two tables of one name to SQLite, capitals first", {
    tables: {
      TÉ: { key: "a", columns: COLUMNS },
      tÉ: { key: "a", columns: COLUMNS },
    },
  }, `table "tÉ": SQLite takes its name for "TÉ"`],
  [
    "two columns of one name to SQLite",
    table({ columns: { a: "TEXT", A: "TEXT" } }),
    `table "t", column "A": SQLite takes its name for "a"`,
  ],
  ["no columns", table({ columns: {} }), `table "t": there are no columns`],
  [
    "columns as a list",
    table({ columns: ["a"] }),
    `table "t", "columns": an object is expected: found a list`,
  ],
  [
    "1,001 columns",
    table({
      columns: Object.fromEntries(
        Array.from(
          { length: 1_001 },
          (_, i) => [i === 0 ? "a" : `c${i}`, "TEXT"],
        ),
      ),
    }),
    `table "t": at most 1000 columns are expected: found 1001`,
  ],
  [
    "an empty column name",
    table({ columns: { ...COLUMNS, "": "TEXT" } }),
    `table "t", column "": the name is empty`,
  ],
  [
    "a column name of 64 bytes",
    table({ columns: { ...COLUMNS, ["x".repeat(64)]: "TEXT" } }),
    "at most 63 bytes is expected: found 64 bytes",
  ],
  [
    "a line end in a column name",
    table({ columns: { ...COLUMNS, "b\n": "TEXT" } }),
    `table "t", column "b\\n": the name holds a control character`,
  ],
  [
    "SQLite's name for the row id",
    table({ columns: { ...COLUMNS, _ROWID_: "TEXT" } }),
    `table "t", column "_ROWID_": this name is SQLite's own`,
  ],
  [
    "a type that is no word",
    table({ columns: { ...COLUMNS, b: "1 = 1; --" } }),
    `table "t", column "b": a type such as`,
  ],
  [
    "an empty type",
    table({ columns: { ...COLUMNS, b: "" } }),
    `table "t", column "b": a type such as`,
  ],
  [
    "a type that is no text",
    table({ columns: { ...COLUMNS, b: null } }),
    `table "t", column "b": a type such as "INTEGER", "TEXT", "BOOLEAN" or "JSON" is expected: found null`,
  ],
  [
    "no key",
    { tables: { t: { columns: COLUMNS } } },
    `table "t": "key" is missing`,
  ],
  ["an empty key", table({ key: [] }), `table "t": "key" names no column`],
  [
    "a key that is no name",
    table({ key: 1 }),
    `table "t": "key" must be a column's name or a list of names: found a number`,
  ],
  [
    "a key column twice",
    table({ key: ["a", "a"] }),
    `table "t", column "a": "key" names it twice`,
  ],
  [
    "a key column that is not listed",
    table({ key: ["a", "z"] }),
    `table "t", column "z": "key" names it, but it is not listed`,
  ],
  [
    "a key in another case",
    table({ key: "A" }),
    `table "t", column "A": "key" names it, but it is not listed`,
  ],
  [
    "indexes that are no list",
    table({ indexes: "a" }),
    `table "t": "indexes" must be a list: found "a"`,
  ],
  [
    "an empty index",
    table({ indexes: [[]] }),
    `table "t": index 1 names no column`,
  ],
  [
    "an index column that is not listed",
    table({ indexes: ["a", ["b", "z"]] }),
    `table "t", column "z": index 2 names it, but it is not listed`,
  ],
  [
    "an index column twice",
    table({ indexes: [["b", "b"]] }),
    `table "t", column "b": index 1 names it twice`,
  ],
  [
    "the same index twice",
    table({ indexes: ["a", ["a"]] }),
    `table "t": there are two indexes on ["a"]`,
  ],
  [
    "two indexes of one name",
    table({
      columns: { ...COLUMNS, a__b: "TEXT" },
      indexes: [["a", "b"], "a__b"],
    }),
    `would be named "idx_t__a__b", as is the index on ["a","b"]`,
  ],
  ["two indexes of one name in two tables", {
    tables: {
      t: { key: "a", columns: { a: "TEXT", b__c: "TEXT" }, indexes: ["b__c"] },
      T__b: { key: "c", columns: { c: "TEXT" }, indexes: ["c"] },
    },
  }, `would be named "idx_T__b__c", as is the index on ["b__c"] of table "t"`],
  ["an index named as a table", {
    tables: {
      t: { key: "a", columns: COLUMNS, indexes: ["a"] },
      idx_t__a: { key: "a", columns: COLUMNS },
    },
  }, `would be named "idx_t__a", as is the table "idx_t__a"`],
];

for (const [title, value, problem] of REFUSED) {
  Deno.test(`parseSchema() names the place and the reason when given ${title}`, () => {
    const error = assertThrows(() => parseSchema(value), SyncError);
    assertEquals(error.code, "schema_invalid");
    assertStringIncludes(error.message, problem);
  });
}

Deno.test("parseSchema() names all problems when there are several", () => {
  const value = {
    tables: {
      t: { key: "z", columns: { a: "1" } },
      sqlite_u: { key: "a", columns: COLUMNS, indexes: ["y"] },
    },
  };
  const error = assertThrows(() => parseSchema(value), SyncError);
  assertEquals(
    error.message.replace("Cannot use schema.json: ", "").split("; "),
    [
      `table "t", column "a": a type such as "INTEGER", "TEXT", "BOOLEAN" or "JSON" is expected: found "1"`,
      `table "t", column "z": "key" names it, but it is not listed in "columns"`,
      `table "sqlite_u": names that begin with _libsql_sync or sqlite_ are reserved`,
      `table "sqlite_u", column "y": index 1 names it, but it is not listed in "columns"`,
    ],
  );
});

Deno.test("parseSchema() refuses tables that would hide SQLite's functions from our statements", () => {
  const table = { key: "a", columns: { a: "TEXT" } };
  for (const name of ["json_each", "JSON_Each", "pragma_table_info"]) {
    assertThrows(
      () => parseSchema({ tables: { [name]: table } }),
      SyncError,
      "would hide a function of SQLite's",
    );
  }
  parseSchema({ tables: { json_each_2: table, pragma: table } });
});

Deno.test("parseSchema() takes two names for two when they differ in the case of other letters than A to Z", () => {
  const columns = { "é": "TEXT", "É": "TEXT" };
  assertEquals(
    parseSchema(table({ key: "é", columns })).tables[0]?.columns.length,
    2,
  );
});

Deno.test("schemaText() is one canonical line when tables, columns and indexes are in any order", () => {
  const schema = parseSchema({
    tables: {
      u: { key: "x", columns: { x: "JSON" } },
      t: {
        key: ["b", "a"],
        columns: { b: "uuid", a: "integer" },
        indexes: [["b", "a"], "b", "a"],
      },
    },
  });
  assertEquals(
    schemaText(schema),
    `{"tables":[{"name":"t","key":["b","a"],` +
      `"columns":[{"name":"a","type":"INTEGER"},{"name":"b","type":"TEXT"}],` +
      `"indexes":[["a"],["b"],["b","a"]]},` +
      `{"name":"u","key":["x"],"columns":[{"name":"x","type":"JSON"}],"indexes":[]}]}`,
  );
});

Deno.test("schemaText() does not change when schema.json is shuffled", () => {
  const text = schemaText(parseSchema(file));
  const shuffled = fc.gen().map((gen) => ({
    tables: shuffle(file.tables, gen, ({ key, columns, indexes }) => ({
      indexes: gen(fc.shuffledSubarray, indexes as unknown[], {
        minLength: indexes.length,
      }),
      columns: shuffle(columns, gen, (type) => type.toLowerCase()),
      key: [key],
    })),
  }));
  fc.assert(
    fc.property(shuffled, (value) => {
      assertEquals(schemaText(parseSchema(value)), text);
    }),
    { seed: SEED },
  );
});

/** The same properties in another order, each of them mapped. */
function shuffle<T, U>(
  object: Record<string, T>,
  gen: fc.GeneratorValue,
  map: (value: T) => U,
): Record<string, U> {
  const entries = Object.entries(object);
  const shuffled = gen(fc.shuffledSubarray, entries, {
    minLength: entries.length,
  });
  return Object.fromEntries(
    shuffled.map(([name, value]) => [name, map(value)]),
  );
}

Deno.test("schemaHash() is 32 hex digits, and another when anything that counts changes", async () => {
  const base = { key: ["a", "b"], columns: COLUMNS, indexes: [["a", "b"]] };
  const hash = (value: unknown) => schemaHash(parseSchema(value));
  const changes = [
    {},
    { key: ["b", "a"] },
    { key: ["a"] },
    { columns: { ...COLUMNS, a: "TEXT" } },
    { columns: { ...COLUMNS, c: "TEXT" } },
    { indexes: [["b", "a"]] },
    { indexes: [] },
  ];
  const hashes = await Promise.all(
    changes.map((change) => hash(table({ ...base, ...change }))),
  );
  for (const each of hashes) assertMatch(each, /^[0-9a-f]{32}$/);
  assertEquals(new Set(hashes).size, changes.length);
  assertNotEquals(await hash({ tables: { u: base } }), hashes[0]);
  assertEquals(
    await hash(table({ ...base, columns: { b: "TEXT", a: "INTEGER" } })),
    hashes[0],
  );
});

Deno.test("schemaHash() is SHA-256 of the canonical text when computed elsewhere", async () => {
  // By sha256sum.
  const schema = parseSchema({
    tables: { t: { key: "a", columns: { a: "TEXT" } } },
  });
  assertEquals(
    schemaText(schema),
    `{"tables":[{"name":"t","key":["a"],"columns":[{"name":"a","type":"TEXT"}],"indexes":[]}]}`,
  );
  assertEquals(await schemaHash(schema), "06ae9c8bfce3bdd359b0cbecd4b461d6");
});

Deno.test("indexName() tells table and columns when there are several", () => {
  assertEquals(indexName("t", ["a"]), "idx_t__a");
  assertEquals(indexName("t", ["a", "b"]), "idx_t__a__b");
});

Deno.test("parseSchema() throws a SyncError and nothing else when given arbitrary JSON", () => {
  const parts = fc.constantFrom(
    "tables",
    "key",
    "columns",
    "indexes",
    "a",
    "t",
  );
  const values = fc.letrec((tie) => ({
    value: fc.oneof(
      { maxDepth: 5 },
      fc.constantFrom("a", "TEXT", null, 1, true),
      fc.array(tie("value")),
      fc.dictionary(parts, tie("value")),
    ),
  })).value;
  fc.assert(
    fc.property(
      fc.oneof(
        values,
        values.map((tables) => ({ tables })),
        values.map((t) => ({ tables: { t } })),
      ),
      (value) => {
        try {
          assert(parseSchema(value).tables.length > 0);
        } catch (error) {
          assert(error instanceof SyncError, String(error));
        }
      },
    ),
    { seed: SEED, numRuns: 2_000 },
  );
});
