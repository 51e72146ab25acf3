import { assertEquals, assertRejects } from "@std/assert";
import { writeSchema } from "../lib/cli/schema.ts";
import { SyncError } from "../lib/errors.ts";
import { parseSchema, schemaHash, schemaText } from "../lib/schema.ts";

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
