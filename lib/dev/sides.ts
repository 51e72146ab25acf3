/**
 * Ring 3. Source and replica side by side, for `deno task dev` alone.
 *
 * Promise: the left side is what the newest messages say, the right one what
 * the replica has at that moment; nothing is changed by looking.
 *
 * @module
 */
import { createClient } from "@libsql/client/http";
import postgres from "postgres";
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
  readonly columns?: readonly string[];
  readonly rows?: readonly (readonly (string | null)[])[];
  readonly updates?: readonly (readonly (string | null)[])[];
  readonly deletes?: readonly (readonly (string | null)[])[];
}

/** A row as the newest messages have it: cells by column, as the replica stores
 * them; cells that no message brings are missing. */
interface Change {
  readonly table: Table;
  readonly key: readonly (string | null)[];
  readonly cells: Readonly<Record<string, string | null>> | null;
}

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
  const sql = postgres(options.pgUrl, { max: 1, onnotice: () => {} });
  const client = createClient({ url: options.libsqlUrl, authToken: "dev" });
  const look = async (): Promise<Side[]> => {
    // One is soon in the other table: both are read in one statement.
    const found = await sql<{ message: Message }[]>`
      select message from (
        (select msg_id, message from pgmq.q_replicate_data_libsql order by msg_id desc limit ${MESSAGES_MAX})
        union all
        (select msg_id, message from pgmq.a_replicate_data_libsql order by msg_id desc limit ${MESSAGES_MAX})) m
      order by msg_id desc limit ${MESSAGES_MAX}`;
    const changes = newest(found.map(({ message }) => message), tables);
    if (changes.length === 0) return [];
    const results = await client.batch(
      changes.map(({ table, key }) => ({
        sql: `SELECT ${
          table.columns.map(({ name }) => `CAST(${quote(name)} AS TEXT)`).join()
        } FROM ${quote(table.name)} WHERE ${
          table.key.map((name) => `${quote(name)} = ?`).join(" AND ")
        }`,
        args: [...key],
      })),
      "read",
    );
    return changes.map((change, at) => sideOf(change, results[at]!.rows[0]));
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

/** What the newest changes of some rows made of each. */
function newest(
  messages: readonly Message[],
  tables: readonly Table[],
): Change[] {
  const changes = new Map<string, Change>();
  const isKnown = new Set<string>();
  for (const message of messages) {
    const { columns = [], rows = [], updates = [], deletes = [] } = message;
    const table = tables.find(({ name }) => name === message.table);
    if (table === undefined) continue;
    const typed = (column: string, cell: string | null) => {
      const type = table.columns.find(({ name }) => name === column)?.type;
      return convert(cell, type ?? "TEXT");
    };
    /** Messages come newest first: a newer cell stays, and nothing is older than a whole row. */
    const note = (
      key: (string | null)[],
      cells: Change["cells"],
      isWhole: boolean,
    ) => {
      const id = JSON.stringify([table.name, key]);
      if (isKnown.has(id)) return;
      if (isWhole) isKnown.add(id);
      const newer = changes.get(id)?.cells;
      const merged = newer ? { ...cells, ...newer } : cells;
      changes.set(id, { table, key, cells: merged });
    };
    for (const [at, row] of [...rows, ...updates].entries()) {
      const cells = Object.fromEntries(
        columns.map((column, at) => [column, typed(column, row[at] ?? null)]),
      );
      const key = table.key.map((column) => cells[column] ?? null);
      note(key, cells, at < rows.length);
    }
    for (const key of deletes) {
      const cells = table.key.map((column, at) =>
        typed(column, key[at] ?? null)
      );
      note(cells, null, true);
    }
    if (changes.size >= ROWS_MAX) break;
  }
  return [...changes.values()].slice(0, ROWS_MAX);
}

function sideOf(
  { table, key, cells }: Change,
  row: ArrayLike<unknown> | undefined,
): Side {
  const stored = row === undefined ? null : Object.fromEntries(
    table.columns.map(({ name }, at) => [name, row[at] as string | null]),
  );
  const source = cells && { ...stored, ...cells };
  const differs = (name: string) => source?.[name] !== stored?.[name];
  // What changed comes first.
  const shown = table.columns.map(({ name }) => name)
    .filter((name) => !table.key.includes(name) && (source ?? stored)?.[name])
    .sort((a, b) => Number(differs(b)) - Number(differs(a)))
    .slice(0, COLUMNS_MAX);
  const textsOf = (of: Change["cells"]) =>
    of && shown.map((name) => `${name} ${of[name] ?? "-"}`);
  return {
    table: table.name,
    key: key.join(", "),
    source: textsOf(source),
    replica: textsOf(stored),
    isEqual: source === null || stored === null
      ? source === stored
      : Object.keys(source).every((name) => source[name] === stored[name]),
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
