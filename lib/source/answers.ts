/**
 * Ring 0. What the source answers, checked and typed.
 *
 * Promise: no flow acts on an answer that is not one of these.
 *
 * @module
 */

import {
  type Batch,
  type Claim,
  CONTRACT,
  type Ended,
  type Lease,
  type Queued,
  type RequestedWalk,
  type Reset,
  type StopCode,
} from "../chain/claim.ts";
import { type Broken, isCells, type TableRows } from "../chain/rows.ts";
import type { Page, WalkKind } from "../chain/page.ts";
import { SyncError } from "../errors.ts";
import { dueOf } from "./due.ts";
import { type Fields, readFields } from "./field_reader.ts";

const STOP_CODES: readonly string[] = [
  "replica_foreign",
  "replica_ahead",
  "schema_outdated",
  "schema_unknown",
];

/**
 * Reads the answer of `lease`.
 *
 * @param value The answer.
 * @returns The lease.
 * @throws {SyncError} `source_failed`, or `version_mismatch` if the functions are of
 * another version.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const granted = { do: "granted" as const, epoch: "e", scrub: true, brief: false };
 * assertEquals(leaseOf(granted), granted);
 * ```
 */
export function leaseOf(value: unknown): Lease {
  const answer = readFields(value);
  if (answer.value("do") === "other_version") {
    throw new SyncError(
      "version_mismatch",
      `Cannot sync: expected source functions of version ${CONTRACT}, found ${
        answer.number("version")
      }; run the migration that belongs to this worker, or deploy the worker that belongs to it`,
    );
  }
  const epoch = answer.text("epoch");
  return answer.oneOf("do", ["granted", "busy"]) === "granted"
    ? {
      do: "granted",
      epoch,
      scrub: answer.value("scrub") !== false,
      brief: answer.value("brief") === true,
    }
    : {
      do: "busy",
      epoch,
      followed: answer.flag("followed"),
      paused: answer.flag("paused"),
      ...queuedIn(answer),
    };
}

/**
 * Reads the answer of `release`.
 *
 * @param value The answer.
 * @returns How many messages wait, and the alerts to send.
 * @throws {SyncError} `source_failed`: a field is missing or has another type.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(endedOf({ queued: 0, queued_exact: true }), { queued: 0, queuedExact: true, due: null });
 * ```
 */
export function endedOf(value: unknown): Ended {
  return { ...queuedIn(readFields(value)), due: dueOf(value) };
}

/**
 * Reads the answer of `request_redrive`.
 *
 * @param value The answer.
 * @returns How many dead letters are tried again.
 * @throws {SyncError} `source_failed`: a field is missing or has another type.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(triedOf({ tried: 2 }), 2);
 * ```
 */
export function triedOf(value: unknown): number {
  return readFields(value).number("tried");
}

/**
 * Reads the answer of `park`.
 *
 * @param value The answer.
 * @returns Whether the rows were parked; otherwise the batch does not stand on the head.
 * @throws {SyncError} `source_failed`: a field is missing or has another type.
 *
 * @example
 * ```ts
 * import { assert } from "@std/assert";
 *
 * assert(isParked({ do: "parked" }));
 * ```
 */
export function isParked(value: unknown): boolean {
  return readFields(value).oneOf("do", ["parked", "gone"]) === "parked";
}

/**
 * Reads the answer of `reset`.
 *
 * @param value The answer.
 * @returns The epoch that is in force, and whether this call began it.
 * @throws {SyncError} `source_failed`: a field is missing or has another type.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(resetOf({ do: "begun", epoch: "e" }), { do: "begun", epoch: "e" });
 * ```
 */
export function resetOf(value: unknown): Reset {
  const answer = readFields(value);
  return {
    do: answer.oneOf("do", ["begun", "moved"]),
    epoch: answer.text("epoch"),
  };
}

/**
 * Reads the answer of `request_walk`.
 *
 * @param value The answer.
 * @returns The walk; null where the table is not listed.
 * @throws {SyncError} `source_failed`: a field is missing or has another type.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const walk = walkOf({ do: "requested", walk_gen: 7, tables: ["t"] });
 * assertEquals(walk, { walkGen: 7, tables: ["t"] });
 * assertEquals(walkOf({ do: "unknown_table" }), null);
 * ```
 */
export function walkOf(value: unknown): RequestedWalk | null {
  const answer = readFields(value);
  const requested = answer.oneOf("do", ["requested", "unknown_table"]);
  if (requested === "unknown_table") return null;
  return {
    walkGen: answer.number("walk_gen"),
    tables: answer.texts("tables"),
  };
}

/**
 * Reads the answer of `claim`.
 *
 * @param value The answer.
 * @returns What to do next.
 * @throws {SyncError} `source_failed`: a field is missing or has another type.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const claim = claimOf({ do: "busy", acked: 2, put_back: 0 });
 * assertEquals(claim, { do: "busy", acked: 2, putBack: 0 });
 * ```
 */
export function claimOf(value: unknown): Claim {
  const answer = readFields(value);
  const settled = {
    acked: answer.number("acked"),
    putBack: answer.number("put_back"),
  };
  const verb = answer.oneOf("do", [
    "batch",
    "bootstrap",
    "adopt",
    "alter",
    "idle",
    "settled",
    "none",
    "busy",
    "stop",
  ]);
  switch (verb) {
    case "batch":
      return { ...settled, ...batchOf(answer) };
    case "bootstrap":
      return {
        ...settled,
        do: verb,
        epoch: answer.text("epoch"),
        wipe: answer.flag("wipe"),
      };
    case "adopt":
      return {
        ...settled,
        do: verb,
        epoch: answer.text("epoch"),
        from: answer.text("from"),
        wipe: answer.flag("wipe"),
        reason: answer.text("reason"),
      };
    case "alter":
      return { ...settled, do: verb, from: answer.text("from") };
    case "idle":
    case "settled":
      return { ...settled, do: verb, ...endedOf(value) };
    case "busy":
    case "none":
      return { ...settled, do: verb };
    case "stop":
      return {
        ...settled,
        do: verb,
        error: answer.oneOf("error", STOP_CODES) as StopCode,
      };
  }
}

function batchOf(answer: Fields): Batch {
  return {
    do: "batch",
    epoch: answer.text("epoch"),
    position: answer.number("position"),
    batch: answer.text("batch"),
    prev: answer.text("prev"),
    drained: answer.flag("drained"),
    snapshot: answer.text("snapshot"),
    sourceTime: answer.text("source_time"),
    deadLetters: answer.number("dead_letters"),
    reopen: answer.flag("reopen"),
    messages: answer.number("messages"),
    tables: answer.list("tables").map((of) => tableOf(readFields(of))),
    parked: answer.list("parked").map(readFields).map((of) => ({
      table: of.textOrNull("table"),
      key: of.cells("key"),
      reason: of.text("reason"),
    })),
    unusable: answer.list("unusable").map(readFields).map((of) => ({
      table: of.textOrNull("table"),
      reason: of.text("reason"),
    })),
    page: answer.value("page") == null
      ? null
      : pageOf(readFields(answer.value("page"))),
  };
}

function tableOf(answer: Fields): TableRows {
  const columns = answer.texts("columns");
  return {
    table: answer.text("table"),
    truncate: answer.flag("truncate"),
    columns,
    rows: answer.rows("rows", columns.length),
    gone: answer.keys("gone"),
    broken: brokenIn(answer),
  };
}

function brokenIn(answer: Fields): Broken[] {
  return answer.list("broken").map(readFields).map((row) => ({
    key: row.cells("key"),
    reason: row.text("reason"),
  }));
}

function pageOf(answer: Fields): Page {
  const columns = answer.texts("columns");
  return {
    walkGen: answer.number("walk_gen"),
    kind: answer.oneOf("kind", [
      "backfill",
      "verify",
      "scrub",
      "redrive",
    ]) satisfies WalkKind,
    repair: answer.flag("repair"),
    table: answer.text("table"),
    half: answer.oneOf("half", ["forward", "back", "keys"]),
    starts: answer.flag("starts"),
    large: answer.flag("large"),
    last: answer.flag("last"),
    rows: answer.number("rows"),
    failed: answer.textOrNull("failed"),
    columns,
    cells: answer.rows("cells", columns.length),
    ghosts: answer.keys("ghosts"),
    broken: brokenIn(answer),
    open: answer.list("open").map(readFields).filter((letter) =>
      isCells(letter.value("key"))
    ).map((letter) => ({
      key: letter.cells("key"),
      skip: letter.flag("skip"),
    })),
    upto: answer.place("upto"),
    closes: answer.flag("closes"),
  };
}

function queuedIn(answer: Fields): Queued {
  return {
    queued: answer.number("queued"),
    queuedExact: answer.flag("queued_exact"),
  };
}
