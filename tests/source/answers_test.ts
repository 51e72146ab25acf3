import { assertEquals, assertThrows } from "@std/assert";
import { SyncError } from "../../lib/errors.ts";
import { claimOf, leaseOf, walkOf } from "../../lib/source/answers.ts";

const BATCH = {
  do: "batch",
  acked: 2,
  put_back: 1,
  epoch: "e",
  position: 5,
  batch: "b",
  prev: "a",
  drained: true,
  snapshot: "1:1:",
  source_time: "2026-01-01T00:00:00Z",
  dead_letters: 0,
  reopen: false,
  page: null,
  messages: 3,
  tables: [{
    table: "t",
    truncate: false,
    columns: ["id", "a"],
    rows: [["1", null]],
    gone: [["2"]],
    broken: [{ key: ["3"], reason: "SQLSTATE XX001" }],
  }],
  unusable: [{ table: null, reason: "no table" }],
  parked: [{ table: "t", key: ["4"], reason: "r" }],
};

Deno.test("claimOf() reads a batch as it is, but for the names of its fields", () => {
  const { source_time, dead_letters, put_back, ...same } = BATCH;
  assertEquals(claimOf(BATCH), {
    ...same,
    do: "batch",
    sourceTime: source_time,
    deadLetters: dead_letters,
    putBack: put_back,
  });
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

Deno.test("claimOf() refuses a table without each of its fields, and rows and keys that are none", () => {
  const [table] = BATCH.tables;
  const refuses = (change: object) =>
    assertThrows(
      () => claimOf({ ...BATCH, tables: [{ ...table, ...change }] }),
      SyncError,
      undefined,
      JSON.stringify(change),
    );
  for (const field of Object.keys(table!)) refuses({ [field]: undefined });
  refuses({ rows: [["1"]] });
  refuses({ rows: [["1", 2]] });
  refuses({ gone: ["2"] });
  refuses({ gone: [[2]] });
  refuses({ broken: [{ key: "3", reason: "" }] });
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
