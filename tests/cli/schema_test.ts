import { formatJson } from "../../lib/cli/format_json.ts";
import { assertEquals, assertRejects } from "@std/assert";
import {
  mergeTables,
  parseSchemaArgs,
  type SchemaOptions,
} from "../../lib/cli/schema.ts";
import { writeSchema } from "../../lib/cli/migration_text.ts";
import { SyncError } from "../../lib/errors.ts";
import { parseSchema, schemaHash, schemaText } from "../../lib/schema.ts";

const schemaOf = (name: string) =>
  parseSchema({ tables: { [name]: { key: "a", columns: { a: "TEXT" } } } });
const migrationOf = (between: string) =>
  `begin;\n-- schema.json begins\n${between}-- schema.json ends\ncommit;\n`;

Deno.test("writeSchema() puts one statement between the markers when there was none, one or more", async () => {
  const schema = schemaOf("t");
  const expected = migrationOf(
    `select libsql_sync.configure('${await schemaHash(schema)}', $schema$${
      schemaText(schema)
    }$schema$);\n`,
  );
  for (
    const before of [
      "",
      "select 1;\n",
      "select 1;\n\nselect 2;\n",
      expected.split("\n")[2] + "\n",
    ]
  ) {
    assertEquals(await writeSchema(migrationOf(before), schema), expected);
  }
});

Deno.test("writeSchema() chooses a tag that the text does not hold", async () => {
  for (
    const [name, tag] of [["$schema", "$schema$"], ["$schema$", "$schema1$"], [
      "$schema$ $schema1$",
      "$schema2$",
    ]] as const
  ) {
    const schema = schemaOf(name);
    const line = (await writeSchema(migrationOf(""), schema)).split("\n")[2]!;
    const parts = line.split(tag);
    assertEquals(parts.length, 3);
    assertEquals(parts[1], schemaText(schema));
    assertEquals(parts[2], ");");
  }
});

Deno.test("writeSchema() refuses a migration when a marker line is missing, doubled or misplaced", async () => {
  const broken = [
    "",
    "-- schema.json begins\n",
    "-- schema.json ends\n",
    "-- schema.json begins\n" + migrationOf(""),
    migrationOf("") + "-- schema.json ends\n",
    "-- schema.json ends\n-- schema.json begins\n",
    "see -- schema.json begins\n-- schema.json ends\n",
  ];
  for (const text of broken) {
    const error = await assertRejects(
      () => writeSchema(text, schemaOf("t")),
      SyncError,
    );
    assertEquals(error.code, "schema_invalid");
  }
});

Deno.test("parseSchemaArgs() understands what the usage says, and nothing else", () => {
  const plain = { from: null, check: false, migration: false };
  const understood: [string, SchemaOptions][] = [
    ["", plain],
    ["--check", { ...plain, check: true }],
    ["--migration", { ...plain, migration: true }],
    ["--from postgres a", { ...plain, from: ["a"] }],
    ["--from postgres a b --migration", {
      from: ["a", "b"],
      check: false,
      migration: true,
    }],
  ];
  for (const [line, expected] of understood) {
    assertEquals(parseSchemaArgs(line.split(" ").filter(Boolean)), expected);
  }
  for (
    const line of [
      "a",
      "--help",
      "--check --check",
      "--check --migration",
      "--from",
      "--from postgres",
      "--from mysql a",
      "--from postgres a a",
      "--from postgres a --check",
      "--from postgres a -x",
    ]
  ) assertEquals(parseSchemaArgs(line.split(" ")), null, line);
});

Deno.test("formatJson() writes schema.json as it stands in the repository", () => {
  const text = `{
  "tables": {
    "t": {
      "key": ["a", "b"],
      "columns": {
        "a": "TEXT"
      },
      "indexes": [
        "a_column_with_a_name",
        ["another_column_with_a_name", "and_a_third_one"]
      ],
      "none": [],
      "nothing": {}
    }
  }
}
`;
  assertEquals(formatJson(JSON.parse(text)), text);
});

Deno.test("mergeTables() keeps what is not named, in its place, and adds the new by name", () => {
  const before = { tables: { z: 1, b: 2, m: 3 } };
  const after = mergeTables(before, { y: 9, b: 8, a: 7 });
  assertEquals(Object.entries(after.tables), [
    ["z", 1],
    ["b", 8],
    ["m", 3],
    ["a", 7],
    ["y", 9],
  ]);
  assertEquals(before.tables.b, 2);
});
