/**
 * Ring 3. The plain algorithm, as this project's ancestor had it, and the same
 * with its connections and its archiving tuned.
 *
 * @module
 */

import type { Client } from "@libsql/client/http";
import postgres from "postgres";
import { QUEUE } from "./baseline_capture.ts";
import { type BaselineMessage, baselineStatements } from "./baseline_values.ts";
import { APP_VERSIONS } from "./equal.ts";

/** Messages a batch. */
const BATCH = 998;
const HIDDEN_S = 120;

const connect = (url: string) =>
  postgres(url, {
    max: 1,
    prepare: false,
    fetch_types: false,
    onnotice: () => {},
  });

/** Runs something on a connection of its own. */
async function freshly<T>(
  url: string,
  run: (sql: postgres.Sql) => Promise<T>,
): Promise<T> {
  const sql = connect(url);
  try {
    return await run(sql);
  } finally {
    await sql.end({ timeout: 5 });
  }
}

/**
 * Drains the baselines' queue: reads 998 messages, writes a statement each in
 * one batch, archives, counts, and so on.
 *
 * @param options The source's address, the replica; how many messages at least,
 * unless nothing is left before; whether one connection and one archiving call
 * do (tuned), or a fresh connection for each step and a call for each message
 * (plain).
 * @returns How many messages were dealt with.
 */
export async function drainBaseline(
  options: {
    url: string;
    client: Client;
    messages: number;
    isTuned: boolean;
  },
): Promise<number> {
  const { url, client, isTuned } = options;
  const toStatement = baselineStatements("app_versions", APP_VERSIONS);
  const shared = isTuned ? connect(url) : null;
  const use = <T>(run: (sql: postgres.Sql) => Promise<T>) =>
    shared ? run(shared) : freshly(url, run);
  let drained = 0;
  try {
    for (;;) {
      const messages = await use((sql) =>
        sql<{ msg_id: string; message: BaselineMessage }[]>`
          select msg_id, message from pgmq.read(${QUEUE}, ${HIDDEN_S}, ${BATCH})`
      );
      if (messages.length > 0) {
        await client.batch(
          messages.map(({ message }) => toStatement(message)),
          "write",
        );
        const ids = `{${messages.map(({ msg_id }) => msg_id)}}`;
        await use((sql) =>
          isTuned
            ? sql`select pgmq.archive(${QUEUE}, ${ids}::bigint[])`
            : sql`select pgmq.archive(${QUEUE}, id) from unnest(${ids}::bigint[]) id`
        );
      }
      drained += messages.length;
      const [left] = await use((sql) =>
        sql`select count(*)::int as n from ${sql(`pgmq.q_${QUEUE}`)}`
      );
      if (left!.n === 0 || drained >= options.messages) return drained;
      if (messages.length === 0) throw new Error("messages stay hidden");
    }
  } finally {
    await shared?.end({ timeout: 5 });
  }
}

/**
 * Takes back at the source what still waits in the queue, where a key has one
 * message at most: the source is then as the drained messages left it.
 *
 * @param sql The source.
 */
export async function undoQueued(sql: postgres.Sql): Promise<void> {
  const columns = Object.keys(APP_VERSIONS.columns);
  await sql.unsafe(`
    alter table public.app_versions disable trigger user;
    delete from public.app_versions t using pgmq.q_${QUEUE} q
    where q.message ->> 'type' = 'INSERT' and t.id = (q.message #>> '{record,id}')::bigint;
    update public.app_versions t set (${columns.join(", ")}) = (${
    columns.map((name) => `o.${name}`).join(", ")
  })
    from pgmq.q_${QUEUE} q
    cross join jsonb_populate_record(null::public.app_versions, q.message -> 'old_record') o
    where q.message ->> 'type' = 'UPDATE' and t.id = o.id;
  `).simple();
}

/**
 * Makes the baselines' replica: the table, its rows, its indexes.
 *
 * @param sql The source.
 * @param client The replica.
 */
export async function fillBaseline(
  sql: postgres.Sql,
  client: Client,
): Promise<void> {
  const columns = Object.entries(APP_VERSIONS.columns);
  await client.execute(
    `CREATE TABLE app_versions (${
      columns.map(([name, type]) =>
        `${name} ${type === "BOOLEAN" ? "INTEGER" : type}${
          name === APP_VERSIONS.key ? " NOT NULL PRIMARY KEY" : ""
        }`
      ).join(", ")
    })`,
  );
  const toStatement = baselineStatements("app_versions", APP_VERSIONS);
  const query = sql<{ record: Record<string, unknown> }[]>`
    select to_jsonb(t) as record from public.app_versions t order by id`;
  for await (const page of query.cursor(2_000)) {
    await client.batch(
      page.map(({ record }) =>
        toStatement({
          table: "app_versions",
          type: "INSERT",
          record,
          old_record: null,
        })
      ),
      "write",
    );
  }
  for (const column of APP_VERSIONS.indexes) {
    await client.execute(
      `CREATE INDEX app_versions_${column} ON app_versions (${column})`,
    );
  }
}
