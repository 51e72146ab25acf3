/**
 * What happened, in few words.
 *
 * @module
 */

import type { Result } from "../../lib/replica/sql.ts";
import type { Call, Outcome } from "./network.ts";
import type { Fields } from "./source_state.ts";
import { keyOf, type UserStatement } from "./tables.ts";

/** Who calls what. */
export function titleOf(call: Call): string {
  return `worker ${call.by}: ${call.target} ${call.name}`;
}

/** What came of a call. */
export function tell(call: Call, outcome: Outcome): string {
  if ("error" in outcome) return `fails: ${(outcome.error as Error).message}`;
  switch (call.target) {
    case "source":
      return tellAnswer(outcome.value as Fields);
    case "replica":
      return tellResults(outcome.value as Result[]);
    case "sleep":
      return "ends";
  }
}

/** A statement of the user's. */
export function shown(statement: UserStatement): string {
  const { kind, table } = statement;
  switch (statement.kind) {
    case "insert":
      return `insert into ${table} ${
        statement.rows.map((row) => `${keyOf(table, row)} ${shownRow(row)}`)
          .join(", ")
      }`;
    case "update":
    case "touch":
    case "delete":
      return `${kind} ${table} ${statement.keys.join(", ")}${
        "set" in statement ? ` ${shownRow(statement.set)}` : ""
      }${"again" in statement ? `, then ${shownRow(statement.again)}` : ""}`;
    case "rekey":
      return `update ${table} ${statement.key} ${shownRow(statement.set)}`;
    case "truncate":
      return `truncate ${table}`;
  }
}

function shownRow(row: Readonly<Record<string, string | null>>): string {
  return JSON.stringify(row).replaceAll('"', "");
}

function tellAnswer(answer: Fields): string {
  if (answer.do !== "batch") return `-> ${JSON.stringify(answer)}`;
  const { kind, position, batch, prev, drained, snapshot, reopen } = answer;
  const page = answer.page as Fields | null;
  const parked = (answer.parked as Fields[]).map(({ key }) => key);
  return [
    `-> ${kind} batch ${position} (${batch} after ${prev})`,
    ...(Number(answer.acked) > 0 ? [`acked ${answer.acked}`] : []),
    ...(drained ? [`drained as of ${snapshot}`] : []),
    ...(reopen ? ["reopens"] : []),
    ...(parked.length > 0 ? [`without ${JSON.stringify(parked)}`] : []),
    ...(page === null ? [] : [tellPage(page)]),
    ...(answer.messages as Fields[keyof Fields][][]).map(tellMessage),
  ].join("; ");
}

function tellPage(page: Fields): string {
  const { kind, walk_gen, table, half, cells, ghosts, upto } = page;
  return `page of ${kind} ${walk_gen}, ${table} ${half}: ${
    JSON.stringify(cells)
  }, ghosts ${JSON.stringify(ghosts)}, up to ${upto}`;
}

function tellMessage([ids, message]: unknown[]): string {
  const { table, truncate, deletes, rows } = message as Fields;
  const what = truncate
    ? "truncate"
    : deletes
    ? `delete ${JSON.stringify(deletes)}`
    : JSON.stringify(rows ?? message);
  return `message ${ids}: ${table} ${what}`;
}

function tellResults(results: readonly Result[]): string {
  const row = results.flatMap(({ rows }) => rows).find((found) =>
    "position" in found
  );
  if (row === undefined) return "-> done";
  return [
    `-> stands at ${row.position} (${row.batch}) of ${row.epoch}`,
    ...(row.drained === 1 ? ["drained"] : []),
    ...(row.walk_done === 1 ? ["walked"] : []),
    `walk ${row.walk_gen} ${row.walk_at ?? ""}`,
  ].join(", ");
}
