import { assertEquals } from "@std/assert";
import { compareReplica, type Replica } from "../../lib/cli/compare_replica.ts";
import { parseSchema } from "../../lib/schema.ts";

const EXPECTED = {
  schema: parseSchema({
    tables: {
      apps: { key: "id", columns: { id: "TEXT", name: "TEXT" }, indexes: [] },
      orgs: {
        key: "id",
        columns: { id: "TEXT", name: "TEXT" },
        indexes: ["name"],
      },
    },
  }),
  hash: "h",
  source: { epoch: "e", position: 7 },
};
const REPLICA: Replica = {
  row: { epoch: "e", position: 5, schema_hash: "h", unindexed: null },
  columns: new Map([
    ["apps", new Set(["id", "name"])],
    ["orgs", new Set(["id", "name"])],
    ["_libsql_sync", new Set(["id"])],
    ["by_hand", new Set(["id"])],
  ]),
  indexes: new Set(["idx_orgs__name", "by_hand"]),
  guards: 3,
};
const row = REPLICA.row!;
/** The findings, as "level name: found". */
const linesOf = (replica: Partial<Replica>, expected = {}) =>
  compareReplica({ ...REPLICA, ...replica }, { ...EXPECTED, ...expected })
    .map(({ level, name, found }) => `${level} ${name}: ${found}`);
/** Those that are not fine. */
const troublesOf = (replica: Partial<Replica>, expected = {}) =>
  linesOf(replica, expected).filter((line) => !line.startsWith("ok"));

Deno.test("compareReplica() finds nothing wrong with a replica that fits", () => {
  assertEquals(linesOf({}), [
    "ok replica here: it answers, at position 5 of 7",
    "ok replica's tables: 2, with every column",
    "ok replica's indexes: all are there",
  ]);
  assertEquals(
    linesOf({}, { source: null })[0],
    "ok replica here: it answers, at position 5",
  );
});

Deno.test("compareReplica() looks no further before the first sync", () => {
  assertEquals(linesOf({ row: null, columns: new Map() }), [
    "warning replica here: it answers, and had no sync yet",
  ]);
});

Deno.test("compareReplica() names each thing that does not fit", () => {
  const columns = (...pairs: [string, string[]][]) =>
    new Map(pairs.map(([table, names]) => [table, new Set(names)]));
  const cases: [Partial<Replica>, string][] = [
    [
      { row: { ...row, epoch: "other" } },
      "warning replica here: it follows another epoch than the one in force",
    ],
    [
      { row: { ...row, schema_hash: "old" } },
      "warning replica's schema: differs from schema.json here",
    ],
    [{ guards: 2 }, "error replica's guard: has 2 of 3 triggers"],
    [
      { columns: columns(["apps", ["id"]], ["orgs", ["id", "name"]]) },
      "error replica's tables: lacks apps.name",
    ],
    [
      { indexes: new Set() },
      "warning replica's indexes: lacks idx_orgs__name",
    ],
    [
      {
        columns: columns(["apps", ["id", "name", "x"]], ["orgs", [
          "name",
          "id",
        ]]),
      },
      "warning replica's columns: schema.json does not list apps.x; the worker leaves them as they are",
    ],
  ];
  for (const [replica, line] of cases) {
    assertEquals(troublesOf(replica), [line]);
  }
  // What a table that is not there would have besides is not named again.
  assertEquals(
    troublesOf({
      columns: columns(["apps", ["id", "name"]]),
      indexes: new Set(),
    }),
    ["error replica's tables: lacks orgs"],
  );
});

Deno.test("compareReplica() leaves an index to the worker while its table is filled", () => {
  const advice = (unindexed: string) =>
    compareReplica({
      ...REPLICA,
      row: { ...row, unindexed },
      indexes: new Set(),
    }, EXPECTED).find(({ name }) => name === "replica's indexes")!.advice!;
  assertEquals(advice("[]"), "run CREATE INDEX by hand");
  assertEquals(advice('["orgs"]').startsWith("the worker makes them"), true);
});
