import { assertEquals, assertThrows } from "@std/assert";
import type { Page } from "../../lib/chain/page.ts";
import { SyncError } from "../../lib/errors.ts";
import { createPagePlanner } from "../../lib/plan/page.ts";
import { SCHEMA } from "./tables.ts";

const planPage = createPagePlanner(SCHEMA);
const PAGE: Page = {
  walkGen: 3,
  kind: "backfill",
  repair: true,
  table: "item",
  half: "forward",
  starts: true,
  large: false,
  last: false,
  rows: 1,
  failed: null,
  columns: ["id", "name", "on_sale"],
  cells: [["5", "a", "t"]],
  ghosts: [],
  broken: [],
  open: [],
  upto: '{"table": "item", "half": "forward", "after": ["5"]}',
  closes: false,
};
const ROW = { fresh: "[]", rebuilding: "[]" };
const stepsOf = (page: Partial<Page>, row: Partial<typeof ROW> = {}) =>
  planPage({ ...PAGE, ...page })
    .stepsFor({ ...ROW, ...row }).map((step) =>
      step.kind === "tally" ? `tally ${step.found} ${step.ended}` : step.kind
    );

Deno.test("a page repairs and counts each step's changes right after it", () => {
  assertEquals(stepsOf({ ghosts: [["7"]] }), [
    "delete",
    "tally ghosts false",
    "repair",
    "tally differing false",
    "tally null false",
  ]);
});

Deno.test("a page of a verify writes nothing", () => {
  assertEquals(
    stepsOf({ kind: "verify", repair: false, ghosts: [["7"]] }),
    ["compare", "compare", "tally null false"],
  );
});

Deno.test("a page of an empty table drops the indexes first and looks no row up", () => {
  assertEquals(stepsOf({}, { fresh: '["item"]' }), [
    "unindex",
    "unindex",
    "upsert",
    "tally differing false",
    "tally null false",
  ]);
});

Deno.test("the last page by the replica's keys looks for keys of a wrong type, and ends the table", () => {
  assertEquals(
    stepsOf({ half: "back", last: true, cells: [], rows: 0, upto: null }),
    ["strays", "tally ghosts true"],
  );
});

Deno.test("the page that completes a rebuilt table puts it in the old one's place", () => {
  assertEquals(
    stepsOf({ half: "back", last: true, cells: [], upto: null }, {
      rebuilding: '["item"]',
    }),
    ["strays", "drop", "rename", "tally ghosts true"],
  );
});

Deno.test("a page leaves out a row that the replica refused before, but not one that is only parked", () => {
  for (const [skip, rows] of [[true, 0], [false, 1]] as const) {
    const { stepsFor } = planPage({ ...PAGE, open: [{ key: ["5"], skip }] });
    const steps = stepsFor(ROW).filter(({ kind }) => kind === "repair");
    assertEquals(steps.length, rows);
  }
});

Deno.test("a page deletes a ghost whose row the replica refused before: absence is always sent", () => {
  const open = [{ key: ["7"], skip: true }];
  assertEquals(stepsOf({ cells: [], ghosts: [["7"]], open })[0], "delete");
});

Deno.test("a page refuses what the source could not read, unless it only compares", () => {
  const broken = [{ key: ["9"], reason: "SQLSTATE XX001" }];
  const refusalsOf = (page: Partial<Page>) =>
    planPage({ ...PAGE, ...page, cells: [], broken }).refusals;
  assertEquals(refusalsOf({}), [{ table: "item", ...broken[0]! }]);
  assertEquals(refusalsOf({ repair: false }), []);
});

Deno.test("a page with other columns than the schema's is an error that names the table", () => {
  const error = assertThrows(
    () => planPage({ ...PAGE, columns: ["id", "mail"] }),
    SyncError,
    "table item",
  );
  assertEquals(error.code, "source_failed");
});
