import { assertEquals, assertThrows } from "@std/assert";
import { SyncError } from "../../lib/errors.ts";
import { claimOf, leaseOf, walkOf } from "../../lib/source/answers.ts";

const BATCH = {
  do: "batch",
  acked: 2,
  kind: "new",
  epoch: "e",
  position: 5,
  batch: "b",
  prev: "a",
  drained: true,
  snapshot: "1:1:",
  source_time: "2026-01-01T00:00:00Z",
  dead_letters: 0,
  parked: [],
  reopen: false,
  page: null,
  messages: [["7", { v: 1 }], [["8", "9"], {
    v: 1,
    columns: ["id"],
    rows: [["1"], ["2"]],
  }]],
};

Deno.test("claimOf() reads a batch, and counts the messages that came as one", () => {
  const claim = claimOf(BATCH);
  assertEquals(claim.do === "batch" && claim.messageCount, 3);
});

Deno.test("claimOf() refuses a batch without each of its fields", () => {
  for (const field of Object.keys(BATCH)) {
    if (field === "page") continue;
    const error = assertThrows(
      () => claimOf({ ...BATCH, [field]: undefined }),
      SyncError,
      undefined,
      field,
    );
    assertEquals(error.code, "source_failed", field);
  }
});

Deno.test("claimOf() refuses a verb and a stop code that it does not know", () => {
  assertThrows(() => claimOf({ do: "explode", acked: 0 }), SyncError);
  assertThrows(
    () => claimOf({ do: "stop", acked: 0, error: "because" }),
    SyncError,
  );
});

Deno.test("claimOf() refuses messages that came as one with fewer ids than rows", () => {
  const messages = [[["8"], { columns: ["id"], rows: [["1"], ["2"]] }]];
  assertThrows(() => claimOf({ ...BATCH, messages }), SyncError);
});

Deno.test("leaseOf() names both versions when the functions are of another one", () => {
  const error = assertThrows(
    () => leaseOf({ do: "other_version", version: 99 }),
    SyncError,
    "99",
  );
  assertEquals(error.code, "version_mismatch");
});

Deno.test("walkOf() is null for a table that is not listed", () => {
  assertEquals(walkOf({ do: "unknown_table" }), null);
  assertThrows(() => walkOf({ do: "requested", tables: ["t"] }), SyncError);
});
