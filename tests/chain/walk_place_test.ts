import { assertEquals, assertThrows } from "@std/assert";
import type { PageHead } from "../../lib/chain/page.ts";
import {
  namesIn,
  parsePlace,
  walkAfter,
  type WalkMove,
} from "../../lib/chain/walk_place.ts";

const ROW: WalkMove = {
  walk_gen: 3,
  walk_at: null,
  walk_done: 0,
  fresh: '["a","b"]',
  unindexed: "[]",
  rebuilding: "[]",
};
const PAGE: PageHead = {
  walkGen: 4,
  kind: "backfill",
  repair: true,
  table: "a",
  half: "forward",
  starts: true,
  large: false,
  last: false,
  rows: 1,
  failed: null,
  columns: ["id"],
  ghosts: [],
  broken: [],
  open: [],
  upto: '{"table": "a", "half": "forward", "after": ["5"]}',
  closes: false,
};
const after = (page: Partial<PageHead> | null, row: Partial<WalkMove> = {}) =>
  walkAfter({ ...ROW, ...row }, {
    page: page && { ...PAGE, ...page },
    reopen: false,
  });

Deno.test("walkAfter() leaves the walk alone without a page", () => {
  assertEquals(after(null, { walk_done: 1 }), { ...ROW, walk_done: 1 });
});

Deno.test("walkAfter() stores the page's place, and its table's indexes as to be built", () => {
  assertEquals(after({}), {
    ...ROW,
    walk_gen: 4,
    walk_at: PAGE.upto,
    unindexed: '["a"]',
  });
});

Deno.test("walkAfter() takes a table that was walked out of the empty ones", () => {
  assertEquals(after({ upto: null, half: "back" }).fresh, '["b"]');
});

Deno.test("walkAfter() is done only with the page that closes, and stays done with one that does not", () => {
  assertEquals(after({ closes: true, upto: null }).walk_done, 1);
  assertEquals(after({ closes: false }, { walk_done: 1 }).walk_done, 1);
  assertEquals(after({ closes: false }).walk_done, 0);
});

Deno.test("walkAfter() starts over when something bypassed the queue, and trusts no table to be free of ghosts", () => {
  const row = { ...ROW, walk_done: 1, walk_at: PAGE.upto };
  assertEquals(
    walkAfter(row, { page: { ...PAGE }, reopen: true, drained: true }),
    { ...ROW, walk_at: null, walk_done: 0, fresh: "[]" },
  );
});

Deno.test("walkAfter() knows an epoch's first batch: tables that it does not touch have no ghosts", () => {
  const batch = { page: null, reopen: true, drained: true, touched: ["a"] };
  assertEquals(walkAfter({ ...ROW, position: 0 }, batch).fresh, '["b"]');
  assertEquals(walkAfter({ ...ROW, position: 1 }, batch).fresh, "[]");
});

Deno.test("walkAfter() searches a table for ghosts when one of its rows is parked", () => {
  const parked = [{ table: "b" }];
  assertEquals(
    walkAfter(ROW, { page: null, reopen: false, parked }).fresh,
    '["a"]',
  );
});

Deno.test("parsePlace() and namesIn() refuse other JSON", () => {
  for (
    const text of [
      "null",
      "5",
      '{"table": "a"}',
      '{"table": "a", "half": "up"}',
      '{"table": "a", "half": "back", "after": [5]}',
    ]
  ) assertThrows(() => parsePlace(text));
  for (const text of ["{}", '["a", 5]', "null"]) {
    assertThrows(() => namesIn(text));
  }
});
