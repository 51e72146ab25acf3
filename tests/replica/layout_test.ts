import { assertEquals } from "@std/assert";
import {
  INSPECT,
  LAYOUT,
  NOTHING,
  type Present,
  schemaChanges,
} from "../../lib/replica/layout.ts";
import { parseSchema } from "../../lib/schema.ts";
import { MemoryDatabase } from "../sim/libsql.ts";

const schemaOf = (
  columns: Record<string, string>,
  indexes: string[] = [],
  key = "id",
) => parseSchema({ tables: { t: { key, columns, indexes } } });

/** What a database has, read as the worker reads it. */
function presentIn(database: MemoryDatabase): Present {
  const columns = new Map<string, { type: string; isKey: boolean }>();
  const indexes = new Set<string>();
  for (const [table, name, type, pk] of database.read(INSPECT.sql)) {
    if (table === null) indexes.add(name as string);
    else {
      columns.set(`${table}\u0000${name}`, {
        type: type as string,
        isKey: Number(pk) > 0,
      });
    }
  }
  return {
    layout: database.read(`SELECT ${LAYOUT}`)[0]![0] as string,
    columns,
    indexes,
  };
}

/** Brings a database to a schema; returns what is left to do. */
function bring(database: MemoryDatabase, schema: ReturnType<typeof schemaOf>) {
  const { statements, ...rest } = schemaChanges(schema, presentIn(database));
  database.batch(statements);
  return rest;
}

Deno.test("schemaChanges() creates what is missing, and nothing the second time", () => {
  const database = new MemoryDatabase();
  const schema = schemaOf({ id: "INTEGER", a: "TEXT" }, ["a"]);
  assertEquals(bring(database, schema), {
    fresh: ["t"],
    unindexed: [],
    rebuilding: [],
  });
  const again = schemaChanges(schema, presentIn(database));
  assertEquals(again, {
    statements: [],
    fresh: [],
    unindexed: [],
    rebuilding: [],
  });
  database.close();
});

Deno.test("schemaChanges() adds a column in place and keeps one that is no longer listed", () => {
  const database = new MemoryDatabase();
  bring(database, schemaOf({ id: "INTEGER", a: "TEXT" }));
  database.batch([{ sql: "INSERT INTO t VALUES (1, 'kept')", args: [] }]);
  assertEquals(
    bring(database, schemaOf({ id: "INTEGER", b: "INTEGER" })).rebuilding,
    [],
  );
  assertEquals(database.read("SELECT id, a, b FROM t"), [[1, "kept", null]]);
  database.close();
});

Deno.test("schemaChanges() rebuilds beside the old table when a type or the key changed", () => {
  for (
    const changed of [
      schemaOf({ id: "INTEGER", a: "INTEGER" }),
      schemaOf({ id: "INTEGER", a: "TEXT" }, [], "a"),
    ]
  ) {
    const database = new MemoryDatabase();
    bring(database, schemaOf({ id: "INTEGER", a: "TEXT" }));
    database.batch([{ sql: "INSERT INTO t VALUES (1, '1')", args: [] }]);
    assertEquals(bring(database, changed).rebuilding, ["t"]);
    assertEquals(database.read("SELECT typeof(a) FROM t"), [["text"]]);
    database.close();
  }
});

Deno.test("schemaChanges() asks for an index that is missing to be built later", () => {
  const database = new MemoryDatabase();
  bring(database, schemaOf({ id: "INTEGER", a: "TEXT" }));
  assertEquals(
    bring(database, schemaOf({ id: "INTEGER", a: "TEXT" }, ["a"])).unindexed,
    ["t"],
  );
  database.close();
});

Deno.test("schemaChanges() keeps a column whose declared type stores the same", () => {
  for (
    const [declared, type, rebuilds] of [
      ["BIGINT", "INTEGER", false],
      ["VARCHAR(9)", "TEXT", false],
      ["NUMERIC", "INTEGER", false],
      ["REAL", "INTEGER", true],
      ["", "TEXT", true],
      ["NUMERIC", "TEXT", true],
    ] as const
  ) {
    const columns = new Map([
      ["t\u0000id", { type: "INTEGER", isKey: true }],
      ["t\u0000a", { type: declared, isKey: false }],
    ]);
    const { rebuilding } = schemaChanges(
      schemaOf({ id: "INTEGER", a: type }),
      { ...NOTHING, columns },
    );
    assertEquals(rebuilding.length > 0, rebuilds, `${declared} as ${type}`);
  }
});
