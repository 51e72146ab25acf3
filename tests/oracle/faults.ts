/**
 * Ring 3. What goes wrong while a session writes.
 *
 * Promise: one fault begins after the other, in an order that the seed alone
 * gives; what lasts longer is undone by `stop`.
 *
 * @module
 */

import postgres from "postgres";
import {
  findLastBuild,
  FOLDER,
  readNames,
} from "../../lib/cli/migration_files.ts";
import { SUPERUSER } from "../../lib/dev/postgres.ts";
import { type Random, seededRandom } from "../../lib/dev/random.ts";
import { configure } from "../db/support/stack.ts";
import type { Cutter, Way } from "./cutter.ts";
import { Replica } from "./replica.ts";
import type { Session } from "./session.ts";
import { SCHEMAS } from "./tables.ts";
import { Wire } from "./wire.ts";
import { sleep } from "./writer.ts";

/** A fault: how often, its name, and what it does. */
type Kind = readonly [number, string, () => unknown];

const MALFORMED = [
  '{"table": "nowhere", "type": "INSERT", "record": {"id": 1}}',
  "null",
  "[1, 2]",
  '{"v": 1, "table": "hot", "rows": "none"}',
  '{"v": 9, "table": "hot"}',
  '{"v": 2, "table": "hot", "keys": "none"}',
  '{"v": 2, "table": "hot", "keys": []}',
  '{"v": 2, "table": "hot", "keys": [[1], "2", null, ["3", "4"]]}',
];
/** They say nothing of the rows there are: whatever the source has then is right. */
const UNASKED = [
  '{"v": 2, "table": "hot", "keys": [["1"], ["01"], ["no number"], ["99999999999999999999"]]}',
  '{"v": 2, "table": "pair", "keys": [["1", "nobody"], ["x", "y"]]}',
  '{"v": 2, "table": "swap", "truncate": true}',
  '{"v": 2, "table": "fat", "walk": "by hand"}',
  '{"type": "UPDATE", "table": "tree", "record": {"id": 3}, "old_record": {"id": 4, "n": 77}}',
  '{"v": 1, "table": "touch", "columns": ["id", "n"], "rows": [["2", "never"]]}',
];
/** Each leaves older snapshots an empty table. */
const REWRITES = [
  "alter table hot alter column secret type text using secret || ''",
  "cluster hot using hot_pkey",
];
const ROOT = new URL("../../", import.meta.url);
/** What the writers' locks, or a database that is away, make of a fault: none. */
const FORESEEN = /^(55P03|57014|40P01|40001|58P01|25P02)$/;

/** The faults of a session. */
export class Faults {
  readonly replica: Replica;
  readonly #session: Session;
  readonly #random: Random;
  readonly #wire: Wire;
  readonly #kinds: readonly Kind[];

  constructor(session: Session) {
    const { httpCutter, sourceCutter, proxy } = session;
    this.#session = session;
    this.#random = seededRandom(session.options.seed * 7 + 1);
    this.#wire = new Wire(httpCutter, sourceCutter, proxy, this.#random);
    this.replica = new Replica(session);
    this.#kinds = [
      ...this.#processes(),
      ...this.#connections(),
      ...this.#operators(),
      [4, "nothing", () => sleep(this.#random.below(800))],
    ];
  }

  /** One after the other, until told to stop. */
  async run(isOver: () => boolean): Promise<void> {
    const total = this.#kinds.reduce((sum, [weight]) => sum + weight, 0);
    const { counts, trace } = this.#session;
    while (!isOver()) {
      await sleep(this.#random.below(350));
      let at = this.#random.below(total);
      const [, name, begin] = this.#kinds.find(([weight]) =>
        (at -= weight) < 0
      )!;
      counts.faults[name] = (counts.faults[name] ?? 0) + 1;
      trace.push(name);
      try {
        await this.#session.patiently(async () => void await begin());
      } catch (error) {
        if (!FORESEEN.test((error as { code?: string }).code ?? "")) {
          throw error;
        }
      }
      if (this.#random.chance(0.25)) this.#wire.release();
      if (this.#random.chance(0.3)) await this.#tend();
    }
  }

  /** What lasts is undone. */
  async stop(): Promise<void> {
    await this.#wire.stop();
    await this.replica.tend();
    await this.replica.allow();
  }

  /** What ends, starts and comes back. */
  #processes(): Kind[] {
    const { replica } = this;
    const { stack, pool } = this.#session;
    const random = this.#random;
    return [
      [10, "worker killed", async () => {
        await pool.kill(random.below(pool.size));
        await sleep(random.below(200));
        await pool.start();
      }],
      [3, "every worker killed", async () => {
        await pool.killAll();
        if (random.chance(0.5)) await this.#expireLease();
        await pool.start();
      }],
      [5, "sqld killed", async () => {
        await stack.sqld.kill();
        await sleep(random.below(300));
        await stack.sqld.start();
      }],
      [4, "sqld's data saved", () => replica.save()],
      [6, "sqld's data put back", () => replica.putBack()],
      [1, "sqld's data lost", () => replica.lose()],
      [2, "PostgreSQL restarted", () => stack.server.restart()],
      [2, "PostgreSQL crashed", async () => {
        await stack.server.kill();
        await stack.server.restart();
      }],
      [3, "query cancelled", () =>
        stack.sql`
          select pg_cancel_backend(pid) from pg_stat_activity
          where datname = current_database() and pid <> pg_backend_pid()
            and state = 'active' and application_name <> 'oracle checker'
          order by random() limit 2`],
      [5, "backend terminated", () =>
        stack.sql`
          select pg_terminate_backend(pid) from pg_stat_activity
          where datname = current_database() and pid <> pg_backend_pid()
            and backend_type = 'client backend' and application_name <> 'oracle checker'
          order by random() limit 2`],
    ];
  }

  /** What happens between the parts. */
  #connections(): Kind[] {
    const wire = this.#wire;
    const { replica, source } = wire;
    const hold = (cutter: Cutter, way: Way) => () => this.#hold(cutter, way);
    return [
      [
        6,
        "request to libSQL cut",
        () => wire.cut(replica, "request", [80, 900, 20_000]),
      ],
      [
        6,
        "answer of libSQL cut",
        () => wire.cut(replica, "answer", [40, 400, 2_000]),
      ],
      [
        6,
        "request to PostgreSQL cut",
        () => wire.cut(source, "request", [60, 600, 3_000]),
      ],
      [
        6,
        "answer of PostgreSQL cut",
        () => wire.cut(source, "answer", [60, 900, 9_000]),
      ],
      [4, "answer of libSQL held", hold(replica, "answer")],
      [3, "request to libSQL held", hold(replica, "request")],
      [4, "answer of PostgreSQL held", hold(source, "answer")],
      [3, "request to PostgreSQL held", hold(source, "request")],
      [2, "every connection cut", () => {
        replica.cutAll();
        source.cutAll();
      }],
      [8, "HTTP 421, 500, 502 or 503", () => wire.refuse()],
      [6, "request that comes late", () => wire.delay()],
      [5, "request refused that comes late", () => wire.refuseAndDelay()],
    ];
  }

  /** What somebody does, on purpose or not. */
  #operators(): Kind[] {
    const { replica } = this;
    const { stack, pool } = this.#session;
    const { sql } = stack;
    const random = this.#random;
    const post = (...paths: string[]) =>
      this.#session.post(random.below(pool.size), random.pick(paths));
    return [
      [10, "lease expired", () => this.#expireLease()],
      [5, "three syncs at once", () => this.#three()],
      [2, "/nuke", async () => {
        const refill = random.chance(0.7);
        await post(`/nuke?refill=${refill}`);
        if (!refill) await post("/backfill");
      }],
      [3, "/backfill", () => post("/backfill", "/backfill?table=hot")],
      [
        4,
        "/verify",
        () => post("/verify", "/verify?repair=true", "/verify?table=swap"),
      ],
      [2, "paused", async () => {
        await sql`select libsql_sync.pause()`;
        await sleep(random.below(700));
        await sql`select libsql_sync.resume()`;
      }],
      [3, "replica corrupted", () => replica.corrupt(random)],
      [2, "replica refuses rows", () => replica.refuse()],
      [
        3,
        "malformed message",
        () =>
          sql`select pgmq.send('replicate_data_libsql'::text, ${
            random.pick(MALFORMED)
          }::text::jsonb)`,
      ],
      [
        3,
        "message of somebody's",
        () =>
          sql`select pgmq.send('replicate_data_libsql'::text, ${
            random.pick(UNASKED)
          }::text::jsonb)`,
      ],
      [
        2,
        "scrub set",
        () => sql`select libsql_sync.scrub(${random.pick([0, 3, 50])})`,
      ],
      [
        2,
        "replay window set",
        () =>
          sql`update libsql_sync.chain set replay_window = ${
            random.pick(["0 s", "1 s", "1 hour", "1 hour"])
          }::text::interval`,
      ],
      [2, "dead letters redriven", () => sql`select libsql_sync.redrive()`],
      [2, "triggers attached again", () => sql`select libsql_sync.attach()`],
      [2, "tidied", () => sql`select libsql_sync.tidy()`],
      [
        1,
        "archive lost",
        () =>
          sql`delete from pgmq.a_replicate_data_libsql where msg_id % 5 = 0`,
      ],
      [1, "versions forgotten", () =>
        sql`
          delete from libsql_sync.batches b using libsql_sync.chain c
          where b.position <= c.position and b.batch <> c.batch`],
      [2, "migration run again", () => this.#migrateAgain()],
      [1, "queue over its cap", () => this.#flood()],
      [
        2,
        "table rewritten",
        () =>
          sql.unsafe(`set local lock_timeout = '1s'; ${random.pick(REWRITES)}`)
            .simple(),
      ],
      [3, "schema.json changed", () => this.#deploy()],
    ];
  }

  /** Ends what a writer's death left prepared, and a server that hangs. */
  async #tend(): Promise<void> {
    const { stack } = this.#session;
    await this.#session.patiently(() => endPrepared(stack, "2 seconds"));
    await this.replica.tend();
  }

  /** More writers than the replica's server may stand. */
  async #three(): Promise<void> {
    const { pool } = this.#session;
    const random = this.#random;
    await this.#expireLease();
    const syncs = [0, 1, 2].map(async (i) => {
      await sleep(random.below(30));
      await this.#session.post(i % pool.size, "/sync");
    });
    await sleep(random.below(60));
    await this.#expireLease();
    await Promise.all(syncs);
  }

  async #hold(cutter: Cutter, way: Way): Promise<void> {
    const random = this.#random;
    const { pool } = this.#session;
    this.#wire.hold(cutter, way);
    await sleep(random.below(500));
    if (random.chance(0.5)) {
      // Whoever waits for it dies first, and then it comes.
      await pool.killAll();
      await this.#expireLease();
      await pool.start();
      if (random.chance(0.5)) await sleep(random.below(300));
      cutter.release();
    }
  }

  /** The database first, then the workers, one after the other. */
  async #deploy(): Promise<void> {
    const { stack, pool, schema } = this.#session;
    const next = this.#random.pick(SCHEMAS.filter((other) => other !== schema));
    await configure(stack.sql, next);
    this.#session.schema = next;
    pool.schema = next;
    for (let slot = 0; slot < pool.size; slot++) {
      await sleep(this.#random.below(300));
      await pool.kill(slot);
      await pool.start();
    }
  }

  /** The functions of the same version once more, with the schema there is. */
  async #migrateAgain(): Promise<void> {
    const path = FOLDER + findLastBuild(await readNames(ROOT));
    const text = (await Deno.readTextFile(new URL(path, ROOT)))
      .replace(/^-- schema\.json begins$[^]*^-- schema\.json ends$/m, "");
    await this.#session.stack.run(text);
  }

  /** A worker away for days, in little: what is queued is dropped for a new epoch. */
  async #flood(): Promise<void> {
    const { sql } = this.#session.stack;
    await sql`select libsql_sync.pause()`;
    await sql.unsafe(`set local statement_timeout = '20s';
      do $$ begin
        for i in 1..10050 loop
          perform pgmq.send('replicate_data_libsql'::text, '{"v": 2, "table": "nowhere"}'::jsonb);
        end loop;
      end $$`).simple();
    await sql`update libsql_sync.chain set queue_mb_max = 0`;
    await sql`select libsql_sync.cap_queue()`;
    await sql`update libsql_sync.chain set queue_mb_max = 1024`;
    await sql`select libsql_sync.resume()`;
  }

  async #expireLease(): Promise<void> {
    await this.#session.stack.sql`
      update libsql_sync.chain set lease_until = now() - interval '1 second'`;
  }
}

/**
 * Commits what stayed prepared for so long. As the superuser: who prepared it in
 * another role may not end it.
 */
export async function endPrepared(
  { server, database }: Session["stack"],
  age: string,
): Promise<void> {
  const admin = postgres(server.url({ user: SUPERUSER, database }), {
    max: 1,
    fetch_types: false,
    onnotice: () => {},
  });
  try {
    const found = await admin`
      select gid from pg_prepared_xacts
      where database = current_database() and prepared < now() - ${age}::text::interval`;
    for (const { gid } of found) {
      await admin.unsafe(`commit prepared '${gid}'`).catch((error) => {
        // Its writer was quicker.
        if (error.code !== "42704") throw error;
      });
    }
  } finally {
    await admin.end({ timeout: 1 });
  }
}
