/**
 * Ring 3. What the source knows about walks, as the commands read it.
 *
 * Promise: it reads libsql_sync's tables and the catalog's estimates, and counts
 * no rows.
 *
 * @module
 */

import type { Query } from "./query_source.ts";
import type { Found } from "./walk_report.ts";

/** A walk as the source knows it. */
export interface SourceWalk {
  /** What the walk found so far, by table. */
  readonly found: Record<string, Found>;
  /** Whether it is done. */
  readonly ended: boolean;
  /** The walk's place, as JSON in the replica's row; null if it has none. */
  readonly place: string | null;
}

/**
 * Reads one walk.
 *
 * @param source Queries the source.
 * @param walk The walk's number.
 * @returns The walk; null if the source no longer has it.
 */
export async function readWalk(
  source: Query,
  walk: number,
): Promise<SourceWalk | null> {
  const [row] = await source<SourceWalk>(
    `select w.found, w.ended_at is not null as ended, c.seen ->> 'walk_at' as place
     from libsql_sync.walks w
     left join libsql_sync.chain c on (c.seen ->> 'walk_gen')::bigint = w.walk_gen
     where w.walk_gen = $1::bigint`,
    [String(walk)],
  );
  return row ?? null;
}

/**
 * Reads the newest walk's number.
 *
 * @param source Queries the source.
 * @returns The number; 0 if there was no walk yet.
 */
export async function readNewestWalk(source: Query): Promise<number> {
  const [row] = await source<{ newest: string }>(
    "select coalesce(max(walk_gen), 0) as newest from libsql_sync.walks",
  );
  return Number(row!.newest);
}

/**
 * Estimates how many rows a walk compares.
 *
 * @param source Queries the source.
 * @param table One table; null for all.
 * @returns The estimate; null if a table was never analyzed.
 */
export async function estimateRows(
  source: Query,
  table: string | null,
): Promise<number | null> {
  const [row] = await source<{ rows: number | null }>(
    `select case when bool_or(c.reltuples < 0 and pg_relation_size(c.oid) > 0) then null
       else coalesce(sum(greatest(c.reltuples, 0)), 0)::float8 end as rows
     from libsql_sync.tables t
     cross join lateral to_regclass(format('public.%I', t.name)) r (oid)
     join pg_class c on c.relkind = 'r'
       and (c.oid = r.oid or c.oid in (select p.relid from pg_partition_tree(r.oid) p))
     where $1::text is null or t.name = $1::text`,
    [table],
  );
  return row!.rows;
}
