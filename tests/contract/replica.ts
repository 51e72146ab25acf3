/**
 * What every libSQL must do for a replica, in memory or by HTTP.
 *
 * @module
 */

import { assert, assertEquals, assertRejects } from "@std/assert";
import type { Batch } from "../../lib/chain/claim.ts";
import type { ReplicaRow } from "../../lib/chain/row.ts";
import { SyncError } from "../../lib/errors.ts";
import { createPlanner } from "../../lib/plan/plan.ts";
import type { Step } from "../../lib/plan/step.ts";
import { createReplica, type Replica } from "../../lib/replica/replica.ts";
import { bare, type Database, type Statement } from "../../lib/replica/sql.ts";
import { HASHES, SCHEMAS, walkAfterBatch } from "./source.ts";

/** A libSQL with nothing in it. */
export interface LibsqlUnderTest {
  readonly database: Database;
  /** What a reader reads. */
  read(sql: string): Promise<unknown[][]>;
  close(): Promise<void>;
}

const EPOCH = "11111111-1111-4111-8111-111111111111";

/** A batch of items that follows a row. */
function batchAfter(
  row: ReplicaRow,
  rows: readonly (string | null)[][],
  columns = ["id", "name", "size"],
): Batch {
  return {
    do: "batch",
    epoch: row.epoch,
    position: row.position + 1,
    batch: `batch ${row.position + 1}`,
    prev: row.batch,
    drained: true,
    snapshot: "1:1:",
    sourceTime: "2026-01-01T00:00:00Z",
    deadLetters: 0,
    reopen: false,
    messages: 1,
    parked: [],
    tables: [{
      table: "item",
      truncate: false,
      columns,
      // Planning converts them in place.
      rows: rows.map((cells) => [...cells]),
      gone: [],
      broken: [],
    }],
    unusable: [],
    page: null,
  };
}

/** The steps of a batch. */
function stepsOf({ tables, unusable }: Batch, schema = 0): readonly Step[] {
  return createPlanner(SCHEMAS[schema]!)(tables, unusable).steps;
}

async function apply(
  replica: Replica,
  batch: Batch,
  before: ReplicaRow,
  steps: readonly Step[] = stepsOf(batch),
): Promise<ReplicaRow> {
  const walk = {
    before,
    after: walkAfterBatch(before, batch),
  };
  return (await replica.apply(batch, steps, { parked: 0, walk })).row;
}

async function codeOf(promise: Promise<unknown>): Promise<string> {
  return (await assertRejects(() => promise, SyncError)).code;
}

/**
 * Declares the tests of a libSQL.
 *
 * @param name Which one.
 * @param make Makes one with nothing in it.
 */
export function testReplica(
  name: string,
  make: () => Promise<LibsqlUnderTest>,
): void {
  const test = (
    title: string,
    run: (
      replica: Replica,
      start: ReplicaRow,
      libsql: LibsqlUnderTest,
    ) => Promise<void>,
  ) =>
    Deno.test(`${name}: ${title}`, async () => {
      const libsql = await make();
      try {
        const replica = replicaOf(libsql);
        assertEquals(await replica.probe(), null);
        const start = await replica.bootstrap({ epoch: EPOCH, wipe: false });
        await run(replica, start, libsql);
      } finally {
        await libsql.close();
      }
    });
  const replicaOf = ({ database }: LibsqlUnderTest, schema = 0) =>
    createReplica(database, {
      schema: SCHEMAS[schema]!,
      schemaHash: HASHES[schema]!,
    });
  const READ = "SELECT id, name, size FROM item ORDER BY id";

  test("bootstrap() replaces no row", async (replica, start) => {
    assertEquals([start.epoch, start.position, start.batch], [EPOCH, 0, EPOCH]);
    for (const wipe of [false, true]) {
      const late = replica.bootstrap({ epoch: "other", wipe });
      assertEquals(await codeOf(late), "replica_moved");
    }
    assertEquals((await replica.probe())!.epoch, EPOCH);
  });

  test(
    "apply() lands once, on exactly the batch before it",
    async (replica, start, { read }) => {
      const first = batchAfter(start, [["1", "a", "5"]]);
      const row = await apply(replica, first, start);
      assertEquals([row.position, row.batch, row.drained], [1, first.batch, 1]);
      assertEquals(await read(READ), [[1, "a", 5]]);
      const second = batchAfter(row, [["1", "b", null], ["2", "c", "7"]]);
      for (
        const wrong of [
          first,
          { ...second, prev: "other" },
          { ...second, position: 3 },
          { ...second, epoch: "other" },
        ]
      ) {
        assertEquals(await codeOf(apply(replica, wrong, row)), "replica_moved");
      }
      const elsewhere = { ...row, walk_gen: 7 };
      assertEquals(
        await codeOf(apply(replica, second, elsewhere)),
        "replica_moved",
      );
      assertEquals(await read(READ), [[1, "a", 5]]);
      await apply(replica, second, row);
      assertEquals(await read(READ), [[1, "b", null], [2, "c", 7]]);
      assertEquals((await replica.probe())!.position, 2);
    },
  );

  test(
    "apply() writes what differs of rows, with an index or without",
    async (_, start, libsql) => {
      const replica = replicaOf(libsql, 1);
      let row = await replica.alter({ from: start.schema_hash });
      const write = async (...rows: (string | null)[][]) => {
        const columns = ["id", "name", "size", "extra"];
        const batch = batchAfter(row, rows, columns);
        row = await apply(replica, batch, row, stepsOf(batch, 1));
        return await libsql.read(
          "SELECT id, name, size, extra FROM item ORDER BY id",
        );
      };
      await write(["1", "a", "5", null], ["2", "b", null, "e"]);
      assertEquals(
        await write(
          ["1", "a", "6", "f"],
          ["2", "b 1", null, null],
          ["3", "c", "8", null],
        ),
        [[1, "a", 6, "f"], [2, "b 1", null, null], [3, "c", 8, null]],
      );
      assertEquals(
        await write(["1", null, "6", "f"], ["3", "c", null, null]),
        [[1, null, 6, "f"], [2, "b 1", null, null], [3, "c", null, null]],
      );
      assertEquals((await replica.probe())!.position, row.position);
    },
  );

  test(
    "apply() of another schema is refused",
    async (replica, start, libsql) => {
      const newer = replicaOf(libsql, 1);
      const altered = await newer.alter({ from: HASHES[0]! });
      assertEquals([altered.schema_hash, altered.walk_done], [HASHES[1], 0]);
      const batch = batchAfter(start, [["1", "a", "5"]]);
      assertEquals(await codeOf(apply(replica, batch, start)), "replica_moved");
      assertEquals(
        await codeOf(newer.alter({ from: HASHES[0]! })),
        "replica_moved",
      );
    },
  );

  test(
    "adopt() follows from the epoch it names alone",
    async (replica, start, { read }) => {
      const batch = batchAfter(start, [["1", "a", "5"]]);
      await apply(replica, batch, start);
      const other = { epoch: "new", from: "other", wipe: true };
      assertEquals(await codeOf(replica.adopt(other)), "replica_moved");
      assertEquals(await read(READ), [[1, "a", 5]]);
      const row = await replica.adopt({ ...other, from: EPOCH });
      assertEquals([row.epoch, row.position, row.batch], ["new", 0, "new"]);
      assertEquals(await read(READ), []);
    },
  );

  test(
    "a batch that breaks a constraint is refused whole, and its row found",
    async (replica, start, { database, read }) => {
      await database.write([bare(`CREATE TRIGGER strict BEFORE INSERT ON item
WHEN NEW.name = 'bad' BEGIN SELECT RAISE(ABORT, 'no'); END`)]);
      const rows = [["1", "a", "5"], ["2", "bad", "6"], ["3", "c", "7"]];
      const batch = batchAfter(start, rows);
      const steps = stepsOf(batch);
      const error = await assertRejects(
        () => apply(replica, batch, start, steps),
        SyncError,
      );
      assertEquals(error.code, "replica_refused");
      assertEquals(replica.refusedStep(error), {
        step: 0,
        code: "SQLITE_CONSTRAINT",
      });
      assertEquals(await replica.refusedOf(steps, []), 0);
      const good = stepsOf(batchAfter(start, [["1", "a", "5"]]));
      assertEquals(await replica.refusedOf(good, []), null);
      assertEquals(await read(READ), []);
      assertEquals((await replica.probe())!.position, 0);
    },
  );

  test(
    "a table that is missing is the schema's fault",
    async (replica, start, { database }) => {
      await database.write([bare("DROP TABLE item")]);
      const batch = batchAfter(start, [["1", "a", "5"]]);
      assertEquals(
        await codeOf(apply(replica, batch, start)),
        "replica_schema",
      );
    },
  );

  test(
    "alter() lands on the tables it was planned for, or not at all",
    async (_, start, libsql) => {
      // As after a failover that lost what was there when it was planned.
      const change = "ALTER TABLE item ADD COLUMN other TEXT";
      const database = afterFirst(libsql.database, change);
      const replica = replicaOf({ ...libsql, database }, 1);
      const altering = replica.alter({ from: HASHES[0]! });
      assertEquals(await codeOf(altering), "replica_moved");
      assertEquals(await replica.probe(), start);
      const row = await replica.alter({ from: HASHES[0]! });
      assertEquals(row.schema_hash, HASHES[1]);
    },
  );

  test(
    "keys() reads on from a key, and says where they end",
    async (replica, start) => {
      const rows = ["1", "2", "3"].map((id) => [id, null, null]);
      const row = await apply(
        replica,
        batchAfter(start, rows),
        start,
      );
      assert(row !== null);
      const place = {
        table: "item",
        half: "back",
        isCounted: true,
        scrubRows: null,
      } as const;
      const options = { keysMax: 2, rebuilding: [], walkGen: 1 };
      assertEquals(await replica.keys({ ...place, after: null }, options), {
        keys: [["1"], ["2"]],
        after: ["2"],
        last: false,
      });
      assertEquals(await replica.keys({ ...place, after: ["2"] }, options), {
        keys: [["3"]],
        after: ["3"],
        last: true,
      });
    },
  );

  test(
    "no statement but the next move passes the guard",
    async (replica, start, { database }) => {
      for (
        const sql of [
          "UPDATE _libsql_sync SET position = position + 1",
          "UPDATE _libsql_sync SET epoch = 'other'",
          "UPDATE _libsql_sync SET drained = 1",
          "DELETE FROM _libsql_sync",
          "INSERT OR REPLACE INTO _libsql_sync (id, epoch, position, batch, schema_hash) VALUES (1, 'other', 0, 'other', '')",
        ]
      ) {
        await assertRejects(
          () => database.write([bare(sql)]),
          Error,
          "libsql_sync guard",
          sql,
        );
      }
      assertEquals(await replica.probe(), start);
    },
  );

  test(
    "buildIndexes() builds what is missing",
    async (replica, start, { database, read }) => {
      assert(start !== null);
      const newer = createReplica(database, {
        schema: SCHEMAS[1]!,
        schemaHash: HASHES[1]!,
      });
      const altered = await newer.alter({ from: HASHES[0]! });
      assertEquals(altered.unindexed, '["item"]');
      assert(!replica.hasSchema(altered));
      const row = await newer.buildIndexes("item", 10);
      assertEquals(row!.unindexed, "[]");
      const indexes = await read(
        "SELECT count(*) FROM sqlite_master WHERE type = 'index' AND tbl_name = 'item' AND sql IS NOT NULL",
      );
      assertEquals(indexes, [[1]]);
    },
  );

  Deno.test(`${name}: bootstrap() comes late to a replica that is being rebuilt, and changes nothing`, async () => {
    const libsql = await make();
    try {
      const { database, read } = libsql;
      // As another tool made it.
      await database.write([bare(
        "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, size TEXT)",
      )]);
      const sent: (readonly Statement[])[] = [];
      const noted = noting(database, sent);
      const replica = replicaOf({ ...libsql, database: noted });
      const start = await replica.bootstrap({ epoch: EPOCH, wipe: false });
      assertEquals(start.rebuilding, '["item"]');
      const first = batchAfter(start, [["1", "a", "5"]]);
      const row = await apply(replica, first, start);
      const bootstrap = sent.find((statements) => statements.length > 5)!;
      await assertRejects(() => database.write(bootstrap), Error);
      assertEquals(await replica.probe(), row);
      const beside = await read("SELECT count(*) FROM _libsql_sync_new_item");
      assertEquals(beside, [[1]]);
    } finally {
      await libsql.close();
    }
  });
}

/** A database that notes every batch. */
function noting(
  database: Database,
  sent: (readonly Statement[])[],
): Database {
  return {
    ...database,
    write(statements) {
      sent.push(statements);
      return database.write(statements);
    },
  };
}

/** A database after whose first batch somebody else's statement runs. */
function afterFirst(database: Database, sql: string): Database {
  let isFirst = true;
  return {
    ...database,
    async write(statements) {
      const results = await database.write(statements);
      if (isFirst) await database.write([bare(sql)]);
      isFirst = false;
      return results;
    },
  };
}
