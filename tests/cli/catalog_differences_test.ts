import { assertEquals } from "@std/assert";
import { findDifferences } from "../../lib/cli/catalog_differences.ts";
import type { CatalogTable } from "../../lib/cli/catalog_table.ts";
import { parseSchema } from "../../lib/schema.ts";

type Type = CatalogTable["columns"][number]["type"];
const column = (
  name: string,
  type: Type,
  options: { notNull?: boolean; maybeInteger?: boolean } = {},
) => ({
  name,
  type,
  typeName: `the ${type}`,
  notNull: true,
  maybeInteger: false,
  ...options,
});
const TABLE: CatalogTable = {
  name: "t",
  problem: null,
  keys: [["id"]],
  columns: [column("id", "INTEGER"), column("n", "TEXT")],
  indexes: [],
};
const find = (
  columns: Record<string, string>,
  table: Partial<CatalogTable> = {},
  key: string | string[] = "id",
) =>
  findDifferences(parseSchema({ tables: { t: { key, columns } } }), [
    { ...TABLE, ...table },
  ]);

Deno.test("findDifferences() finds none when schema.json lists less, or lists TEXT", () => {
  assertEquals(find({ id: "INTEGER", n: "TEXT" }), []);
  assertEquals(find({ id: "INTEGER" }), []);
  assertEquals(find({ id: "TEXT" }), []);
  const whole = [
    column("id", "INTEGER"),
    column("n", "TEXT", { maybeInteger: true }),
  ];
  assertEquals(find({ id: "INTEGER", n: "INTEGER" }, { columns: whole }), []);
});

Deno.test("findDifferences() names a table, column or type that does not fit", () => {
  assertEquals(find({ id: "INTEGER" }, { problem: "is a view" }), [
    'table "t": is a view',
  ]);
  assertEquals(find({ id: "INTEGER" }, { name: "other" }), [
    'table "t": is not in PostgreSQL',
  ]);
  assertEquals(find({ id: "BOOLEAN", n: "INTEGER", gone: "TEXT" }), [
    'table "t", column "id": schema.json lists BOOLEAN, and PostgreSQL\'s type the INTEGER is INTEGER',
    'table "t", column "n": schema.json lists INTEGER, and PostgreSQL\'s type the TEXT is TEXT',
    'table "t", column "gone": PostgreSQL does not have it',
  ]);
});

Deno.test("findDifferences() takes a key that contains a unique key, all of it not null", () => {
  const columns = { id: "INTEGER", n: "TEXT" };
  const refused = (key: string) => [
    `table "t": its key (${key}) is not unique and not null in PostgreSQL`,
  ];
  assertEquals(find(columns, {}, ["n", "id"]), []);
  assertEquals(find(columns, {}, "n"), refused("n"));
  assertEquals(find(columns, { keys: [["id", "n"]] }), refused("id"));
  assertEquals(
    find(columns, {
      columns: [
        column("id", "INTEGER"),
        column("n", "TEXT", { notNull: false }),
      ],
    }, ["id", "n"]),
    refused("id, n"),
  );
});
