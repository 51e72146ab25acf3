/**
 * Ring 3. Fills the sample tables and keeps changing them.
 *
 * Promise: the same seed gives the same first rows; the traffic neither grows
 * the tables for ever nor empties them.
 *
 * @module
 */
import postgres from "postgres";
import { withinMs } from "./child.ts";
import { type Random, seededRandom } from "./random.ts";
import * as rows from "./sample_rows.ts";

/** The sample tables. */
const TABLES = [
  "orgs",
  "apps",
  "app_versions",
  "channels",
  "channel_devices",
  "stripe_info",
  "manifest",
] as const;
/** Rows per INSERT. */
const CHUNK = 500;

/** Inserts rows; the columns are those of the first one. */
async function insert(
  sql: postgres.Sql,
  table: string,
  list: rows.SampleRow[],
): Promise<void> {
  for (let i = 0; i < list.length; i += CHUNK) {
    const columns = Object.keys(list[0]!);
    // By way of one JSON text PostgreSQL finds the types itself: enum, uuid, jsonb[].
    await sql`
      insert into ${sql("public." + table)} (${sql(columns)})
      select ${sql(columns)} from json_populate_recordset(
        null::${sql("public." + table)}, ${
      JSON.stringify(list.slice(i, i + CHUNK))
    }::text::json)`;
  }
}

/** Numbers rows from 1. */
const numbered = (list: rows.SampleRow[]) =>
  list.map((row, i) => ({ id: i + 1, ...row }));

/** So many rows of one kind. */
const make = (count: number, row: () => rows.SampleRow) =>
  Array.from({ length: Math.max(1, Math.round(count)) }, row);

/**
 * Puts sample rows into the seven tables, when all of them are empty.
 *
 * @param sql A connection as role `postgres`.
 * @param options The seed, and about how many rows in all tables together.
 * @returns The rows inserted; 0 when there were rows already.
 */
export async function fillSample(
  sql: postgres.Sql,
  options: { seed: number; rows: number },
): Promise<number> {
  for (const table of TABLES) {
    const [found] = await sql`select from ${sql("public." + table)} limit 1`;
    if (found) return 0;
  }
  const random = seededRandom(options.seed);
  const share = options.rows / 100;
  const orgs = make(2 * share, () => rows.orgRow(random));
  const apps = make(
    4 * share,
    () => rows.appRow(random, String(random.pick(orgs).id)),
  );
  const versions = numbered(
    make(30 * share, () => rows.versionRow(random, random.pick(apps))),
  );
  const anyVersion = () => random.pick(versions).id;
  const channels = numbered(
    make(
      8 * share,
      () => rows.channelRow(random, random.pick(apps), anyVersion()),
    ),
  );
  const devices = make(
    20 * share,
    () => rows.deviceRow(random, random.pick(apps), random.pick(channels).id),
  );
  const customers = orgs.flatMap((org) =>
    org.customer_id ? [String(org.customer_id)] : []
  );
  const filled: Record<typeof TABLES[number], rows.SampleRow[]> = {
    orgs,
    apps,
    app_versions: versions,
    channels,
    channel_devices: numbered(devices),
    stripe_info: numbered(
      customers.map((customer) => rows.stripeRow(random, customer)),
    ),
    manifest: numbered(
      make(36 * share, () => rows.manifestRow(random, anyVersion())),
    ),
  };
  let count = 0;
  for (const table of TABLES) {
    await insert(sql, table, filled[table]);
    count += filled[table].length;
    if (table === "orgs" || table === "apps") continue;
    // The rows brought their ids; new ones go on behind them.
    await sql`select setval(pg_get_serial_sequence(${"public." + table}, 'id'),
      ${filled[table].length + 1}, false)`;
  }
  return count;
}

/** One small change, as an app's backend would make it. */
const CHANGES: ((sql: postgres.Sql, random: Random) => Promise<unknown>)[] = [
  // A new version with its files, in one transaction.
  (sql, random) =>
    sql.begin(async (tx) => {
      const [app] =
        await tx`select app_id, owner_org, user_id from public.apps order by random() limit 1`;
      if (!app) return;
      const row = rows.versionRow(random, app);
      const [made] = await tx`insert into public.app_versions ${
        tx(row)
      } returning id`;
      const files = make(3, () => rows.manifestRow(random, Number(made!.id)));
      await tx`insert into public.manifest ${tx(files)}`;
      await tx`update public.apps set last_version = ${
        String(row.name)
      }, updated_at = now()
        where app_id = ${app.app_id}`;
    }),
  // A version is deleted with its files; the newest ones, so that the tables keep their size.
  (sql) =>
    sql.begin(async (tx) => {
      const [found] = await tx`select max(id) as id from public.app_versions`;
      await tx`delete from public.manifest where app_version_id = ${found!.id}`;
      await tx`delete from public.app_versions where id = ${found!.id}`;
    }),
  // A channel points elsewhere.
  (sql, random) =>
    sql`update public.channels set updated_at = now(), public = ${
      random.chance(0.5)
    },
      version = (select id from public.app_versions order by random() limit 1)
      where id = (select id from public.channels order by random() limit 1)`,
  // One device is added, another one removed.
  (sql, random) =>
    sql`insert into public.channel_devices (channel_id, app_id, device_id, owner_org)
      select id, app_id, ${random.uuid()}, owner_org from public.channels order by random() limit 1`,
  (sql) =>
    sql`delete from public.channel_devices where id = (select min(id) from public.channel_devices)`,
  // A customer pays, or does not.
  (sql, random) =>
    sql`update public.stripe_info set mau_exceeded = ${random.chance(0.5)},
      trial_at = clock_timestamp() + interval '15 days', updated_at = now()
      where id = (select id from public.stripe_info order by random() limit 1)`,
  // Nothing the replica has changes: nothing should travel.
  (sql) =>
    sql`update public.orgs set updated_at = now() where id = (select id from public.orgs limit 1)`,
];

/** A running traffic. */
export interface Traffic {
  /** Ends it. */
  stop(): Promise<void>;
}

/**
 * Starts small steady changes to the sample tables.
 *
 * @param options The database as role `postgres`, the seed, the pause between
 *   changes, and what takes the message of one that fails.
 * @returns The running traffic.
 */
export function startTraffic(
  options: {
    url: string;
    seed: number;
    everyMs: number;
    log: (line: string) => void;
  },
): Traffic {
  const random = seededRandom(options.seed);
  const sql = postgres(options.url, {
    max: 1,
    fetch_types: false,
    connect_timeout: 5,
    backoff: () => 0.2,
    onnotice: () => {},
  });
  const stopped = Promise.withResolvers<void>();
  let isStopped = false;
  const loop = (async () => {
    while (!isStopped) {
      await random.pick(CHANGES)(sql, random).catch((error) => {
        if (!isStopped) options.log(`traffic: ${error.message}`);
      });
      await withinMs(stopped.promise, options.everyMs);
    }
  })();
  return {
    stop: async () => {
      isStopped = true;
      stopped.resolve();
      await withinMs(loop, 2_000);
      await sql.end({ timeout: 1 });
    },
  };
}
