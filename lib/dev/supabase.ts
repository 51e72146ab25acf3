/**
 * Ring 3. Makes a database of a local server look like a Supabase project's.
 *
 * Promise: what works here as role `postgres` needs no more rights than hosted
 * Supabase gives; everything is safe to run again.
 *
 * @module
 */
import postgres from "postgres";
import { PASSWORD, type PostgresServer, SUPERUSER } from "./postgres.ts";

/** Any number: preparations of one server wait for each other by it. */
const LOCK = 20251031;
/** This project's migrations. */
const MIGRATIONS = new URL("../../supabase/migrations/", import.meta.url);

/** Opens one connection, quiet about notices by default. */
function connect(
  url: string,
  onNotice?: (message: string) => void,
): postgres.Sql {
  return postgres(url, {
    max: 1,
    prepare: false,
    fetch_types: false,
    connect_timeout: 10,
    onnotice: (notice) => onNotice?.(notice.message ?? ""),
  });
}

/** Reads a file of this folder. */
async function readSql(name: string): Promise<string> {
  return await Deno.readTextFile(new URL(name, import.meta.url));
}

/** Makes roles and the database, on the server's maintenance database. */
async function createDatabase(
  server: PostgresServer,
  database: string,
): Promise<void> {
  const sql = connect(server.url({ user: SUPERUSER, database: "template1" }));
  try {
    await sql`select pg_advisory_lock(${LOCK})`;
    await sql.unsafe(await readSql("roles.sql")).simple();
    const [found] =
      await sql`select from pg_database where datname = ${database}`;
    // From template0: our own connection to template1 would stand in the way.
    if (!found) await sql`create database ${sql(database)} template template0`;
    await sql`alter database ${sql(database)} owner to postgres`;
  } finally {
    await sql.end({ timeout: 5 });
  }
}

/**
 * Makes a database look like a Supabase project's: roles, default privileges,
 * extensions, PGMQ owned by `postgres`, and the stand-ins for Vault, pg_net and
 * pg_cron.
 *
 * @param server The server.
 * @param options The database's name; created when missing.
 */
export async function prepareDatabase(
  server: PostgresServer,
  options: { database: string },
): Promise<void> {
  const { database } = options;
  await createDatabase(server, database);
  const admin = connect(server.url({ user: SUPERUSER, database }));
  try {
    const text = await readSql("database.sql") + await readSql("stand_ins.sql");
    // A query of its own in this transaction, and then all of it in another: the
    // lock is the session's, so that two preparations of one database take turns.
    await admin`select pg_advisory_lock(${LOCK})`;
    await admin.unsafe(text).simple();
    const owner = connect(server.url({ database }));
    try {
      await owner`create extension if not exists pgmq`;
    } finally {
      await owner.end({ timeout: 5 });
    }
  } finally {
    await admin.end({ timeout: 5 });
  }
}

/**
 * Runs every file of a folder of migrations in the order of their names, each
 * as one simple query: one transaction, unless the file says otherwise.
 *
 * @param url A connection string; role `postgres`, as the Supabase tools do it.
 * @param options The folder, when not supabase/migrations; what takes notices.
 * @returns The names of the files.
 * @throws {Error} When a file fails, with its name, the position and PostgreSQL's message.
 */
export async function migrate(
  url: string,
  options: { folder?: URL; onNotice?: (message: string) => void } = {},
): Promise<string[]> {
  const folder = options.folder ?? MIGRATIONS;
  const names: string[] = [];
  for await (const { name } of Deno.readDir(folder)) {
    if (name.endsWith(".sql")) names.push(name);
  }
  names.sort();
  const sql = connect(url, options.onNotice);
  try {
    for (const name of names) {
      const text = await Deno.readTextFile(new URL(name, folder));
      await sql.unsafe(text).simple().catch((error) => {
        throw new Error(
          `Cannot run migration ${name}${
            lineOf(text, error)
          }: ${error.message}`,
          {
            cause: error,
          },
        );
      });
    }
  } finally {
    await sql.end({ timeout: 5 });
  }
  return names;
}

/** The line an error's position is on, if PostgreSQL gave one. */
function lineOf(text: string, error: { position?: string }): string {
  const position = Number(error.position);
  return position ? `, line ${text.slice(0, position).split("\n").length}` : "";
}

/**
 * Puts a secret into the Vault, in the place of one of the same name.
 *
 * @param sql A connection as role `postgres`.
 * @param secret Its name and value.
 */
export async function putSecret(
  sql: postgres.Sql,
  secret: { name: string; value: string },
): Promise<void> {
  const { name, value } = secret;
  const [found] = await sql`select id from vault.secrets where name = ${name}`;
  if (found) await sql`select vault.update_secret(${found.id}::uuid, ${value})`;
  else await sql`select vault.create_secret(${value}, ${name})`;
}

/** The login role the README shows for the worker. */
export const WORKER_LOGIN = "libsql_sync_login";

/**
 * Makes the role that the worker connects as, with the rights of the migration's
 * group role and no others.
 *
 * @param sql A connection as role `postgres`, after the migration.
 */
export async function createWorkerLogin(sql: postgres.Sql): Promise<void> {
  await sql.unsafe(`
    do $$
    begin
      create role ${WORKER_LOGIN} login password '${PASSWORD}' in role libsql_sync_worker;
    exception when duplicate_object or unique_violation then
      grant libsql_sync_worker to ${WORKER_LOGIN};
    end
    $$`).simple();
}
