/** The functions in PostgreSQL and the statements in sqld do what the contract says. */

import postgres from "postgres";
import { startSqld } from "../../lib/dev/sqld.ts";
import { openLibsql } from "../../lib/replica/libsql.ts";
import { bare } from "../../lib/replica/sql.ts";
import { makePostgres, TABLES } from "../contract/postgres.ts";
import { testReplica } from "../contract/replica.ts";
import { testSource } from "../contract/source.ts";
import { Servers } from "../db/support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

let url: Promise<string> | undefined;

async function prepare(): Promise<string> {
  const database = await servers.database();
  const made = (await servers.postgres()).url({ database });
  const sql = postgres(made, { max: 1, onnotice: () => {} });
  await sql.unsafe(TABLES).simple();
  await sql.end();
  return made;
}

const make = async () => await makePostgres(await (url ??= prepare()));

testSource("PostgreSQL", make);

testReplica("sqld", async () => {
  const sqld = await startSqld({ dataDir: `${await servers.folder()}/sqld` });
  const database = openLibsql({ url: sqld.url, authToken: "test", fetch });
  return {
    database,
    async read(sql) {
      const { rows } = await database.execute(bare(sql));
      return rows.map((row) => Array.from(row as ArrayLike<unknown>));
    },
    async close() {
      database.close();
      await sqld.kill();
    },
  };
});
