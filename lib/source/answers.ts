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
import { isCells } from "../chain/message.ts";
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
 * @returns Whether the changes were parked; otherwise the batch is not pending.
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
 * assertEquals(claimOf({ do: "busy", acked: 0 }), { do: "busy", acked: 0 });
 * ```
 */
export function claimOf(value: unknown): Claim {
  const answer = readFields(value);
  const acked = answer.number("acked");
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
      return { acked, ...batchOf(answer) };
    case "bootstrap":
      return {
        acked,
        do: verb,
        epoch: answer.text("epoch"),
        wipe: answer.flag("wipe"),
      };
    case "adopt":
      return {
        acked,
        do: verb,
        epoch: answer.text("epoch"),
        from: answer.text("from"),
        wipe: answer.flag("wipe"),
        reason: answer.text("reason"),
      };
    case "alter":
      return { acked, do: verb, from: answer.text("from") };
    case "idle":
    case "settled":
      return {
        acked,
        do: verb,
        behind: answer.number("behind"),
        ...endedOf(value),
      };
    case "busy":
    case "none":
      return { acked, do: verb };
    case "stop":
      return {
        acked,
        do: verb,
        error: answer.oneOf("error", STOP_CODES) as StopCode,
      };
  }
}

function batchOf(answer: Fields): Batch {
  const messages = answer.messages("messages");
  return {
    do: "batch",
    kind: answer.oneOf("kind", ["new", "again", "replay"]),
    epoch: answer.text("epoch"),
    position: answer.number("position"),
    batch: answer.text("batch"),
    prev: answer.text("prev"),
    drained: answer.flag("drained"),
    snapshot: answer.text("snapshot"),
    sourceTime: answer.text("source_time"),
    deadLetters: answer.number("dead_letters"),
    parked: answer.list("parked").map((change) => {
      const parked = readFields(change);
      return {
        msgId: parked.textOrNull("msg_id"),
        table: parked.textOrNull("table"),
        key: parked.value("key") == null ? null : parked.cells("key"),
        reason: parked.text("reason"),
      };
    }),
    reopen: answer.flag("reopen"),
    page: answer.value("page") == null
      ? null
      : pageOf(readFields(answer.value("page"))),
    messages,
    messageCount: messages.reduce(
      (sum, [ids]) => sum + (typeof ids === "string" ? 1 : ids.length),
      0,
    ),
  };
}

function pageOf(answer: Fields): Page {
  const key = answer.texts("key");
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
    key,
    columns,
    cells: answer.rows("cells", columns.length),
    ghosts: answer.keys("ghosts"),
    oversize: answer.rows("oversize", key.length),
    open: answer.list("open").map((open) => readFields(open)).filter((letter) =>
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
