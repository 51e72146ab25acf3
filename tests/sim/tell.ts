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
    case "reload":
      return `truncate ${table}, and ${
        shown({ ...statement, kind: "insert" })
      }`;
  }
}

function shownRow(row: Readonly<Record<string, string | null>>): string {
  return JSON.stringify(row).replaceAll('"', "");
}

function tellAnswer(answer: Fields): string {
  if (answer.do !== "batch") return `-> ${JSON.stringify(answer)}`;
  const { position, batch, prev, drained, snapshot, reopen } = answer;
  const page = answer.page as Fields | null;
  const unusable = answer.unusable as Fields[];
  return [
    `-> batch ${position} (${batch} after ${prev}), ${answer.messages} messages`,
    ...(Number(answer.acked) > 0 ? [`acked ${answer.acked}`] : []),
    ...(Number(answer.put_back) > 0 ? [`put back ${answer.put_back}`] : []),
    ...(drained ? [`drained as of ${snapshot}`] : []),
    ...(reopen ? ["reopens"] : []),
    ...unusable.map(({ reason }) => `unusable: ${reason}`),
    ...(answer.tables as Fields[]).map(tellTable),
    ...(page === null ? [] : [tellPage(page)]),
  ].join("; ");
}

function tellPage(page: Fields): string {
  const { kind, walk_gen, table, half, cells, ghosts, upto } = page;
  return `page of ${kind} ${walk_gen}, ${table} ${half}: ${
    JSON.stringify(cells)
  }, ghosts ${JSON.stringify(ghosts)}, up to ${upto}`;
}

function tellTable({ table, truncate, rows, gone, broken }: Fields): string {
  const lists = Object.entries({ rows, gone, broken }).filter(([, list]) =>
    (list as unknown[]).length > 0
  ).map(([name, list]) => `${name} ${JSON.stringify(list)}`);
  return `${table}: ${[...truncate ? ["truncate"] : [], ...lists].join(", ")}`;
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
