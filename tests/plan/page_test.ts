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
  key: ["id"],
  columns: ["id", "name", "on_sale"],
  cells: [["5", "a", "t"]],
  ghosts: [],
  oversize: [],
  open: [],
  upto: '{"table": "item", "half": "forward", "after": ["5"]}',
  closes: false,
};
const ROW = { fresh: "[]", rebuilding: "[]" };
const stepsOf = (page: Partial<Page>, row: Partial<typeof ROW> = {}) =>
  planPage({ ...PAGE, ...page }, { parked: [] })
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
    const { stepsFor } = planPage(
      { ...PAGE, open: [{ key: ["5"], skip }] },
      { parked: [] },
    );
    const steps = stepsFor(ROW).filter(({ kind }) => kind === "repair");
    assertEquals(steps.length, rows);
  }
});

Deno.test("a page with other columns than the schema's is an error that names the table", () => {
  const error = assertThrows(
    () => planPage({ ...PAGE, columns: ["id", "mail"] }, { parked: [] }),
    SyncError,
  );
  assertEquals(error.code, "source_failed");
});
