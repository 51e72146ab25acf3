/**
 * Ring 3. `deno task dlq`: the changes that were set aside.
 *
 * Promise: what a message holds is printed by `show` alone; elsewhere only
 * table, key and reason.
 *
 * @module
 */

import {
  CommandError,
  parseCall,
  printJson,
  type Query,
  readSettings,
  runCommand,
  SETTINGS,
  UsageError,
  withSource,
} from "./command.ts";
import { formatPairs, formatTable, oneLine } from "./table.ts";
import { formatMs } from "../status/format.ts";

const USAGE = `Usage: deno task dlq list [--json]
       deno task dlq show <id> [--json]
       deno task dlq redrive [<id> ...]
       deno task dlq discard <id> ... | --yes

Changes that could not be applied: dead letters. Each keeps its table, key and
reason, and the rows around it went on.

  list     the open ones, at most 1,000
  show     one, with its message where it has no key: this prints row values
  redrive  try all or these again: the row as it is now, with the next sync
  discard  put these away, or all of them with --yes; the row stays as it is in
           the replica until its next change or the next walk

${SETTINGS}dlq list`;

const LIST_MAX = 1_000;
const KEY_MAX = 40;
const REASON_MAX = 100;

/** A dead letter. */
interface Letter {
  readonly id: string;
  readonly parked_at: string;
  readonly age_ms: number;
  readonly table_name: string | null;
  readonly key: unknown;
  readonly reason: string | null;
}

const COLUMNS = `id::text, to_json(parked_at) #>> '{}' as parked_at,
  (extract(epoch from clock_timestamp() - parked_at) * 1000)::float8 as age_ms,
  table_name, key, reason`;

async function list(query: Query, isJson: boolean): Promise<number> {
  const letters = await query<Letter>(
    `select ${COLUMNS} from libsql_sync.dead_letters() order by id limit ${
      LIST_MAX + 1
    }`,
  );
  const shown = letters.slice(0, LIST_MAX);
  if (isJson) printJson(shown);
  else if (shown.length === 0) console.log("There are no dead letters.");
  else {
    const rows = shown.map((letter) => [
      letter.id,
      `${formatMs(letter.age_ms)} ago`,
      oneLine(letter.table_name ?? "-", 63),
      letter.key === null ? "-" : oneLine(JSON.stringify(letter.key), KEY_MAX),
      oneLine(letter.reason ?? "-", REASON_MAX),
    ]);
    const heading = ["id", "parked", "table", "key", "reason"];
    for (const line of formatTable(heading, rows)) console.log(line);
    if (letters.length > LIST_MAX) console.log("... and more");
  }
  return 0;
}

async function show(
  query: Query,
  id: string,
  isJson: boolean,
): Promise<number> {
  const [letter] = await query<Letter & { message: unknown }>(
    `select ${COLUMNS}, message from libsql_sync.dead_letters() where id = $1::bigint`,
    [id],
  );
  if (letter === undefined) {
    throw new CommandError(`Cannot show ${id}: there is no such dead letter`);
  }
  if (isJson) printJson(letter);
  else {
    const { message } = letter;
    const lines = formatPairs([
      ["id", letter.id],
      ["parked", `${letter.parked_at} (${formatMs(letter.age_ms)} ago)`],
      ["table", letter.table_name ?? "-"],
      ["key", letter.key === null ? "-" : JSON.stringify(letter.key)],
      ["reason", letter.reason ?? "-"],
      ["message", message === null ? "-" : JSON.stringify(message)],
    ]);
    for (const line of lines) console.log(line);
  }
  return 0;
}

/** Runs one of the two that change something; null means all. */
async function settle(
  query: Query,
  verb: "redrive" | "discard",
  ids: readonly string[] | null,
): Promise<number> {
  const [row] = await query<{ n: number }>(
    `select libsql_sync.${verb}($1::text::bigint[]) as n`,
    [ids === null ? null : `{${ids.join(",")}}`],
  );
  const done = row!.n;
  console.log(
    verb === "redrive"
      ? `${done} tried again with the next sync: deno task dlq list shows what stays.`
      : `${done} put away.`,
  );
  if (ids !== null && done < new Set(ids).size) {
    throw new CommandError(
      verb === "redrive"
        ? "Some are not tried: expected open dead letters of tables that schema.json lists, found others"
        : "Some are not put away: expected open dead letters, found others",
    );
  }
  return 0;
}

async function run(args: readonly string[]): Promise<number> {
  const { flags, words } = parseCall(args, {
    json: "switch",
    yes: "switch",
  }, { wordsMax: 10_000 });
  const [verb, ...ids] = words;
  for (const id of ids) {
    if (!/^[1-9][0-9]{0,17}$/.test(id)) {
      throw new UsageError(
        `expected the number of a dead letter, found ${oneLine(id, 40)}`,
      );
    }
  }
  const isFit = verb === "list"
    ? ids.length === 0
    : verb === "show"
    ? ids.length === 1
    : verb === "discard"
    ? (ids.length > 0) !== ("yes" in flags)
    : verb === "redrive";
  if (
    !isFit || ("yes" in flags && verb !== "discard") ||
    ("json" in flags && verb !== "list" && verb !== "show")
  ) {
    throw new UsageError(
      verb === "discard"
        ? "discard expects ids, or --yes for all of them"
        : "expected list, show <id>, redrive or discard",
    );
  }
  const { pgmqUrl } = readSettings((name) => Deno.env.get(name), ["PGMQ_URL"]);
  return await withSource(pgmqUrl, (query) => {
    switch (verb) {
      case "list":
        return list(query, "json" in flags);
      case "show":
        return show(query, ids[0]!, "json" in flags);
      default:
        return settle(
          query,
          verb as "redrive" | "discard",
          ids.length === 0 ? null : ids,
        );
    }
  });
}

if (import.meta.main) {
  Deno.exit(await runCommand({ usage: USAGE, run }, Deno.args));
}
