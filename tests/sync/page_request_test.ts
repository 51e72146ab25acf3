import { assertEquals, assertRejects } from "@std/assert";
import type { PageHead } from "../../lib/chain/page.ts";
import type { ReplicaRow } from "../../lib/chain/row.ts";
import { SyncError } from "../../lib/errors.ts";
import type { Replica } from "../../lib/replica/replica.ts";
import { goesOn, requestPage } from "../../lib/sync/page_request.ts";
import { ROW } from "./filled_row.ts";

const PACE = {
  size: { rows: 1, bytes: 1 },
  pageSize: { rows: 200, bytes: 3_000 },
};
const KEYS = { keys: [["a"], ["b"]], after: ["b"], last: false };

const at = (place: Record<string, unknown>) =>
  JSON.stringify({ table: "apps", ...place });

/** Requests a page; returns the request and what the replica was asked for. */
async function request(
  change: Partial<ReplicaRow> | null,
  { isScrubbed = false, isOurs = true, count = null as number | null } = {},
) {
  const asked: unknown[] = [];
  const replica: Pick<Replica, "hasSchema" | "count" | "keys"> = {
    hasSchema: () => isOurs,
    count: (table, walkGen) => {
      asked.push(["count", table, walkGen]);
      return Promise.resolve(count);
    },
    keys: ({ table, after }, options) => {
      asked.push(["keys", table, after, options]);
      return Promise.resolve(KEYS);
    },
  };
  const page = await requestPage(
    { replica: replica as Replica, pace: PACE },
    { row: change && { ...ROW, ...change }, isScrubbed },
  );
  return { page, asked };
}

const BOUND = { rows: 200, bytes: 3_000, scrub: true };

Deno.test("requestPage() asks the replica nothing unless the walk goes by its keys", async () => {
  for (
    const change of [
      null,
      {},
      { walk_at: at({ half: "forward" }) },
      { walk_at: at({ half: "keys" }) },
    ]
  ) {
    assertEquals(await request(change), {
      page: { ...BOUND, keys: null },
      asked: [],
    });
  }
});

Deno.test("requestPage() asks nothing of a replica of another schema, not even where its walk is", async () => {
  const change = { walk_at: "not a place", damaged: true } as const;
  assertEquals(await request(change, { isOurs: false }), {
    page: { ...BOUND, keys: null },
    asked: [],
  });
});

Deno.test("requestPage() refuses a damaged row, so that the replica is altered and walked again", async () => {
  const error = await assertRejects(
    () => request({ walk_at: at({ half: "back" }), damaged: true }),
    SyncError,
  );
  assertEquals([error.code, error.retry], ["replica_schema", true]);
});

Deno.test("requestPage() sends a count instead of keys at the start of a table", async () => {
  const walk_at = at({ half: "back" });
  assertEquals(await request({ walk_at }, { count: 12 }), {
    page: { ...BOUND, keys: { at: walk_at, count: 12 } },
    asked: [["count", "apps", 3]],
  });
});

Deno.test("requestPage() sends keys when a count cannot be enough", async () => {
  const options = { keysMax: 200, rebuilding: [] as string[], walkGen: 3 };
  const counted = ["count", "apps", 3];
  const cases: [change: Partial<ReplicaRow>, asked: unknown[]][] = [
    // It cannot be counted.
    [{ walk_at: at({ half: "back" }) }, [counted, [
      "keys",
      "apps",
      null,
      options,
    ]]],
    // It was counted before, and differed.
    [{ walk_at: at({ half: "back", counted: true }) }, [[
      "keys",
      "apps",
      null,
      options,
    ]]],
    // Some of its keys were sent before.
    [{ walk_at: at({ half: "back", after: ["a"] }) }, [[
      "keys",
      "apps",
      ["a"],
      options,
    ]]],
    // Its rows are in another table until it is rebuilt.
    [{ walk_at: at({ half: "back" }), rebuilding: '["apps"]' }, [[
      "keys",
      "apps",
      null,
      { ...options, rebuilding: ["apps"] },
    ]]],
  ];
  for (const [change, asked] of cases) {
    const found = await request(change);
    assertEquals(found.asked, asked);
    assertEquals(found.page.keys, { at: change.walk_at!, ...KEYS });
  }
});

Deno.test("requestPage() reads no more keys for the scrub than it compares, and none after its page", async () => {
  const walk_at = at({ half: "back", rows: 30, counted: true });
  const { asked } = await request({ walk_at });
  assertEquals(asked, [["keys", "apps", null, {
    keysMax: 30,
    rebuilding: [],
    walkGen: 3,
  }]]);
  assertEquals(await request({ walk_at }, { isScrubbed: true }), {
    page: { ...BOUND, scrub: false, keys: null },
    asked: [],
  });
  // Another walk goes on in the same sync.
  const other = await request({ walk_at: at({ half: "back", after: ["a"] }) }, {
    isScrubbed: true,
  });
  assertEquals(other.asked.length, 1);
});

const PAGE: PageHead = {
  walkGen: 4,
  kind: "verify",
  repair: true,
  table: "apps",
  half: "forward",
  starts: false,
  large: false,
  last: false,
  rows: 10,
  failed: null,
  columns: ["id"],
  ghosts: [],
  broken: [],
  open: [],
  upto: at({ half: "forward", after: ["m"] }),
  closes: false,
};

Deno.test("goesOn() knows the pages after which another can be claimed ahead", () => {
  assertEquals(goesOn(PAGE), true);
  for (
    const change of [
      { kind: "scrub" },
      { half: "back" },
      { half: "keys" },
      { upto: null },
      { upto: at({ half: "back" }) },
      { upto: at({ table: "orgs", half: "forward" }) },
    ] as Partial<PageHead>[]
  ) {
    assertEquals(goesOn({ ...PAGE, ...change }), false, JSON.stringify(change));
  }
});
