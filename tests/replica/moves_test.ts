import { assert, assertEquals, assertThrows } from "@std/assert";
import type { WalkMove } from "../../lib/chain/walk_place.ts";
import { NOTHING } from "../../lib/replica/layout.ts";
import {
  ABORT,
  adoptStatements,
  alterStatements,
  bootstrapStatements,
  PROBE,
  stepStatement,
} from "../../lib/replica/moves.ts";
import { SCHEMA } from "../plan/tables.ts";
import { MemoryDatabase } from "../sim/libsql.ts";

const WALK: WalkMove = {
  walk_gen: 0,
  walk_at: null,
  walk_done: 0,
  fresh: '["item","part"]',
  unindexed: "[]",
  rebuilding: "[]",
};
const STEP = {
  epoch: "e",
  position: 1,
  batch: "b1",
  prev: "e",
  drained: true,
  snapshot: "1:1:",
  sourceTime: "2026-01-01T00:00:00Z",
  schemaHash: "h",
  deadLetters: 0,
};
/** The step of a batch that leaves the walk as it is. */
const step = (batch: Partial<typeof STEP> = {}, walk: Partial<WalkMove> = {}) =>
  stepStatement({ ...STEP, ...batch }, {
    before: { ...WALK, ...walk },
    after: { ...WALK, ...walk },
  });
/** A replica of epoch "e" at position 0. */
function start(): MemoryDatabase {
  const database = new MemoryDatabase();
  database.batch(bootstrapStatements(SCHEMA, {
    epoch: "e",
    schemaHash: "h",
    wipe: false,
    present: NOTHING,
  }));
  return database;
}
const rowOf = (database: MemoryDatabase) =>
  database.batch([PROBE])[0]!.rows[0]!;

Deno.test("a step lands once, on the batch before it", () => {
  withDatabase(start(), (database) => {
    database.batch([step()]);
    assertThrows(() => database.batch([step()]), Error, "guard");
    database.batch([step({ position: 2, batch: "b2", prev: "b1" })]);
    assertEquals([rowOf(database).position, rowOf(database).batch], [2, "b2"]);
  });
});

Deno.test("a step that is late, early, of a sibling, of another epoch or of another schema is refused", () => {
  for (
    const wrong of [
      { position: 0 },
      { position: 2 },
      { prev: "other" },
      { epoch: "other" },
      { schemaHash: "other" },
    ]
  ) {
    withDatabase(start(), (database) => {
      assertThrows(() => database.batch([step(wrong)]), Error);
      assertEquals(rowOf(database).position, 0, JSON.stringify(wrong));
    });
  }
});

Deno.test("a step is refused when another batch moved the walk meanwhile", () => {
  for (
    const other of [{ walk_gen: 1 }, { walk_done: 1 }, { fresh: "[]" }, {
      walk_at: '{"table": "item", "half": "back"}',
    }]
  ) {
    withDatabase(start(), (database) => {
      assertThrows(() => database.batch([step({}, other)]), Error);
    });
  }
});

Deno.test("the guard lets nobody delete the row, put another in its place or set its position", () => {
  for (
    const sql of [
      "DELETE FROM _libsql_sync",
      "INSERT OR REPLACE INTO _libsql_sync (id, epoch, position, batch, schema_hash) VALUES (1, 'x', 0, 'x', 'h')",
      "UPDATE _libsql_sync SET position = 7",
      "UPDATE _libsql_sync SET drained = 1",
      "UPDATE _libsql_sync SET walk_done = 1",
      "UPDATE _libsql_sync SET snapshot = '9:9:'",
    ]
  ) {
    withDatabase(start(), (database) => {
      assertThrows(() => database.batch([{ sql, args: [] }]), Error, "guard");
    });
  }
});

Deno.test("a start replaces no row that is there", () => {
  withDatabase(start(), (database) => {
    database.batch([step()]);
    assertThrows(() =>
      database.batch(bootstrapStatements(SCHEMA, {
        epoch: "other",
        schemaHash: "h",
        wipe: true,
        present: NOTHING,
      }))
    );
    assertEquals(rowOf(database).batch, "b1");
  });
});

Deno.test("adopt() goes to the start of the epoch it names, and only from the one it names", () => {
  withDatabase(start(), (database) => {
    database.batch([step()]);
    const move = (from: string) =>
      adoptStatements(SCHEMA, {
        epoch: "f",
        from,
        schemaHash: "h",
        wipe: false,
      });
    assertThrows(() => database.batch(move("x")), Error, "guard");
    database.batch(move("e"));
    const { epoch, position, batch, drained, walk_done, from_epoch } = rowOf(
      database,
    );
    assertEquals(
      { epoch, position, batch, drained, walk_done, from_epoch },
      {
        epoch: "f",
        position: 0,
        batch: "f",
        drained: 0,
        walk_done: 0,
        from_epoch: "e",
      },
    );
    assertThrows(
      () => database.batch([step({ position: 2, prev: "b1" })]),
      Error,
      "guard",
    );
  });
});

Deno.test("adopt() with a wipe empties the tables; without one it keeps their rows", () => {
  for (const wipe of [true, false]) {
    withDatabase(start(), (database) => {
      database.batch([{ sql: "INSERT INTO item (id) VALUES (1)", args: [] }]);
      database.batch(
        adoptStatements(SCHEMA, {
          epoch: "f",
          from: "e",
          schemaHash: "h",
          wipe,
        }),
      );
      assertEquals(database.read("SELECT count(*) FROM item"), [[
        wipe ? 0 : 1,
      ]]);
    });
  }
});

Deno.test("alter() compares the schema's hash and opens the walk", () => {
  withDatabase(start(), (database) => {
    const [{ layout }] = [{
      layout: database.read(
        "SELECT coalesce(group_concat(sql, ';'), '') FROM (SELECT sql FROM sqlite_master WHERE tbl_name NOT IN ('_libsql_sync', '_libsql_sync_walks') ORDER BY type, name)",
      )[0]![0] as string,
    }];
    const present = { ...NOTHING, layout };
    const move = (from: string) =>
      alterStatements({ tables: [] }, { from, schemaHash: "h2", present });
    assertThrows(() => database.batch(move("other")));
    database.batch(move("h"));
    const { schema_hash, walk_done, walk_at, position } = rowOf(database);
    assertEquals([schema_hash, walk_done, walk_at, position], [
      "h2",
      0,
      null,
      0,
    ]);
  });
});

Deno.test("ABORT takes back what stood before it in its batch", () => {
  withDatabase(start(), (database) => {
    assertThrows(() =>
      database.batch([
        { sql: "INSERT INTO item (id) VALUES (1)", args: [] },
        ABORT,
      ])
    );
    assert(database.read("SELECT count(*) FROM item")[0]![0] === 0);
  });
});

function withDatabase(
  database: MemoryDatabase,
  run: (database: MemoryDatabase) => void,
): void {
  try {
    run(database);
  } finally {
    database.close();
  }
}
