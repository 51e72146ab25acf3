import { assertEquals } from "@std/assert";
import type { Cell } from "../../lib/chain/rows.ts";
import type { CompareStep, RowStep, Step } from "../../lib/plan/step.ts";
import { stepOf } from "../../lib/plan/step.ts";
import { NOTHING } from "../../lib/replica/layout.ts";
import { parseSchema } from "../../lib/schema.ts";
import { bootstrapStatements } from "../../lib/replica/moves.ts";
import { stepToStatement } from "../../lib/replica/statements.ts";
import {
  brokenStatement,
  comparedStatement,
  keysStatement,
} from "../../lib/replica/walk_statements.ts";
import { ITEM, PART, SCHEMA } from "../plan/tables.ts";
import { MemoryDatabase } from "../sim/libsql.ts";

const ALL = ["id", "name", "on_sale"];
const rows = (kind: RowStep["kind"], columns: string[], ...cells: Cell[][]) =>
  stepOf(
    kind,
    ITEM,
    columns,
    cells.map((row) => ({ key: null, cells: row })),
  );
const WALK = { walkGen: 1, table: ITEM };
const TALLY: Step = {
  kind: "tally",
  walk: WALK,
  found: "differing",
  rows: 2,
  ended: false,
  failed: null,
};

/** A replica with rows in table item. */
function start(...inserts: string[]): MemoryDatabase & Disposable {
  const database = new MemoryDatabase();
  database.batch(bootstrapStatements(SCHEMA, {
    epoch: "e",
    schemaHash: "h",
    wipe: false,
    present: NOTHING,
  }));
  for (const values of inserts) {
    database.batch([{ sql: `INSERT INTO item VALUES ${values}`, args: [] }]);
  }
  return Object.assign(database, { [Symbol.dispose]: () => database.close() });
}
const run = (database: MemoryDatabase, ...steps: Step[]) =>
  database.batch(steps.map((step) => stepToStatement(step)));
const items = (database: MemoryDatabase) =>
  database.read("SELECT * FROM item ORDER BY id");
const walked = (database: MemoryDatabase) =>
  database.read(
    "SELECT rows, differing, ghosts, ended FROM _libsql_sync_walks",
  )[0];

Deno.test("an upsert writes exact values of every type, and a NULL", () => {
  using database = start();
  run(
    database,
    rows("upsert", ALL, ["9007199254740993", "1.10", "1"], ["2", null, null]),
  );
  assertEquals(
    database.read(
      "SELECT CAST(id AS TEXT), typeof(id), name, typeof(name), on_sale, typeof(on_sale) FROM item ORDER BY id DESC",
    ),
    [
      ["9007199254740993", "integer", "1.10", "text", 1, "integer"],
      ["2", "integer", null, "null", null, "null"],
    ],
  );
});

Deno.test("an upsert of several rows changes only those that differ", () => {
  using database = start("(1, 'a', 1)", "(2, 'b', NULL)");
  run(
    database,
    rows("upsert", ALL, ["1", "a", "1"], ["2", "c", null], ["3", "d", "0"]),
    TALLY,
  );
  assertEquals(items(database), [[1, "a", 1], [2, "c", null], [3, "d", 0]]);
  assertEquals(walked(database), [2, 2, 0, 0]);
});

Deno.test("a repair looks like an upsert from outside, also for a value of another type", () => {
  for (
    const wrong of ["(1, 'a', '1')", "(1, x'61', 1)", "(1, 'a' || char(0), 1)"]
  ) {
    using database = start("(2, 'same', NULL)");
    // A column's affinity turns most of it around: written past it.
    database.batch([{ sql: "CREATE TABLE raw (a, b, c)", args: [] }]);
    database.batch([{ sql: `INSERT INTO raw VALUES ${wrong}`, args: [] }]);
    database.batch([{ sql: "INSERT INTO item SELECT * FROM raw", args: [] }]);
    run(database, rows("repair", ALL, ["1", "a", "1"], ["2", "same", null]));
    assertEquals(items(database), [[1, "a", 1], [2, "same", null]], wrong);
  }
});

Deno.test("an update writes whole rows whose indexed columns differ, and makes no row", () => {
  using database = start("(1, 'a', 1)", "(2, 'b', 1)");
  const step = rows("update", ALL, ["1", "c", "0"], ["2", "b", "0"], [
    "7",
    "d",
    "1",
  ]);
  const table = { ...ITEM, indexes: [["name"]] };
  run(database, { ...step, table });
  assertEquals(items(database), [[1, "c", 0], [2, "b", 1]]);
});

Deno.test("a write after an update makes the missing rows, and sets no column that has an index", () => {
  const step = rows("write", ALL, ["2", "b", "0"], ["7", "d", null]);
  const onConflict = (indexes: string[][]) => {
    using database = start("(1, 'a', 1)", "(2, 'b', 1)");
    const table = { ...ITEM, indexes };
    run(database, { ...step, table });
    const { sql } = stepToStatement({ ...step, table });
    return [sql.split("ON CONFLICT")[1], items(database)[1]];
  };
  assertEquals(onConflict([["name"]]), [
    ` ("id") DO UPDATE SET "on_sale" = excluded."on_sale" WHERE (t."on_sale") IS NOT (excluded."on_sale")`,
    [2, "b", 0],
  ]);
  assertEquals(onConflict([["id", "name"], ["on_sale"]]), [
    ` ("id") DO NOTHING`,
    [2, "b", 1],
  ]);
});

Deno.test("an update and the write after it leave what one upsert leaves", () => {
  const changed = [["1", "a", "0"], ["2", "c", "1"], ["3", "b", null]];
  const found = [["upsert"], ["update", "write"]].map((kinds) => {
    using database = start("(1, 'a', 1)", "(2, 'b', 1)", "(4, 'd', NULL)");
    const table = { ...ITEM, indexes: [["name"]] };
    for (const kind of kinds as RowStep["kind"][]) {
      run(database, { ...rows(kind, ALL, ...changed), table });
    }
    return items(database);
  });
  assertEquals(found[1], found[0]);
  assertEquals(found[0]!.length, 4);
});

Deno.test("a delete takes keys as the replica stores them", () => {
  using database = start("(1, 'a', 1)", "(10, 'b', 1)");
  run(database, rows("delete", ["id"], ["10"], ["99"]));
  assertEquals(items(database), [[1, "a", 1]]);
});

Deno.test("a step with one large row binds it cell by cell", () => {
  using database = start();
  run(
    database,
    stepOf("upsert", ITEM, ALL, [{
      key: null,
      cells: ["1", '"]}', "0"],
    }], true),
  );
  assertEquals(items(database), [[1, '"]}', 0]]);
});

Deno.test("a comparison counts rows that are missing or different, and changes none", () => {
  using database = start("(1, 'a', 1)", "(2, 'b', 1)");
  const step: CompareStep = {
    ...rows("upsert", ALL, ["1", "a", "1"], ["2", "x", "1"], ["3", "c", "1"]),
    kind: "compare",
    of: "repair",
    walk: WALK,
  };
  run(database, step);
  assertEquals(walked(database), [0, 2, 0, 0]);
  const ghosts: CompareStep = {
    ...rows("delete", ["id"], ["2"], ["3"]),
    kind: "compare",
    of: "delete",
    walk: WALK,
  };
  run(database, ghosts);
  assertEquals(walked(database), [0, 2, 1, 0]);
  assertEquals(items(database).length, 2);
});

Deno.test("a table of 1,000 columns is written, updated, repaired and compared", () => {
  const names = Array.from({ length: 999 }, (_, at) => `c${at}`);
  const schema = parseSchema({
    tables: {
      wide: {
        key: "id",
        columns: {
          id: "INTEGER",
          ...Object.fromEntries(names.map((name) => [name, "TEXT"])),
        },
        indexes: [],
      },
    },
  });
  const [table] = schema.tables;
  const database = new MemoryDatabase();
  database.batch(bootstrapStatements(schema, {
    epoch: "e",
    schemaHash: "h",
    wipe: false,
    present: NOTHING,
  }));
  const step = (kind: RowStep["kind"], value: string) =>
    stepOf(kind, table!, ["id", ...names], [{
      key: null,
      cells: ["1", ...names.map(() => value)],
    }]);
  for (const kind of ["upsert", "write", "repair"] as const) {
    run(database, step(kind, kind));
    assertEquals(database.read("SELECT c0, c998 FROM wide"), [[kind, kind]]);
  }
  for (const [value, differing] of [["repair", 0], ["other", 1]] as const) {
    const walk = { walkGen: 1, table: table! };
    run(database, {
      ...step("repair", value),
      kind: "compare",
      of: "repair",
      walk,
    });
    assertEquals(walked(database)?.[1], differing);
  }
  database.close();
});

Deno.test("strays are rows whose key has another type, and no others", () => {
  using database = start("(1, 'a', 1)");
  database.batch([{ sql: "DROP TABLE item", args: [] }]);
  database.batch([{ sql: "CREATE TABLE item (id, name, on_sale)", args: [] }]);
  database.batch([{
    sql:
      "INSERT INTO item VALUES (1, 'a', 1), ('1', 'b', 1), (1.5, 'c', 1), (x'31', 'd', 1)",
    args: [],
  }]);
  run(database, { kind: "strays", table: ITEM, repair: true, walk: WALK });
  assertEquals(items(database), [[1, "a", 1]]);
});

Deno.test("keysStatement() pages through keys in the replica's order, each once", () => {
  using database = start();
  const codes = ["a", "B", "é", "", "aa"];
  for (const code of codes) {
    database.batch([{
      sql: "INSERT INTO part VALUES (?, ?, NULL)",
      args: [1n, code],
    }]);
  }
  const seen: string[] = [];
  for (let after: string[] | null = null;;) {
    const { rows }: { rows: readonly ArrayLike<unknown>[] } = database.batch([
      keysStatement(PART, { after, keysMax: 2, rebuilding: [] }),
    ])[0]!;
    if (rows.length === 0) break;
    for (const row of rows) {
      const key: string[] = [row[0], row[1]].map((hex) =>
        new TextDecoder().decode(Uint8Array.from(
          String(hex).match(/../g) ?? [],
          (byte) => parseInt(byte, 16),
        ))
      );
      seen.push(key[1]!);
      after = key;
    }
  }
  assertEquals(seen, ["", "B", "a", "aa", "é"]);
});

Deno.test("brokenStatement() deletes a key that is not UTF-8, and no other", () => {
  using database = start();
  database.batch([{
    sql:
      "INSERT INTO part VALUES (1, CAST(x'ff' AS TEXT), NULL), (1, 'ok', NULL)",
    args: [],
  }]);
  database.batch([brokenStatement(PART, [["31", "ff"]], [])]);
  assertEquals(database.read("SELECT code FROM part"), [["ok"]]);
});

Deno.test("comparedStatement() answers a count only while the walk has found no difference", () => {
  using database = start("(1, 'a', 1)");
  const count = () =>
    database.batch([comparedStatement(ITEM, 1)])[0]!.rows.length;
  assertEquals(count(), 1);
  run(database, rows("upsert", ALL, ["1", "b", "1"]), TALLY);
  assertEquals(count(), 0);
});
