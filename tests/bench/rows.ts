/**
 * Ring 3. Realistic rows of app_versions, as many as asked for, and the
 * statements that change them.
 *
 * Promise: the same number is the same row, in every database.
 *
 * @module
 */

import type { Sql } from "postgres";
import { seededRandom } from "../../lib/dev/random.ts";
import { appRow, orgRow, versionRow } from "../../lib/dev/sample_rows.ts";

/** The columns a row is written with; the others have defaults. */
const COLUMNS =
  "id, owner_org, app_id, name, r2_path, user_id, deleted, external_url, checksum, session_key, storage_provider, min_update_version, manifest_count, comment";

/** The indexes of schema.json, at the source as well. */
const INDEXED = [
  "owner_org",
  "app_id",
  "user_id",
  "r2_path",
  "external_url",
  "name",
];

const SETUP = `
  create schema if not exists bench;
  create table bench.base as
    select * from public.app_versions where false;
  alter table bench.base add column n serial;

  -- Some thousand rows as an app has them, over and over with numbers of their own.
  create function bench.rows(first bigint, last bigint) returns setof public.app_versions
  language sql stable as $$
    select i, b.owner_org, b.app_id, b.name,
      replace(b.r2_path, '.zip', '-' || i || '.zip'), b.user_id, b.deleted,
      b.external_url || '&n=' || i,
      case when b.checksum <> '' then encode(sha256(int8send(i)), 'hex') else b.checksum end,
      b.session_key, b.storage_provider, b.min_update_version, b.created_at, b.updated_at,
      b.manifest_count, b.comment
    from generate_series(first, last) i
    join bench.base b on b.n = 1 + i * 7919 % (select count(*) from bench.base)
  $$;

  -- One statement and one row each, in an order that is nobody's.
  create procedure bench.insert_each(first bigint, last bigint) language plpgsql as $$
  declare r public.app_versions; n integer := 0;
  begin
    for r in select * from bench.rows(first, last) loop
      insert into public.app_versions (${COLUMNS})
      values (${COLUMNS.split(", ").map((name) => `r.${name}`).join(", ")});
      n := n + 1;
      if n % 1000 = 0 then commit; end if;
    end loop;
  end
  $$;
  create procedure bench.update_each(count bigint, indexed boolean) language plpgsql as $$
  declare i bigint; n integer := 0;
  begin
    for i in select v.id from public.app_versions v order by md5(v.id::text) limit count loop
      if indexed then
        update public.app_versions set name = '9.9.' || i where id = i;
      else
        update public.app_versions
        set checksum = encode(sha256(int8send(-i)), 'hex'), deleted = not deleted where id = i;
      end if;
      n := n + 1;
      if n % 1000 = 0 then commit; end if;
    end loop;
  end
  $$;
  -- A transaction each.
  create procedure bench.update_alone(count bigint) language plpgsql as $$
  begin
    for i in 1..count loop
      update public.app_versions
      set checksum = md5(random()::text), deleted = not deleted where id = i;
      commit;
    end loop;
  end
  $$;
  -- A thousand scattered rows a statement.
  create procedure bench.update_many(count bigint) language plpgsql as $$
  declare statements bigint := count / 1000;
  begin
    for k in 0..statements - 1 loop
      update public.app_versions
      set checksum = encode(sha256(int8send(-id)), 'hex'), deleted = not deleted
      where id % statements = k and id <= count;
      commit;
    end loop;
  end
  $$;
`;

/** What happens to rows before a queue is drained. */
export type Kind = "insert" | "update" | "indexed" | "bulk";

/** What changes of one row each are called. */
export const CHANGES = {
  insert: "inserts",
  update: "updates",
  indexed: "updates of an indexed column",
};

/**
 * Makes app_versions as the bench has it: six indexes, and what makes rows.
 *
 * @param sql A database with the sample tables, as role postgres.
 */
export async function prepareRows(sql: Sql): Promise<void> {
  const random = seededRandom(20251122);
  const orgs = Array.from({ length: 100 }, () => orgRow(random));
  const apps = Array.from(
    { length: 500 },
    () => appRow(random, String(random.pick(orgs).id)),
  );
  const base = Array.from({ length: 4_000 }, (_, i) => ({
    ...versionRow(random, random.pick(apps)),
    id: i,
    n: i + 1,
    created_at: "2025-11-22T10:00:00Z",
    updated_at: "2025-11-22T10:00:00Z",
  }));
  await sql.unsafe(SETUP).simple();
  await sql`insert into bench.base
    select * from json_populate_recordset(null::bench.base, ${
    JSON.stringify(base)
  }::text::json)`;
  await sql`alter table bench.base add primary key (n)`;
  for (const column of INDEXED) {
    await sql`create index on public.app_versions (${sql(column)})`;
  }
}

/**
 * Puts rows in, by one statement.
 *
 * @param sql The database.
 * @param rows How many, numbered from 1.
 */
export async function insertRows(sql: Sql, rows: number): Promise<void> {
  await sql.unsafe(
    `insert into public.app_versions (${COLUMNS}) select ${COLUMNS} from bench.rows(1, ${rows})`,
  );
}

/**
 * Changes rows: what the triggers send is what a contender drains.
 *
 * @param sql The database.
 * @param change The kind of statements; how many rows there are and change.
 */
export async function changeRows(
  sql: Sql,
  change: { kind: Kind; rows: number; count: number },
): Promise<void> {
  const { kind, rows, count } = change;
  const call = {
    insert: `bench.insert_each(${rows + 1}, ${rows + count})`,
    update: `bench.update_each(${count}, false)`,
    indexed: `bench.update_each(${count}, true)`,
    bulk: `bench.update_many(${count})`,
  }[kind];
  // Without a transaction around it: the procedure commits.
  await sql.unsafe(`call ${call}`).simple();
}
