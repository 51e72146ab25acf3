import { assertEquals } from "@std/assert";
import type { Cell } from "../../lib/chain/message.ts";
import type { Changes } from "../../lib/plan/change.ts";
import { fold } from "../../lib/plan/fold.ts";
import { ITEM } from "./tables.ts";

const NO_ROWS = { columns: [], cells: [] };
const ALL = ["id", "name", "on_sale"];
const change = (msgId: string, what: Partial<Changes>): Changes => ({
  msgId,
  table: ITEM,
  truncate: false,
  deletes: [],
  oversize: [],
  upserts: NO_ROWS,
  updates: NO_ROWS,
  ...what,
});
const row = (...cells: Cell[]) => ({
  upserts: { columns: ALL, cells: [cells] },
});
const update = (columns: string[], ...cells: Cell[]) => ({
  updates: { columns, cells: [cells] },
});
/** What becomes of each key: its cells by name, or what else. */
const fates = (...batch: Changes[]) => {
  const [of] = fold(batch).tables;
  return [...of!.keys].map(([name, { columns, cells, isUpdate, gone }]) => ({
    name,
    row: cells && Object.fromEntries(columns.map((c, at) => [c, cells[at]])),
    isUpdate,
    gone,
  }));
};

Deno.test("fold() lays the columns of an update over the row before it, and leaves the others", () => {
  assertEquals(
    fates(
      change("1", row("5", "a", "true")),
      change("2", update(["id", "name"], "5", "b")),
    ),
    [{
      name: "5",
      row: { id: "5", name: "b", on_sale: "true" },
      isUpdate: false,
      gone: false,
    }],
  );
});

Deno.test("fold() keeps an update an update when the row was there before the batch", () => {
  const [fate] = fates(
    change("1", update(["id", "name"], "5", "b")),
    change("2", update(["id", "on_sale"], "5", "f")),
  );
  assertEquals(fate, {
    name: "5",
    row: { id: "5", name: "b", on_sale: "f" },
    isUpdate: true,
    gone: false,
  });
});

Deno.test("fold() makes no row of an update that comes after the row's delete", () => {
  const [fate] = fates(
    change("1", { deletes: [["5"]] }),
    change("2", update(["id", "name"], "5", "b")),
  );
  assertEquals([fate!.row, fate!.gone], [null, true]);
});

Deno.test("fold() deletes first when a row goes and comes again in one batch", () => {
  const [fate] = fates(
    change("1", { deletes: [["5"]] }),
    change("2", row("5", "again", null)),
  );
  assertEquals([fate!.row?.name, fate!.gone], ["again", true]);
});

Deno.test("fold() takes different texts of one integer for one key", () => {
  assertEquals(
    fates(
      change("1", row("5", "a", null)),
      change("2", row("5.00", "b", null)),
    ).map(({ name, row }) => [name, row!.name]),
    [["5", "b"]],
  );
});

Deno.test("fold() forgets what came before a truncate", () => {
  const { tables: [of] } = fold([
    change("1", row("5", "a", null)),
    change("2", { truncate: true }),
    change("3", row("6", "b", null)),
  ]);
  assertEquals([of!.truncate, [...of!.keys.keys()]], [true, ["6"]]);
});

Deno.test("fold() refuses a key that the replica cannot hold, and keeps the rest of the message", () => {
  const folded = fold([
    change("1", {
      upserts: { columns: ALL, cells: [["x", "a", null], ["6", "b", null]] },
    }),
  ]);
  assertEquals([...folded.tables[0]!.keys.keys()], ["6"]);
  assertEquals(folded.refusals.map(({ msgId, key }) => [msgId, key]), [
    ["1", ["x"]],
  ]);
});
