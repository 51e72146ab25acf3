/**
 * Ring 3. The physical limit of a backfill: rows by one prepared statement in
 * one transaction, straight into a local SQLite file, indexes built last.
 *
 * @module
 */

import { DatabaseSync } from "node:sqlite";
import type { Sql } from "postgres";
import { APP_VERSIONS, assertFileEqual } from "./equal.ts";

/**
 * Writes every row of app_versions into a file.
 *
 * @param sql The source.
 * @param path The file, which is not there yet.
 * @returns The rows, and the seconds SQLite took; reading the source is not in them.
 * @throws {Error} When the file is not equal to the source.
 */
export async function fillLimit(
  sql: Sql,
  path: string,
): Promise<{ rows: number; seconds: number }> {
  const columns = Object.entries(APP_VERSIONS.columns);
  const database = new DatabaseSync(path);
  let ms = 0;
  const timed = (run: () => void) => {
    const started = performance.now();
    run();
    ms += performance.now() - started;
  };
  try {
    database.exec(
      `CREATE TABLE app_versions (${
        columns.map(([name, type]) =>
          `${name} ${type === "BOOLEAN" ? "INTEGER" : type}${
            name === APP_VERSIONS.key ? " NOT NULL PRIMARY KEY" : ""
          }`
        ).join(", ")
      })`,
    );
    const insert = database.prepare(
      `INSERT INTO app_versions VALUES (${columns.map(() => "?").join(", ")})`,
    );
    const list = columns.map(([name, type]) =>
      type === "INTEGER"
        ? `${name}::float8`
        : type === "BOOLEAN"
        ? `${name}::int`
        : `${name}::text`
    );
    timed(() => database.exec("BEGIN"));
    const query = sql.unsafe(
      `select ${list.join(", ")} from public.app_versions order by id`,
    ).values();
    for await (const page of query.cursor(10_000)) {
      timed(() => {
        for (const row of page) insert.run(...row);
      });
    }
    timed(() => database.exec("COMMIT"));
    for (const column of APP_VERSIONS.indexes) {
      timed(() =>
        database.exec(
          `CREATE INDEX app_versions_${column} ON app_versions (${column})`,
        )
      );
    }
    return { rows: await assertFileEqual(sql, database), seconds: ms / 1000 };
  } finally {
    database.close();
  }
}
