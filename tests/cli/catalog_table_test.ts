import { assertEquals } from "@std/assert";
import {
  type CatalogRow,
  refusalOf,
  tableOf,
  tableValue,
} from "../../lib/cli/catalog_table.ts";

const ROW: CatalogRow = {
  name: "t",
  kind: "r",
  partition: false,
  inherits: false,
  keys: [["id"]],
  columns: [],
  indexes: [],
};
const column = (name: string, type: "TEXT" | "INTEGER" = "TEXT") => ({
  name,
  type,
  typeName: "x",
  notNull: true,
  maybeInteger: false,
});

Deno.test("tableOf() names why a relation cannot be replicated", () => {
  for (
    const [change, problem] of [
      [{}, null],
      [{ kind: "p" }, null],
      [{ kind: null }, "is not in PostgreSQL's schema public"],
      [{ kind: "v" }, "is a view"],
      [{ kind: "m" }, "is a materialized view"],
      [{ kind: "f" }, "is a foreign table"],
      [{ kind: "S" }, "is no table"],
      [{ inherits: true }, "takes part in table inheritance"],
      [{ partition: true }, "is a partition: list the partitioned table"],
      // A partition of a table that inherits as well: the deeper reason.
      [{ inherits: true, partition: true }, "takes part in table inheritance"],
    ] as const
  ) {
    assertEquals(tableOf({ ...ROW, ...change }).problem, problem);
  }
});

Deno.test("refusalOf() asks for a key last", () => {
  const keyless = tableOf({ ...ROW, keys: [] });
  assertEquals(
    refusalOf(keyless),
    "has no primary key, and no unique key whose columns are all not null",
  );
  assertEquals(refusalOf({ ...keyless, problem: "is a view" }), "is a view");
  assertEquals(refusalOf(tableOf(ROW)), null);
});

Deno.test("tableValue() takes the best key, every column in its order, and each index once", () => {
  const value = tableValue({
    ...tableOf(ROW),
    keys: [["b", "a"], ["c"]],
    columns: [column("c"), column("a", "INTEGER"), column("b")],
    indexes: [["b", "a"], ["c"], ["a", "b"], ["c"], ["a"]],
  });
  assertEquals(value, {
    key: ["b", "a"],
    columns: { c: "TEXT", a: "INTEGER", b: "TEXT" },
    indexes: ["c", ["a", "b"], "a"],
  });
  assertEquals(Object.keys(value.columns), ["c", "a", "b"]);
});
