/**
 * Ring 3. A log of the test's own beside the source's tables: what they held
 * at any snapshot.
 *
 * Promise: it shares no trigger, no query and no rendering with the capture it
 * judges. Row triggers write down the row as it is then; the number of an entry
 * is drawn while the row's lock is held, so the last entry of a key that a
 * snapshot sees is the row that it sees.
 *
 * @module
 */

import type { Sql } from "postgres";
import {
  canonicalCell,
  type Cell,
  cellSql,
  keyName,
  readShapes,
  SETTINGS,
} from "../../lib/dev/compare_source.ts";
import type { RawSchema } from "../db/support/stack.ts";
import { SCHEMA } from "./tables.ts";

/** A row at a snapshot. */
export interface ShadowRow {
  readonly cells: Record<string, Cell>;
  /** Its number in the log. */
  readonly seq: number;
}

/** Rows by table and key, as the replica must have them. */
export type Shadow = Map<string, Map<string, ShadowRow>>;

const quote = (name: string) => `"${name.replaceAll('"', '""')}"`;
const literal = (text: string) => `'${text.replaceAll("'", "''")}'`;

const HISTORY = `
create schema oracle;
create table oracle.history (
  seq bigint generated always as identity primary key,
  xid xid8 not null default pg_current_xact_id(),
  tbl text not null,
  -- Null: everything in the table, or in the one partition, went.
  key text[],
  leaf text,
  cells text[],
  statement text not null default left(current_query(), 400)
);
create index on oracle.history (tbl, key, seq);
create index on oracle.history (seq) where key is null;

-- The leaf of table part that a row is in.
create function oracle.leaf_of(region text, id bigint) returns text language sql immutable as $$
  select case region when 'a' then 'part_a'
    when 'b' then case when id < 12 then 'part_b_low' else 'part_b_high' end
    else 'part_rest' end
$$;
-- Whether this transaction, or a part of it, wrote a row version. With one
-- snapshot for all, a row that somebody deleted since is still seen under the
-- key that we gave to another.
create function oracle.is_ours(written_by xid) returns boolean language plpgsql as $$
declare
  newest constant bigint := pg_snapshot_xmax(pg_current_snapshot())::text::bigint;
  full_id bigint := (newest >> 32 << 32) + written_by::text::bigint;
begin
  -- Sessions are too short for ids to come round.
  return pg_xact_status(full_id::text::xid8) = 'in progress';
end $$;
create function oracle.emptied() returns trigger language plpgsql security definer as $$
begin
  insert into oracle.history (tbl, leaf) values (tg_argv[0], nullif(tg_argv[1], ''));
  return null;
end $$;
`;

/**
 * Makes the log, of everything that any schema lists.
 *
 * @param sql A connection as the tables' owner.
 */
export async function createShadow(sql: Sql): Promise<void> {
  await sql.unsafe(HISTORY).simple();
  let number = 0;
  for (const [table, { key, columns }] of Object.entries(SCHEMA.tables)) {
    number += 1;
    const shapes = (await sql.begin((tx) => readShapes(tx, table)))!;
    const cells = (alias: string, names: readonly string[]) =>
      names.map((name) =>
        cellSql(`${alias}.${quote(name)}`, columns[name]!, shapes.get(name)!)
      ).join(", ");
    const keys = [key].flat();
    const values = (alias: string) =>
      keys.map((name) => `${alias}.${quote(name)}`).join(", ");
    const leaf = (alias: string) =>
      table === "part"
        ? `oracle.leaf_of(${alias}.region, ${alias}.id)`
        : "null";
    // Texts a collation calls equal are different keys in the replica.
    const note = (alias: string) =>
      `insert into oracle.history (tbl, key, leaf, cells) values (${
        literal(table)
      }, array[${cells(alias, keys)}]::text[], ${leaf(alias)},
      (select array[${cells("t", Object.keys(columns))}]::text[] from public.${
        quote(table)
      } t
       where (current_setting('transaction_isolation') = 'read committed' or oracle.is_ours(t.xmin)) and (${
        values("t")
      }) = (${values(alias)})
         and array[${cells("t", keys)}]::text[] collate "C" = array[${
        cells(alias, keys)
      }]::text[] collate "C"));`;
    const settings = Object.entries(SETTINGS)
      .map(([name, value]) => `set ${name} = ${literal(value)}`).join(" ");
    await sql.unsafe(`
      create function oracle.noted_${number}() returns trigger
      language plpgsql security definer set search_path = pg_catalog, pg_temp ${settings} as $body$
      begin
        if tg_op <> 'INSERT' then ${note("old")} end if;
        if tg_op = 'INSERT' or tg_op = 'UPDATE'
          and array[${cells("old", keys)}]::text[] collate "C" <> array[${
      cells("new", keys)
    }]::text[] collate "C"
        then ${note("new")} end if;
        return null;
      end $body$;
      create trigger oracle_noted after insert or update or delete on public.${
      quote(table)
    } for each row execute function oracle.noted_${number}();`).simple();
    const leaves = table === "part"
      ? ["part_a", "part_b_low", "part_b_high", "part_rest"]
      : [""];
    for (const leaf of leaves) {
      await sql.unsafe(
        `create trigger oracle_emptied after truncate on public.${
          quote(leaf || table)
        } for each statement execute function oracle.emptied(${
          literal(table)
        }, ${literal(leaf)})`,
      );
    }
  }
}

/**
 * Reads what the tables held at a snapshot.
 *
 * @param sql A connection as the log's owner.
 * @param options The schema to read them by, and the snapshot as PostgreSQL writes it; null: now.
 * @returns The rows as the replica must have them.
 */
export async function shadowAt(
  sql: Sql,
  options: { schema: RawSchema; snapshot: string | null },
): Promise<Shadow> {
  const { schema, snapshot } = options;
  const [answer] = await sql<{ rows: string }[]>`
    with emptied as materialized (
      select h.tbl, h.leaf, max(h.seq) as seq from oracle.history h
      where h.key is null and pg_visible_in_snapshot(h.xid,
        coalesce(${snapshot}::pg_snapshot, pg_current_snapshot()))
      group by 1, 2
    ), latest as (
      select distinct on (h.tbl, h.key) h.* from oracle.history h
      where h.key is not null and pg_visible_in_snapshot(h.xid,
        coalesce(${snapshot}::pg_snapshot, pg_current_snapshot()))
      order by h.tbl, h.key, h.seq desc
    )
    select coalesce(json_agg(json_build_array(l.tbl, l.cells, l.seq)), '[]')::text as rows
    from latest l
    where l.cells is not null and not exists (
      select from emptied e
      where e.tbl = l.tbl and e.seq > l.seq and (e.leaf is null or e.leaf = l.leaf))`;
  const shadow: Shadow = new Map(
    Object.keys(schema.tables).map((table) => [table, new Map()]),
  );
  if (answer === undefined) {
    // The driver's result of a query whose connection went while it was read.
    throw Object.assign(new Error("no answer"), { code: "CONNECTION_CLOSED" });
  }
  const rows: [tbl: string, cells: (string | null)[], seq: number][] = JSON
    .parse(answer.rows);
  for (const [tbl, cells, seq] of rows) {
    const listed = schema.tables[tbl];
    if (listed === undefined) continue;
    const { columns, key } = listed;
    const logged = Object.keys(SCHEMA.tables[tbl]!.columns);
    const row = Object.fromEntries(
      Object.entries(columns).map(([column, declared]) => [
        column,
        canonicalCell(cells[logged.indexOf(column)] ?? null, declared),
      ]),
    );
    const name = keyName([key].flat().map((column) => row[column]!.text));
    shadow.get(tbl)!.set(name, { cells: row, seq });
  }
  return shadow;
}

/** What a key held from an entry of the log on; null: nothing. */
export interface Entry {
  readonly seq: number;
  /** The transaction that wrote it. */
  readonly xid: string;
  readonly cells: Record<string, Cell> | null;
}

/**
 * Reads everything that was committed, key by key, in its order.
 *
 * @param sql A connection as the log's owner.
 * @param schema The schema to read it by; tables with another key are left out.
 * @returns The entries by table and key.
 */
export async function shadowLog(
  sql: Sql,
  schema: RawSchema,
): Promise<Map<string, Map<string, Entry[]>>> {
  const log = new Map<string, Map<string, Entry[]>>();
  const leaves = new Map<string, string | null>();
  const query = sql<
    {
      seq: string;
      xid: string;
      tbl: string;
      key: string | null;
      leaf: string | null;
      cells: string | null;
    }[]
  >`select seq, xid::text, tbl, to_json(key)::text as key, leaf, to_json(cells)::text as cells
    from oracle.history order by seq`;
  for (const { seq, xid, tbl, key, leaf, cells } of await query) {
    const listed = schema.tables[tbl];
    const logged = SCHEMA.tables[tbl]!;
    if (!listed || String(listed.key) !== String(logged.key)) continue;
    const table = log.get(tbl) ?? new Map<string, Entry[]>();
    log.set(tbl, table);
    if (key === null) {
      for (const [name, entries] of table) {
        if (leaf === null || leaves.get(`${tbl} ${name}`) === leaf) {
          entries.push({ seq: Number(seq), xid, cells: null });
        }
      }
      continue;
    }
    const name = keyName(JSON.parse(key));
    leaves.set(`${tbl} ${name}`, leaf);
    const texts: (string | null)[] | null = cells && JSON.parse(cells);
    const row = texts && Object.fromEntries(
      Object.entries(listed.columns).map(([column, declared]) => [
        column,
        canonicalCell(
          texts[Object.keys(logged.columns).indexOf(column)]!,
          declared,
        ),
      ]),
    );
    table.set(name, [
      ...table.get(name) ?? [],
      { seq: Number(seq), xid, cells: row },
    ]);
  }
  return log;
}

/**
 * Tells what the source did to a row, newest first.
 *
 * @param sql A connection as the log's owner.
 * @param options The schema, table and key.
 * @returns Lines with the statement of each entry.
 */
export async function lastStatements(
  sql: Sql,
  options: { schema: RawSchema; table: string; key: string; rowsMax?: number },
): Promise<string[]> {
  const { schema, table, key, rowsMax = 8 } = options;
  const keys = [schema.tables[table]!.key].flat();
  if (keys.join() !== [SCHEMA.tables[table]!.key].flat().join()) {
    return ["(the log has them by another key)"];
  }
  const parts: unknown[] = keys.length === 1 ? [key] : JSON.parse(key);
  const rows = await sql`
    select seq, xid::text, to_json(cells)::text as cells, statement from oracle.history
    where tbl = ${table} and (key = ${parts as string[]}::text[] or key is null)
    order by seq desc limit ${rowsMax}`;
  return rows.map(({ seq, xid, cells, statement }) =>
    `#${seq} xid ${xid} ${cells ?? "gone"} by ${statement.slice(0, 240)}`
  );
}
