/**
 * Ring 3. `deno task dlq`: the changes that were parked, each as a dead letter.
 *
 * Promise: only `show` prints what a message holds; the others print table, key
 * and reason.
 *
 * @module
 */

import {
  type Call,
  type Command,
  CommandError,
  parseCall,
  printJson,
  runCommand,
  UsageError,
} from "./command.ts";
import { type Query, withSource } from "./query_source.ts";
import { readSettings, SETTINGS } from "./settings.ts";
import { formatPairs, formatTable, oneLine } from "./table.ts";
import { formatMs } from "../status/format.ts";

const USAGE = `Usage: deno task dlq list [--json]
       deno task dlq show <id> [--json]
       deno task dlq redrive [<id> ...]
       deno task dlq discard <id> ... | --yes

A row that cannot be applied is parked as a dead letter, with its table, key
and reason; all other rows are applied.

  list     the open dead letters, at most 1,000
  show     one dead letter, and its row as it is in PostgreSQL now: this prints
           row values
  redrive  try these, or all, again with the next sync: each row as it is then
  discard  close these; the row stays as it is in the replica until its next
           change or the next walk

  --json   print it as JSON
  --yes    discard all of them

${SETTINGS}dlq list`;

const LIST_MAX = 1_000;
const IDS_MAX = 10_000;
const TABLE_CHARACTERS_MAX = 63;
const KEY_CHARACTERS_MAX = 40;
const REASON_CHARACTERS_MAX = 100;

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

async function list(query: Query, isJson: boolean): Promise<void> {
  const letters = await query<Letter>(
    `select ${COLUMNS} from libsql_sync.dead_letters() order by id limit ${
      LIST_MAX + 1
    }`,
  );
  const shown = letters.slice(0, LIST_MAX);
  if (isJson) return printJson(shown);
  if (shown.length === 0) return console.log("There are no dead letters.");
  const rows = shown.map((letter) => [
    letter.id,
    `${formatMs(letter.age_ms)} ago`,
    oneLine(letter.table_name ?? "-", TABLE_CHARACTERS_MAX),
    letter.key === null
      ? "-"
      : oneLine(JSON.stringify(letter.key), KEY_CHARACTERS_MAX),
    oneLine(letter.reason ?? "-", REASON_CHARACTERS_MAX),
  ]);
  const heading = ["id", "parked", "table", "key", "reason"];
  for (const line of formatTable(heading, rows)) console.log(line);
  if (letters.length > LIST_MAX) console.log("... and more");
}

async function show(query: Query, id: string, isJson: boolean): Promise<void> {
  const [letter] = await query<Letter & { row_now: unknown }>(
    `select ${COLUMNS}, libsql_sync.row_of_letter(id) as row_now
      from libsql_sync.dead_letters() where id = $1::bigint`,
    [id],
  );
  if (letter === undefined) {
    throw new CommandError(`Cannot show ${id}: there is no such dead letter`);
  }
  if (isJson) return printJson(letter);
  const lines = formatPairs([
    ["id", letter.id],
    ["parked", `${letter.parked_at} (${formatMs(letter.age_ms)} ago)`],
    ["table", letter.table_name ?? "-"],
    ["key", letter.key === null ? "-" : JSON.stringify(letter.key)],
    ["reason", letter.reason ?? "-"],
    ["row now", letter.row_now === null ? "-" : JSON.stringify(letter.row_now)],
  ]);
  for (const line of lines) console.log(line);
}

/** Redrives or discards dead letters; without ids all of them. */
async function change(
  query: Query,
  verb: "redrive" | "discard",
  ids: readonly string[],
): Promise<void> {
  const [row] = await query<{ n: number }>(
    `select libsql_sync.${verb}($1::text::bigint[]) as n`,
    [ids.length === 0 ? null : `{${ids.join(",")}}`],
  );
  const done = row!.n;
  console.log(
    verb === "redrive"
      ? `${done} will be tried again with the next sync: deno task dlq list shows those that stay parked.`
      : `${done} discarded.`,
  );
  if (done < new Set(ids).size) {
    throw new CommandError(
      verb === "redrive"
        ? "Some will not be tried again: expected open dead letters of tables that schema.json lists, found other ids"
        : "Some were not discarded: expected open dead letters, found other ids",
    );
  }
}

/** What was asked for. */
interface Asked {
  readonly verb: "list" | "show" | "redrive" | "discard";
  readonly ids: readonly string[];
  readonly isJson: boolean;
}

/** Reads the verb and the ids that it takes. */
function parseAsked({ flags, words: [verb, ...ids] }: Call): Asked {
  for (const id of ids) {
    if (!/^[1-9][0-9]{0,17}$/.test(id)) {
      throw new UsageError(
        `expected the id of a dead letter, found ${oneLine(id, 40)}`,
      );
    }
  }
  const isJson = "json" in flags;
  const isAll = "yes" in flags;
  switch (verb) {
    case "list":
      if (ids.length === 0 && !isAll) return { verb, ids, isJson };
      break;
    case "show":
      if (ids.length === 1 && !isAll) return { verb, ids, isJson };
      break;
    case "redrive":
      if (!isAll && !isJson) return { verb, ids, isJson };
      break;
    case "discard":
      if ((ids.length > 0) !== isAll && !isJson) return { verb, ids, isJson };
      throw new UsageError("discard expects ids, or --yes for all of them");
  }
  throw new UsageError("expected list, show <id>, redrive or discard");
}

async function run(args: readonly string[]): Promise<number> {
  const { verb, ids, isJson } = parseAsked(
    parseCall(args, { json: "switch", yes: "switch" }, { wordsMax: IDS_MAX }),
  );
  const { pgmqUrl } = readSettings((name) => Deno.env.get(name), ["PGMQ_URL"]);
  await withSource(pgmqUrl, async (query) => {
    if (verb === "list") await list(query, isJson);
    else if (verb === "show") await show(query, ids[0]!, isJson);
    else await change(query, verb, ids);
  });
  return 0;
}

/** The command. */
export const command: Command = { usage: USAGE, run };

if (import.meta.main) Deno.exit(await runCommand(command, Deno.args));
