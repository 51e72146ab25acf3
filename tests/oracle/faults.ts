/**
 * Ring 3. What goes wrong while a session writes.
 *
 * Promise: one fault begins after the other, in an order that the seed alone
 * gives; what lasts longer is undone by `stop`.
 *
 * @module
 */

import { createClient } from "@libsql/client/web";
import postgres from "postgres";
import { SUPERUSER } from "../../lib/dev/postgres.ts";
import { type Random, seededRandom } from "../../lib/dev/random.ts";
import type { Fault } from "../db/http_proxy.ts";
import { configure } from "../db/stack.ts";
import type { Session } from "./session.ts";
import { SCHEMA, SCHEMAS } from "./tables.ts";
import { sleep, within } from "./writer.ts";

/** What the HTTP proxy does with a request that comes. */
type Armed =
  | { fault: Fault }
  | { lateMs: number }
  /** Refused after a while, as a gateway does, and carried out later still. */
  | { slowMs: number; laterMs: number };

const quote = (name: string) => `"${name.replaceAll('"', '""')}"`;
/** How long sqld may take for a small write before it counts as hanging. */
const HANG_MS = 7_000;

/** The faults of a session. */
export class Faults {
  readonly #session: Session;
  readonly #random: Random;
  readonly #armed: Armed[] = [];
  readonly #kinds: readonly (readonly [number, string, () => Promise<void>])[];
  /** Requests that came late, still to be waited for. */
  readonly #late = new Set<Promise<void>>();
  #saved: { folder: string; excused: Set<string> } | null = null;

  constructor(session: Session) {
    this.#session = session;
    const random = seededRandom(session.options.seed * 7 + 1);
    this.#random = random;
    const { stack, pool, httpCutter, sourceCutter, proxy } = session;
    proxy.decide = () => this.#decide();
    const slot = () => random.below(pool.size);
    this.#kinds = [
      [10, "worker killed", async () => {
        await pool.kill(slot());
        await sleep(random.below(200));
        await pool.start();
      }],
      [3, "every worker killed", async () => {
        await pool.killAll();
        if (random.chance(0.5)) await this.#expireLease();
        await pool.start();
      }],
      [10, "lease expired", () => this.#expireLease()],
      [5, "three syncs at once", async () => {
        await this.#expireLease();
        const syncs = [0, 1, 2].map(async (i) => {
          await sleep(random.below(30));
          await session.post(i % pool.size, "/sync");
        });
        await sleep(random.below(60));
        await this.#expireLease();
        await Promise.all(syncs);
      }],
      [5, "sqld killed", async () => {
        await stack.sqld.kill();
        await sleep(random.below(300));
        await stack.sqld.start();
      }],
      [4, "sqld's data saved", () => this.save()],
      [6, "sqld's data put back", () => this.putBack()],
      [2, "PostgreSQL restarted", () => stack.server.restart()],
      [2, "PostgreSQL crashed", async () => {
        await stack.server.kill();
        await stack.server.restart();
      }],
      [6, "request to libSQL cut", () => {
        httpCutter.arm({
          way: "request",
          kind: "close",
          afterBytes: random.below(random.pick([80, 900, 20_000])),
        });
        return Promise.resolve();
      }],
      [6, "answer of libSQL cut", () => {
        httpCutter.arm({
          way: "answer",
          kind: "close",
          afterBytes: random.below(random.pick([40, 400, 2_000])),
        });
        return Promise.resolve();
      }],
      [4, "answer of libSQL held", () => this.#hold("answer", httpCutter)],
      [3, "request to libSQL held", () => this.#hold("request", httpCutter)],
      [6, "request to PostgreSQL cut", () => {
        sourceCutter.arm({
          way: "request",
          kind: "close",
          afterBytes: random.below(random.pick([60, 600, 3_000])),
        });
        return Promise.resolve();
      }],
      [6, "answer of PostgreSQL cut", () => {
        sourceCutter.arm({
          way: "answer",
          kind: "close",
          afterBytes: random.below(random.pick([60, 900, 9_000])),
        });
        return Promise.resolve();
      }],
      [
        4,
        "answer of PostgreSQL held",
        () => this.#hold("answer", sourceCutter),
      ],
      [
        3,
        "request to PostgreSQL held",
        () => this.#hold("request", sourceCutter),
      ],
      [2, "every connection cut", () => {
        httpCutter.cutAll();
        sourceCutter.cutAll();
        return Promise.resolve();
      }],
      [8, "HTTP 421, 502 or 503", () => {
        const status = random.pick([421, 502, 503, 500]);
        for (let i = 1 + random.below(3); i > 0; i--) {
          this.#armed.push({
            fault: random.chance(0.5) ? { status } : { lose: status },
          });
        }
        return Promise.resolve();
      }],
      [6, "request that comes late", () => {
        this.#armed.push({ lateMs: random.below(3_000) });
        return Promise.resolve();
      }],
      [5, "request refused that comes late", () => {
        // Longer than an apply that is called slow: its batch is split.
        const slowMs = random.chance(0.4) ? 2_050 : random.below(200);
        this.#armed.push({ slowMs, laterMs: random.below(4_000) });
        return Promise.resolve();
      }],
      [3, "query cancelled", async () => {
        await session.stack.sql`
          select pg_cancel_backend(pid) from pg_stat_activity
          where datname = current_database() and pid <> pg_backend_pid()
            and state = 'active' and application_name <> 'oracle checker'
          order by random() limit 2`;
      }],
      [2, "table rewritten", async () => {
        await session.stack.sql.unsafe(
          random.pick([
            "set local lock_timeout = '1s'; alter table hot alter column secret type text using secret || ''",
            "set local lock_timeout = '1s'; cluster hot using hot_pkey",
          ]),
        ).simple();
      }],
      [1, "queue over its cap", () => this.#flood()],
      [5, "backend terminated", async () => {
        await session.stack.sql`
          select pg_terminate_backend(pid) from pg_stat_activity
          where datname = current_database() and pid <> pg_backend_pid()
            and backend_type = 'client backend' and application_name <> 'oracle checker'
          order by random() limit 2`;
      }],
      [2, "/nuke", async () => {
        const refill = random.chance(0.7);
        await session.post(slot(), `/nuke?refill=${refill}`);
        if (!refill) await session.post(slot(), "/backfill");
      }],
      [3, "/backfill", async () => {
        await session.post(
          slot(),
          random.chance(0.5) ? "/backfill" : "/backfill?table=hot",
        );
      }],
      [4, "/verify", async () => {
        await session.post(
          slot(),
          random.pick(["/verify", "/verify?repair=true", "/verify?table=swap"]),
        );
      }],
      [2, "paused", async () => {
        await stack.sql`select libsql_sync.pause()`;
        await sleep(random.below(700));
        await stack.sql`select libsql_sync.resume()`;
      }],
      [3, "replica corrupted", () => this.#corrupt()],
      [3, "malformed message", async () => {
        const message = random.pick([
          '{"table": "nowhere", "type": "INSERT", "record": {"id": 1}}',
          "null",
          "[1, 2]",
          '{"v": 1, "table": "hot", "rows": "none"}',
          '{"v": 9, "table": "hot"}',
        ]);
        await stack
          .sql`select pgmq.send('replicate_data_libsql'::text, ${message}::text::jsonb)`;
      }],
      [2, "scrub set", async () => {
        await stack.sql`select libsql_sync.scrub(${random.pick([0, 3, 50])})`;
      }],
      [2, "replay window set", async () => {
        await stack.sql`update libsql_sync.chain set replay_window = ${
          random.pick(["0 s", "1 s", "1 hour", "1 hour"])
        }::text::interval`;
      }],
      [2, "dead letters redriven", async () => {
        await stack.sql`select libsql_sync.redrive()`;
      }],
      [2, "triggers attached again", async () => {
        await stack.sql`select libsql_sync.attach()`;
      }],
      [2, "tidied", async () => {
        await stack.sql`select libsql_sync.tidy()`;
      }],
      [2, "replica refuses rows", () => this.#refuse()],
      [3, "schema.json changed", () => this.#deploy()],
      [4, "nothing", () => sleep(random.below(800))],
    ];
  }

  /** One after the other, until told to stop. */
  async run(isOver: () => boolean): Promise<void> {
    const total = this.#kinds.reduce((sum, [weight]) => sum + weight, 0);
    while (!isOver()) {
      await sleep(this.#random.below(350));
      let at = this.#random.below(total);
      const [, name, begin] = this.#kinds.find(([weight]) =>
        (at -= weight) < 0
      )!;
      const { faults } = this.#session.counts;
      faults[name] = (faults[name] ?? 0) + 1;
      this.#session.trace.push(name);
      try {
        await this.#session.patiently(begin);
      } catch (error) {
        // The writers' locks, or a database that is away: so it did not happen.
        const isForeseen = /^(55P03|57014|40P01|40001|58P01|25P02)$/.test(
          (error as { code?: string }).code ?? "",
        );
        if (!isForeseen) throw error;
      }
      if (this.#random.chance(0.25)) this.#release();
      await this.#tend();
    }
  }

  /** What lasts is undone. */
  async stop(): Promise<void> {
    this.#armed.length = 0;
    this.#release();
    await Promise.all(this.#late);
    await this.tendReplica();
    await this.#allow();
  }

  /** Sets the replica's data aside. */
  async save(): Promise<void> {
    const { stack, excused } = this.#session;
    const folder = `${stack.folder}/saved`;
    await stack.sqld.kill();
    await stack.sqld.backup(folder);
    this.#saved = { folder, excused: new Set(excused) };
  }

  /** Puts the replica's data back: a failover that lost commits. */
  async putBack(): Promise<void> {
    if (this.#saved === null) return await this.save();
    const { stack } = this.#session;
    // What was wrong in it then is wrong again.
    for (const row of this.#saved.excused) this.#session.excused.add(row);
    await stack.sqld.kill();
    this.#session.order.failovers += 1;
    await stack.sqld.restore(this.#saved.folder);
  }

  /** Starts sqld anew where it hangs. */
  async tendReplica(): Promise<void> {
    const { stack, counts, trace } = this.#session;
    const client = createClient({ url: stack.sqld.url, authToken: "test" });
    try {
      await within(
        HANG_MS,
        client.execute("CREATE TABLE IF NOT EXISTS _alive (id)"),
      );
    } catch {
      counts.faults["sqld hung"] = (counts.faults["sqld hung"] ?? 0) + 1;
      trace.push("sqld hung");
      await stack.sqld.kill();
      await stack.sqld.start();
    } finally {
      client.close();
    }
  }

  /** Ends what a writer's death left prepared. */
  async #tend(): Promise<void> {
    if (!this.#random.chance(0.3)) return;
    const { stack } = this.#session;
    await this.#session.patiently(() => endPrepared(stack, "2 seconds"));
    await this.tendReplica();
  }

  async #decide(): Promise<Fault> {
    const armed = this.#armed.shift();
    if (armed === undefined) return undefined;
    if ("fault" in armed) return armed.fault;
    if ("slowMs" in armed) {
      const later = sleep(armed.slowMs + armed.laterMs);
      this.#late.add(later);
      later.then(() => this.#late.delete(later));
      await sleep(armed.slowMs);
      return { status: 503, later };
    }
    const late = sleep(armed.lateMs);
    this.#late.add(late);
    await late;
    this.#late.delete(late);
    return undefined;
  }

  #release(): void {
    this.#session.httpCutter.release();
    this.#session.sourceCutter.release();
  }

  async #hold(
    way: "request" | "answer",
    cutter: Session["httpCutter"],
  ): Promise<void> {
    const random = this.#random;
    cutter.arm({ way, kind: "hold", afterBytes: random.below(400) });
    await sleep(random.below(500));
    if (random.chance(0.5)) {
      // Whoever waits for it dies first, and then it comes.
      await this.#session.pool.killAll();
      await this.#expireLease();
      await this.#session.pool.start();
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

  /** A worker away for days, in little: what is queued is dropped for a new epoch. */
  async #flood(): Promise<void> {
    const { sql } = this.#session.stack;
    await sql`select libsql_sync.pause()`;
    await sql.unsafe(`set local statement_timeout = '20s';
      do $$ begin
        for i in 1..10050 loop
          perform pgmq.send('replicate_data_libsql'::text, '{"v": 1, "table": "nowhere"}'::jsonb);
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

  /** A rule of somebody's in the replica: what it refuses is set aside. */
  async #refuse(): Promise<void> {
    const { stack, excused } = this.#session;
    for (let id = 3; id < 400; id += 7) excused.add(`tag\0${id}`);
    const client = createClient({ url: stack.sqld.url, authToken: "test" });
    try {
      await within(
        HANG_MS,
        client.batch(
          ["INSERT", "UPDATE"].map((verb) =>
            `CREATE TRIGGER IF NOT EXISTS by_hand_${verb} BEFORE ${verb} ON tag WHEN NEW.id % 7 = 3
             BEGIN SELECT RAISE(ABORT, 'by hand'); END`
          ),
          "write",
        ),
      );
    } catch {
      // sqld is away or hangs, or has no such table: it may have happened.
    } finally {
      client.close();
    }
  }

  /** The rule goes; what it refused is tried again by `settle`. */
  async #allow(): Promise<void> {
    const client = createClient({ url: this.#session.stack.sqld.url });
    try {
      await within(
        HANG_MS,
        client.batch([
          "DROP TRIGGER IF EXISTS by_hand_INSERT",
          "DROP TRIGGER IF EXISTS by_hand_UPDATE",
        ], "write"),
      );
    } finally {
      client.close();
    }
  }

  /** A hand in the replica: a cell, a row or a ghost. */
  async #corrupt(): Promise<void> {
    const random = this.#random;
    const { stack, excused } = this.#session;
    const state = await this.#session.read();
    const table = random.pick(["hot", "swap", "child", "pair"]);
    const rows = [...state?.tables.get(table)?.entries() ?? []];
    if (rows.length === 0) return;
    const [key, cells] = rows[random.below(rows.length)]!;
    const { columns, key: names } = SCHEMA.tables[table]!;
    const keys = [names].flat();
    const where = keys.map((name) => `${quote(name)} = ?`).join(" AND ");
    const args = keys.map((name) =>
      columns[name] === "INTEGER"
        ? BigInt(cells[name]!.text!)
        : cells[name]!.text
    );
    const column = Object.keys(columns).find((name) => !keys.includes(name))!;
    const client = createClient({ url: stack.sqld.url, authToken: "test" });
    const ghost = [...args];
    ghost[0] = 900_000n + BigInt(random.below(1_000));
    const ghostKey = keys.length === 1
      ? String(ghost[0])
      : JSON.stringify(ghost.map(String));
    excused.add(`${table}\0${key}`).add(`${table}\0${ghostKey}`);
    const statement = random.pick([
      {
        sql: `UPDATE ${quote(table)} SET ${quote(column)} = 77 WHERE ${where}`,
        args,
      },
      { sql: `DELETE FROM ${quote(table)} WHERE ${where}`, args },
      {
        sql: `INSERT OR IGNORE INTO ${quote(table)} (${
          keys.map(quote).join(", ")
        }) VALUES (${keys.map(() => "?").join(", ")})`,
        args: ghost,
      },
    ]);
    try {
      await within(HANG_MS, client.execute(statement));
    } catch {
      // sqld is away or hangs: it may have happened.
    } finally {
      client.close();
    }
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
