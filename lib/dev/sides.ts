/**
 * Ring 3. Source and replica side by side, for `deno task dev` alone.
 *
 * Promise: of the rows that the newest messages name, the left side is what the
 * source has at that moment, the right one what the replica has; nothing is changed
 * by looking.
 *
 * @module
 */
import { createClient } from "@libsql/client/http";
import postgres from "postgres";
import { SETTINGS } from "./compare_source.ts";
import { convert } from "../plan/convert.ts";
import { quote } from "../replica/sql.ts";
import { parseSchema, type Table } from "../schema.ts";

/** Rows shown at once, and messages they are looked for in. */
const ROWS_MAX = 14;
const MESSAGES_MAX = 60;
/** Columns shown of a row, besides its key. */
const COLUMNS_MAX = 3;

/** A row that changed lately. */
export interface Side {
  readonly table: string;
  readonly key: string;
  /** Some of its cells; null if the row is deleted. */
  readonly source: readonly string[] | null;
  readonly replica: readonly string[] | null;
  readonly isEqual: boolean;
}

/** What capture sends, as far as it is read here. */
interface Message {
  readonly table?: string;
  readonly keys?: readonly (readonly string[])[];
}

/** A row that a message names. */
interface Named {
  readonly table: Table;
  /** As the source writes it. */
  readonly key: readonly string[];
}

/** A row's cells by column, as the replica stores them; null if there is none. */
type Cells = Readonly<Record<string, string | null>> | null;

/** What is served. */
export interface Sides {
  readonly url: string;
  /** The rows that changed lately, the newest first. */
  look(): Promise<Side[]>;
  stop(): Promise<void>;
}

/**
 * Serves a page with both sides.
 *
 * @param options How to reach source and replica, and schema.json's value.
 * @returns Its address, and how to end it.
 */
export function serveSides(
  options: { pgUrl: string; libsqlUrl: string; schema: unknown },
): Sides {
  const { tables } = parseSchema(options.schema);
  const sql = postgres(options.pgUrl, {
    max: 1,
    onnotice: () => {},
    connection: SETTINGS,
  });
  const client = createClient({ url: options.libsqlUrl, authToken: "dev" });
  const look = async (): Promise<Side[]> => {
    // One is soon in the other table: both are read in one statement.
    const found = await sql<{ message: Message }[]>`
      select message from (
        (select msg_id, message from pgmq.q_replicate_data_libsql order by msg_id desc limit ${MESSAGES_MAX})
        union all
        (select msg_id, message from pgmq.a_replicate_data_libsql order by msg_id desc limit ${MESSAGES_MAX})) m
      order by msg_id desc limit ${MESSAGES_MAX}`;
    const named = newest(found.map(({ message }) => message), tables);
    if (named.length === 0) return [];
    const sources = await readSource(sql, named);
    const results = await client.batch(
      named.map(({ table, key }) => ({
        sql: `SELECT ${
          table.columns.map(({ name }) => `CAST(${quote(name)} AS TEXT)`).join()
        } FROM ${quote(table.name)} WHERE ${
          table.key.map((name) => `${quote(name)} = ?`).join(" AND ")
        }`,
        args: key.map((cell, at) => stored(table, table.key[at]!, cell)),
      })),
      "read",
    );
    return named.map((one, at) =>
      sideOf(one, sources[at]!, replicaCells(one, results[at]!.rows[0]))
    );
  };
  const server = Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen: () => {} },
    async (request) => {
      const headers = { "cache-control": "no-store" };
      if (new URL(request.url).pathname !== "/rows") {
        return new Response(HTML, {
          headers: { ...headers, "content-type": "text/html; charset=utf-8" },
        });
      }
      // Before the first sync there is no replica to look at.
      return Response.json(await look().catch(() => []), { headers });
    },
  );
  return {
    url: `http://127.0.0.1:${server.addr.port}/`,
    look,
    async stop() {
      await server.shutdown();
      client.close();
      await sql.end({ timeout: 1 });
    },
  };
}

/** The rows that messages name, which come newest first. */
function newest(
  messages: readonly Message[],
  tables: readonly Table[],
): Named[] {
  const named = new Map<string, Named>();
  for (const { table: name, keys = [] } of messages) {
    const table = tables.find((table) => table.name === name);
    if (table === undefined) continue;
    for (const key of keys) {
      named.set(JSON.stringify([name, key]), { table, key });
    }
    if (named.size >= ROWS_MAX) break;
  }
  return [...named.values()].slice(0, ROWS_MAX);
}

/** A cell as the replica stores it. */
function stored(
  table: Table,
  column: string,
  cell: string | null,
): string | null {
  const type = table.columns.find(({ name }) => name === column)?.type;
  return convert(cell, type ?? "TEXT");
}

/** Reads rows as a claim does. */
async function readSource(
  sql: postgres.Sql,
  named: readonly Named[],
): Promise<Cells[]> {
  const rows = await sql<{ columns: string[]; row: string | null }[]>`
    select r.rows[1] as row, array(
      select p.name from libsql_sync.present_columns(to_regclass(format('public.%I', k.name)), k.name) p) as columns
    from unnest(${named.map(({ table }) => table.name)}::text[],
      ${
    named.map(({ key }) => JSON.stringify(key))
  }::text[]) with ordinality k (name, key, n)
    cross join lateral libsql_sync.read_rows(
      to_regclass(format('public.%I', k.name)), k.name, array[k.key::jsonb], true, 1, 'infinity') r
    order by k.n`;
  return rows.map(({ columns, row }, at) => {
    const cells: (string | null)[] | null = row && JSON.parse(row);
    return cells && Object.fromEntries(
      columns.map((name, i) => [
        name,
        stored(named[at]!.table, name, cells[i]!),
      ]),
    );
  });
}

function replicaCells(
  { table }: Named,
  row: ArrayLike<unknown> | undefined,
): Cells {
  return row === undefined ? null : Object.fromEntries(
    table.columns.map(({ name }, at) => [name, row[at] as string | null]),
  );
}

function sideOf({ table, key }: Named, source: Cells, replica: Cells): Side {
  const differs = (name: string) => source?.[name] !== replica?.[name];
  // What changed comes first.
  const shown = table.columns.map(({ name }) => name)
    .filter((name) => !table.key.includes(name) && (source ?? replica)?.[name])
    .sort((a, b) => Number(differs(b)) - Number(differs(a)))
    .slice(0, COLUMNS_MAX);
  const textsOf = (of: Cells) =>
    of && shown.map((name) => `${name} ${of[name] ?? "-"}`);
  return {
    table: table.name,
    key: key.join(", "),
    source: textsOf(source),
    replica: textsOf(replica),
    isEqual: source === null || replica === null
      ? source === replica
      : Object.keys(source).every((name) => !differs(name)),
  };
}

const HTML = `<!doctype html><html lang=en><meta charset=utf-8>
<meta name=viewport content="width=device-width"><title>Both sides</title><link rel=icon href="data:,">
<style>:root{color-scheme:light dark}body{font:15px/1.45 system-ui,sans-serif;max-width:80rem;margin:auto;padding:1rem}
table{border-collapse:collapse;width:100%;table-layout:fixed}th,td{text-align:left;vertical-align:top;padding:.3rem .6rem;border-bottom:1px solid #8886;overflow-wrap:anywhere}
.late td:last-child{background:#f5a62333}small{opacity:.75}</style>
<h1>Both sides</h1><p id=state role=status></p>
<table><thead><tr><th scope=col>Row<th scope=col>PostgreSQL<th scope=col>libSQL</thead><tbody id=rows></table>
<script>
const make = (tag, ...children) => { const part = document.createElement(tag); part.append(...children); return part; };
const cell = (texts) => make("td", ...(texts ?? ["no row"]).flatMap((text) => [text, document.createElement("br")]));
const look = async () => {
  const sides = await (await fetch("/rows")).json();
  rows.replaceChildren(...sides.map((side) => {
    const row = make("tr", make("th", side.table, document.createElement("br"), make("small", side.key)), cell(side.source), cell(side.replica));
    if (!side.isEqual) row.className = "late";
    return row;
  }));
  const late = sides.filter(({ isEqual }) => !isEqual).length;
  state.textContent = late === 0 ? "The newest changes are in the replica." : late + " on their way.";
};
const again = () => look().catch(() => { state.textContent = "The local stack has ended."; }).then(() => setTimeout(again, 300));
again();
</script>`;
